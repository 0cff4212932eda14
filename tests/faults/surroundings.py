"""Processes in surroundings of their own: mounts that nobody else sees, a toy run, its end."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY_RUN = f"{sys.executable} -m tests.faults.toy_run"
# A name space where anyone may mount; some systems do not allow it.
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
)
needs_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="this system forbids mounts")


def run_mounted(script: str) -> subprocess.CompletedProcess:
    """Run a shell script in which `mount` changes what its own processes see."""
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def start_toy(folder: Path, what: str) -> subprocess.Popen:
    """A toy run, waited for until its long computation has begun."""
    process = subprocess.Popen(
        [*TOY_RUN.split(), str(folder), what],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "computing\n":
            return process
    raise AssertionError("it ended before")
