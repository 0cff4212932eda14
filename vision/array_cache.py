"""Decoded data sets as .npy files in the user's cache folder; a bad cache is never fatal.

`common.host.cache_root` holds one folder for each data set and place it was read from:

    train_images.npy train_labels.npy test_images.npy test_labels.npy
    info.json                  identity of the source files, classes, fingerprint
    statistics-*.json          channel statistics of one train/validation split
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.host import cache_root
from vision.arrays import Arrays, Split, fingerprint

Log = Callable[[str], None]
Statistics = tuple[np.ndarray, np.ndarray]  # mean, std: float32 [C] each


def folder(name: str, place: str) -> Path:
    """Where the data set `name` read from `place` is cached; a later version replaces it."""
    key = hashlib.sha256(place.encode()).hexdigest()[:12]
    return cache_root() / f"{name}-{key}"


def read(cache: Path, identity: str, log: Log) -> tuple[Arrays, str] | None:
    """The cached arrays (memory-mapped) and their fingerprint; None if absent or stale.

    The pixels are hashed again, which costs a tenth of a second for CIFAR-10: a damaged
    cache must not train a model.
    """
    if not cache.is_dir():
        return None
    try:
        info = json.loads((cache / "info.json").read_text())
        if info["identity"] != identity:
            return None  # the source files have changed since
        parts = {
            part: np.lib.format.open_memmap(cache / f"{part}.npy", mode="r")  # no pickle, no zip
            for part in ("train_images", "train_labels", "test_images", "test_labels")
        }
        arrays = Arrays(
            Split(parts["train_images"], parts["train_labels"]),
            Split(parts["test_images"], parts["test_labels"]),
            tuple(info["classes"]),
        )
        if fingerprint(arrays) != info["fingerprint"]:
            raise ValueError("the pixels do not have the fingerprint noted beside them")
        return arrays, info["fingerprint"]
    except Exception as error:  # numpy raises nearly every kind for a damaged .npy
        log(f"cache {cache} is unusable and ignored: {error}")
        return None


def write(cache: Path, identity: str, arrays: Arrays, digest: str, log: Log) -> None:
    """Replace `cache` with these arrays in one rename; say so and go on where that fails."""
    scratch = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=cache.parent))
        for split_name, split in (("train", arrays.train), ("test", arrays.test)):
            np.save(scratch / f"{split_name}_images.npy", split.images, allow_pickle=False)
            np.save(scratch / f"{split_name}_labels.npy", split.labels, allow_pickle=False)
        info = {"identity": identity, "classes": arrays.classes, "fingerprint": digest}
        (scratch / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        if cache.exists():
            shutil.rmtree(cache)
        scratch.rename(cache)
    except OSError as error:
        log(f"cache {cache} cannot be written: {error}; set ATHANOR_CACHE to a writable folder")
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def read_statistics(cache: Path, split: str, digest: str) -> Statistics | None:
    """Mean and deviation noted for one split of the arrays with this fingerprint, or None."""
    try:
        noted = json.loads((cache / f"statistics-{split}.json").read_text())
        if noted["fingerprint"] != digest:
            return None
        mean, std = np.array(noted["mean"], np.float32), np.array(noted["std"], np.float32)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # computing them again takes less than a second
    usable = mean.ndim == 1 and mean.shape == std.shape and np.all(np.isfinite(mean))
    return (mean, std) if usable and np.all(std > 0) else None


def write_statistics(cache: Path, split: str, digest: str, statistics: Statistics) -> None:
    """Note the channel statistics of one split beside the arrays, if that is possible."""
    mean, std = (values.tolist() for values in statistics)
    text = json.dumps({"fingerprint": digest, "mean": mean, "std": std}, indent=2) + "\n"
    try:
        with tempfile.NamedTemporaryFile("w", dir=cache, suffix=".tmp", delete=False) as scratch:
            scratch.write(text)
        os.replace(scratch.name, cache / f"statistics-{split}.json")
    except OSError:
        pass  # no cache folder: `write` has said so
