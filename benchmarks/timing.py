"""Times several sides of one question in turn, so that what disturbs the machine meets all."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

Timer = Callable[[int], float]  # makes so many calls, and returns the seconds of one
ROUND_SECONDS = 0.1  # at least this long is a side called in one round


def time_sides(
    sides: Mapping[str, Timer],
    *,
    rounds: int,
    round_seconds: float = ROUND_SECONDS,
    slow_seconds: float = math.inf,
) -> dict[str, float]:
    """The median seconds of a call of each side, over interleaved rounds.

    Args:
        sides: a timer of each, called twice beforehand, to compile and to see how many calls go
            into a round.
        rounds: in each of which every side has its turn.
        round_seconds: at least this long is a side called in one round.
        slow_seconds: a side whose first call takes longer is not called again, and that call
            is its time: whoever limits this calls every side once before, if that may be slow.
    """
    calls = {}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        first = side(1)
        if first > slow_seconds:
            found[name].append(first)
        else:
            calls[name] = max(1, round(round_seconds / side(1)))
    for _ in range(rounds):
        for name in calls:
            found[name].append(sides[name](calls[name]))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def timer(call: Callable[[], object]) -> Timer:
    """The timer of a function that returns when its work is done."""
    return partial(seconds_of, call)


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """Seconds of one of so many calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
