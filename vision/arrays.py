"""Images and labels in memory: hash, channel statistics and the stratified split."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Of a data set without a test split; fixed, so that runs of any --seed share the test images.
TEST_FRACTION, TEST_SEED = 0.2, 0


class Split(NamedTuple):
    """Images and their labels."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]


class Arrays(NamedTuple):
    """A data set as its files hold it, before a validation part is taken from `train`."""

    train: Split
    test: Split
    classes: tuple[str, ...]


class Source(NamedTuple):
    """A place that holds a data set: found cheaply, read only where the cache lacks it."""

    place: str  # for people
    files: tuple[Path, ...]  # a change of name, size or time of one makes the cache stale
    read: Callable[[], Arrays]


def fingerprint(arrays: Arrays) -> str:
    """The first 16 hex digits of a SHA-256 over shapes, pixels and labels of both splits."""
    digest = hashlib.sha256()
    for images, labels in (arrays.train, arrays.test):
        digest.update(repr((images.shape, labels.shape)).encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels, dtype="<i4").data)
    return digest.hexdigest()[:16]


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of images / 255.

    They are exact: 256 counts per channel hold every pixel, and the sums over the counts
    are in float64. A channel that never varies gets deviation 1, so dividing by it is safe.

    Args:
        images: uint8 [N, H, W, C], N at least 1.

    Returns:
        mean and std, float32 [C] each.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 1024):  # bincount widens to int64: small blocks
        block = images[start : start + 1024]
        for channel in range(channels):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    std[std == 0] = 1
    return mean.astype(np.float32), std.astype(np.float32)


def stratified(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices kept and indices held out, with the same share of every class held out.

    Args:
        labels: int [N].
        fraction: share to hold out; a class of n rows gives round(fraction * n) of them.
        seed: chooses which rows, not how many.

    Returns:
        kept and held, int64 [N - M] and [M], each in ascending order.
    """
    # Ranks of uniform draws, not Generator.permutation: numpy may change the latter's method.
    draws = np.random.default_rng(seed).random(len(labels))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = round(fraction * len(rows))
        held[rows[np.argsort(draws[rows], kind="stable")[:count]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def take_test(whole: Split) -> tuple[Split, Split]:
    """Training and test split of a data set that comes as one; the same whatever the seed."""
    train, test = stratified(whole.labels, TEST_FRACTION, TEST_SEED)
    images, labels = whole
    return Split(images[train], labels[train]), Split(images[test], labels[test])
