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


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Whole batches in `size` examples; those left over come in another epoch's order."""
    if batch_size > size:
        raise InputError(
            f"--batch_size={batch_size} is larger than the {size} training examples: lower it"
        )
    return size // batch_size


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch, int32 [size]: a function of (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)


def train_rows(order: np.ndarray, batch: int, batch_size: int, epoch: int) -> dict[str, np.ndarray]:
    """Rows of the epoch's batch number `batch`."""
    index = order[batch * batch_size : (batch + 1) * batch_size]
    return {
        "index": index,
        "weight": np.ones(batch_size, np.float32),
        "epoch": np.full(batch_size, epoch, np.int32),
    }


def padded_rows(size: int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every row once, in order; the last batch is padded with row 0 at weight 0."""
    for start in range(0, size, batch_size):
        index = np.arange(start, start + batch_size, dtype=np.int32)
        real = index < size
        yield {"index": np.where(real, index, 0), "weight": real.astype(np.float32)}


def gather(data: dict[str, Array], rows: dict[str, Array]) -> dict[str, Array]:
    """The batch of `rows`, on the device."""
    return rows | {name: array[rows["index"]] for name, array in data.items()}
