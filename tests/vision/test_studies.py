"""Every arm of every study, at every budget, is a configuration that can be trained."""

import pytest

from common.study import BUDGETS, check_study, resolve_arms
from vision.studies import STUDIES, TASK

DATA = {"data_dir": "somewhere"}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_study_is_valid(study):
    check_study(study, TASK)
    assert study.question.endswith("?") and study.task == "cifar"
    assert set(study.budgets) == set(BUDGETS)
    for name, budget in study.budgets.items():
        given = {} if name == "quick" else DATA
        arms = resolve_arms(study, budget, given, None)
        configs = {arm: TASK.check(settings) for arm, settings in arms.items()}
        assert len(set(configs.values())) == len(study.arms), "two arms are the same"
        assert {config.dataset for config in configs.values()} == {
            "digits" if name == "quick" else "cifar10"
        }
        assert bool(budget.note) == (name != "full"), "what is smaller is said"


def test_the_reports_are_there():
    names = {study.name for study in STUDIES}
    assert names >= {"A-bn", "A-batch", "A-optim", "A-resnet", "B-cnn", "B-resnet"}
    assert names >= {"depth", "shortcuts", "augmentations", "schedules"}
    assert len(names) == len(STUDIES)


def test_the_full_budget_is_the_reports_own():
    [study] = [study for study in STUDIES if study.name == "B-cnn"]
    arms = resolve_arms(study, study.budgets["full"], DATA, None)
    configs = {arm: TASK.check(settings) for arm, settings in arms.items()}
    assert {config.epochs for config in configs.values()} == {100}
    assert configs["dropout"].dropout == 0.5 and configs["augmentation"].augment == "report_b"
