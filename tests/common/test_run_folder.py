"""A new folder is made, an old one is resumed or refused, nothing is overwritten."""

import json
import re
import subprocess
from dataclasses import dataclass, replace

import pytest

from common import run_folder
from common.errors import InputError

INPUTS = {"classes": ["cat", "dog"], "mean": [0.1, 0.2, 1 / 3]}


@dataclass(frozen=True)
class Config:
    epochs: int = 3
    dropout: float | None = None
    data_dir: str | None = None
    devices: int = 0


def test_a_new_folder_holds_what_it_was_given(tmp_path):
    workdir = tmp_path / "runs" / "one"
    run_folder.check_run(workdir, Config(), resume=False)
    assert not workdir.exists()
    run_folder.open_run(workdir, Config(dropout=0.5), INPUTS)
    written = json.loads((workdir / "config.json").read_text())
    assert written == {"epochs": 3, "dropout": 0.5, "data_dir": None, "devices": 0}
    assert run_folder.load_inputs(workdir) == INPUTS
    assert sorted(p.name for p in workdir.iterdir()) == ["config.json", "inputs.json"]


def test_a_used_folder_is_refused_without_resume(tmp_path):
    run_folder.open_run(tmp_path, Config(), INPUTS)
    with pytest.raises(InputError, match=f"--workdir={tmp_path} already holds a run: .*--resume"):
        run_folder.check_run(tmp_path, Config(), resume=False)


@pytest.mark.parametrize("exists", [False, True])
def test_resuming_what_was_never_started_starts_it(tmp_path, exists, capsys):
    workdir = tmp_path / "new"
    if exists:
        workdir.mkdir()
    run_folder.check_run(workdir, Config(), resume=True)
    assert f"no run in {workdir} yet" in capsys.readouterr().out


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", ["checkpoints", "metrics.jsonl"])
def test_parts_of_a_run_are_not_taken_for_a_new_one(tmp_path, left, resume):
    (tmp_path / left).mkdir()
    with pytest.raises(InputError, match=f"{tmp_path} holds {left} but no config.json: restore"):
        run_folder.check_run(tmp_path, Config(), resume=resume)


@pytest.mark.parametrize("content", ["[]", '{"classes": []}', "{"])
def test_damaged_inputs_are_named(tmp_path, content):
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(InputError, match=f"{tmp_path}/inputs.json"):
        run_folder.load_inputs(tmp_path, ("classes", "mean"))


def test_the_same_run_is_resumed_wherever_its_data_and_devices_are(tmp_path):
    run_folder.open_run(tmp_path, Config(), INPUTS)
    moved = Config(data_dir="/elsewhere", devices=4)
    run_folder.check_run(tmp_path, moved, resume=True)
    run_folder.open_run(tmp_path, moved, INPUTS)
    assert json.loads((tmp_path / "config.json").read_text())["data_dir"] == "/elsewhere"


@pytest.mark.parametrize("name, value", [("epochs", 5), ("dropout", 0.0)])
def test_another_setting_is_named(tmp_path, name, value):
    run_folder.open_run(tmp_path, Config(), INPUTS)
    old = getattr(Config(), name)
    with pytest.raises(InputError, match=f"--{name}={value} differs from the run's {old}"):
        run_folder.check_run(tmp_path, replace(Config(), **{name: value}), resume=True)


def test_other_data_are_refused(tmp_path):
    run_folder.open_run(tmp_path, Config(), INPUTS)
    with pytest.raises(InputError, match="the data differ from those that the run in .*was"):
        run_folder.open_run(tmp_path, Config(), INPUTS | {"mean": [0.1, 0.2, 0.3]})
    assert run_folder.load_inputs(tmp_path) == INPUTS


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--workdir=.*/file/run cannot be written: Not a dir"):
        run_folder.open_run(tmp_path / "file" / "run", Config(), INPUTS)


def test_a_command_with_bytes_that_are_no_text_is_noted(tmp_path):
    run_folder.note_command(tmp_path, "python launch.py --data_dir=\udcff")
    assert run_folder.note_command(tmp_path, "again") == r"python launch.py --data_dir=\udcff"


@pytest.mark.parametrize("content", [None, "", "{"])
def test_inputs_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(InputError, match="inputs.json cannot be read: "):
        run_folder.load_inputs(tmp_path)


def test_every_command_is_kept_and_the_first_returned(tmp_path):
    assert run_folder.note_command(tmp_path, "python launch.py --a") == "python launch.py --a"
    assert run_folder.note_command(tmp_path, "python launch.py --b") == "python launch.py --a"
    kept = (tmp_path / "command.txt").read_text().splitlines()
    assert kept == ["python launch.py --a", "python launch.py --b"]


def test_default_folders_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "20260102-030405")
    first = run_folder.default_workdir("cifar", "cnn")
    assert str(first) == "runs/cifar-cnn-20260102-030405"
    first.mkdir(parents=True)
    second = run_folder.default_workdir("cifar", "cnn")
    assert str(second) == "runs/cifar-cnn-20260102-030405-2"


def test_what_repeats_a_run_is_described(tmp_path):
    code = run_folder.describe_code(Config(epochs=7))
    assert code["settings"]["epochs"] == 7
    versions = {name: code[name] for name in ("python", "jax", "jaxlib", "flax", "optax", "numpy")}
    assert all(re.match(r"\d+\.\d+", version) for version in versions.values())


@pytest.mark.parametrize("change", [None, "changed", "untracked", "no git"])
def test_the_commit_of_the_code(tmp_path, monkeypatch, change):
    """A checkout with the same file at the same place."""
    (tmp_path / "common").mkdir()
    file = tmp_path / "common" / "run_folder.py"
    file.write_text("1")
    commit = ("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
    if change != "no git":
        for words in (("init", "-q"), ("add", "."), commit):
            subprocess.run(["git", "-C", tmp_path, *words], check=True)
    if change == "changed":
        file.write_text("2")
    if change == "untracked":
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "x").write_text("")
    monkeypatch.setattr(run_folder, "__file__", str(file))
    code = run_folder.describe_code(Config())
    if change == "no git":
        assert "commit" not in code and "dirty" not in code
    else:
        assert re.fullmatch("[0-9a-f]{40}", code["commit"])
        assert code["dirty"] == (change == "changed")


def test_scoring_that_is_interrupted_is_told(capsys):
    with pytest.raises(KeyboardInterrupt), run_folder.scoring():
        raise KeyboardInterrupt
    assert "trained and saved, but not scored: --resume does that" in capsys.readouterr().err


def test_pictures_that_are_interrupted_are_told(tmp_path, capsys):
    def draw():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_folder.try_to_draw(tmp_path, draw)
    assert f"pictures are missing in {tmp_path}: --resume draws them" in capsys.readouterr().err
