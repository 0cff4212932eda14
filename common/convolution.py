"""Convolutions of images, in the forms that are the fastest on a CPU; elsewhere XLA's own.

    1x1, unpadded          any stride: a matrix product
    3x3, stride 1          float32, padding 1, even maps, from `LEAST_CHANNELS` on: Winograd's
                           method
    3x3, stride 1          else, with padding 0 or 1: bfloat16, and float32 to `LEAST_CHANNELS` or
                           more on a `LARGE_MAP`. XLA's or oneDNN's convolution, also as the
                           input's gradient; the kernel's gradient by Winograd's method where
                           `by_winograd` says so, else as a matrix product
    3x3, stride 2          padding 1, even maps, from `LEAST_CHANNELS` on: XLA's or oneDNN's
                           convolution, in float32 with a `BIG_KERNEL` a matrix product; the
                           input's gradient as four convolutions, with such a kernel as XLA
                           derives it; the kernel's gradient as a matrix product

Their gradients are written out, and so for reverse mode alone (`grad`, not `jvp`; models by
`--conv=xla` have both). The rest is XLA's own, and so is bfloat16 unless `bfloat16_is_fast`.
XLA turns a bfloat16 convolution or product into a call of oneDNN, and that reaches the matrix
units of recent processors, only where it is written as oneDNN wants it: a plain convolution
with a kernel that stands in memory; a product of bfloat16 matrices that gives bfloat16.

Shapes: x [B, H, W, C], kernel [h, w, C, K].
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from common.host import bfloat16_is_fast
from common.parallel import default_is_cpu
from common.winograd import add_up, chunk_size, conv3x3, kernel_gradient, tile_size

# With fewer channels matrix products, Winograd's too, are too thin to pay for the copies.
LEAST_CHANNELS = 32
# Numbers of a kernel from which on strided convolutions in float32 are slower than products.
BIG_KERNEL = 2**19
SAME = ((1, 1), (1, 1))  # the padding that keeps a 3x3 kernel's map
# On smaller maps in float32 XLA's kernel gradients of few channels are as fast as products.
LARGE_MAP = 15


def conv_nhwc(x: Array, kernel: Array, stride: int, padding: Any) -> Array:
    """XLA's own convolution."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=numbers)


def inner(a: Array, b: Array) -> Array:
    """The matrix a^T b [C, K] of a [..., C] and b [..., K], in their type."""
    a, b = (m.reshape(-1, m.shape[-1]) for m in (a, b))
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


@jax.custom_vjp
def conv1x1(x: Array, kernel: Array) -> Array:
    """Every pixel times the kernel [C, K]: [B, H, W, C] -> [B, H, W, K].

    XLA's convolution takes as long, but its kernel's gradient up to ten times as long: of 64 to 256
    and of 256 to 64 channels 217 and 104 ms instead of 22 and 16, or 45 and 20 as JAX derives it
    from the product, with dy transposed in memory (B 64, 32x32 maps, two cores of a Xeon).
    """
    return x @ kernel


conv1x1.defvjp(
    lambda x, kernel: (conv1x1(x, kernel), (x, kernel)),
    lambda saved, dy: (dy @ saved[1].T, inner(saved[0], dy)),
)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3_direct(x: Array, kernel: Array, padding: int) -> Array:
    """The 3x3 convolution with stride 1: [B, H, W, C] -> [B, H + 2 p - 2, W + 2 p - 2, K].

    `padding`, p, is 0 or 1. Only the kernel's gradient is not a convolution of XLA's, which takes,
    in float32, of 3 to 64 channels on 32x32 maps 14 ms instead of 9, of 32 to 64 on 15x15 maps 17
    instead of 10; but of 16 to 16 there 1.7 instead of 2.6 (B 128, two cores of a Xeon with AMX).
    """
    return conv_nhwc(x, kernel, 1, ((padding, padding),) * 2)


