"""Views of an image: where they look, and the weighted mean of their logits."""

import jax.numpy as jnp
import numpy as np
import pytest

from vision.views import PLACES, average_logits, moved

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 3)), jnp.float32)


@pytest.mark.parametrize("pixels", [-2, -1, 0, 1, 2])
def test_moved_images_are_mirrored_at_the_border(pixels):
    found = np.asarray(moved(IMAGES, pixels))
    for row in range(5):
        for column in range(6):
            r, c = abs(row - pixels), abs(column - pixels)
            r, c = min(r, 8 - r), min(c, 10 - c)
            np.testing.assert_array_equal(found[:, row, column], IMAGES[:, r, c])


def test_logits_of_six_views_by_hand():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(5 * 6 * 3, 4)), jnp.float32)

    def logits(images):
        return jnp.tanh(images.reshape(len(images), -1) @ weights)

    both = [(logits(v) + logits(v[:, :, ::-1])) / 2 for v in (moved(IMAGES, p) for p in (0, -1, 1))]
    expected = both[0] / 2 + both[1] / 4 + both[2] / 4
    np.testing.assert_allclose(average_logits(logits, IMAGES, "shift"), expected, rtol=1e-5)
    np.testing.assert_allclose(average_logits(logits, IMAGES, "flip"), both[0], rtol=1e-5)
    np.testing.assert_array_equal(average_logits(logits, IMAGES, "none"), logits(IMAGES))


@pytest.mark.parametrize("tta", PLACES)
def test_weights_sum_to_one(tta):
    assert sum(weight for weight, _ in PLACES[tta]) == (tta != "none")
