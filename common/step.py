"""The training step of both tasks: a pure function, not yet compiled."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array

from common.state import TrainState

Sums = dict[str, Array]
Batch = dict[str, Array]
# (params, batch_stats, batch, key) -> (weighted sum of the losses, (batch_stats, sums))
LossFn = Callable[[Any, Any, Batch, Array], tuple[Array, tuple[Any, Sums]]]
TrainStep = Callable[[TrainState, Batch, Array], tuple[TrainState, Sums]]


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> TrainStep:
    """One update: (state, batch, key) -> (state, sums).

    The loss function returns the SUM of its examples' weighted losses, and sums with the
    entry "weight" among them. Sums and gradients are added over the devices of
    `axis_name` and divided once by the weight of the whole batch, so how a batch is cut
    over devices changes nothing.

    Args:
        loss_fn: see `LossFn`.
        tx: the optimiser; its updates are added to the parameters.
        ema_decay: of the moving average of weights and statistics; 0 is off.
        axis_name: the device axis under `pmap`, None on one device.
    """

    def step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(key, state.step)
        grad_fn = jax.grad(loss_fn, has_aux=True)
        grads, (batch_stats, sums) = grad_fn(state.params, state.batch_stats, batch, key)
        if axis_name is not None:
            grads, sums = jax.lax.psum((grads, sums), axis_name)
        grads = jax.tree.map(lambda g: g / sums["weight"], grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay:
            now = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(now, ema, 1.0 - ema_decay)
        state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
        return state, sums

    return step


def scan_steps(step: Callable[..., tuple[TrainState, Sums]]) -> Callable:
    """Several steps as one program, which the host need not attend to.

    Args:
        step: (state, data, rows, key) -> (state, sums).

    Returns:
        (state, data, rows, key) -> (state, sums), whose rows and sums have a first axis: the
        step.
    """

    def steps(state: TrainState, data: Any, rows: Batch, key: Array) -> tuple[TrainState, Sums]:
        return jax.lax.scan(lambda state, rows: step(state, data, rows, key), state, rows)

    return steps
