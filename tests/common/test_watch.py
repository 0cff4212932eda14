"""Processes that fail alike, a moment apart, end with their own words; of one that dies is told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A process of two: index, port file, seconds until it ends, and how.
SCRIPT = """
import os, sys, time
from pathlib import Path
from common import watch

index, place, seconds, how = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4]

def from_first(find):
    if index == 0:
        found = find()
        place.with_suffix(".new").write_text(str(found[1]))
        place.with_suffix(".new").rename(place)
        return found
    while not place.exists():
        time.sleep(0.01)
    return ["127.0.0.1", int(place.read_text())]

links = watch.Watch(index == 0, 2, "127.0.0.1", from_first)
place.with_suffix(f".{index}").write_text("")
while not all(place.with_suffix(f".{i}").exists() for i in (0, 1)):
    time.sleep(0.01)
time.sleep(seconds)
if how == "dies":
    os._exit(9)
print("its own words", file=sys.stderr, flush=True)
links.leave(2)
"""


def two_processes(folder, *ways):
    """Status and stderr of each, after (seconds, how it ends)."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(index), str(folder / "port"), *map(str, way)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, way in enumerate(ways)
    ]
    return [(process.communicate(timeout=60)[1], process.returncode) for process in started]


@pytest.mark.parametrize("first, second", [(0.0, 0.3), (0.3, 0.0)])
def test_both_that_fail_alike_have_their_own_words(tmp_path, first, second):
    ends = two_processes(tmp_path, (first, "fails"), (second, "fails"))
    assert ends == [("its own words\n", 2)] * 2


@pytest.mark.parametrize("dies", [0, 1])
def test_of_one_that_dies_is_told_at_once(tmp_path, dies):
    ways = [(30.0, "fails"), (30.0, "fails")]
    ways[dies] = (0.0, "dies")
    began = time.monotonic()
    ends = two_processes(tmp_path, *ways)
    assert ends[dies] == ("", 9) and time.monotonic() - began < 20
    told, status = ends[1 - dies]
    assert status == 1 and told.startswith("launch.py: another process of this run has ended:")
