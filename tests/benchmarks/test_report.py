"""What was timed is shown and kept as it is; nothing is timed here."""

import json

import pytest

from benchmarks.report import Row, save, show
from benchmarks.timing import time_sides

ROWS = [
    Row("one", {"athanor": 0.002, "peer": 0.005}),
    Row("two", {"athanor": 0.001}),
]


def test_ratios_say_how_much_longer_the_other_takes(capsys):
    assert ROWS[0].ratios() == {"peer": pytest.approx(2.5)} and ROWS[1].ratios() == {}
    show("question", ROWS)
    heads, one, two = capsys.readouterr().out.splitlines()[2:]
    assert heads.split("  ")[0].strip() == "case" and "peer / athanor" in heads
    assert one.split() == ["one", "2.50", "2.000", "5.000"]
    assert two.split() == ["two", "-", "1.000", "-"]


def test_results_are_kept_with_machine_and_versions(tmp_path):
    save(tmp_path / "new" / "bench.json", {"question": ROWS})
    found = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert found["questions"]["question"][0]["ratios"]["peer"] == pytest.approx(2.5)
    assert {"processor", "cores", "python", "jax"} <= set(found["machine"])


def test_every_side_is_called_in_every_round():
    calls = {"a": 0, "b": 0}

    def side(name):
        calls[name] += 1

    sides = {name: (lambda name=name: side(name)) for name in calls}
    found = time_sides(sides, rounds=3, round_seconds=0.0)
    assert set(found) == {"a", "b"} and min(found.values()) > 0
    assert calls == {"a": 5, "b": 5}
