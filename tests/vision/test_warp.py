"""The affine warp against scipy.ndimage, its random matrices against Keras's definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from vision import warp

SCIPY_MODE = {
    "nearest": "nearest",
    "constant": "constant",
    "reflect": "reflect",
    "wrap": "grid-wrap",
}
SHAPES = [(32, 32, 3), (9, 14, 1)]


def keras_affine(image, mode, theta=0.0, tx=0.0, ty=0.0, shear=0.0, zx=1.0, zy=1.0):
    """What Keras documents: rotation, shift, shear and zoom about the centre, by scipy."""
    height, width, _ = image.shape
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    rotation = [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    shift = [[1, 0, tx], [0, 1, ty], [0, 0, 1]]
    shearing = [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]
    zoom = np.diag([zx, zy, 1])
    to_centre = np.eye(3)
    to_centre[:2, 2] = height / 2 - 0.5, width / 2 - 0.5
    factors = [to_centre, rotation, shift, shearing, zoom, np.linalg.inv(to_centre)]
    matrix = functools.reduce(np.matmul, [np.asarray(factor) for factor in factors])
    return scipy_affine(image, matrix[:2, :2], matrix[:2, 2], mode)


def scipy_affine(image, linear, offset, mode):
    channels = [
        ndimage.affine_transform(channel, linear, offset, order=1, mode=mode)
        for channel in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    return np.stack(channels, -1)


def centre(shape):
    return (np.array(shape[:2]) - 1) / 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", warp.FILLS)
def test_any_matrix_equals_scipy(fill, shape):
    rng = np.random.default_rng(3)
    apply = jax.jit(functools.partial(warp.warp, fill=fill))
    for _ in range(20):
        image = rng.random(shape, dtype=np.float32)
        # Far outside too: reflect and wrap are to repeat many times.
        linear = rng.normal(size=(2, 2)) * rng.choice([0.5, 3.0])
        shift = rng.normal(size=2) * rng.choice([1.0, 30.0])
        offset = centre(shape) + shift - linear @ centre(shape)
        expected = scipy_affine(image, linear, offset, SCIPY_MODE[fill])
        matrix = jnp.asarray(np.column_stack([linear, shift]), jnp.float32)
        got = apply(jnp.asarray(image), matrix)
        keep = np.ones(shape[:2], bool)
        if fill == "constant":  # a step at the border: rounding decides on which side one is
            position = np.stack(np.mgrid[: shape[0], : shape[1]], -1) @ linear.T + offset
            border = np.stack([position, position - (np.array(shape[:2]) - 1)])
            keep = (np.abs(border) > 1e-3).all((0, -1))
            assert keep.mean() > 0.95
        np.testing.assert_allclose(got[keep], expected[keep], atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_matrices_compose_as_keras_does(shape):
    rng = np.random.default_rng(4)
    image = rng.random(shape, dtype=np.float32)
    size = shape[:2]
    for seed in range(10):
        keys = jax.random.split(jax.random.key(seed), 4)
        rotation = warp.rotate(keys[0], size, degrees=40.0)
        shift = warp.shift(keys[1], size, fraction=0.2)
        shear = warp.shear(keys[2], size, degrees=20.0)
        zoom = warp.zoom(keys[3], size, range=0.2)
        got = warp.warp(image, warp.compose([rotation, shift, shear, zoom]), "reflect")
        expected = keras_affine(
            image,
            "reflect",
            theta=np.rad2deg(np.arctan2(rotation[1, 0], rotation[0, 0])),
            tx=shift[0, 2],
            ty=shift[1, 2],
            shear=np.rad2deg(np.arctan2(-shear[0, 1], shear[1, 1])),
            zx=zoom[0, 0],
            zy=zoom[1, 1],
        )
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("fill", warp.FILLS)
def test_zero_ranges_change_nothing(fill):
    image = np.random.default_rng(5).random((31, 32, 3), dtype=np.float32)
    key = jax.random.key(1)
    matrix = warp.compose(
        [
            warp.rotate(key, (31, 32), degrees=0.0),
            warp.shift(key, (31, 32), fraction=0.0),
            warp.shear(key, (31, 32), degrees=0.0),
            warp.zoom(key, (31, 32), range=0.0),
        ]
    )
    np.testing.assert_array_equal(warp.warp(image, matrix, fill), image)


def test_quarter_turn_and_whole_shift_move_pixels_exactly():
    image = np.random.default_rng(6).random((8, 8, 2), dtype=np.float32)
    turn = jnp.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(warp.warp(image, turn), np.rot90(image, -1))
    # A positive shift reads further down and right, so the picture moves up and left.
    shift = jnp.array([[1.0, 0, 2], [0, 1, 3], [0, 0, 1]])
    moved = warp.warp(image, shift, "wrap")
    np.testing.assert_array_equal(moved, np.roll(image, (-2, -3), (0, 1)))


def draws(name, **limits):
    keys = jax.random.split(jax.random.key(7), 4000)
    return np.asarray(jax.vmap(lambda key: getattr(warp, name)(key, (20, 50), **limits))(keys))


def assert_uniform(values, limit):
    assert np.abs(values).max() <= limit * (1 + 1e-6)
    assert stats.kstest(values, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3


def test_ranges_are_uniform_and_axes_independent():
    rotation = draws("rotate", degrees=40.0)
    assert_uniform(np.rad2deg(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])), 40)
    shear = draws("shear", degrees=0.2)
    assert_uniform(np.rad2deg(np.arcsin(-shear[:, 0, 1].astype(np.float64))), 0.2)
    shift = draws("shift", fraction=0.2)
    zoom = draws("zoom", range=0.2)
    pairs = [
        (shift[:, 0, 2], 0.2 * 20, shift[:, 1, 2], 0.2 * 50),
        (zoom[:, 0, 0] - 1, 0.2, zoom[:, 1, 1] - 1, 0.2),
    ]
    for rows, row_limit, columns, column_limit in pairs:
        assert_uniform(rows, row_limit)
        assert_uniform(columns, column_limit)
        assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.06
