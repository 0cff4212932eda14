"""Dropout: what it keeps, and that the same masks are drawn on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.layers import Dropout, dropped_bytes, example_keys, random_bytes
from common.parallel import local_devices

KEY = jax.random.key(5)
X = np.random.default_rng(0).normal(size=(16, 50, 8)).astype(np.float32) + 3


def drop(x, rate, key=KEY, axis_name=None):
    return Dropout(rate, axis_name).apply({}, x, train=True, rngs={"dropout": key})


def test_values_are_dropped_or_scaled_up():
    found = np.asarray(drop(X, 0.3))
    kept = found != 0
    np.testing.assert_allclose(found[kept], X[kept] / (1 - dropped_bytes(0.3) / 256), rtol=1e-6)
    # 6,400 draws: the share kept has a deviation of 0.006.
    assert abs(kept.mean() - 0.7) < 0.03
    assert all(0.5 < share < 0.9 for share in kept.mean(axis=(1, 2)))


def test_examples_and_keys_have_masks_of_their_own():
    found = np.asarray(drop(np.ones_like(X), 0.5))
    assert len({row.tobytes() for row in found}) == len(X)
    assert (found != drop(np.ones_like(X), 0.5, jax.random.key(6))).any()
    np.testing.assert_array_equal(found, drop(np.ones_like(X), 0.5))


def test_rates_are_256ths():
    assert [dropped_bytes(rate) for rate in (0.5, 0.1, 1e-6, 0.999)] == [128, 26, 1, 255]
    for rate in (0.01, 0.999):
        found = np.asarray(drop(np.ones((16, 100, 100), np.float32), rate))
        # 160,000 draws: the share dropped has a deviation of at most 0.0003.
        assert abs((found == 0).mean() - dropped_bytes(rate) / 256) < 0.002
        assert abs(found.mean() - 1) < 0.2


def test_every_byte_is_as_likely_in_every_place():
    drawn = np.asarray(random_bytes(KEY, (3, 5, 4097)))
    assert (drawn.shape, drawn.dtype) == ((3, 5, 4097), np.uint8)
    counts = np.bincount(drawn.reshape(-1), minlength=256)
    # 240 of each expected, with a deviation of 15.
    assert counts.min() > 150 and counts.max() < 330
    assert [random_bytes(KEY, shape).shape for shape in ((), (0,), (1,))] == [(), (0,), (1,)]
    # The bytes of a number lie a quarter of all apart.
    quarter = -(-drawn.size // 4)
    places = np.stack([drawn.reshape(-1)[n * quarter :][: quarter - 3] for n in range(4)], 1) / 255
    # 15,000 draws: a mean has a deviation of 0.0024, a correlation of 0.008.
    np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.015)
    np.testing.assert_allclose(np.corrcoef(places.T), np.eye(4), atol=0.05)


@pytest.mark.parametrize("rate, train", [(0.5, False), (0.0, True), (0.0, False)])
def test_nothing_is_dropped_and_no_key_needed(rate, train):
    assert Dropout(rate).apply({}, X, train=train) is X


def test_half_precision_stays_half():
    assert drop(jnp.asarray(X, jnp.bfloat16), 0.5).dtype == jnp.bfloat16


@pytest.mark.parametrize("count", [2, 8])
def test_several_devices_draw_the_masks_of_one(count):
    devices = local_devices(count)
    fn = devices.compile(lambda key, batch: drop(batch["x"], 0.4, key, devices.axis_name))
    found = devices.unshard(fn(devices.replicate(KEY), devices.shard({"x": X})))
    np.testing.assert_array_equal(found != 0, drop(X, 0.4) != 0)
    np.testing.assert_allclose(found, drop(X, 0.4), rtol=1e-6)


def test_keys_are_by_the_place_in_the_whole_batch():
    data = jax.random.key_data(example_keys(KEY, 8))
    expected = [jax.random.key_data(jax.random.fold_in(KEY, place)) for place in range(8)]
    np.testing.assert_array_equal(data, expected)
