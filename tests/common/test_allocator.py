"""Memory that was freed is used again."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import resource
import numpy as np
from common.allocator import keep_freed_memory

keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(2**17) for _ in range(64)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_is_not_mapped_again():
    # Huge pages, which numpy asks for, would hide the difference.
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment))
        for program in (PROGRAM, PROGRAM.replace("keep_freed_memory()\n", ""))
    )
    assert kept < 100 and given_back > 4_000  # of 16,384 pages
