"""Memory that was freed is used again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from common.allocator import keep_freed_memory

keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_is_not_mapped_again():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert int(found.stdout) < 100  # of 16,384 pages
