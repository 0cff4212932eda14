"""Which side is called how often; how long it takes is not looked at."""

from benchmarks.timing import seconds_of, time_sides, timer


def make_sides(names, calls):
    def side(name):
        calls[name] = calls.get(name, 0) + 1

    return {name: timer(lambda name=name: side(name)) for name in names}


def test_every_side_is_called_in_every_round():
    calls = {}
    found = time_sides(make_sides("ab", calls), rounds=3, round_seconds=0.0)
    assert set(found) == {"a", "b"} and min(found.values()) > 0
    assert calls == {"a": 5, "b": 5}


def test_a_slow_side_is_called_once():
    calls = {}
    found = time_sides(make_sides("ab", calls), rounds=3, slow_seconds=0.0)
    assert set(found) == {"a", "b"} and calls == {"a": 1, "b": 1}


def test_the_seconds_are_those_of_one_call(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: next(clock))
    assert seconds_of(lambda: None, 3) == 2.0
