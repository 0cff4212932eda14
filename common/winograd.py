"""3x3 convolutions by Winograd's minimal filtering: what XLA's CPU backend lacks.

One dimension: m outputs of a 3-tap filter g over m + 2 inputs d are

    y = A^T [(G g) * (B^T d)]

with m + 2 products in place of 3 m (A, B, G below, for m = 2 and m = 4). In two
dimensions each matrix acts on the rows and on the columns:

    U = G g G^T,   V = B^T d B,   Y = A^T [U * V] A

A map is cut into h x w tiles of m x m outputs, which read overlapping tiles of m + 2. Summed
over input channels, the product at each of the (m + 2)^2 positions is a matrix product
[tiles, C] x [C, K]: a convolution is 16 or 36 of them, with 2.25 or 4 times fewer multiplications.

The gradients follow by transposing: Y is linear in g and in d, so with D = A dY A^T

    dg = G^T [sum over tiles of V * D] G,   dd = B [D * U] B^T

where the first sum is over tiles and the second, in D * U, over output channels: again matrix
products at each position. Where tiles overlap, their gradients add up.

The transformed tiles of a whole batch would not fit a cache: the batch is worked through
in chunks of images, which is what makes this fast.

Source: Lavin and Gray 2016, arXiv 1509.09308. Shapes: x [B, H, W, C], kernel [3, 3, C, K].
"""

from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import Array, lax

Matrix = Sequence[Sequence[float]]

# B^T [m + 2, m + 2], G [m + 2, 3] and A^T [m, m + 2] by the tile's size m.
INPUT: dict[int, Matrix] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
KERNEL: dict[int, Matrix] = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}
OUTPUT: dict[int, Matrix] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: (
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 0),
        (0, 1, 1, 4, 4, 0),
        (0, 1, -1, 8, -8, 1),
    ),
}

# About this much of the batch at a time keeps the transformed tiles in a 1 MiB L2 cache. Maps of a
# half of so many channels, or fewer, leave room for more of them.
CHUNK_PIXELS, CHUNK_CHANNELS = 2048, 24


def in_chunks(x: Array, chunk: int) -> Array:
    """[B, ...] -> [B / chunk, chunk, ...]."""
    return x.reshape(-1, chunk, *x.shape[1:])


def add_up(product: Callable[[Array, Array], Array], x: Array, dy: Array, chunk: int) -> Array:
    """The sum of product(x, dy), in float32, over chunks of images."""
    chunks = (in_chunks(x, chunk), in_chunks(dy, chunk))
    shape = jax.eval_shape(product, *(part[0] for part in chunks)).shape

    def add(total: Array, images: tuple[Array, ...]) -> tuple[Array, None]:
        return total + product(*images).astype(jnp.float32), None

    return lax.scan(add, jnp.zeros(shape), chunks)[0]


def combine(matrix: Matrix, parts: Sequence[Array]) -> list[Array]:
    """The matrix times a column of arrays, without products by zero."""
    terms = [[c * p for c, p in zip(row, parts, strict=True) if c] for row in matrix]
    return [reduce(jnp.add, row) for row in terms]


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def stored(rows: Sequence[Array]) -> Array:
    """The stacked arrays, written to memory.

    Without the barrier XLA fuses the transform of the rows into that of the columns, and
    computes each row again for every column: slower to run, and much slower to compile.
    """
    return lax.optimization_barrier(jnp.stack(rows))


def input_tiles(x: Array, m: int) -> Array:
    """V: the transformed tiles of x [n, H, W, C], as [(m + 2)^2, n h w, C]."""
    n, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # [t, n, h, W + 2, C]
    rows = stored(combine(INPUT[m], [x[:, i : i + height - m + 1 : m] for i in range(m + 2)]))
    tiles = combine(INPUT[m], [rows[:, :, :, j : j + width - m + 1 : m] for j in range(m + 2)])
    return jnp.stack(tiles, 1).reshape((m + 2) ** 2, -1, channels)


