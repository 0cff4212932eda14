"""Which side is called how often; how long it takes is not looked at."""

from benchmarks.timing import time_sides


def make_sides(names, calls):
    def side(name):
        calls[name] = calls.get(name, 0) + 1

    return {name: (lambda name=name: side(name)) for name in names}


def test_every_side_is_called_in_every_round():
    calls = {}
    found = time_sides(make_sides("ab", calls), rounds=3, round_seconds=0.0)
    assert set(found) == {"a", "b"} and min(found.values()) > 0
    assert calls == {"a": 5, "b": 5}


def test_a_slow_side_is_called_once():
    calls = {}
    found = time_sides(make_sides("ab", calls), rounds=3, slow_seconds=0.0)
    assert set(found) == {"a", "b"} and calls == {"a": 1, "b": 1}
