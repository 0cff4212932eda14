"""The speedrun's network: white patches, first filters that pass on, a fixed first layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import gaussian_filter

from common.state import create_state
from common.step import make_train_step
from vision.airbench import AirBench, partial_identity, whiten, whitening_filters


def make_images(count=40):
    """Smooth noise of unequal channels, float32 [N, 12, 12, 3] of mean 0."""
    rng = np.random.default_rng(0)
    images = gaussian_filter(rng.normal(size=(count, 12, 12, 3)), (0, 1, 1, 0.5))
    images *= np.array([1.0, 2.0, 3.0]) / images.std()
    return jnp.asarray(images - images.mean((0, 1, 2)), jnp.float32)


def test_whitened_patches_are_white():
    images = make_images()
    filters = whitening_filters(images)
    assert filters.shape == (2, 2, 3, 12)
    white = jax.lax.conv_general_dilated(
        images, filters, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(-1, 12)
    covariance = white.T @ white / len(white)
    # The least variances are below the one that is added to them.
    diagonal = np.diag(covariance)
    np.testing.assert_allclose(covariance, np.diag(diagonal), atol=2e-3)
    np.testing.assert_allclose(diagonal[:6], 1.0, atol=2e-2)
    assert (np.diff(diagonal) < 1e-3).all()


def test_first_filters_pass_a_channel_on():
    kernel = partial_identity(jax.random.key(0), (3, 3, 4, 6))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(y[..., :4], x, atol=1e-6)
    assert 0.5 < np.abs(kernel[..., 4:]).max() * np.sqrt(36) <= 1  # uniform to 1 / sqrt(fan in)


def test_the_first_layer_is_of_the_images_and_is_not_trained():
    images = make_images(8)
    model = AirBench(3, channels=(4, 6, 6))
    variables = model.init(jax.random.key(0), images)
    tx = optax.sgd(0.1)
    state = whiten(create_state(dict(variables), tx, ema=True), lambda: images)
    filters = whitening_filters(images)
    for statistics in (state.batch_stats, state.ema["batch_stats"]):
        np.testing.assert_array_equal(statistics["whitening"], filters)

    def loss_fn(params, batch_stats, batch, key):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, changed = model.apply(variables, batch, train=True, mutable=["batch_stats"])
        return jnp.square(logits - 1).sum(), (changed["batch_stats"], {"weight": jnp.float32(8)})

    step = jax.jit(make_train_step(loss_fn, tx, ema_decay=0.9))
    after, _ = step(state, images, jax.random.key(0))
    np.testing.assert_array_equal(after.batch_stats["whitening"], filters)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    assert all(jax.tree.leaves(moved))
    np.testing.assert_allclose(after.ema["batch_stats"]["whitening"], filters, rtol=1e-6)


def test_other_models_have_nothing_to_whiten():
    state = create_state({"params": {"a": jnp.ones(2)}}, optax.sgd(0.1))
    assert whiten(state, lambda: pytest.fail("no sample is wanted")) is state
