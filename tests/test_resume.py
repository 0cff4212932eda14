"""A run that was stopped and resumed ends as if nothing had happened: bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import orbax.checkpoint as ocp
import pytest

from tests.toy import assert_same

ROOT = Path(__file__).resolve().parents[1]
# For each task all that a state can hold: statistics, random numbers, the optimiser's arrays, an
# average; and the steps of an epoch.
CIFAR = (
    "--task=cifar", "--dataset=digits", "--model=cnn_b", "--width=0.125", "--batch_norm",
    "--dropout=0.1", "--augment=flip", "--ema=0.9", "--epochs=4", "--batch_size=8",
)  # fmt: skip
ASPECT = (
    "--task=aspect", "--crf", "--embeddings=random", "--embedding_size=8", "--hidden_size=8",
    "--chars=cnn", "--recurrent_dropout=0.1", "--ema=0.9", "--epochs=4", "--batch_size=2",
)  # fmt: skip
TASKS = {"cifar": (CIFAR, 143), "aspect": (ASPECT, 200)}


def launch(folder: Path, workdir: Path, *flags: str) -> subprocess.Popen:
    """A real run. All share compiled programs: compiling takes most of the time."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "ATHANOR_CACHE": str(folder / "cache"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("XLA_FLAGS", None)
    return subprocess.Popen(
        [sys.executable, "launch.py", f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop_after(process: subprocess.Popen, workdir: Path, step: int, number: int) -> str:
    """Send the signal `number` when `step` has been saved; what the process said."""
    begun = workdir / "checkpoints" / "latest" / str(step)
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
    """The arrays of a checkpoint, and its progress without what depends on the clock."""
    manager = ocp.CheckpointManager(workdir / "checkpoints" / name)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore())
    found = manager.restore(manager.latest_step(), args=args)
    progress = {k: v for k, v in found["progress"].items() if k not in ("seconds", "steps_timed")}
    return jax.device_get(found["state"]), progress


def read_rows(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("examples_per_second") > 0 for row in rows)
    return rows


@pytest.mark.parametrize("task", TASKS)
def test_sigterm_sigkill_and_ctrl_c_change_nothing(tmp_path, task):
    flags, steps = TASKS[task]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = launch(tmp_path, whole, *flags)
    assert process.communicate(timeout=300) and process.returncode == 0

    process = launch(tmp_path, stopped, *flags)
    told = stop_after(process, stopped, steps, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM == 143, told
    at = latest_step(stopped)
    assert at % steps, "this was to be in mid-epoch"
    assert "Traceback" not in told
    assert told.splitlines()[-1].endswith(f"{stopped}/checkpoints/latest/{at}; --resume continues")

    process = launch(tmp_path, stopped, "--resume", *flags)
    told = stop_after(process, stopped, 2 * steps, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, told
    assert f"resuming {stopped} after step {at} of {4 * steps}" in told
    assert latest_step(stopped) % steps == 0, "the steps since then are to be lost"

    process = launch(tmp_path, stopped, "--resume", flags[0])
    told = stop_after(process, stopped, 3 * steps, signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT == 130, told
    assert latest_step(stopped) % steps and "Traceback" not in told

    process = launch(tmp_path, stopped, "--resume", flags[0])
    assert process.communicate(timeout=300) and process.returncode == 0
    check_same(whole, stopped, 4 * steps)


def check_same(whole: Path, stopped: Path, last: int) -> None:
    """All that two runs left is equal, but for what depends on the clock and the folder."""
    for name in ("latest", "best"):
        (state, progress), (again, progress_again) = (
            read_state(run, name) for run in (whole, stopped)
        )
        assert_same(state, again)
        assert progress == progress_again
    assert read_state(whole, "latest")[0]["step"] == last
    assert read_rows(whole) == read_rows(stopped)
    assert sorted(p.name for p in whole.iterdir()) == sorted(p.name for p in stopped.iterdir())
    summary, summary_again = (
        json.loads((r / "summary.json").read_text()) for r in (whole, stopped)
    )
    # The folder's name is in the command.
    free = {"command", "seconds", "images_per_second", "sentences_per_second"}
    assert {k for k in summary if summary[k] != summary_again[k]} <= free
    losses = [row["train/loss"] for row in read_rows(whole)]
    assert losses[-1] < 0.95 * losses[0], "a run that learns nothing would show little"
