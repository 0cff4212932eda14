"""Scores of a classifier from its logits, on the host."""

from typing import Any

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [N, K], of logits [N, K]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood in nats, float64 [N]."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1)
    log_total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return log_total - logits[np.arange(len(labels)), labels]


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599), in [0, 1].

    The mean gap between confidence and accuracy over `bins` equal intervals of
    confidence, each weighted by the examples in it.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.zeros(bins)
    np.add.at(gap, place, correct - confidence)
    return float(np.abs(gap).sum() / len(labels))


def confusion(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 [K, K]: row is the truth, column the prediction."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def score(logits: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, float]:
    """Loss and accuracy, named `prefix/loss` and `prefix/accuracy`; {} for no examples."""
    if not len(labels):
        return {}
    return {
        f"{prefix}/loss": float(cross_entropy(logits, labels).mean()),
        f"{prefix}/accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def tta_score(logits: np.ndarray, labels: np.ndarray, tta: str) -> dict[str, Any]:
    """`test_tta/loss` and `test_tta/accuracy`, beside the views that made them."""
    return score(logits, labels, "test_tta") | {"test_tta/views": tta}


def example_counts(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of every example one class to find, one found, and whether it is right: uint8 [N, 3]."""
    right = logits.argmax(axis=1) == labels
    ones = np.ones(len(labels), np.uint8)
    return np.stack([ones, ones, right.astype(np.uint8)], axis=1)


def full_score(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """`score` of the test split, with `test/ece` and the accuracy by class, `test/per_class`."""
    counts = confusion(logits.argmax(axis=1), labels, len(classes))
    seen = counts.sum(axis=1)
    per_class = {
        name: float(counts[k, k] / seen[k]) if seen[k] else None for k, name in enumerate(classes)
    }
    ece = calibration_error(softmax(logits), labels)
    return score(logits, labels, "test") | {"test/ece": ece, "test/per_class": per_class}
