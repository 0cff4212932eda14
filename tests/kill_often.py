"""One training on digits, killed again and again, must end as if nothing had happened.

    python -m tests.kill_often [KILLS] [SEED]       the defaults are 50 and 0

The training is run once undisturbed. Then it is run again and gets SIGKILL at random moments, each
time resumed: in turn while it starts, while it trains and while a checkpoint is being written. All
that both leave is compared bit for bit: parameters, the optimiser's arrays, averages, statistics,
progress, metrics and scores. pytest does it with 3 kills (tests/faults/test_kills.py).
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.test_resume import CIFAR, TASKS, check_same, launch

STEPS = TASKS["cifar"][1]  # of an epoch
FLAGS = tuple(flag for flag in CIFAR if "epochs" not in flag)


def train_and_kill(folder: Path, kills: int, seed: int) -> None:
    """Train twice below `folder`, the second time with `kills` kills, and compare."""
    epochs = 4 + 4 * kills  # which no run reaches before the last kill
    flags = (*FLAGS, f"--epochs={epochs}")
    whole, killed = folder / "whole", folder / "killed"
    process = launch(folder, whole, *flags)
    told = process.communicate()[0]
    assert process.returncode == 0, told

    rng = random.Random(seed)
    for number in range(1, kills + 1):
        since = time.time()
        process = launch(folder, killed, "--resume", *flags)
        moment = ("in a write", "at the start", "in training")[number % 3]
        if moment == "in a write":
            _wait_for_writes(process, killed, since, rng.randint(1, 3))
            time.sleep(rng.uniform(0, 0.05))
        elif moment == "in training":
            _wait_for_line(process, "run folder: ")
            time.sleep(rng.uniform(0, 2))
        else:
            time.sleep(rng.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, f"it ended before kill {number}: {told}"
        print(f"kill {number}: {moment}", flush=True)
    process = launch(folder, killed, "--resume", *flags)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    check_same(whole, killed, epochs * STEPS)


def _wait_for_line(process: subprocess.Popen, start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError("it ended before")


def _wait_for_writes(process: subprocess.Popen, workdir: Path, since: float, number: int) -> None:
    """Until that many checkpoints have begun to be written, without what an earlier kill left."""
    seen: set[Path] = set()
    while len(seen) < number:
        if process.poll() is not None:
            raise AssertionError(f"it ended before: {process.communicate()[0][-500:]}")
        for path in (workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp"):
            with suppress(FileNotFoundError):  # it has just been finished
                if path.stat().st_mtime > since:
                    seen.add(path)
        time.sleep(0.002)


def main() -> None:
    kills, seed = (int(value) for value in (sys.argv[1:] + ["50", "0"][len(sys.argv) - 1 :])[:2])
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kill_often-"))  # stays if they are not equal
    print(folder, flush=True)
    train_and_kill(folder, kills, seed)
    shutil.rmtree(folder)
    print(f"{kills} kills: equal bit for bit; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as for the tests: it compiles
    main()
