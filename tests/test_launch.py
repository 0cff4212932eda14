"""The command line: fast help, mistakes named in one line, no library that is not needed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl.testing import flagsaver

import launch
from common.errors import DivergedError, InputError, StoppedBySignal

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Call launch.py in this process: (exit status, lines on stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATHANOR_CACHE", str(tmp_path / "cache"))

    def call(*flags):
        monkeypatch.setattr(sys, "argv", ["launch.py", *flags])
        with flagsaver.flagsaver():
            status = launch.run_to_exit_status(launch.main)
        return status, capsys.readouterr().err.splitlines()

    return call


def run(*arguments, **environment):
    """A real process: (result, CPU seconds it took)."""
    before = os.times()
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    return result, cpu - before.children_user - before.children_system


def test_help_is_fast_and_imports_no_jax():
    result, seconds = run("-X", "importtime", "launch.py", "--help")
    assert result.returncode == 0 and seconds < 2
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "absl.flags" in imported
    heavy = {"jax", "flax", "optax", "orbax", "numpy", "matplotlib", "gensim", "tensorflow"}
    assert not imported & heavy
    for flag in launch.LAUNCHER:
        assert f"--{'[no]' * (flag == 'resume')}{flag}:" in result.stdout
    assert "--learning_rate: The peak of the schedule." in result.stdout


def test_a_mistake_is_one_line_and_status_2():
    result, _ = run("launch.py", "--task=cifar", "--learning_rat=0.1")
    assert result.returncode == 2 and result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("launch.py: Unknown command line flag 'learning_rat'.")


DIGITS = ("--task=cifar", "--dataset=digits", "--workdir=run")
RUN = ("--task=cifar", "--run=runs/one")
DEMO = ("--task=aspect", "--workdir=run")


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "--task is missing: choose one of cifar, aspect"),
        (("--task=mnist",), "flag --task=mnist: value should be one of"),
        (("--task=cifar", "--mode=test"), "flag --mode=test: value should be one of"),
        ((*DIGITS, "--epochs=1.5"), "flag --epochs=1.5: give a whole number"),
        ((*DIGITS, "--dropout=little"), "flag --dropout=little: give a number"),
        ((*DIGITS, "--batch_norm=maybe"), "flag --batch_norm=maybe: give true or false"),
        ((*DIGITS, "50"), "'50' is not a flag: write --flag=value (see --help)"),
        ((*DIGITS, "--config=report_c"), "--config=report_c is unknown (did you mean report_"),
        ((*DIGITS, "--model=vgg"), "--model=vgg is unknown: choose one of cnn, cnn_b, resnet18"),
        (("--task=cifar", "--dataset=mnist"), "--dataset=mnist is unknown: choose one of cifar10"),
        ((*DIGITS, "--optimizer=lion"), "--optimizer=lion is unknown: choose one of sgd, "),
        ((*DIGITS, "--schedule=poly"), "--schedule=poly is unknown: choose one of constant, "),
        ((*DIGITS, "--augment=flop"), "--augment: unknown operation 'flop'; valid"),
        ((*DIGITS, "--precision=int8"), "--precision=int8 is unknown: choose one of auto, "),
        ((*DIGITS, "--pool=min"), "--pool=min is unknown: choose one of max, avg"),
        ((*DIGITS, "--shortcut=zero_pad"), "--shortcut does not apply to --model=cnn"),
        ((*DIGITS, "--epochs=0"), "--epochs=0 is out of range: it must be at least 1"),
        ((*DIGITS, "--dropout=1"), "--dropout=1 is out of range: it must be in [0, 1)"),
        ((*DIGITS, "--val_fraction=1"), "--val_fraction=1"),
        ((*DIGITS, "--data_dir=x"), "--data_dir is not used by --dataset=digits"),
        ((*DIGITS, "--batch_size=5000"), "--batch_size=5000 is larger than the 12"),
        ((*DIGITS, "--devices=9"), "--devices=9: this machine has 8; 0 means all"),
        ((*DIGITS, "--devices=most"), "flag --devices=most: "),
        ((*DIGITS, "--num_processes=2"), "--coordinator and --process_id missing: several"),
        ((*RUN, "--mode=eval", "--process_id=1"), "--process_id does not go with --mode=eval"),
        ((*DIGITS, "--devices=all", "--batch_size=12"), "--batch_size=12 does not divide over 8"),
        ((*DIGITS, "--batch_size=20"), "--batch_size=20 does not divide over 8 devices: use a"),
        ((*DIGITS, "--workdir="), "--workdir is empty: give it a value, or leave it out"),
        (("--task=cifar", "--resume"), "--resume needs --workdir=FOLDER"),
        ((*DIGITS, "--run=x"), "--run does not go with --mode=train: leave it out"),
        ((*DIGITS, "--input=x"), "--input does not go with --mode=train"),
        ((*DIGITS, "--format=jsonl"), "--format does not go with --mode=train"),
        ((*RUN, "--mode=eval", "--workdir=x"), "--workdir does not go with --mode=eval"),
        ((*RUN, "--mode=eval", "--resume"), "--resume does not go with --mode=eval"),
        ((*RUN, "--mode=eval", "--input=x"), "--input does not go with --mode=eval"),
        ((*RUN, "--mode=eval", "--epochs=3"), "--epochs is fixed by the run in --run"),
        ((*RUN, "--mode=eval"), "runs/one/config.json does not exist: --run names a folder"),
        (("--task=cifar", "--mode=eval"), "--mode=eval needs --run=FOLDER"),
        (("--task=cifar", "--mode=predict", "--input=x"), "--mode=predict needs --run=FOLDER"),
        ((*RUN, "--mode=predict"), "--mode=predict needs --input=IMAGE_OR_FOLDER"),
        (("--task=cifar", "--mode=describe", "--run=x"), "--run does not go with --mode=describe"),
        ((*RUN, "--run=runs/two", "--mode=eval"), "--run may be given once for --task=cifar"),
        ((*RUN, "--mode=eval", "--nbest=2"), "--nbest does not go with --mode=eval"),
        ((*RUN, "--mode=eval", "--format=xml"), "--format=xml is unknown: choose one of table, "),
        ((*DIGITS, "--crf"), "--crf does not belong to this task: its flags are --task, "),
        ((*DEMO, "--augment=none"), "--augment does not belong to this task: its flags are"),
        ((*DEMO, "--embeddings=glove,random"), "--embeddings=glove,random: random stands alone"),
        ((*DEMO, "--devices=1", "--batch_size=401"), "--batch_size=401 is larger than the 400"),
        ((*DEMO, "--batch_size=20"), "--batch_size=20 does not divide over 8 devices: use a"),
        ((*DEMO, "--columns=a,b"), "--columns=a,b is for column files, which "),
        ((*DEMO, "--train_file=none.xml"), "no test sentences: give --test_file"),
        ((*DEMO, "--data_dir=none"), "--data_dir=none is not a folder"),
        ((*DEMO, "--config=report_c"), "--config=report_c is unknown: choose one of default, "),
        ((*DEMO, "--cell=tanh"), "--cell=tanh is unknown: choose one of rnn, lstm, gru"),
        ((*DEMO, "--top=3"), "--top does not go with --mode=train"),
        ((*DIGITS, "--seeds=3"), "--seeds is for studies: leave it out, or name one by --study"),
        (("--study=A-bm",), "--study=A-bm is unknown (did you mean A-bn?): choose one of A-"),
        ((*DIGITS, "--study=A-bn"), "--task does not go with --study: it is the study's own"),
        (
            ("--study=A-bn", "--batch_norm"),
            "--study=A-bn: --batch_norm is set by the arm 'with BN'",
        ),
        (("--study=A-bn", "--crf"), "--crf does not belong to --task=cifar: leave it out"),
        (("--study=A-bn", "--data_dir=/"), "--study=A-bn: arm 'with BN': --data_dir is not used"),
        (("--study=B-deep", "--hidden_size=8"), "--study=B-deep: --hidden_size is 32 in the arm "),
        (("--study=crf", "--budget=cpu"), "--study=crf --budget=cpu needs --data_dir=FOLDER"),
        (("--study=mine.yaml",), "--study=mine.yaml cannot be read: No such file"),
    ],
)
def test_every_mistake_is_named_and_leaves_nothing(call, tmp_path, flags, message):
    status, lines = call(*flags)
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith(f"launch.py: {message}"), lines
    # The same --workdir must do when the mistake is put right.
    assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()


def make_run(folder: Path) -> None:
    """A run that has begun, as far as its folder shows."""
    from common.run_folder import open_run
    from vision.config import make_config

    config = make_config({"dataset": "digits", "model": "cnn_b", "epochs": 3})
    open_run(folder, config, {"classes": [], "mean": [], "std": [], "fingerprint": ""})


def test_a_used_folder_is_not_overwritten(call, tmp_path):
    make_run(tmp_path / "run")
    status, [line] = call(*DIGITS)
    assert status == 2
    assert line.startswith("launch.py: --workdir=run already holds a run: continue it with --res")


def test_resuming_with_another_setting_names_the_flag(call, tmp_path):
    make_run(tmp_path / "run")
    status, [line] = call(*DIGITS, "--resume", "--epochs=4")
    assert status == 2
    assert line.startswith("launch.py: --epochs=4 differs from the run's 3")


def test_resuming_on_other_data_is_refused(call, tmp_path):
    make_run(tmp_path / "run")
    status, lines = call("--task=cifar", "--workdir=run", "--resume")
    assert status == 2
    assert lines[-1].startswith("launch.py: the data differ from those that the run in run was")


@pytest.mark.parametrize(
    "redirection, status, line",
    [
        (">/dev/full", 2, "all is done, but the lines told are not complete: No space left on"),
        (">&-", 0, None),
        ("<&-", 0, None),
    ],
)
def test_standard_streams_that_are_full_or_closed(redirection, status, line):
    command = f"exec '{sys.executable}' launch.py --study=list {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert [part.startswith(f"launch.py: {line}") for part in done.stderr.splitlines()] == (
        [True] if line else []
    )


def test_a_stop_is_told_where_standard_output_is_full(tmp_path):
    command = [sys.executable, "launch.py", *DIGITS, "--model=cnn_b", "--width=0.125"]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [*command, "--epochs=500", f"--workdir={tmp_path / 'run'}"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        rows = tmp_path / "run" / "metrics.jsonl"
        while process.poll() is None and not (rows.exists() and rows.read_text()):
            time.sleep(0.05)
        process.terminate()
        told = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 143
    assert told[-1].startswith("launch.py: stopped after ") and "Traceback" not in "".join(told)


@pytest.mark.parametrize(
    "error, status",
    [
        (InputError("x"), 2),
        (DivergedError("x"), 1),
        (StoppedBySignal(15, "x"), 143),
        (StoppedBySignal(2, "x"), 130),
        (KeyboardInterrupt(), 130),
        (None, 0),
    ],
)
def test_exit_statuses(error, status, capsys):
    def program():
        if error is not None:
            raise error

    assert launch.run_to_exit_status(program) == status
    assert len(capsys.readouterr().err.splitlines()) == (status > 0)


def test_a_loss_that_is_no_number_is_status_1_with_advice(call, tmp_path):
    status, lines = call(
        *DIGITS, "--model=cnn_b", "--width=0.125", "--optimizer=sgd", "--learning_rate=1e30",
        "--schedule=constant", "--augment=none", "--devices=1", "--epochs=1",
    )  # fmt: skip
    assert status == 1
    assert lines[-1].startswith("launch.py: the loss of step 2 is not a finite number; the last ")
    assert "checkpoint is none; try a lower --learning_rate" in lines[-1]


PREPARE = """
import json, sys
from pathlib import Path
from common.checkpoint import Checkpoints
from common.writer import RunWriter
from vision import datasets
from vision.config import make_config
from vision.train import load_dataset, make_plan, prepare

config = make_config(json.loads(sys.argv[1]))
folder = Path(sys.argv[2])
make_plan(prepare(config, load_dataset(config)), Checkpoints(folder), RunWriter(folder))
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_a_cifar_run_imports_neither_gensim_nor_tensorflow(tmp_path):
    """Up to the first step; tests/vision/test_datasets.py has the same of prepared CIFAR-10."""
    settings = json.dumps({"dataset": "digits", "model": "cnn_b", "width": 0.125})
    cache = str(tmp_path / "cache")
    result, _ = run("-c", PREPARE, settings, str(tmp_path), ATHANOR_CACHE=cache)
    assert result.returncode == 0, result.stderr
    imported = set(result.stderr.splitlines()[-1].split())
    assert {"jax", "vision"} <= imported
    assert imported.isdisjoint({"gensim", "tensorflow", "tensorflow_datasets", "text"})
