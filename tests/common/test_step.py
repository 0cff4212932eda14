"""The step: contract of sums and weights, one integration step, averages, keys, donation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.state import count_parameters
from common.step import make_train_step
from tests.toy import make_data, make_loss_fn, make_params, make_state

KEY = jax.random.key(7)


def make_batch(size=8, weight=None):
    batch = {name: jnp.array(rows[:size]) for name, rows in make_data().items()}
    return batch | {"weight": jnp.ones(size) if weight is None else jnp.array(weight)}


def test_gradient_is_divided_once_by_the_weight_of_the_batch():
    tx, batch = optax.sgd(0.5), make_batch(weight=[1, 0.5, 1, 2, 1, 1, 0, 1])
    step = jax.jit(make_train_step(make_loss_fn(), tx))
    state, sums = step(make_state(tx), batch, KEY)

    x, y, weight = (np.asarray(batch[name], np.float64) for name in ("x", "y", "weight"))
    kernel, bias = np.array([0.1, 0.2, -0.3]), 0.05
    error = x @ kernel + bias - y
    np.testing.assert_allclose(sums["weight"], 7.5)
    np.testing.assert_allclose(sums["loss"], (weight * error**2 / 2).sum(), rtol=1e-6)
    slope = (weight * error) @ x / 7.5
    np.testing.assert_allclose(state.params["dense"]["kernel"], kernel - 0.5 * slope, rtol=1e-5)
    expected = bias - 0.5 * (weight @ error) / 7.5
    np.testing.assert_allclose(state.params["dense"]["bias"], expected, rtol=1e-5)


def test_padding_rows_change_nothing():
    tx = optax.sgd(0.5)
    step = jax.jit(make_train_step(make_loss_fn(noise=0.5), tx))
    real, batch = make_batch(5), make_batch(8, weight=[1] * 5 + [0] * 3)
    batch["x"] = batch["x"].at[5:].set(99.0)
    state, sums = step(make_state(tx), real, KEY)
    padded, padded_sums = step(make_state(tx), batch, KEY)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(padded.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(sums["loss"], padded_sums["loss"], rtol=1e-6)


def test_one_step_moves_every_leaf_and_a_repeated_batch_is_learnt():
    tx = optax.adam(0.05)
    step = jax.jit(make_train_step(make_loss_fn(), tx, ema_decay=0.9))
    before = state = make_state(tx, ema=True)
    losses = []
    for _ in range(10):
        state, sums = step(state, make_batch(), KEY)
        losses.append(float(sums["loss"]))
        if len(losses) == 1:
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
                assert (np.asarray(a) != np.asarray(b)).all()
    assert int(state.step) == 10
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


def test_moving_average_of_weights_and_statistics():
    tx, decay = optax.sgd(0.1), 0.75
    step = jax.jit(make_train_step(make_loss_fn(), tx, ema_decay=decay))
    state = make_state(tx, ema=True)
    average = {"params": state.params, "batch_stats": state.batch_stats}
    for _ in range(3):
        state, _ = step(state, make_batch(), KEY)
        now = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, now)
    for a, b in zip(jax.tree.leaves(average), jax.tree.leaves(state.ema), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert state.variables is state.ema


def test_without_average_a_model_is_scored_with_its_weights():
    state = make_state(optax.sgd(0.1))
    assert state.ema is None
    assert state.variables == {"params": state.params, "batch_stats": state.batch_stats}
    assert count_parameters(state.params) == 4


def test_random_numbers_are_a_function_of_key_and_step():
    tx = optax.sgd(0.0)
    step = jax.jit(make_train_step(make_loss_fn(noise=1.0), tx))
    state, batch = make_state(tx), make_batch()
    later, first = step(state, batch, KEY)
    _, again = step(state, batch, KEY)
    _, second = step(later, batch, KEY)
    _, other = step(state, batch, jax.random.key(8))
    assert first["loss"] == again["loss"]
    assert len({float(sums["loss"]) for sums in (first, second, other)}) == 3


@pytest.mark.parametrize("ema", [False, True])
def test_state_can_be_donated_whole(ema):
    """A buffer that stood in the state twice could not be given away."""
    tx = optax.sgd(0.1, momentum=0.9)
    step = make_train_step(make_loss_fn(), tx, ema_decay=0.9 * ema)
    state = jax.device_put(make_state(tx, ema=ema), jax.tree.leaves(make_params())[0].sharding)
    after, _ = jax.jit(step, donate_argnums=0)(state, make_batch(), KEY)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert np.isfinite(after.params["dense"]["kernel"]).all()
