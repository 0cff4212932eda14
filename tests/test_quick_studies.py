"""Every study end to end at --budget=quick, one seed of an epoch: `make test-studies`.

Too long for `make test`, which trains one small study (tests/test_study.py).
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from text.studies import STUDIES as TEXT
from vision.studies import STUDIES as VISION

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.studies
@pytest.mark.parametrize("study", (*VISION, *TEXT), ids=lambda study: study.name)
def test_a_study_ends_with_a_row_for_every_arm(study, tmp_path):
    command = [sys.executable, "launch.py", f"--study={study.name}", "--seeds=1"]
    if not any("epochs" in arm for arm in study.arms.values()):
        command.append("--epochs=1")
    environment = os.environ | {"ATHANOR_CACHE": str(tmp_path / "cache")}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'study'}"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "study" / "study.csv").open(newline="") as file:
        arms = [row["arm"] for row in csv.DictReader(file)]
    left_out = set(study.budgets["quick"].without)
    left_out |= {name for name, arm in study.arms.items() if "{vectors}" in str(arm)}
    assert arms == [name for name in study.arms if name not in left_out]
    for name in ("study.md", "study.html", "curves.png", "bars.png"):
        assert (tmp_path / "study" / name).stat().st_size > 500
