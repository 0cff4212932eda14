"""What a study is, and what its arms become."""

import dataclasses
import json

import numpy as np
import pytest

from common.errors import InputError
from common.study import (
    NEEDED,
    Budget,
    check_given,
    check_study,
    list_studies,
    make_runs,
    resolve_arms,
    slug,
    to_flags,
)
from tests.common.study_cases import STUDY, TASK


def test_what_wins():
    study = dataclasses.replace(
        STUDY, base={"epochs": 9, "rate": 9.0, "label": "base"}, arms={"a": {"rate": 0.1}, "b": {}},
        baseline="a", reported={},
    )  # fmt: skip
    budget = Budget({"epochs": 5, "label": "budget"}, {"b": {"twice": True}})
    arms = resolve_arms(study, budget, {"label": "given"}, None)
    assert arms == {
        "a": {"epochs": 5, "rate": 0.1, "label": "given"},
        "b": {"epochs": 5, "rate": 9.0, "label": "given", "twice": True},
    }
    for name in ("rate", "twice"):
        with pytest.raises(InputError, match=f"--{name} is set by the arm '[ab]' of the study"):
            resolve_arms(study, budget, {name: 1}, None)
    assert list(resolve_arms(study, Budget(without=("b",)), {}, None)) == ["a"]


def test_runs_go_seed_by_seed(tmp_path):
    runs = make_runs(resolve_arms(STUDY, Budget(), {}, None), TASK, 2, tmp_path)
    assert [run.title for run in runs[:4]] == [
        "half, seed 0", "one <b>, seed 0", "two | 2, seed 0", "half, seed 1"
    ]  # fmt: skip
    assert runs[4].folder == tmp_path / "runs" / "one-b" / "seed1" and runs[4].epochs == 2
    assert to_flags(runs[4].settings | {"twice": True, "label": None}) == [
        "--rate=1.0", "--seed=1", "--twice=true"
    ]  # fmt: skip
    with pytest.raises(InputError, match="arm 'half': --rate=-1 is out of range"):
        make_runs({"half": {"rate": -1.0}}, TASK, 1, tmp_path)
    with pytest.raises(InputError, match="arm 'half': --data_dir=nowhere does not exist"):
        make_runs({"half": {"data_dir": "nowhere"}}, TASK, 1, tmp_path)


def test_a_run_with_a_damaged_file_is_to_be_resumed(tmp_path):
    run = make_runs(resolve_arms(STUDY, Budget(), {}, None), TASK, 1, tmp_path)[0]
    run.folder.mkdir(parents=True)
    assert not run.finished
    (run.folder / "summary.json").write_text("{")
    assert not run.finished
    np.savez(run.folder / "test_counts.npz", exact_f1=np.zeros((1, 3)))
    (run.folder / "summary.json").write_text("{}")
    assert not run.finished
    (run.folder / "summary.json").write_text(json.dumps(dict.fromkeys(NEEDED, 1)))
    assert run.finished
    (run.folder / "test_counts.npz").write_bytes(b"PK")
    assert not run.finished
    (run.folder / "test_counts.npz").unlink()
    assert not run.finished


def test_what_the_arms_differ_in_cannot_be_given():
    """Also where only their named configurations differ in it."""
    arms = {"half": {"rate": 0.5}, "one": {"rate": 1.0}}
    check_given(arms, TASK, {"epochs": 3})
    with pytest.raises(InputError, match="--rate is 0.5 in the arm 'half' and 1.0 in 'one': leave"):
        check_given(arms, TASK, {"rate": 3.0})


def test_an_arm_is_not_another_one_again(tmp_path):
    arms = {"a": {"rate": 0.5}, "b": {"rate": 1.0}, "c": {"rate": 0.5}}
    with pytest.raises(InputError, match="the arms 'a' and 'c' are the same: change one"):
        make_runs(arms, TASK, 1, tmp_path)


def test_names_must_fit():
    for change, message in (
        ({"baseline": "none"}, "baseline=none is unknown: choose one of half, "),
        ({"metric": "test/f1"}, "metric=test/f1 is unknown: choose one of test/accuracy, "),
        ({"shown": ("f1",)}, "metric=f1 is unknown"),
        ({"reported": {"x": 1.0}}, "reported=x is unknown"),
        ({"arms": {}}, "the study toy-rates has no arm"),
        ({"arms": {"half": {}, " ": {}}, "reported": {}}, "an arm has no name: give it one"),
        (
            {"arms": {"half": {}, "Half!": {}}, "reported": {}},
            "the arm 'half' has the folder of another",
        ),
    ):
        with pytest.raises(InputError, match=message):
            check_study(dataclasses.replace(STUDY, **change), TASK)
    check_study(STUDY, TASK)


def test_slug_and_list():
    assert [slug(name) for name in ("a b", "100%", "../x", "++", "1e-3")] == [
        "a-b", "100", "x", "arm", "1e-3"
    ]  # fmt: skip
    told = list_studies([STUDY])
    assert "toy-rates" in told and STUDY.question in told and "half; one <b>; two" in told
