"""A real study by the command line: killed in the middle of a run and continued, same table."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
YAML = """
question: Does a higher learning rate learn more in one epoch?
task: cifar
base: {model: cnn_b, width: 0.125, dataset: digits, augment: none, batch_size: 16, epochs: 2}
arms:
  low: {learning_rate: 1e-4, schedule: constant}
  high: {learning_rate: 3e-3, schedule: constant}
"""


@pytest.fixture
def launch(tmp_path):
    """Begin `launch.py --study=mine.yaml --seeds=1`; all share compiled code."""
    (tmp_path / "mine.yaml").write_text(YAML)
    environment = os.environ | {
        "ATHANOR_CACHE": str(tmp_path / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"),
    }
    environment.pop("XLA_FLAGS", None)

    def launch(folder):
        study, workdir = f"--study={tmp_path / 'mine.yaml'}", f"--workdir={tmp_path / folder}"
        return subprocess.Popen(
            [sys.executable, "launch.py", study, workdir, "--seeds=1"],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return launch


def read_rows(folder):
    with (folder / "study.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_killed_study_ends_as_if_nothing_had_happened(tmp_path, launch):
    whole = launch("whole")
    told, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, told

    killed = launch("killed")
    begun = tmp_path / "killed" / "runs" / "high" / "seed0" / "checkpoints" / "best"
    deadline = time.monotonic() + 600
    while not begun.is_dir():
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=100)
    before = (tmp_path / "killed" / "runs" / "low" / "seed0" / "summary.json").stat().st_mtime_ns

    again = launch("killed")
    told, _ = again.communicate(timeout=600)
    assert again.returncode == 0 and "Traceback" not in told, told
    assert "mine: Does a higher learning rate" in told and "1 of them finished before" in told
    runs = tmp_path / "killed" / "runs"
    assert (runs / "low" / "seed0" / "summary.json").stat().st_mtime_ns == before
    logs = {arm: (runs / arm / "seed0.log").read_text() for arm in ("low", "high")}
    assert logs["low"].count("$ ") == 1 and logs["high"].count("$ ") == 2
    assert "resuming " in logs["high"], "the run went on where it was"
    low, high = rows = read_rows(tmp_path / "killed")
    assert rows == read_rows(tmp_path / "whole")
    assert float(high["mean"]) > float(low["mean"]) and high["bootstrap_low"]
    assert (tmp_path / "killed" / "study.html").stat().st_size > 50_000
