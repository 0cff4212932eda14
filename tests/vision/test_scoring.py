import numpy as np
import pytest
from scipy.special import log_softmax

from vision import scoring

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 5)).astype(np.float32) * 3
LABELS = RNG.integers(0, 5, 200)


def test_cross_entropy_is_scipys():
    expected = -log_softmax(LOGITS.astype(np.float64), axis=1)[np.arange(200), LABELS]
    np.testing.assert_allclose(scoring.cross_entropy(LOGITS, LABELS), expected, rtol=1e-12)
    np.testing.assert_allclose(
        scoring.softmax(LOGITS), np.exp(log_softmax(LOGITS.astype(np.float64), axis=1)), rtol=1e-12
    )


def test_huge_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    assert scoring.cross_entropy(logits, np.array([0, 0])).tolist() == [0, 2e4]


def test_calibration_error_by_a_slow_loop():
    probabilities = scoring.softmax(LOGITS)
    total = 0.0
    for low in range(15):
        inside = [
            (p.max(), p.argmax() == y)
            for p, y in zip(probabilities, LABELS, strict=True)
            if low / 15 < p.max() <= (low + 1) / 15
        ]
        if inside:
            total += abs(np.mean([c for c, _ in inside]) - np.mean([r for _, r in inside])) * len(
                inside
            )
    assert scoring.calibration_error(probabilities, LABELS) == pytest.approx(total / 200)


def test_certain_and_right_is_calibrated():
    assert scoring.calibration_error(np.eye(3), np.arange(3)) == 0
    assert scoring.calibration_error(np.eye(3), np.array([1, 2, 0])) == 1


def test_confusion_and_per_class():
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    counts = scoring.confusion(predicted, labels, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    logits = np.eye(3, dtype=np.float32)[predicted]
    scores = scoring.full_score(logits, labels, ("a", "b", "c"))
    assert scores["test/per_class"] == {"a": 0.5, "b": pytest.approx(2 / 3), "c": None}
    assert scores["test/accuracy"] == pytest.approx(0.6)


def test_no_examples_have_no_score():
    assert scoring.score(np.zeros((0, 3)), np.zeros(0, int), "val") == {}
