"""One training on digits, killed again and again, must end as if nothing had happened.

    python -m tests.kill_often [KILLS] [SEED]       the defaults are 50 and 0

The training is run once undisturbed. Then it is run again and gets SIGKILL at random moments, each
time resumed: half of them anywhere from the start of the process on, half while a checkpoint is
being written. All that both leave is compared bit for bit: parameters, the optimiser's arrays,
averages and statistics, progress, metrics and scores. pytest does it with 3 kills
(tests/faults/test_kills.py).
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.test_resume import CIFAR, TASKS, check_same, launch

STEPS = TASKS["cifar"][1]  # of an epoch
FLAGS = tuple(flag for flag in CIFAR if "epochs" not in flag)


def train_and_kill(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Train twice below `folder`, the second time with `kills` kills, and compare.

    Returns:
        How many kills came at the start of a process, in its training, in writes of checkpoints.
    """
    epochs = 3 + kills // 3  # which no run reaches before the last kill
    flags = (*FLAGS, f"--epochs={epochs}")
    whole, killed = folder / "whole", folder / "killed"
    begin = time.monotonic()
    process = launch(folder, whole, *flags)
    while not (whole / "checkpoints" / "latest").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    start = time.monotonic() - begin
    assert process.communicate() and process.returncode == 0
    training = time.monotonic() - begin - start

    rng = random.Random(seed)
    counts = {"at the start": 0, "in training": 0, "in a write": 0}
    for number in range(kills):
        since = time.time()
        process = launch(folder, killed, "--resume", *flags)
        if number % 2:
            _wait_for_write(killed, since, rng.randint(1, 3))
            time.sleep(rng.uniform(0, 0.05))
        else:
            time.sleep(rng.uniform(0, start + 2 * training / kills))
        writing = _find_writes(killed, since)
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, f"it ended before kill {number + 1}: {told}"
        begun = "run folder: " in told
        where = "in a write" if writing else "in training" if begun else "at the start"
        counts[where] += 1
        print(f"kill {number + 1}: {where}", flush=True)
    process = launch(folder, killed, "--resume", *flags)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    check_same(whole, killed, epochs * STEPS)
    return counts


def _find_writes(workdir: Path, since: float) -> set[Path]:
    """The checkpoints that are being written, without what an earlier kill has left."""
    found = set()
    for path in (workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp"):
        with suppress(FileNotFoundError):  # it has just been finished
            if path.stat().st_mtime > since:
                found.add(path)
    return found


def _wait_for_write(workdir: Path, since: float, number: int) -> None:
    """Until the write of that number, from 1, has begun."""
    seen: set[Path] = set()
    deadline = time.monotonic() + 600
    while len(seen) < number:
        assert time.monotonic() < deadline, "nothing is written"
        seen |= _find_writes(workdir, since)
        time.sleep(0.002)


def main() -> None:
    kills, seed = (int(value) for value in (sys.argv[1:] + ["50", "0"][len(sys.argv) - 1 :])[:2])
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kill_often-"))  # stays if they are not equal
    print(folder, flush=True)
    counts = train_and_kill(folder, kills, seed)
    shutil.rmtree(folder)
    listed = ", ".join(f"{count} {where}" for where, count in counts.items())
    print(f"{kills} kills ({listed}): equal bit for bit; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as for the tests: it compiles
    main()
