"""Somebody's own study: what is read, and every mistake in one line."""

import pytest

from common.errors import InputError
from common.study_file import read_study
from tests.common.study_cases import TASK

GOOD = """
question: Does the rate matter?
task: toy
base: {epochs: 3}
arms:
  slow: {rate: 1e-3}
  fast: {rate: 2, label: 64}
reported: {fast: 0.7}
"""


def read(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_study(path, lambda name: TASK, ("toy",))


def test_a_study_is_read_with_the_types_of_the_task(tmp_path):
    study = read(tmp_path, GOOD)
    assert (study.name, study.baseline, study.metric, study.seeds) == (
        "mine", "slow", "test/accuracy", 3
    )  # fmt: skip
    assert study.arms == {"slow": {"rate": 0.001}, "fast": {"rate": 2, "label": "64"}}
    assert (study.base, study.reported) == ({"epochs": 3}, {"fast": 0.7})
    more = read(
        tmp_path,
        GOOD + "name: n\nbaseline: fast\nseeds: 5\nmetric: test/loss\nshown: [gap/accuracy]\n",
    )
    assert (more.name, more.baseline, more.seeds, more.metric) == ("n", "fast", 5, "test/loss")
    assert more.shown == ("gap/accuracy",)
    assert read(tmp_path, GOOD.replace("label: 64", "label: [3, 4]")).arms["fast"]["label"] == "3,4"
    assert read(tmp_path, GOOD.replace("{rate: 1e-3}", "")).arms["slow"] == {}


@pytest.mark.parametrize(
    "change, message",
    [
        (("rate: 1e-3", "rate: quick"), "arms.slow: rate is 'quick': it must be a number"),
        (("rate: 1e-3", "rat: 1"), "arms.slow: rat is not a setting: choose one of task, config"),
        (("rate: 1e-3", "twice: 3"), "arms.slow: twice is 3: it must be true or false"),
        (("epochs: 3", "epochs: 2.5"), "base: epochs is 2.5: it must be a whole number"),
        (("epochs: 3", "epochs: true"), "base: epochs is True: it must be a whole number"),
        (("epochs: 3", "seed: 3"), "base.seed: leave it out, since the study gives every run"),
        (("base: {epochs: 3}", "base: 3"), "base is 3: it must map names to values"),
        (("task: toy", "task: mnist"), "task=mnist is unknown: choose one of toy"),
        (("task: toy", ""), "the key task is missing: a study has question, task, arms"),
        (
            ("task: toy", "tusk: toy"),
            "key=tusk is unknown (did you mean task?): choose one of name, question",
        ),
        (("Does the rate matter?", "3"), "question is 3: it must be a text; put it in quotes"),
        (("fast: 0.7", "quick: 0.7"), "reported=quick is unknown: choose one of slow, fast"),
        (("fast: 0.7", "fast: high"), "reported.fast is 'high': it must be a number"),
        (("slow:", "no:"), "arms has the name False, which is no text: put it in quotes"),
        (("fast:", "slow:"), " line 7 is not YAML: 'slow' stands twice"),
        (("task: toy", "task: toy\nseeds: 0"), "seeds is 0: it must be a whole number from 1 to"),
        (("task: toy", "task: toy\nmetric: f1"), "metric=f1 is unknown: choose one of test/acc"),
        (("task: toy", "task: toy\nbaseline: x"), "baseline=x is unknown: choose one of slow"),
        (("task: toy", "task: toy\nshown: 3"), "shown is 3: it must be a list of metrics"),
        (("task: toy", "task: [toy"), " line "),
        (("task: toy", "task: !!python/object:os.system x"), " line 3 is not YAML: could not"),
        ((GOOD, "just words"), "is no study: it must have the keys question, task, arms"),
        ((GOOD, ""), "is no study"),
    ],
)
def test_every_mistake_is_one_line(tmp_path, change, message):
    with pytest.raises(InputError) as error:
        read(tmp_path, GOOD.replace(*change))
    told = str(error.value)
    assert told.startswith(str(tmp_path / "mine.yaml")) and "\n" not in told
    assert message in told


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="none.yaml cannot be read: No such file"):
        read_study(tmp_path / "none.yaml", lambda name: TASK, ("toy",))
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="x.yaml cannot be read: it is not UTF-8 text"):
        read_study(tmp_path / "x.yaml", lambda name: TASK, ("toy",))


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: &a [x]\nb: *a", "line 2 is not YAML: *a refers to another place: write out"),
        ("a: &a {b: *a}", "line 1 is not YAML: *a refers"),
        ("a: !!python/object/apply:os.system [id]", "line 1 is not YAML: could not determine"),
        ("a: " + "[" * 2000, "is not YAML: maximum recursion depth"),
        ("a: !!int b", "is not YAML: invalid literal"),
        ("a: 2026-13-41", "is not YAML: month must be in"),
        ("a: " + "9" * 5000, "is not YAML: Exceeds the limit"),
        ("? [a]\n: b", "line 1 is not YAML: a key is a list or mapping, not a name"),
        ('a: "\\ud800"', "is not YAML: 'utf-8' codec can't encode"),
        ("# " + "x" * 1_000_000, "is no study: it has more than 1,000,000 bytes"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_yaml(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
