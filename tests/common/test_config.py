"""Frozen configurations: overriding, checking, and JSON there and back."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from common import config as configs
from common.errors import InputError


@dataclass(frozen=True)
class Config:
    epochs: int = 3
    rate: float = 0.1
    dropout: float | None = None
    crf: bool = True


def test_what_is_given_wins_and_none_is_not_given():
    config = Config()
    changed = configs.override(config, {"epochs": 0, "crf": False, "rate": None})
    assert changed == Config(epochs=0, crf=False)
    assert config == Config() and configs.override(config, {}) == config
    with pytest.raises(FrozenInstanceError):
        changed.epochs = 4


def test_a_setting_of_another_task_is_named_and_the_own_are_listed():
    with pytest.raises(InputError, match="--width does not .* --epochs, --rate, --dropout, --crf$"):
        configs.override(Config(), {"epochs": 4, "width": 0.5})


def test_a_choice_is_returned_or_all_are_listed():
    assert configs.check_choice("--pool", "max", iter(["max", "avg"])) == "max"
    with pytest.raises(InputError, match="^--pool=min is unknown: choose one of max, avg$"):
        configs.check_choice("--pool", "min", iter(["max", "avg"]))


@pytest.mark.parametrize(
    "value, low, high, open_low, message",
    [
        (-1, 0, float("inf"), False, "--x=-1 is out of range: it must be at least 0 and finite"),
        (0, 0, float("inf"), True, "--x=0 is out of range: it must be above 0 and finite"),
        (
            10**400,
            0,
            float("inf"),
            False,
            "--x=a number too large is out of range: it must be at least 0 and finite",
        ),
        (5, 1, 4, False, "--x=5 is out of range: it must be at least 1 and at most 4"),
        (
            float("nan"),
            0,
            float("inf"),
            False,
            "--x=nan is out of range: it must be at least 0 and finite",
        ),
        (
            float("inf"),
            0,
            float("inf"),
            False,
            "--x=inf is out of range: it must be at least 0 and finite",
        ),
    ],
)
def test_a_number_out_of_range(value, low, high, open_low, message):
    with pytest.raises(InputError) as error:
        configs.check_range("--x", value, low, high, open_low=open_low)
    assert str(error.value) == message


@pytest.mark.parametrize("value, open_low", [(0, False), (1e-9, True), (4, False)])
def test_a_number_in_range(value, open_low):
    configs.check_range("--x", value, 0, 4, open_low=open_low)


@pytest.mark.parametrize("rate", [0.1 + 0.2, 1e-300, 3.0])
def test_json_keeps_every_value(tmp_path, rate):
    config = Config(rate=rate, dropout=None, crf=False)
    configs.save(config, tmp_path / "config.json")
    assert configs.load(Config, tmp_path / "config.json") == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "content",
    [
        '{"colour": 1}', '{"epochs": "3"}', '{"epochs": 3.5}', '{"epochs": true}',
        '{"rate": null}', '{"crf": 1}', '{"dropout": "x"}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="config.json is not a configuration of this version"):
        configs.load(Config, tmp_path / "config.json")


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "[" * 100_000, "1" * 5000, b"\xff", b'\x00{"rate": 1}']
)
def test_a_file_that_is_no_object_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (configs.read_json, lambda path: configs.load(Config, path)):
        with pytest.raises(InputError, match="config.json cannot be read: [^\n]*; restore it"):
            read(path)


def test_whole_numbers_are_numbers(tmp_path):
    (tmp_path / "config.json").write_text('{"rate": 1, "dropout": 0}')
    assert configs.load(Config, tmp_path / "config.json") == Config(rate=1, dropout=0)


@dataclass(frozen=True)
class OfATask:
    task: str = "aspect"


def test_a_configuration_that_has_lost_its_task_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="config.json is no configuration of a run: restore it"):
        configs.load(OfATask, tmp_path / "config.json")


def test_a_run_of_another_task_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"task": "cifar", "width": 2.0}')
    with pytest.raises(InputError, match="config.json is of a run of --task=cifar: give that task"):
        configs.load(Config, tmp_path / "config.json")


def test_writing_replaces_a_file_whole(tmp_path):
    path = tmp_path / "x.json"
    configs.write_json(path, {"a": list(range(1000))})
    with pytest.raises(TypeError):
        configs.write_json(path, {"a": object()})
    configs.write_json(path, {"a": 1})
    assert path.read_text() == '{\n  "a": 1\n}\n'
