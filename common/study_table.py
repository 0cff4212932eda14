"""The table of a study: a row per arm, each compared with the baseline arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from common.study import Run, Study, Task
from common.writer import parse_rows

# Samples of the bootstrap; the interval's ends then move by about a fiftieth of its length.
RESAMPLES = 2000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """What the truth is within, at 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """A finished run read back.

    Attributes:
        arm, seed: which.
        values: the numbers of its summary, and those of its last epoch.
        history: a row per epoch.
        counts: int [N, 3], gold, found and right of every test example by the study's metric;
            None if the metric has no such counts.
        machine: device, precision and jax.
    """

    arm: str
    seed: int
    values: dict[str, float]
    history: list[dict[str, Any]]
    counts: np.ndarray | None
    machine: str = ""


@dataclass(frozen=True)
class Comparison:
    """An arm less the baseline arm, over the seeds that both have.

    Attributes:
        n: those seeds.
        difference: mean of the differences.
        interval: of Student's t over the differences, what other seeds would give; None for one.
        p: of the paired t-test; None for one seed, or where the differences are all alike.
        bootstrap: over the test examples, what other examples would give; None without counts.
    """

    n: int
    difference: float
    interval: Interval | None
    p: float | None
    bootstrap: Interval | None


@dataclass(frozen=True)
class Row:
    """An arm. `deviation` is the sample's, None for one seed; the baseline has no comparison."""

    arm: str
    scores: dict[int, float]  # by seed
    mean: float
    deviation: float | None
    shown: dict[str, float]  # means of further metrics
    best_epoch: float
    seconds: float
    parameters: int
    reported: float | None
    comparison: Comparison | None


def read_result(run: Run, task: Task, metric: str) -> Result:
    """Read a finished run."""
    summary = run.read_summary()
    history = parse_rows((run.folder / "metrics.jsonl").read_text("utf-8", "replace"))
    values = {name: v for name, v in summary.items() if isinstance(v, int | float)}
    values |= _last_values(history)
    counts: dict[str, np.ndarray] = {}
    if (path := run.folder / "test_counts.npz").exists():
        with np.load(path) as file:
            counts = {name: file[name].astype(np.int64) for name in file}
        values |= task.derive(counts)
    compared = counts.get(metric.removeprefix("test/")) if metric.startswith("test/") else None
    machine = f"{summary['device']}, {summary['precision']}, jax {summary['jax']}"
    return Result(run.arm, run.seed, values, history, compared, machine)


def _last_values(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """final/NAME of the last epoch, and gap/NAME, its validation less its training score."""
    last = history[-1] if history else {}
    values = {f"final/{name}": value for name, value in last.items()}
    for name, value in last.items():
        split, _, metric = name.partition("/")
        if split == "train" and f"val/{metric}" in last:
            values[f"gap/{metric}"] = last[f"val/{metric}"] - value
    return values


def make_table(study: Study, results: Sequence[Result]) -> list[Row]:
    """A row for every arm that has a result, in the study's order.

    A run whose summary lacks the metric (as val/... without validation data) counts for nothing.
    """
    by_arm: dict[str, dict[int, Result]] = {}
    for result in results:
        if study.metric in result.values:
            by_arm.setdefault(result.arm, {})[result.seed] = result
    baseline = by_arm.get(study.baseline, {})
    return [
        _make_row(study, arm, by_arm[arm], None if arm == study.baseline else baseline)
        for arm in study.arms
        if arm in by_arm
    ]


def _make_row(
    study: Study, arm: str, runs: Mapping[int, Result], baseline: Mapping[int, Result] | None
) -> Row:
    scores = {seed: runs[seed].values[study.metric] for seed in sorted(runs)}

    def mean(name: str) -> float:
        found = [run.values[name] for run in runs.values() if name in run.values]
        return float(np.mean(found)) if found else float("nan")

    return Row(
        arm=arm,
        scores=scores,
        mean=float(np.mean(list(scores.values()))),
        deviation=float(np.std(list(scores.values()), ddof=1)) if len(scores) > 1 else None,
        shown={name: mean(name) for name in study.shown},
        best_epoch=mean("best_epoch"),
        seconds=mean("seconds"),
        parameters=round(mean("params")),
        reported=study.reported.get(arm),
        comparison=compare(runs, baseline, study.metric) if baseline else None,
    )


def compare(
    runs: Mapping[int, Result], baseline: Mapping[int, Result], metric: str
) -> Comparison | None:
    """An arm's runs less the baseline's of the same seeds; None if they share none."""
    seeds = sorted(set(runs) & set(baseline))
    if not seeds:
        return None
    pairs = [(runs[seed], baseline[seed]) for seed in seeds]
    differences = np.array([a.values[metric] - b.values[metric] for a, b in pairs])
    interval, p = paired_t(differences)
    counts = [(a.counts, b.counts) for a, b in pairs]
    shapes = {None if c is None else c.shape for pair in counts for c in pair}
    bootstrap = None
    if None not in shapes and len(shapes) == 1 and shapes != {(0, 3)}:
        ours, theirs = (np.stack([pair[side] for pair in counts]) for side in (0, 1))  # type: ignore[misc]
        bootstrap = bootstrap_interval(ours, theirs)
    return Comparison(len(seeds), float(differences.mean()), interval, p, bootstrap)


def paired_t(differences: np.ndarray) -> tuple[Interval | None, float | None]:
    """Student's interval of the mean of differences [n], and the p of its being 0.

    Both are None for n = 1; p is None where the differences are all alike, which leaves
    nothing to judge chance by.
    """
    from scipy import stats

    n = len(differences)
    if n < 2:
        return None, None
    error = differences.std(ddof=1) / np.sqrt(n)
    mean = differences.mean()
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    interval = Interval(float(mean - reach), float(mean + reach))
    if error <= 1e-12 * max(abs(mean), 1e-12):
        return interval, None
    return interval, float(2 * stats.t.sf(abs(mean / error), n - 1))


def bootstrap_interval(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """The paired percentile bootstrap, over test examples, of a difference of mean F1.

    Every sample draws N of the N examples with replacement, the same for all runs.

    Args:
        ours: int [S, N, 3], for each seed gold, found and right of each example.
        theirs: the same of the baseline's runs.

    Source: Efron and Tibshirani 1993; for F1 Berg-Kirkpatrick et al. 2012, EMNLP.
    """
    seeds, size, _ = ours.shape
    flat = np.concatenate([ours, theirs]).transpose(1, 0, 2).reshape(size, -1).astype(np.float64)
    rng, differences = np.random.default_rng(0), []
    block = max(1, 2_000_000 // size)  # draws in memory at a time
    for start in range(0, RESAMPLES, block):
        samples = min(block, RESAMPLES - start)
        drawn = rng.integers(size, size=(samples, size)) + size * np.arange(samples)[:, None]
        times = np.bincount(drawn.ravel(), minlength=samples * size).reshape(samples, size)
        gold, found, right = np.moveaxis((times @ flat).reshape(samples, 2 * seeds, 3), -1, 0)
        total = gold + found
        f1 = np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)
        differences.append(f1[:, :seeds].mean(axis=1) - f1[:, seeds:].mean(axis=1))
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    return Interval(*(float(end) for end in np.quantile(np.concatenate(differences), ends)))