def output_map(products: Array, shape: Sequence[int], m: int) -> Array:
    """Y: the map [n, H, W, K] of the products [(m + 2)^2, n h w, K]."""
    n, height, width, channels = shape
    t = m + 2
    p = products.reshape(t, t, n, height // m, width // m, channels)
    rows = combine(OUTPUT[m], list(p))  # m arrays [t, n, h, w, K]
    rows = [jnp.stack(combine(OUTPUT[m], list(row)), 3) for row in rows]  # [n, h, w, m, K]
    return jnp.stack(rows, 2).reshape(n, height, width, channels)  # from [n, h, m, w, m, K]


def gradient_tiles(dy: Array, m: int) -> Array:
    """A dY A^T: the gradient at the products, [(m + 2)^2, n h w, K]."""
    n, height, width, channels = dy.shape
    spread = transposed(OUTPUT[m])
    y = dy.reshape(n, height // m, m, width // m, m, channels)
    rows = stored(combine(spread, [y[:, :, i] for i in range(m)]))  # [t, n, h, w, m, K]
    tiles = combine(spread, [rows[..., j, :] for j in range(m)])
    return jnp.stack(tiles, 1).reshape((m + 2) ** 2, -1, channels)


def fold(parts: Sequence[Array], m: int, axis: int) -> list[Array]:
    """Contributions to the m + 2 lines of every tile, added up to the m lines that are its own.

    Tiles lie m lines apart along `axis`: the first line of a tile is the last own line of the
    tile before it, the last line the first own one of the tile after it.
    """

    def moved(part: Array, by: int) -> Array:
        """To the next tile or the one before; what leaves the map is the padding's."""
        places = [(0, 0, 0)] * part.ndim
        places[axis] = (by, -by, 0)
        return lax.pad(part, jnp.zeros((), part.dtype), places)

    lines = list(parts[1 : m + 1])
    lines[0] += moved(parts[m + 1], 1)
    lines[-1] += moved(parts[0], -1)
    return lines


def input_gradient(dv: Array, shape: Sequence[int], m: int) -> Array:
    """B dV B^T, added up: the map [n, H, W, C] from its tiles [(m + 2)^2, n h w, C]."""
    n, height, width, channels = shape
    spread, t = transposed(INPUT[m]), m + 2
    tiles = dv.reshape(t, t, n, height // m, width // m, channels)
    rows = fold(combine(spread, list(tiles)), m, axis=2)  # m arrays [t, n, h, w, C]
    rows = [jnp.stack(fold(combine(spread, list(row)), m, axis=2), 3) for row in rows]
    return jnp.stack(rows, 2).reshape(shape)  # from [n, h, m, w, m, C]


def on_both_axes(matrix: Matrix, array: Array) -> Array:
    """M a M^T of the first two axes of `array` [q, q, C, K]: [p, p, C, K] for M [p, q]."""
    rows = stored(combine(matrix, list(array)))  # [p, q, C, K]
    return jnp.stack(combine(matrix, [rows[:, j] for j in range(array.shape[1])]), 1)


def kernel_tiles(kernel: Array, m: int) -> Array:
    """U: the transformed kernel [(m + 2)^2, C, K]."""
    return on_both_axes(KERNEL[m], kernel).reshape((m + 2) ** 2, *kernel.shape[2:])


def kernel_from_tiles(du: Array, m: int) -> Array:
    """G^T dU G: the gradient [3, 3, C, K] from that at U."""
    return on_both_axes(transposed(KERNEL[m]), du.reshape(m + 2, m + 2, *du.shape[1:]))


def forward(x: Array, kernel: Array, m: int, chunk: int) -> Array:
    """The convolution with tiles of m x m outputs, `chunk` images at a time (it divides B)."""
    u = kernel_tiles(kernel, m)

    def images(x: Array) -> Array:
        products = jnp.einsum("tnc,tck->tnk", input_tiles(x, m), u)
        return output_map(products, (*x.shape[:3], u.shape[-1]), m)

    return lax.map(images, in_chunks(x, chunk)).reshape(*x.shape[:3], -1)


def gradients(x: Array, kernel: Array, dy: Array, m: int, chunk: int) -> tuple[Array, Array]:
    """The gradients for x and for the kernel, in their shapes, from dy [B, H, W, K].

    Both need D: as two loops, the input's gradient a convolution by the turned kernel, they take
    1 to 16 % longer (the layers of ResNet-18, B 128, two cores of a Xeon). `chunk` divides B.
    """
    u = kernel_tiles(kernel, m)

    def add(du: Array, images: tuple[Array, Array]) -> tuple[Array, Array]:
        x, d = images[0], gradient_tiles(images[1], m)
        du += tile_products(input_tiles(x, m), d)
        return du, input_gradient(jnp.einsum("tnk,tck->tnc", d, u), x.shape, m)

    chunks = (in_chunks(x, chunk), in_chunks(dy, chunk))
    du, dx = lax.scan(add, jnp.zeros_like(u), chunks)
    return dx.reshape(x.shape), kernel_from_tiles(du, m)


def kernel_gradient(x: Array, dy: Array, m: int, chunk: int) -> Array:
    """The kernel's gradient alone, [3, 3, C, K], from x [B, H, W, C] and dy [B, H, W, K].

    In float32 whatever their types: tiles in bfloat16 would make it 3 to 5 % wrong.
    """

    def product(x: Array, dy: Array) -> Array:
        x, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
        return tile_products(input_tiles(x, m), gradient_tiles(dy, m))

    return kernel_from_tiles(add_up(product, x, dy, chunk), m)


def tile_products(v: Array, d: Array) -> Array:
    """The gradient at U, [(m + 2)^2, C, K], from V and D, a sum over the tiles."""
    return jnp.einsum("tnc,tnk->tck", v, d)


def tile_size(x: Array) -> int:
    """Tiles of 4 x 4 outputs, or of 2 x 2 where 4 does not divide the map or is all of it."""
    height, width = x.shape[1:3]
    return 4 if height % 4 == width % 4 == 0 and max(height, width) > 4 else 2


def chunk_size(x: Array) -> int:
    """Images at a time: the largest divisor of B with at most about CHUNK_PIXELS pixels.

    Of C channels, 12 or fewer, 24 // C times as many: the kernel's gradient of a first layer (3 to
    64 channels on 32x32 maps, B 128, two cores of a Xeon of 2019, as three products) takes 15 ms
    so, 25 by two images. A batch of a prime number is worked through image by image.
    """
    batch, height, width, channels = x.shape
    pixels = CHUNK_PIXELS * max(1, CHUNK_CHANNELS // channels)
    most = max(1, min(batch, pixels // (height * width)))
    return next(chunk for chunk in range(most, 0, -1) if batch % chunk == 0)


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """The 3x3 convolution with stride 1 and padding 1: [B, H, W, C] -> [B, H, W, K].

    H and W are even.
    """
    return forward(x, kernel, tile_size(x), chunk_size(x))


def conv3x3_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return gradients(x, kernel, dy, tile_size(x), chunk_size(x))


conv3x3.defvjp(lambda x, kernel: (conv3x3(x, kernel), (x, kernel)), conv3x3_backward)
