"""One training on digits, killed again and again, must end as if nothing had happened.

    python -m tests.kill_often [KILLS] [SEED]       50 kills take about ten minutes on two cores

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
from pathlib import Path

from tests.test_resume import CIFAR, TASKS, check_same, launch

STEPS = TASKS["cifar"][1]  # of an epoch
# Checkpoints in mid-epoch, too.
FLAGS = (*(flag for flag in CIFAR if "epochs" not in flag), "--checkpoint_minutes=0.005")


def train_and_kill(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Train twice below `folder`, the second time with `kills` kills, and compare.

    Returns:
        How many kills came before the first step of their process, during steps, and in writes.
    """
    epochs = max(4, kills)
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
    counts = {"before its first step": 0, "during steps": 0, "in a write": 0}
    for number in range(kills):
        process = launch(folder, killed, "--resume", *flags)
        if number % 2:
            _wait_for_write(killed)
            time.sleep(rng.uniform(0, 0.05))
        else:
            time.sleep(rng.uniform(0, start + 2 * training / kills))
        writing = _is_writing(killed)
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, f"it ended before kill {number + 1}: {told}"
        stepping = "run folder" in told
        where = "in a write" if writing else "during steps" if stepping else "before its first step"
        counts[where] += 1
        print(f"kill {number + 1}: {where}", flush=True)
    process = launch(folder, killed, "--resume", *flags)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    check_same(whole, killed, epochs * STEPS)
    return counts


def _is_writing(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp*"))


def _wait_for_write(workdir: Path) -> None:
    """Until a new checkpoint is being written; what a kill has left is cleared at the start."""
    left = set((workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp*"))
    deadline = time.monotonic() + 300
    while not set((workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp*")) - left:
        assert time.monotonic() < deadline
        time.sleep(0.002)
        left &= set((workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp*"))


def main() -> None:
    kills, seed = (int(value) for value in (sys.argv[1:] + ["50", "0"][len(sys.argv) - 1 :])[:2])
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kill_often-"))  # stays if they are not equal
    print(folder)
    counts = train_and_kill(folder, kills, seed)
    shutil.rmtree(folder)
    listed = ", ".join(f"{count} {where}" for where, count in counts.items())
    print(f"{kills} kills ({listed}): equal bit for bit; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as for the tests: it compiles
    main()
