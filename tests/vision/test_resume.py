"""A run that was stopped and resumed ends as if nothing had happened: bit for bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax

from common import config as configs
from common.checkpoint import Checkpoints
from common.training import make_optimization
from tests.toy import assert_same
from vision.classifier import init_state, make_classifier
from vision.config import VisionConfig
from vision.report import PICTURES
from vision.train import load_dataset

ROOT = Path(__file__).resolve().parents[2]
# All that a state can hold: statistics, random numbers, the optimiser's arrays, an average.
FLAGS = (
    "--dataset=digits", "--model=cnn_b", "--width=0.125", "--batch_norm",
    "--dropout=0.1", "--augment=flip", "--ema=0.9", "--epochs=4", "--batch_size=8",
)  # fmt: skip
STEPS = 143  # of an epoch: 1,151 of the digits are left to train on


def launch(folder: Path, workdir: Path, *flags: str) -> subprocess.Popen:
    """A real run. All share compiled code by jax's cache: compiling takes most of the time."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "ATHANOR_CACHE": str(folder / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("XLA_FLAGS", None)
    return subprocess.Popen(
        [sys.executable, "launch.py", "--task=cifar", f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop_in_epoch(process: subprocess.Popen, workdir: Path, epoch: int, number: int) -> str:
    """Send the signal `number` when `epoch` has begun; what the process said."""
    begun = workdir / "checkpoints" / "latest" / str(STEPS * (epoch - 1))
    deadline = time.monotonic() + 300
    while not begun.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    time.sleep(0.1)  # the epoch takes more than this, and what comes before it less
    process.send_signal(number)
    return process.communicate(timeout=300)[0]


def latest_step(workdir: Path) -> int:
    return max(int(p.name) for p in (workdir / "checkpoints" / "latest").iterdir())


def read_state(workdir: Path, name: str):
    config = configs.load(VisionConfig, workdir / "config.json")
    data = load_dataset(config)
    config = dataclasses.replace(config, devices=1)
    classifier = make_classifier(config, data.classes, data.mean, data.std)
    state = init_state(config, classifier, make_optimization(config, STEPS)[0])
    checkpoints = Checkpoints(workdir / "checkpoints")
    return jax.device_get(checkpoints.restore(name, classifier.devices.abstract(state)))


def read_rows(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("examples_per_second") > 0 for row in rows)
    return rows


def test_sigterm_sigkill_and_ctrl_c_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ATHANOR_CACHE", str(tmp_path / "cache"))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = launch(tmp_path, whole, *FLAGS)
    assert process.communicate(timeout=300) and process.returncode == 0

    process = launch(tmp_path, stopped, *FLAGS)
    told = stop_in_epoch(process, stopped, 2, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM == 143, told
    at = latest_step(stopped)
    assert at % STEPS, "this was to be in mid-epoch"
    assert "Traceback" not in told
    assert told.splitlines()[-1].endswith(f"{stopped}/checkpoints/latest/{at}; --resume continues")

    process = launch(tmp_path, stopped, "--resume", *FLAGS)
    told = stop_in_epoch(process, stopped, 3, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, told
    assert f"resuming {stopped} after step {at} of {4 * STEPS}" in told
    assert latest_step(stopped) % STEPS == 0, "the steps since then are to be lost"

    process = launch(tmp_path, stopped, "--resume")
    told = stop_in_epoch(process, stopped, 4, signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT == 130, told
    assert latest_step(stopped) % STEPS and "Traceback" not in told

    process = launch(tmp_path, stopped, "--resume")
    assert process.communicate(timeout=300) and process.returncode == 0

    for name in ("latest", "best"):
        state, progress = read_state(whole, name)
        again, progress_again = read_state(stopped, name)
        assert_same(state, again)
        timing = ("seconds", "steps_timed")
        assert all(progress[k] == progress_again[k] for k in progress if k not in timing)
    assert read_state(whole, "latest")[0].step == 4 * STEPS
    assert read_rows(whole) == read_rows(stopped)
    assert sorted(p.name for p in whole.iterdir()) == sorted(p.name for p in stopped.iterdir())
    assert {p.name for p in whole.glob("*.png")} == set(PICTURES)

    summary, summary_again = (
        json.loads((r / "summary.json").read_text()) for r in (whole, stopped)
    )
    free = {"command", "seconds", "images_per_second"}  # the folder's name is in the command
    assert {k for k in summary if summary[k] != summary_again[k]} <= free
    losses = [row["train/loss"] for row in read_rows(whole)]
    assert losses[-1] < 0.95 * losses[0], "a run that learns nothing would show little"
