"""Affine warp of one image, and the random matrices of Keras's ImageDataGenerator.

A matrix [3, 3] takes an output position (row, column, 1), measured in pixels from the
image centre (H/2 - 1/2, W/2 - 1/2), to the input position that is read there. It is
thus the inverse of what happens to the picture: zoom 1.2 reads from further out, and
the picture shrinks. This is the convention of Keras and of scipy.ndimage.
"""

import functools

import jax
import jax.numpy as jnp

# Keras applies a fixed order, whatever order its arguments are written in.
ORDER = ("rotate", "shift", "shear", "zoom")

# The first is Keras's default.
FILLS = ("nearest", "constant", "reflect", "wrap")

# Each of the four draws a matrix [3, 3] for an image of shape (H, W).


def rotate(key: jax.Array, shape: tuple[int, int], *, degrees: float) -> jax.Array:
    """Rotate by an angle uniform in [-degrees, degrees]."""
    angle = jnp.deg2rad(_symmetric(key, degrees))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[cos, -sin, 0], [sin, cos, 0]])


def shift(key: jax.Array, shape: tuple[int, int], *, fraction: float) -> jax.Array:
    """Shift height and width, each by a uniform part of the size in [-fraction, fraction].

    The fraction is below 1: from there on Keras means pixels, and for whole numbers
    something else again, which is not offered.
    """
    down, right = jax.random.split(key)
    rows = _symmetric(down, fraction) * shape[0]
    columns = _symmetric(right, fraction) * shape[1]
    return _matrix([[1, 0, rows], [0, 1, columns]])


def shear(key: jax.Array, shape: tuple[int, int], *, degrees: float) -> jax.Array:
    """Shear by an angle uniform in [-degrees, degrees].

    The unit is Keras's. Report B wrote shear_range=0.2 and so sheared by at most 0.2
    degrees, which moves the border of a 32-pixel image by a twentieth of a pixel.
    """
    angle = jnp.deg2rad(_symmetric(key, degrees))
    return _matrix([[1, -jnp.sin(angle), 0], [0, jnp.cos(angle), 0]])


def zoom(key: jax.Array, shape: tuple[int, int], *, range: float) -> jax.Array:
    """Scale rows and columns, each by its own factor uniform in [1 - range, 1 + range]."""
    down, right = jax.random.split(key)
    return _matrix([[1 + _symmetric(down, range), 0, 0], [0, 1 + _symmetric(right, range), 0]])


def compose(matrices: list[jax.Array]) -> jax.Array:
    """Product [3, 3] of matrices [3, 3], the last one nearest to the output position."""
    # Full precision: half of it, an accelerator's default, moves pixels visibly.
    return functools.reduce(lambda a, b: jnp.matmul(a, b, precision="highest"), matrices)


def warp(image: jax.Array, matrix: jax.Array, fill: str = "nearest") -> jax.Array:
    """Read an image through an affine map, with bilinear interpolation.

    Args:
      image: [H, W, C] float32.
      matrix: [3, 3] float32 (or its first two rows), see the head of this file.
      fill: what lies beyond the border. nearest: the border pixel; constant: zero as
        soon as the position leaves the pixel centres; reflect: d c b a | a b c d | d c b a;
        wrap: a b c d | a b c d, period H (scipy calls this grid-wrap. Its own wrap, which
        Keras inherits, has period H - 1 and loses a pixel at each seam).

    Returns:
      [H, W, C] float32, equal to scipy.ndimage.affine_transform(order=1) per channel.
    """
    height, width, _ = image.shape
    centre_row, centre_column = (height - 1) / 2, (width - 1) / 2
    row = jnp.arange(height)[:, None] - centre_row  # [H, 1]
    column = jnp.arange(width)[None, :] - centre_column  # [1, W]
    rows = matrix[0, 0] * row + matrix[0, 1] * column + matrix[0, 2] + centre_row  # [H, W]
    columns = matrix[1, 0] * row + matrix[1, 1] * column + matrix[1, 2] + centre_column

    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]  # [H, W, 1] in [0, 1)
    r0, r1 = (_inside(top + step, height, fill) for step in (0, 1))
    c0, c1 = (_inside(left + step, width, fill) for step in (0, 1))
    upper = (1 - right) * image[r0, c0] + right * image[r0, c1]
    lower = (1 - right) * image[r1, c0] + right * image[r1, c1]
    result = (1 - down) * upper + down * lower
    if fill == "constant":
        seen = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
        result = jnp.where(seen[..., None], result, 0)
    return result


def _inside(position: jax.Array, size: int, fill: str) -> jax.Array:
    """Indices int32 in [0, size) of whole positions that may lie outside."""
    index = position.astype(jnp.int32)
    if fill == "reflect":
        index = index % (2 * size)
        return jnp.minimum(index, 2 * size - 1 - index)
    if fill == "wrap":
        return index % size
    return jnp.clip(index, 0, size - 1)


def _symmetric(key: jax.Array, limit: float) -> jax.Array:
    return jax.random.uniform(key, minval=-limit, maxval=limit)


def _matrix(rows: list[list]) -> jax.Array:
    return jnp.array([*rows, [0, 0, 1]], jnp.float32)
