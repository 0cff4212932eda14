"""Processes of one run must have been given the same flags, but for data and devices."""

import pytest

from common import modes, processes
from common.errors import InputError
from tests.common.study_cases import ToyConfig

LAUNCHER = {"workdir": "runs/x", "resume": False}


def train(settings):
    return modes.training_run(
        LAUNCHER,
        settings,
        lambda flags: ToyConfig("aspect", **flags),
        lambda config: None,
        ToyConfig,
    )


@pytest.mark.parametrize(
    "own, message",
    [
        ({"rate": 0.5}, "--rate: this process has 0.5, process 0 0.25: start all with the same"),
        ({}, "--rate: this process has none, process 0 0.25"),
        ({"rate": 0.25, "epochs": 3}, "--epochs: this process has 3, process 0 none"),
    ],
)
def test_other_flags_than_the_first_process_are_refused(monkeypatch, own, message):
    found = {"config": {}, "workdir": "x", "settings": {"rate": 0.25}}
    monkeypatch.setattr(processes, "from_first", lambda action: found)
    with pytest.raises(InputError, match=message):
        train(own)


def test_data_may_lie_elsewhere_in_another_process(monkeypatch):
    first = {"rate": 0.25, "data_dir": "a"}
    found = {"config": {"rate": 0.25}, "workdir": "x", "settings": first}
    monkeypatch.setattr(processes, "from_first", lambda action: found)
    assert train({"rate": 0.25, "data_dir": "b"})[0].rate == 0.25
