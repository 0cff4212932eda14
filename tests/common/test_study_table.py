"""The numbers of a study's table, against hand counts, scipy and a slow loop."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from common.study import Run
from common.study_table import (
    RESAMPLES,
    Interval,
    bootstrap_interval,
    compare,
    make_table,
    paired_t,
    read_result,
)
from tests.common.study_cases import STUDY, TASK, make_result, make_results


def test_a_table_counted_by_hand():
    half, one, two = make_table(STUDY, make_results())
    assert (half.arm, one.arm, two.arm) == tuple(STUDY.arms)
    assert half.scores == {0: 0.5, 1: 0.52, 2: 0.48}
    assert half.mean == pytest.approx(0.5) and half.deviation == pytest.approx(0.02)
    assert one.deviation == pytest.approx(0.03) and two.deviation is None
    assert one.shown == {"test/loss": pytest.approx(0.4)}
    assert (one.best_epoch, one.seconds, one.parameters) == (2, 31, 1234)
    assert (half.reported, one.reported, two.reported) == (0.55, 0.6, None)
    assert half.comparison is None and one.comparison.difference == pytest.approx(0.1)
    assert (one.comparison.n, two.comparison.n) == (3, 1)
    # Only seed 0 is shared, and of that one the difference is taken, not that of the means.
    assert two.comparison.difference == pytest.approx(-0.1)
    assert (two.comparison.interval, two.comparison.p) == (None, None)
    assert two.comparison.bootstrap is not None


def test_a_finished_run_is_read_back_with_what_its_task_derives(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        'damaged\n{"epoch": 1, "step": 9, "train/accuracy": 0.9, "val/accuracy": 0.7}\n'
    )
    summary = {"test/accuracy": 0.6, "device": "cpu", "precision": "float32", "jax": "1"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    counts = np.array([[1, 1, 1], [1, 1, 0]], np.int32)
    np.savez(tmp_path / "test_counts.npz", accuracy=counts)
    task = replace(TASK, derive=lambda counts: {"right": int(counts["accuracy"][:, 2].sum())})
    run = Run("half", 0, {}, 2, tmp_path)
    result = read_result(run, task, "test/accuracy")
    assert result.values == {
        "test/accuracy": 0.6, "right": 1, "final/train/accuracy": 0.9, "final/val/accuracy": 0.7,
        "gap/accuracy": pytest.approx(-0.2), "final/epoch": 1, "final/step": 9,
    }  # fmt: skip
    np.testing.assert_array_equal(result.counts, counts)
    assert read_result(run, task, "test/loss").counts is None


def test_paired_t_is_scipys():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 6)) + [[0.8], [0.0]]
    interval, p = paired_t(ours - theirs)
    expected = stats.ttest_rel(ours, theirs)
    assert p == pytest.approx(expected.pvalue)
    assert interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert paired_t(np.array([0.1])) == (None, None)
    interval, p = paired_t(np.array([0.25, 0.25, 0.25]))
    assert interval == Interval(0.25, 0.25) and p is None


def test_bootstrap_by_a_slow_loop():
    rng = np.random.default_rng(1)
    gold, found = rng.integers(0, 4, (2, 2, 2, 12))  # [arm, seed, example] each
    right = np.minimum(gold, found) * (rng.random((2, 2, 12)) < 0.7)
    ours, theirs = np.stack([gold, found, right], axis=-1)
    draws = np.random.default_rng(0).integers(12, size=(RESAMPLES, 12))

    def f1(runs, rows):
        totals = [run[rows].sum(axis=0) for run in runs]
        return np.mean([2 * r / (g + f) if g + f else 0.0 for g, f, r in totals])

    differences = [f1(ours, rows) - f1(theirs, rows) for rows in draws]
    expected = np.quantile(differences, [0.025, 0.975])
    assert bootstrap_interval(ours, theirs) == pytest.approx(tuple(expected))
    assert bootstrap_interval(ours, ours) == Interval(0, 0)


def test_bootstrap_of_accuracy_is_about_the_normal_one():
    """Of independent hits, the deviation of a difference is known."""
    rng = np.random.default_rng(2)
    hits = rng.random((2, 1, 4000)) < [[[0.8]], [[0.7]]]
    ours, theirs = (np.stack([np.ones_like(h), np.ones_like(h), h], axis=-1) * 1 for h in hits)
    low, high = bootstrap_interval(ours, theirs)
    half = 1.96 * np.sqrt((0.8 * 0.2 + 0.7 * 0.3) / 4000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (low + high) / 2 == pytest.approx(hits[0].mean() - hits[1].mean(), abs=0.001)


def test_what_cannot_be_compared():
    counts = np.ones((5, 3), np.int64)
    a = {0: make_result("a", 0, 0.5, counts=counts)}
    b = {0: make_result("b", 0, 0.6, counts=counts[:4])}
    assert compare(a, b, "test/accuracy").bootstrap is None  # not the same examples
    assert compare(a, {0: make_result("b", 0, 0.6)}, "test/accuracy").bootstrap is None
    assert compare(a, {1: b[0]}, "test/accuracy") is None
    # A run without the metric counts for nothing.
    result = make_result("half", 0, 0.5)
    del result.values["test/accuracy"]
    assert make_table(STUDY, [result]) == []
