"""Convolutions in the forms of a CPU equal XLA's own, in value and in both gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from common import convolution, host
from common.winograd import chunk_size, conv3x3
from tests.common.convolution_cases import DIMENSIONS, arrays, by_lax, check_same

STRIDED = [(32, 64, 128), (16, 128, 256), (8, 256, 512), (2, 32, 48), ((4, 10), 48, 32)]


def direct(padding):
    return lambda x, kernel: convolution.conv3x3_direct(x, kernel, padding)


def by_module(stride: int = 1, padding="SAME", **options):
    def conv(x, kernel):
        return convolution.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS, **options
        )

    return conv


FORMS = ("conv1x1", "conv3x3", "conv3x3_direct", "conv3x3_strided", "conv_nhwc")
SAME, VALID = ((1, 1), (1, 1)), ((0, 0), (0, 0))


@pytest.mark.parametrize(
    "form, size, channels, window, stride, padding, dtype",
    [
        ("conv1x1", 8, 64, 1, 1, VALID, "float32"),
        ("conv1x1", 7, 3, 1, 2, "SAME", "bfloat16"),
        ("conv_nhwc", 8, 64, 1, 1, SAME, "float32"),
        ("conv_nhwc", 8, 64, 1, 1, VALID, "float16"),
        ("conv3x3", 8, 64, 3, 1, SAME, "float32"),
        ("conv3x3_direct", 8, 64, 3, 1, SAME, "bfloat16"),
        ("conv3x3_direct", 3, 3, 3, 1, VALID, "bfloat16"),
        ("conv3x3_direct", 15, 64, 3, 1, SAME, "float32"),
        ("conv3x3_direct", 32, 3, 3, 1, "SAME", "float32"),
        ("conv3x3_direct", 16, 64, 3, 1, "VALID", "float32"),
        ("conv_nhwc", 7, 64, 3, 1, SAME, "float32"),
        ("conv_nhwc", 8, 3, 3, 1, SAME, "float32"),
        ("conv_nhwc", 2, 64, 3, 1, VALID, "bfloat16"),
        ("conv_nhwc", 8, 64, 3, 1, ((2, 2), (2, 2)), "float32"),
        ("conv_nhwc", 8, 64, 3, 1, ((0, 1), (0, 1)), "float32"),
        ("conv3x3_strided", 8, 64, 3, 2, SAME, "float32"),
        ("conv3x3_strided", 8, 64, 3, 2, SAME, "bfloat16"),
        ("conv_nhwc", 8, 64, 3, 2, "SAME", "float32"),
        ("conv_nhwc", 8, 64, 3, 2, VALID, "bfloat16"),
        ("conv_nhwc", 8, 16, 3, 2, SAME, "float32"),
        ("conv_nhwc", 7, 64, 3, 2, SAME, "float32"),
        ("conv_nhwc", 9, 64, 3, 3, SAME, "float32"),
        ("conv_nhwc", 8, 64, 5, 1, "SAME", "float32"),
    ],
)
def test_the_form_that_is_taken(monkeypatch, form, size, channels, window, stride, padding, dtype):
    monkeypatch.setattr(convolution, "bfloat16_is_fast", lambda: True)
    for name in FORMS:
        monkeypatch.setattr(convolution, name, lambda *_, name=name: name)
    x, kernel = (a.astype(dtype) for a in arrays(2, size, channels, 64, window))
    assert convolution.conv(x, kernel, stride=stride, padding=padding) == form


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_any_batch(batch):
    x, kernel = arrays(batch, 32, 16, 16)
    assert chunk_size(x) <= 2
    check_same(convolution.conv3x3_strided, by_lax(2, SAME), x, kernel)
    for padding, pixels in enumerate((VALID, SAME)):
        check_same(direct(padding), by_lax(1, pixels), x, kernel)


@pytest.mark.parametrize("window, stride", [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("shape", [(0, 8, 8, 32), (2, 0, 0, 32)])
def test_of_nothing(shape, window, stride):
    x, kernel = jnp.zeros(shape), jnp.ones((window, window, 32, 32))

    padding = ((window // 2,) * 2,) * 2
    conv = by_module(stride, padding)
    assert conv(x, kernel).shape == by_lax(stride, padding)(x, kernel).shape
    found = jax.grad(lambda *arrays: conv(*arrays).sum(), argnums=(0, 1))(x, kernel)
    assert found[0].shape == shape and (found[1] == 0).all()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size, channels, outputs", [(7, 3, 5), ((8, 6), 64, 48), (1, 5, 7)])
def test_1x1_equals_lax(stride, size, channels, outputs):
    x, kernel = arrays(3, size, channels, outputs, window=1)
    for padding in ("SAME", "VALID", VALID):
        check_same(by_module(stride, padding), by_lax(stride, padding), x, kernel)


@pytest.mark.parametrize("pixels", [0, 1])
@pytest.mark.parametrize(
    "size, channels, outputs",
    [(3, 5, 7), ((7, 5), 5, 7), ((4, 8), 5, 7), (32, 3, 64), ((8, 16), 24, 64), (15, 64, 64)],
)
def test_direct_equals_lax(size, channels, outputs, pixels):
    x, kernel = arrays(3, size, channels, outputs)
    check_same(direct(pixels), by_lax(1, ((pixels, pixels),) * 2), x, kernel)


@pytest.mark.parametrize(
    "window, stride, pixels",
    [(3, 1, 1), (3, 1, 0), (3, 2, 1), (1, 1, 0), (1, 2, 0)],
)
def test_bfloat16_is_as_near_as_bfloat16_can_be(monkeypatch, window, stride, pixels):
    monkeypatch.setattr(host, "onednn_is_used", lambda: True)
    monkeypatch.setattr(host, "has_bfloat16", lambda: True)
    x, kernel = (a.astype(jnp.bfloat16) for a in arrays(4, 8, 32, 48, window))
    padding = ((pixels, pixels),) * 2
    check_same(by_module(stride, padding), by_lax(stride, padding), x, kernel, 1e-2)


@pytest.mark.parametrize(
    "size, channels, dtype, expected",
    [
        (32, 64, "bfloat16", True),
        (4, 64, "bfloat16", False),
        (7, 64, "bfloat16", False),
        (32, 24, "bfloat16", False),
        (32, 24, "float32", True),
        (7, 24, "float32", False),
        (32, 3, "float32", False),
    ],
)
def test_winograd_is_taken_where_it_is_faster(size, channels, dtype, expected):
    x, kernel = (a.astype(dtype) for a in arrays(1, size, channels, 64))
    assert convolution.by_winograd(x, kernel) == expected


@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (1, 1))])
def test_dispatch_takes_the_fast_form(padding):
    x, kernel = arrays(2, 8, 32, 48)
    np.testing.assert_array_equal(by_module(padding=padding)(x, kernel), conv3x3(x, kernel))


@pytest.mark.parametrize("size, channels, outputs", STRIDED)
@pytest.mark.parametrize("window", [1, 3])
def test_strided_equals_lax(size, channels, outputs, window):
    x, kernel = arrays(3, size, channels, outputs, window)
    padding = [(window // 2, window // 2)] * 2
    check_same(by_module(2, padding), by_lax(2, padding), x, kernel)


@pytest.mark.parametrize(
    "channels, dtype, big",
    [(128, "float32", False), (256, "float32", True), (256, "bfloat16", False)],
)
def test_strided_by_a_big_kernel_is_a_product(channels, dtype, big):
    x, kernel = (a.astype(dtype) for a in arrays(1, 8, channels, 256))
    program = str(jax.make_jaxpr(convolution.conv3x3_strided)(x, kernel))
    assert ("dot_general" in program, "conv_general_dilated" in program) == (big, not big)


@pytest.mark.parametrize(
    "size, channels, outputs, window, options",
    [
        (8, 64, 64, 5, {}),
        (8, 64, 64, 3, {"padding": ((2, 0), (1, 1))}),
        (8, 64, 64, 3, {"rhs_dilation": (2, 2)}),
        (8, 64, 64, 3, {"lhs_dilation": (2, 2), "padding": ((1, 1), (1, 1))}),
        (8, 64, 64, 3, {"preferred_element_type": jnp.float32}),
        (8, 64, 64, 3, {"stride": 2}),
        (7, 64, 64, 3, {"stride": 2, "padding": ((1, 1), (1, 1))}),
    ],
)
def test_the_rest_is_left_to_lax(size, channels, outputs, window, options):
    x, kernel = arrays(2, size, channels, outputs, window)
    check_same(by_module(**options), by_lax(**options), x, kernel)


def test_groups_are_left_to_lax():
    x, _ = arrays(2, 8, 64, 64)
    _, kernel = arrays(2, 8, 32, 64)
    check_same(by_module(feature_group_count=2), by_lax(feature_group_count=2), x, kernel)


@pytest.mark.parametrize("library, units", [(False, True), (True, False)])
def test_bfloat16_without_onednn_or_units_is_left_to_lax(monkeypatch, library, units):
    monkeypatch.setattr(host, "onednn_is_used", lambda: library)
    monkeypatch.setattr(host, "has_bfloat16", lambda: units)
    x, kernel = (a.astype(jnp.bfloat16) for a in arrays(2, 8, 64, 64))
    check_same(by_module(), by_lax(), x, kernel, 1e-2)


def test_other_layouts_are_left_to_lax():
    x, kernel = arrays(2, 64, 64, 64)
    x = x[:, :, :8, :]  # as NCHW: 64 channels, 8 x 64
    dimensions = ("NCHW", "HWIO", "NCHW")
    got = convolution.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
    expected = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("padding, stride", [("SAME", 1), (1, 1), (1, 2)])
def test_in_a_flax_convolution(padding, stride):
    x, kernel = arrays(2, 8, 64, 64)
    options = {"padding": padding, "strides": stride, "use_bias": False}
    fast = nn.Conv(64, (3, 3), conv_general_dilated=convolution.conv_general_dilated, **options)
    plain = nn.Conv(64, (3, 3), **options)
    variables = {"params": {"kernel": kernel}}
    got, expected = fast.apply(variables, x), plain.apply(variables, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_under_pmap(stride):
    devices = jax.local_device_count()
    x, kernel = arrays(2 * devices, 8, 64, 64)
    x = x.reshape(devices, 2, 8, 8, 64)

    def loss(conv):
        return lambda kernel, x: jax.lax.pmean(
            jax.grad(lambda k: jnp.square(conv(x, k)).mean())(kernel), "devices"
        )

    got, expected = (
        jax.pmap(loss(conv), "devices", in_axes=(None, 0))(kernel, x)
        for conv in (by_module(stride, SAME), by_lax(stride, SAME))
    )
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
