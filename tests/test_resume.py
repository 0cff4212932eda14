"""A run ends with the same numbers whatever happens to it and around it: bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import orbax.checkpoint as ocp
import pytest

from tests.compiling import XLA_FLAGS
from tests.faults.surroundings import CAN_MOUNT, NAMESPACE
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
    "--chars=cnn", "--max_length=16", "--recurrent_dropout=0.1", "--ema=0.9", "--epochs=4",
    "--batch_size=2",
)  # fmt: skip
TASKS = {"cifar": (CIFAR, 143), "aspect": (ASPECT, 200)}


def launch(
    folder: Path, workdir: Path, *flags: str, prefix: Sequence[str] = (), **variables: str
) -> subprocess.Popen:
    """A real run. All share compiled code by jax's cache: compiling takes most of the time."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "ATHANOR_CACHE": str(folder / "cache"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment |= {"XLA_FLAGS": XLA_FLAGS} | variables  # one device
    return subprocess.Popen(
        [*prefix, sys.executable, "launch.py", f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop_after(process: subprocess.Popen, epoch: int, number: int) -> str:
    """Send the signal `number` when that epoch is over; what the process said."""
    told = ""
    assert process.stdout is not None
    for line in process.stdout:
        told += line
        if line.startswith(f"epoch {epoch}/"):
            time.sleep(0.1)  # the next epoch takes more than this, and what precedes it less
            process.send_signal(number)
            return told + process.communicate(timeout=300)[0]
    raise AssertionError(told)


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


@pytest.fixture(scope="module", params=TASKS)
def undisturbed(request, tmp_path_factory):
    """(folder, flags, steps of an epoch) of a task, and its run in FOLDER/whole."""
    folder, (flags, steps) = tmp_path_factory.mktemp(request.param), TASKS[request.param]
    process = launch(folder, folder / "whole", *flags, PYTHONHASHSEED="1")
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 0, told
    return folder, flags, steps


def test_sigterm_sigkill_and_ctrl_c_change_nothing(undisturbed):
    tmp_path, flags, steps = undisturbed
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = launch(tmp_path, stopped, *flags)
    told = stop_after(process, 1, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM == 143, told
    at = latest_step(stopped)
    assert at % steps, "this was to be in mid-epoch"
    assert "Traceback" not in told
    assert told.splitlines()[-1].endswith(f"{stopped}/checkpoints/latest/{at}; --resume continues")

    process = launch(tmp_path, stopped, "--resume", *flags)
    told = stop_after(process, 2, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, told
    assert f"resuming {stopped} after step {at} of {4 * steps}" in told
    assert latest_step(stopped) % steps == 0, "the steps since then are to be lost"

    process = launch(tmp_path, stopped, "--resume", flags[0])
    told = stop_after(process, 3, signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT == 130, told
    assert latest_step(stopped) % steps and "Traceback" not in told

    process = launch(tmp_path, stopped, "--resume", flags[0])
    assert process.communicate(timeout=300) and process.returncode == 0
    check_same(whole, stopped, 4 * steps)


# For every Python of the run: a clock that goes back an hour whenever it is asked.
CLOCK = """
import itertools, time

for name, unit in (("time", 1), ("time_ns", 10**9)):
    now, hours = getattr(time, name)(), itertools.count(1)
    setattr(time, name, lambda now=now, hours=hours, unit=unit: now - 3600 * unit * next(hours))
"""
# A file system without room for a single file, where shared memory is made.
NO_SHARED_MEMORY = ("sh", "-c", 'mount -t tmpfs -o nr_inodes=1 none /dev/shm && exec "$@"', "sh")
PICTURES = ("curves.png", "confusion.png", "tag_confusion.png")


def test_the_same_command_gives_the_same_numbers_in_bad_surroundings(undisturbed):
    """Another hash seed, compiled anew, no room for pictures, a clock that runs backwards, and
    where that can be made no shared memory."""
    folder, flags, steps = undisturbed
    again, clock = folder / "again", folder / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK)
    again.mkdir()
    for name in PICTURES:
        (again / name).symlink_to("/dev/full")
    process = launch(
        folder, again, *flags, PYTHONHASHSEED="2", PYTHONPATH=str(clock),
        JAX_COMPILATION_CACHE_DIR=str(folder / "compiled anew"),
        prefix=(*NAMESPACE, *NO_SHARED_MEMORY) if CAN_MOUNT else (),
    )  # fmt: skip
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "Traceback" not in told, told
    assert told.splitlines()[-1] == (
        f"pictures are missing in {again} (No space left on device): free some space; --resume "
        "draws them, without training again"
    )
    for run in (folder / "whole", again):
        for name in (*PICTURES, "mistakes.png", "test_batches.png", "transitions.png"):
            (run / name).unlink(missing_ok=True)
    check_same(folder / "whole", again, 4 * steps)


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
    # The folder's name is in the command; who develops may save a file between two runs.
    free = {"command", "seconds", "images_per_second", "sentences_per_second", "commit", "dirty"}
    assert {k for k in summary if summary[k] != summary_again[k]} <= free
    losses = [row["train/loss"] for row in read_rows(whole)]
    assert losses[-1] < 0.95 * losses[0], "a run that learns nothing would show little"