def conv3x3_direct_backward(
    padding: int, saved: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    if padding == 1 and by_winograd(x, kernel):
        dkernel = kernel_gradient(x, dy, tile_size(x), chunk_size(x)).astype(kernel.dtype)
    else:
        dkernel = product_gradient(x, kernel, dy, 1, padding)
    dx = conv_nhwc(dy, swapped(kernel[::-1, ::-1]), 1, ((2 - padding, 2 - padding),) * 2)
    return dx, dkernel


def patches(x: Array, stride: int, padding: int) -> Array:
    """What a 3x3 kernel sees of x [n, H, W, C]: [n, h, w, 9 C], in the order of its rows."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    _, height, width, _ = x.shape
    taps = [
        x[:, i : height - 2 + i : stride, j : width - 2 + j : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(taps, -1)


def product_gradient(x: Array, kernel: Array, dy: Array, stride: int, padding: int) -> Array:
    """The kernel's gradient, in its shape and type: the patches under it times dy."""

    def product(x: Array, dy: Array) -> Array:
        return inner(patches(x, stride, padding), dy)

    return add_up(product, x, dy, chunk_size(x)).reshape(kernel.shape).astype(kernel.dtype)


def swapped(kernel: Array) -> Array:
    """The kernel with inputs for outputs [h, w, K, C], behind a barrier: so it stands in memory."""
    return lax.optimization_barrier(jnp.swapaxes(kernel, 2, 3))


def by_winograd(x: Array, kernel: Array) -> bool:
    """Whether that is the faster way to `conv3x3_direct`'s kernel gradient: with tiles of 4 x 4.

    B 128, two cores of a Xeon with AMX, in ms, by Winograd's method and by a product:

                                   bfloat16        float32
        64 channels, 32x32         31 and 41       33 and 76
        128 channels, 16x16        23 and 28       21 and 52
        24 to 64, 32x32            21 and 26       26 and 39
        16 to 32, 32x32            21 and 19       16 and 22
        512 channels, 4x4          25 and 13       23 and 38, by tiles of 2 x 2
    """
    least = LEAST_CHANNELS // 2 if x.dtype == jnp.float32 else LEAST_CHANNELS
    return tile_size(x) == 4 and min(kernel.shape[2:]) >= least


conv3x3_direct.defvjp(
    lambda x, kernel, padding: (conv3x3_direct(x, kernel, padding), (x, kernel)),
    conv3x3_direct_backward,
)


@jax.custom_vjp
def conv3x3_strided(x: Array, kernel: Array) -> Array:
    """The 3x3 convolution with stride 2 and padding 1: [B, H, W, C] -> [B, H/2, W/2, K].

    H and W are even. XLA's, but with a `BIG_KERNEL` the patches under the kernel times it: on 8x8
    maps of 256 to 512 channels 30 ms instead of 51, of 512 to 512 66 instead of 130, of 128 to 256
    9 instead of 10, on 16x16 maps 27 instead of 26 (float32, B 128, two cores of a Xeon with AMX).
    """
    if is_big(kernel):
        return patches(x, 2, 1) @ kernel.reshape(-1, kernel.shape[3])
    return conv_nhwc(x, kernel, 2, SAME)


def is_big(kernel: Array) -> bool:
    """Whether `conv3x3_strided` takes products for it, and XLA's own gradient of the input."""
    return kernel.dtype == jnp.float32 and kernel.size >= BIG_KERNEL


def conv3x3_strided_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dkernel = product_gradient(x, kernel, dy, 2, 1)
    if is_big(kernel):
        _, pull = jax.vjp(lambda x: conv_nhwc(x, kernel, 2, SAME), x)
        return pull(dy)[0], dkernel
    return strided_input_gradient(kernel, dy), dkernel


def strided_input_gradient(kernel: Array, dy: Array) -> Array:
    """[B, h, w, K] -> [B, 2h, 2w, C]: a convolution for each parity of row and column.

    y[i] = sum over a of x[2 i + a - 1] k[a]: an even place of x sees the tap 1 of its own y,
    an odd one the tap 2 of its own and the tap 0 of the next.

    Of 64 to 128 channels on 32x32 maps it takes 24 ms in float32 and 9 in bfloat16, as products of
    patches of dy 41 and 26, as XLA derives it 35 in float32; with a `BIG_KERNEL`, of 512 to 512 on
    8x8 maps, 91 in float32 and as XLA derives it 52 (B 128, two cores of a Xeon with AMX).
    """
    taps = (slice(1, 2), slice(2, None, -2))  # by the parity

    def phase(row: int, column: int) -> Array:
        part = swapped(kernel[taps[row], taps[column]])
        return conv_nhwc(dy, part, 1, ((0, row), (0, column)))

    rows = [jnp.stack([phase(row, 0), phase(row, 1)], 3) for row in (0, 1)]
    B, height, width, _ = dy.shape
    return jnp.stack(rows, 2).reshape(B, 2 * height, 2 * width, -1)  # from [B, h, 2, w, 2, C]


conv3x3_strided.defvjp(
    lambda x, kernel: (conv3x3_strided(x, kernel), (x, kernel)), conv3x3_strided_backward
)


def padding_of(padding: Any, size: int, stride: int) -> int | None:
    """The pixels of padding on each side, None where the sides differ."""
    if padding == "VALID":
        return 0
    if padding == "SAME":  # of a strided convolution it is more at the end
        return size // 2 if stride == 1 or size == 1 else None
    pads = {pixels for side in padding for pixels in side}
    return pads.pop() if len(pads) == 1 else None


def conv(x: Array, kernel: Array, *, stride: int, padding: Any) -> Array:
    """The convolution [B, H, W, C] by [h, w, C, K], in the form measured to be the fastest.

    What the table above does not have is XLA's own.
    """
    if not x.size:  # of no images or pixels there are no chunks
        return conv_nhwc(x, kernel, stride, padding)
    size = kernel.shape[0]
    pixels = padding_of(padding, size, stride) if kernel.shape[1] == size else None
    plain = pixels == size // 2
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    single = x.dtype == kernel.dtype == jnp.float32
    half = x.dtype == kernel.dtype == jnp.bfloat16 and bfloat16_is_fast()
    wide = min(kernel.shape[2:]) >= LEAST_CHANNELS
    large = kernel.shape[3] >= LEAST_CHANNELS and min(x.shape[1:3]) >= LARGE_MAP
    match size, stride:
        case 1, _ if plain and (single or half):
            return conv1x1(x[:, ::stride, ::stride], kernel[0, 0])
        case 3, 1 if plain and even and wide and single:
            return conv3x3(x, kernel)
        case 3, 1 if pixels in (0, 1) and (single and large or half and min(x.shape[1:3]) > 2):
            return conv3x3_direct(x, kernel, pixels)
        case 3, 2 if plain and even and wide and (single or half):
            return conv3x3_strided(x, kernel)
        case _:
            return conv_nhwc(x, kernel, stride, padding)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Array:
    """`lax.conv_general_dilated`, by `conv` for plain images [B, H, W, C] on a CPU.

    For the field `conv_general_dilated` of `nn.Conv`.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    nhwc = (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC"))
        if lhs.ndim == 4
        else None
    )
    if (
        default_is_cpu()
        and numbers == nhwc
        and window_strides[0] == window_strides[1]
        and {*(lhs_dilation or (1,)), *(rhs_dilation or (1,)), feature_group_count} == {1}
        and all(value is None for value in options.values())
    ):
        return conv(lhs, rhs, stride=window_strides[0], padding=padding)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        **options,
    )
