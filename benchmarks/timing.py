"""Times several sides of one question in turn, so that what disturbs the machine meets all.

All sides share a process, and with it `prepare_host`'s allocator.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping

ROUND_SECONDS = 0.1  # at least this long is a side called in one round


def time_sides(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    round_seconds: float = ROUND_SECONDS,
    slow_seconds: float = math.inf,
) -> dict[str, float]:
    """The median seconds of a call of each side, over interleaved rounds.

    Args:
        sides: each a function that returns when its work is done; called twice beforehand, to
            compile and to see how often it goes into a round.
        rounds: in each of which every side has its turn.
        round_seconds: at least this long is a side called in one round.
        slow_seconds: a side whose first call takes longer is not called again, and that call
            is its time; so whoever limits this has called every side already.
    """
    calls = {}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        first = _seconds(side, 1)
        if first > slow_seconds:
            found[name].append(first)
        else:
            calls[name] = max(1, round(round_seconds / _seconds(side, 1)))
    for _ in range(rounds):
        for name in calls:
            found[name].append(_seconds(sides[name], calls[name]))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _seconds(side: Callable[[], object], calls: int) -> float:
    """Seconds of one of so many calls."""
    start = time.perf_counter()
    for _ in range(calls):
        side()
    return (time.perf_counter() - start) / calls
