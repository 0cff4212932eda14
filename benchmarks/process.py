"""A measurement in a process of its own: nothing imported, compiled or allocated beforehand.

python -m benchmarks.process MODULE:FUNCTION '[ARGUMENTS]'     # what `call` runs
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# glibc's allocator and JAX count on what a user's shell says; a benchmark may add to it.
NO_CHANGES: Mapping[str, str] = {}


class Outcome(NamedTuple):
    """What a function returned in its own process, and what that process took."""

    value: Any
    peak: int  # bytes, of resident memory


def call(function: str, *arguments: Any, environment: Mapping[str, str] = NO_CHANGES) -> Outcome:
    """Call a function in a new Python process.

    Args:
        function: "module:name".
        arguments: of the function, and what it returns: anything that JSON can say.
        environment: variables set for that process.

    Raises:
        RuntimeError: the process failed; with the end of what it said.
    """
    command = ["-m", "benchmarks.process", function, json.dumps(arguments)]
    return Outcome(**json.loads(_run(command, environment, 0).stdout.splitlines()[-1]))


def time_python(
    arguments: Sequence[str], *, environment: Mapping[str, str] = NO_CHANGES, status: int = 0
) -> float:
    """Seconds from the start of `python ARGUMENTS` to its end, with this exit status."""
    start = time.perf_counter()
    _run(arguments, environment, status)
    return time.perf_counter() - start


def _run(
    arguments: Sequence[str], environment: Mapping[str, str], status: int
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != status:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{said}")
    return done


def peak_memory() -> int:
    """The largest resident memory that this process ever had, in bytes.

    getrusage would not do on Linux: its number outlives exec, so a child has at least the
    peak of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    function, arguments = sys.argv[1:]
    module, _, name = function.partition(":")
    value = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    print(json.dumps({"value": value, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
