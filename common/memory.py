"""A batch that fits into memory is found by trying, where a larger one did not."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from common.batching import Rows
from common.parallel import Devices
from common.state import TrainState
from common.writer import warn


def advise_batch(
    step: Callable[[TrainState, Rows], Any],
    batches: Sequence[Rows],
    like: TrainState,
    devices: Devices,
) -> str:
    """What to say where a step did not fit: a half, a quarter, ... of its batch is tried.

    Args:
        step: trains on these rows; the state is on the devices and donated.
        batches: the rows of an epoch.
        like: the state's shapes and types.
        devices: of the run; their number divides a batch.
    """
    rows = max(batches, key=lambda rows: sum(array.size for array in rows.values()))
    whole = size = len(rows["index"])
    warn(f"out of memory with --batch_size={size}: looking for one that fits")
    remedy = "no smaller one does: use a smaller model"
    while size := size // 2 // devices.count * devices.count:
        state = devices.replicate(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
        try:
            jax.block_until_ready(step(state, {name: rows[name][:size] for name in rows}))
        except (MemoryError, RuntimeError):  # a library within XLA may say only that it failed
            continue
        remedy = f"--batch_size={size} does (tried)"
        break
    return (
        f"--batch_size={whole} does not fit into the memory of {devices.describe()}, {remedy}; "
        "start anew in another --workdir"
    )
