"""Two processes of four devices each are one run: the same numbers, stopped together, resumed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import loop, processes
from common.errors import InputError, StoppedBySignal
from tests.toy import counting, make_plan, patched

ROOT = Path(__file__).resolve().parents[1]
TIMING = {"examples_per_second"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def two_processes(
    folder: Path, step: int, number: int, who: int = 1
) -> tuple[list[tuple[int, str]], float]:
    """Run the toy in two processes, until the signal after a step of the process `who`.

    Returns the exit status and what stderr had, of each; and the seconds that the other one
    outlived that one.
    """
    port = free_port()
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.toy_process"]
            + [str(argument) for argument in (folder, port, index, step, int(number), who)],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    told = {who: started[who].communicate(timeout=300)[1]}
    ended = time.monotonic()
    told[1 - who] = started[1 - who].communicate(timeout=300)[1]
    outlived = time.monotonic() - ended
    return [(started[index].returncode, told[index]) for index in (0, 1)], outlived


def test_a_run_moves_between_processes_is_stopped_and_killed_and_ends_the_same(tmp_path):
    """One process; two, stopped; two again, of which either is killed; then one of 8 devices."""
    plan, state = make_plan(tmp_path / "whole", epochs=4)
    loop.run(state, plan)
    cut = tmp_path / "cut"
    part, state = make_plan(cut, epochs=4)
    send = counting(part.train_step, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedBySignal):
        loop.run(state, patched(part, train_step=send))

    ends, _ = two_processes(cut, 4, signal.SIGTERM)  # after step 3 + 4
    for status, told in ends:
        assert status == 143, told
        assert told.splitlines()[-1].endswith(f"{cut}/checkpoints/latest/7; --resume continues")

    for who, step in ((1, 6), (0, 2)):  # after 7 + 6, in mid-epoch, and 10 + 2
        ends, outlived = two_processes(cut, step, signal.SIGKILL, who)
        assert ends[who][0] == -signal.SIGKILL and outlived < 60
        status, told = ends[1 - who]
        assert status == 1, told
        [line] = told.splitlines()
        assert line.startswith("launch.py: another process of this run has ended:")
        assert "--resume" in line

    plan_8, state = make_plan(cut, device_count=8, epochs=4)
    loop.run(state, plan_8)
    assert len(plan.writer.history) == 4 and plan.writer.history[-1]["step"] == 20
    for row, again in zip(plan.writer.history, plan_8.writer.history, strict=True):
        for name in row.keys() - TIMING:
            assert again[name] == pytest.approx(row[name], rel=1e-5), (row["epoch"], name)


@pytest.mark.parametrize(
    "flags, message",
    [
        (("host:1", None, None), "--num_processes and --process_id missing: several processes"),
        ((None, 2, 0), "--coordinator missing"),
        (("host", 2, 0), "--coordinator=host is not HOST:PORT, such as 10.0.0.1:1234"),
        (("host:99999", 2, 0), "--coordinator=host:99999 is not HOST:PORT.*port below 65536"),
        (("host:1", 0, 0), "--num_processes=0 must be at least 1"),
        (("host:1", 2, 2), r"--process_id=2 is out of range: it must be in \[0, 1\]"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(InputError, match=message):
        processes.are_several(*flags)


def test_several_processes_are_asked_for_by_flag_or_cluster(monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert processes.are_several("host:1", 2, 1) and not processes.are_several(None, None, None)
    cases = {
        "SLURM_STEP_NUM_TASKS": ("1", "2"),
        "OMPI_COMM_WORLD_SIZE": ("1", "16"),
        "TPU_WORKER_HOSTNAMES": ("t0", "t0,t1"),
    }
    for name, (one, several) in cases.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, one)
            assert not processes.are_several(None, None, None)
            patch.setenv(name, several)
            assert processes.are_several(None, None, None), name
