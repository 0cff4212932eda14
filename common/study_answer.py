"""The answer of a study in a few sentences, computed from its table and nothing else."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.study import Study
from common.study_table import Comparison, Interval, Row, paired_t

SIGNIFICANT = 0.05
LOWER_IS_BETTER = ("loss", "ece")


def answer(study: Study, rows: Sequence[Row], metrics: Mapping[str, str]) -> str:
    """What the table says: the best arm, what is beyond chance, and whether the report agrees.

    Args:
        study: the study.
        rows: its table, not empty.
        metrics: the words for every metric.
    """
    words = metrics[study.metric]
    best = _order(study, rows)[0]
    score = f"{format_score(best)}{_over(best)}"
    if len(rows) == 1:
        article = "an" if words[0] in "aeiou" else "a"
        told = [f"{best.arm} has {article} {words} of {score}."]
    elif all(_are_alike(row, best) for row in rows):
        return f"All arms have the same {words}, {score}."
    else:
        above = ""
        if found := best.comparison:
            some = found.n < len(best.scores)
            shared = f"; over the {found.n} of them that both have, " if some else ": "
            above = f"{shared}{_describe(found, study.baseline)}"
        told = [f"{best.arm} has the best {words}, {score}{above}."]
    told += _others(study, [row for row in rows if row is not best])
    told += _agreement(study, rows)
    return " ".join(told)


def _are_alike(row: Row, other: Row) -> bool:
    """Whether every seed gave both the same score, to the four digits that are shown."""
    shown = [{seed: f"{score:.4f}" for seed, score in r.scores.items()} for r in (row, other)]
    return shown[0] == shown[1]


def _order(study: Study, rows: Sequence[Row]) -> list[Row]:
    """The rows from the best to the worst."""
    return sorted(rows, key=lambda row: row.mean, reverse=not _lower_is_better(study))


def _lower_is_better(study: Study) -> bool:
    return study.metric.endswith(LOWER_IS_BETTER)


def _over(row: Row) -> str:
    return f" over {len(row.scores)} seeds" if len(row.scores) > 1 else " with a single seed"


def _describe(found: Comparison, baseline: str) -> str:
    """A difference to the baseline, and whether chance would do it."""
    side = "above" if found.difference > 0 else "below"
    difference = f"{abs(found.difference):.4f} {side} {baseline}"
    if found.interval is None:
        return f"{difference}, which one seed cannot tell from chance"
    if found.p is None:
        return f"{difference} with every seed alike"
    verdict = "beyond chance" if is_significant(found) else "which chance alone could do"
    interval = f"95 % interval over seeds {format_interval(found.interval)}"
    return f"{difference} ({interval}, {format_p(found.p)}), {verdict}"


def _others(study: Study, rows: Sequence[Row]) -> list[str]:
    """A sentence on the arms that differ from the baseline, and one on those that may not."""
    named: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for row in rows:
        if found := row.comparison:
            verdict = None if found.interval is None else is_significant(found)
            named[verdict].append(f"{row.arm} ({found.difference:+.4f})")
    told = []
    if named[True]:
        told.append(f"Different from {study.baseline} beyond chance: {', '.join(named[True])}.")
    if named[False]:
        told.append(f"Not told apart from {study.baseline}: {', '.join(named[False])}.")
    if named[None]:
        told.append(
            f"Against {study.baseline}, with one seed and so without a test: "
            f"{', '.join(named[None])}."
        )
    return told


def is_significant(found: Comparison) -> bool:
    """Whether chance over seeds makes such a difference less than once in twenty times."""
    return found.p is not None and found.p < SIGNIFICANT


def _agreement(study: Study, rows: Sequence[Row]) -> list[str]:
    """Whether the reported numbers stand in the order of ours."""
    reported = [row for row in rows if row.reported is not None]
    if len(reported) == 1:
        [row] = reported
        return [f"For {row.arm} the report gave {row.reported:.4g}."]
    if not reported:
        return []
    lower = _lower_is_better(study)
    theirs = sorted(reported, key=lambda row: row.reported or 0.0, reverse=not lower)
    ours = _order(study, reported)
    pairs = [(a, b) for i, a in enumerate(theirs) for b in theirs[i + 1 :]]
    pairs = [(a, b) for a, b in pairs if a.reported != b.reported]
    unclear = [(a, b) for a, b in pairs if _may_be_chance(a, b)]
    order = ", ".join(f"{row.arm} {row.reported:.4g}" for row in theirs)
    if any(_worse(a, b, lower) for a, b in pairs if (a, b) not in unclear):
        found = ", ".join(f"{row.arm} {row.mean:.4f}" for row in ours)
        return [f"The order of the report ({order}) is not reproduced: here it is {found}."]
    if unclear:
        alike = "; ".join(f"{a.arm} and {b.arm}" for a, b in unclear)
        return [f"Of the order of the report ({order}) these are not told apart here: {alike}."]
    return [f"The order of the report ({order}) is reproduced."]


def _may_be_chance(a: Row, b: Row) -> bool:
    """Whether chance over the seeds that two arms share could make their difference."""
    shared = sorted(a.scores.keys() & b.scores.keys())
    if len(shared) < 2:
        return False
    interval, _ = paired_t(np.array([a.scores[seed] - b.scores[seed] for seed in shared]))
    return interval is not None and interval.low <= 0 <= interval.high


def _worse(a: Row, b: Row, lower: bool) -> bool:
    return a.mean > b.mean if lower else a.mean < b.mean


def format_score(row: Row) -> str:
    """Mean and deviation."""
    return f"{row.mean:.4f}" + ("" if row.deviation is None else f" ± {row.deviation:.4f}")


def format_interval(interval: Interval | None) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}" if interval else ""


def format_p(p: float | None) -> str:
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
