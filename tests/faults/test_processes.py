"""Signals in slow computations, two runs in one folder, memory that does not suffice: for real."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from common.claim import claim
from common.errors import InputError
from common.signals import ECHO
from tests.faults.surroundings import ROOT, TOY_RUN, start_toy


def test_ctrl_c_is_answered_in_a_slow_step_and_twice_leaves_at_once(tmp_path):
    process = start_toy(tmp_path, "slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "\n"
    assert "SIGINT: stopping after this step, with a checkpoint; once more" in (
        process.stdout.readline()
    )
    time.sleep(2 * ECHO)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[0]
    assert time.monotonic() - begin < 20, "the step takes minutes"
    assert process.returncode == 130
    # From the thread, or where the signal came between two calls from the program itself.
    assert (
        told.strip().removeprefix("launch.py: ")
        == "left at once; there is no checkpoint yet: --resume starts anew"
    )


def test_sigterm_in_a_slow_validation_saves_what_was_trained(tmp_path):
    process = start_toy(tmp_path, "slow_scores")
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "Traceback" not in told
    saved = tmp_path / "checkpoints" / "latest" / "5"
    assert told.splitlines()[-1] == (
        f"launch.py: stopped after 0 of 3 epochs and a part; saved {saved}; --resume continues"
    )
    assert json.loads((saved / "progress" / "metadata").read_text())["epoch"] == 0


def test_a_batch_that_does_not_fit_is_told_with_one_that_does(tmp_path):
    result = subprocess.run(
        [*TOY_RUN.split(), tmp_path, "large"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    fits = re.fullmatch(
        "launch.py: --batch_size=8 does not fit into the memory of 1 x cpu, --batch_size=([124]) "
        r"does \(tried\); start anew in another --workdir",
        last,
    )
    assert fits, result.stderr


HOLD = """
import sys, time
from pathlib import Path
from common.claim import claim

with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_the_second_process_in_a_folder_is_refused_until_the_first_has_died(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    used = f"--workdir={folder} is in use by process {process.pid} on .*: wait until that has"
    with pytest.raises(InputError, match=used), claim(folder):
        raise AssertionError("two processes hold the folder")
    process.kill()
    process.communicate()
    with claim(folder):
        pass
    assert (folder / "lock").exists()


def test_a_mistake_after_the_claim_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError), claim(tmp_path / "runs" / "one"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with claim(tmp_path / "kept" / "one"):
        (tmp_path / "kept" / "one" / "config.json").touch()
    assert sorted(p.name for p in (tmp_path / "kept" / "one").iterdir()) == ["config.json", "lock"]
