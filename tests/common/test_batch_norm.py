"""Batch normalisation equals flax's, in value, statistics and gradients."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from common.batch_norm import BatchNorm, identity, normalise

ACTIVATIONS = {"identity": identity, "relu": nn.relu, "gelu": nn.gelu}


def make(shape=(6, 4, 5, 3)):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1.0, 2.0, size=shape), jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=shape[-1]), jnp.float32) for _ in range(2))
    return x, scale, bias


def variables(scale, bias):
    size = scale.shape
    statistics = {"mean": jnp.full(size, 0.3), "var": jnp.full(size, 2.0)}
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("train", [True, False])
def test_equals_flax(name, train):
    x, scale, bias = make()
    ours = BatchNorm(activation=ACTIVATIONS[name])
    flax = nn.BatchNorm(use_running_average=not train, momentum=0.9)

    def by_ours(x, scale, bias):
        return ours.apply(variables(scale, bias), x, train, mutable=["batch_stats"])

    def by_flax(x, scale, bias):
        y, changed = flax.apply(variables(scale, bias), x, mutable=["batch_stats"])
        return ACTIVATIONS[name](y), changed

    def value_and_gradients(apply):
        y, pull, changed = jax.vjp(apply, x, scale, bias, has_aux=True)
        return y, changed, pull(jnp.cos(jnp.arange(y.size)).reshape(y.shape))

    got, expected = value_and_gradients(by_ours), value_and_gradients(by_flax)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_are_the_derivatives():
    x, scale, bias = make((3, 2, 2, 2))
    check_grads(lambda *a: normalise(*a, nn.gelu, 1e-5, None)[0], (x, scale, bias), 1, ["rev"])


def test_bfloat16_keeps_its_type_and_float32_statistics():
    x, scale, bias = make()
    y, mean, variance = normalise(x.astype(jnp.bfloat16), scale, bias, nn.relu, 1e-5, None)
    wide = x.astype(jnp.bfloat16).astype(jnp.float32)
    assert y.dtype == jnp.bfloat16 and mean.dtype == variance.dtype == jnp.float32
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=1e-4)


def test_without_a_scale_there_is_none():
    x, _, bias = make()
    norm = BatchNorm(use_scale=False, activation=identity)
    found = norm.init(jax.random.key(0), x, True)
    assert set(found["params"]) == {"bias"}
    # The first call only makes the variables.
    np.testing.assert_array_equal(found["batch_stats"]["mean"], 0)


def test_a_batch_cut_over_devices_is_one_batch():
    count = jax.local_device_count()
    x, scale, bias = make((2 * count, 2, 2, 3))
    dy = jnp.cos(jnp.arange(x.size)).reshape(x.shape)

    def gradients(x, dy, axis_name):
        apply = partial(normalise, activation=nn.relu, epsilon=1e-5, axis_name=axis_name)
        y, pull = jax.vjp(lambda *a: apply(*a)[0], x, scale, bias)
        return y, *pull(dy)

    y, dx, ds, db = gradients(x, dy, None)
    cut = partial(jnp.reshape, shape=(count, 2, 2, 2, 3))
    parts = jax.pmap(partial(gradients, axis_name="devices"), axis_name="devices")(cut(x), cut(dy))
    for got, expected in zip(parts[:2], (y, dx), strict=True):
        np.testing.assert_allclose(got, cut(expected), rtol=1e-4, atol=1e-5)
    for got, expected in zip(parts[2:], (ds, db), strict=True):  # summed by the training step
        np.testing.assert_allclose(got.sum(0), expected, rtol=1e-4, atol=1e-4)
