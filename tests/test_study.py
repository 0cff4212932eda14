"""Real studies by the command line: killed in the middle of a run and continued, same table; and
light runs together, the same as alone."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.compiling import XLA_FLAGS

ROOT = Path(__file__).resolve().parents[1]
YAML = """
question: Does a higher learning rate learn more in one epoch?
task: cifar
base: {model: cnn_b, width: 0.125, dataset: digits, augment: none, batch_size: 16, epochs: 2}
arms:
  low: {learning_rate: 1e-4, schedule: constant}
  high: {learning_rate: 3e-3, schedule: constant}
"""
TAGGER = {
    "config": "report_b_bilstm", "hidden_size": 4, "max_length": 8, "train_fraction": 0.3,
    "dropout": 0.1, "epochs": 2,
}  # fmt: skip


@pytest.fixture
def launch(tmp_path):
    """Begin `launch.py` with these flags; all share compiled code."""
    environment = os.environ | {
        "ATHANOR_CACHE": str(tmp_path / "cache"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"),
        "XLA_FLAGS": XLA_FLAGS,  # one device
    }

    def launch(folder, *flags):
        return subprocess.Popen(
            [sys.executable, "launch.py", f"--workdir={tmp_path / folder}", *flags],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return launch


def read_rows(folder):
    with (folder / "study.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_killed_study_ends_as_if_nothing_had_happened(tmp_path, launch):
    (tmp_path / "mine.yaml").write_text(YAML)
    flags = f"--study={tmp_path / 'mine.yaml'}", "--seeds=1"
    whole = launch("whole", *flags)
    told, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, told

    killed = launch("killed", *flags)
    begun = tmp_path / "killed" / "runs" / "high" / "seed0" / "checkpoints" / "best"
    deadline = time.monotonic() + 600
    while not begun.is_dir():
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=100)
    before = (tmp_path / "killed" / "runs" / "low" / "seed0" / "summary.json").stat().st_mtime_ns

    again = launch("killed", *flags)
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


def read_scores(run):
    """All that a run logged and found, but for times and paths."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows.append(json.loads((run / "summary.json").read_text()))
    unequal = {"examples_per_second", "sentences_per_second", "seconds", "command"}
    return [{k: v for k, v in row.items() if k not in unequal} for row in rows]


def test_light_runs_together_are_the_same_as_alone(tmp_path, launch):
    text = {"question": "Do seeds differ?", "task": "aspect", "base": TAGGER, "arms": {"one": {}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(text))  # JSON is YAML too
    study = launch("study", f"--study={tmp_path / 'mine.yaml'}", "--seeds=2")
    told, _ = study.communicate(timeout=600)
    assert study.returncode == 0 and "train at a time (--jobs=1: one by one)" in told, told
    # One program for one shape of batches: the second seed has another vocabulary, but found it.
    assert len(list((tmp_path / "jax").glob("jit_train_step-*-cache"))) == 1

    flags = [f"--{name}={value}" for name, value in TAGGER.items()]
    alone = launch("alone", "--task=aspect", "--seed=1", *flags)
    told, _ = alone.communicate(timeout=600)
    assert alone.returncode == 0, told
    runs = tmp_path / "study" / "runs" / "one"
    assert read_scores(runs / "seed1") == read_scores(tmp_path / "alone")
    words = [
        len(json.loads((runs / seed / "inputs.json").read_text())["words"])
        for seed in ("seed0", "seed1")
    ]
    assert words[0] != words[1]
