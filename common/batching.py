"""Which rows of a data set make a batch; the arrays themselves stay on the device.

The rows of a batch (made on the host, a few kilobytes):

    index   int32   [B]  row in the split
    weight  float32 [B]  1, or 0 for padding
    epoch   int32   [B]  the epoch, counted from 0 (training only)

`gather` turns them, on the device, into a batch: the same keys and `data[key][index]`
for each array of the split.
"""

from collections.abc import Iterator

import numpy as np
from jax import Array

from common.errors import InputError

Rows = dict[str, np.ndarray]


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Whole batches in `size` examples; those left over come in another epoch's order."""
    if batch_size > size:
        raise InputError(
            f"--batch_size={batch_size} is larger than the {size} training examples: give a "
            "smaller one"
        )
    return size // batch_size


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch, int32 [size]: a function of (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)


def epoch_batches(seed: int, epoch: int, size: int, batch_size: int) -> list[Rows]:
    """The rows of every batch of an epoch: whole batches of its order."""
    order = epoch_order(seed, epoch, size)
    steps = steps_per_epoch(size, batch_size)
    return [train_rows(index, epoch) for index in order[: steps * batch_size].reshape(steps, -1)]


def train_rows(index: np.ndarray, epoch: int) -> Rows:
    """Rows of a batch of the examples `index`, int32 [B], in which every example counts."""
    return {
        "index": index,
        "weight": np.ones(len(index), np.float32),
        "epoch": np.full(len(index), epoch, np.int32),
    }


def padded_rows(size: int, batch_size: int) -> Iterator[Rows]:
    """Every row once, in order; the last batch is padded with row 0 at weight 0."""
    for start in range(0, size, batch_size):
        index = np.arange(start, start + batch_size, dtype=np.int32)
        real = index < size
        yield {"index": np.where(real, index, 0), "weight": real.astype(np.float32)}


def gather(data: dict[str, Array], rows: dict[str, Array]) -> dict[str, Array]:
    """The batch of `rows`, on the device."""
    return rows | {name: array[rows["index"]] for name, array in data.items()}
