"""Every arm of every study, at every budget, is a configuration that can be trained."""

import pytest

from common.errors import InputError
from common.study import BUDGETS, VECTORS, check_study, resolve_arms
from text import corpora
from text.config import make_config
from text.studies import STUDIES, TASK

SEMEVAL = {"data_dir": "somewhere"}
BY_NAME = {study.name: study for study in STUDIES}


@pytest.fixture
def vectors(tmp_path):
    (tmp_path / "domain.bin").touch()
    return str(tmp_path / "domain.bin")


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_study_is_valid(study, vectors):
    check_study(study, TASK)
    assert study.question.endswith("?") and study.task == "aspect"
    assert set(study.budgets) == set(BUDGETS)
    file = vectors if any(VECTORS in str(arm) for arm in study.arms.values()) else None
    for name, budget in study.budgets.items():
        assert budget.needs_data == (name != "quick")
        arms = resolve_arms(study, budget, SEMEVAL if budget.needs_data else {}, file)
        configs = {arm: TASK.check(settings) for arm, settings in arms.items()}
        assert len(set(configs.values())) == len(arms), "two arms are the same"
        assert set(study.arms) - set(arms) == set(budget.without)


def test_quick_batches_fit_the_embedded_corpus():
    size = len(corpora.load(data_dir=str(corpora.DEMO)).train)
    for study in STUDIES:
        for settings in resolve_arms(study, study.budgets["quick"], {}, None).values():
            assert TASK.check(settings).batch_size <= size


def test_arms_with_domain_vectors_need_the_file(vectors):
    study = BY_NAME["embeddings"]
    without = resolve_arms(study, study.budgets["quick"], {}, None)
    with_file = resolve_arms(study, study.budgets["quick"], {}, vectors)
    assert set(with_file) == set(study.arms)
    assert set(with_file) - set(without) == {
        arm for arm, settings in study.arms.items() if VECTORS in str(settings)
    }
    assert with_file["GloVe and domain"]["embeddings"] == f"glove,{vectors}"
    several = resolve_arms(study, study.budgets["quick"], {}, f"{vectors},{vectors}")
    assert several["GloVe and domain"]["embeddings"] == f"glove,{vectors},{vectors}"
    for wrong in ("none.bin", f"{vectors},none.bin"):
        with pytest.raises(InputError, match="--vectors=none.bin is no file"):
            resolve_arms(study, study.budgets["quick"], {}, wrong)
    with pytest.raises(InputError, match="--vectors is not used by the study crf"):
        resolve_arms(BY_NAME["crf"], BY_NAME["crf"].budgets["quick"], {}, vectors)


def test_the_whole_tagger_has_general_and_domain_vectors(vectors):
    study = BY_NAME["ingredients"]
    arms = resolve_arms(study, study.budgets["cpu"], SEMEVAL, vectors)
    assert arms["the whole"]["embeddings"] == arms["no CRF"]["embeddings"] == f"glove,{vectors}"
    assert arms["domain vectors alone"]["embeddings"] == vectors
    with pytest.raises(InputError, match="'the whole' needs --vectors=FILE"):
        resolve_arms(study, study.budgets["cpu"], SEMEVAL, None)


def test_the_reports_are_there():
    assert set(BY_NAME) >= {"A-tagger", "A-tbatch", "A-hidden", "A-epochs"}
    assert set(BY_NAME) >= {"B-birnn", "B-deep", "B-crf"}
    assert set(BY_NAME) >= {"embeddings", "tags", "crf", "characters", "train-sentences"}
    assert len(BY_NAME) == len(STUDIES)


@pytest.mark.parametrize(
    "flags, light",
    [({}, True), ({"devices": 1}, True), ({"devices": 2}, False), ({"hidden_size": "512"}, False)],
)
def test_light_runs_leave_a_core_idle(flags, light):
    assert TASK.light(make_config(flags)) == light
