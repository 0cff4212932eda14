"""Models: known parameter counts, shapes of every member, layers against slow loops."""

from itertools import chain, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from common.errors import InputError
from common.state import count_parameters
from vision.layers import ConvNorm, GlobalPool, Pool, ZeroPadShortcut
from vision.models import CNN, MODELS, create

KEY = jax.random.key(0)
STAGES = [3, *chain(*CNN.stages)]  # 32x32 images are 2x2 after four poolings
# CIFAR stem, 10 classes. cnn_b is report B's own total; the ResNets are He et al.'s layers.
COUNTS = {
    "cnn": sum(9 * a * b + 2 * b for a, b in pairwise(STAGES))
    + (4 * STAGES[-1] + 1) * CNN.hidden
    + (CNN.hidden + 1) * 10,
    "cnn_b": 198_186,
    "airbench": 1_971_328,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
    "plain18": 11_000_138,
    "plain34": 21_108_298,
}


def shapes_of(name, classes=10, size=32, train=False, **options):
    """Shapes of (logits, variables), by tracing alone."""
    model = create(name, classes, conv="xla", **options)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    rngs = {"params": KEY, "dropout": KEY}
    return jax.eval_shape(lambda x: model.init_with_output(rngs, x, train=train), images)


def count(name, **options):
    return count_parameters(shapes_of(name, **options)[1]["params"])


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_count_and_gives_float32_logits(name):
    logits, variables = shapes_of(name, classes=10, dtype=jnp.bfloat16)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert count_parameters(variables["params"]) == COUNTS[name]


@pytest.mark.parametrize("name, known", [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_imagenet_stem_has_the_known_counts(name, known):
    logits, variables = shapes_of(name, classes=1000, size=64, stem="imagenet")
    assert logits.shape == (2, 1000)
    assert count_parameters(variables["params"]) == known


def test_zero_padded_shortcuts_have_no_parameters():
    assert count("resnet18", shortcut="zero_pad") == COUNTS["plain18"]
    # Of resnet50: the four projections, from 64, 256, 512 and 1,024 channels, and their norms.
    projections = [(64, 256), (256, 512), (512, 1024), (1024, 2048)]
    removed = sum(a * b + 2 * b for a, b in projections)
    assert count("resnet50", shortcut="zero_pad") == COUNTS["resnet50"] - removed


def test_without_batch_norm_biases_stand_in_its_place():
    logits, variables = shapes_of("resnet18", batch_norm=False)
    assert "batch_stats" not in variables
    # 4,800 normalised channels have a scale and a bias each; convolutions have the bias.
    assert count_parameters(variables["params"]) == COUNTS["resnet18"] - 4800
    assert "batch_stats" in shapes_of("cnn_b", batch_norm=True)[1]


@pytest.mark.parametrize("name", ["cnn", "cnn_b", "resnet18"])
def test_width_scales_every_layer_but_the_head(name):
    whole, half = (shapes_of(name, width=width)[1]["params"] for width in (1.0, 0.5))
    for layer in set(whole) - {"head"}:
        for a, b in zip(jax.tree.leaves(whole[layer]), jax.tree.leaves(half[layer]), strict=True):
            assert b.shape[-1] * 2 == a.shape[-1]
    assert half["head"]["kernel"].shape[-1] == 10
    assert min(leaf.size for leaf in jax.tree.leaves(shapes_of(name, width=1e-9)[1]["params"]))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("resnet20", {}, "--model=resnet20 is unknown .*: choose one of cnn, .*resnet152, plain18"),
        ("cnn", {"pool": "min"}, "--pool=min is unknown: choose one of max, avg"),
        ("resnet18", {"shortcut": "none"}, "--shortcut=none .*projection, zero_pad"),
        ("resnet18", {"stem": "mnist"}, "--stem=mnist is unknown: choose one of cifar, imagenet"),
        ("cnn", {"conv": "fft"}, "--conv=fft is unknown: choose one of auto, xla"),
        ("cnn", {"shortcut": "zero_pad"}, "--shortcut does not apply to --model=cnn: leave it out"),
        ("plain18", {"shortcut": "zero_pad"}, "--shortcut does not apply to --model=plain18"),
        ("cnn_b", {"stem": "cifar"}, "--stem does not apply to --model=cnn_b"),
    ],
)
def test_errors_list_the_choices(name, options, message):
    with pytest.raises(InputError, match=message):
        create(name, 10, **options)


def run(x, *, train, key=KEY, batch_stats=None, **options):
    """(logits, batch statistics) of a small model that always starts the same."""
    model = create("cnn_b", 5, width=1 / 8, batch_norm=True, conv="xla", **options)

    @jax.jit
    def forward(x, key, batch_stats):
        variables = dict(model.init(KEY, x))
        if batch_stats is not None:
            variables["batch_stats"] = batch_stats
        rngs = {"dropout": key}
        return model.apply(variables, x, train=train, mutable=["batch_stats"], rngs=rngs)

    logits, changed = forward(x, key, batch_stats)
    return np.asarray(logits), changed.get("batch_stats")


X = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)


def test_training_updates_statistics_and_scoring_leaves_them_alone():
    _, before = run(X, train=False)
    _, trained = run(X, train=True)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(trained), strict=True):
        assert (a != b).all()
    logits, after = run(X, train=False, batch_stats=trained)
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    alone, _ = run(X[:1], train=False, batch_stats=trained)
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_alone():
    first, second = (run(X, train=True, key=jax.random.key(k), dropout=0.5)[0] for k in (1, 2))
    assert (first != second).any()
    first, second = (run(X, train=False, key=jax.random.key(k), dropout=0.5)[0] for k in (1, 2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, run(X, train=False)[0])


def test_pooling_is_an_option():
    assert not np.allclose(run(X, train=False)[0], run(X, train=False, pool="avg")[0])


def slow_pool(x, kind, window, stride, padding):
    """One output value at a time."""
    size = x.shape[1]
    if padding == "SAME":
        out = -(-size // stride)
        pad = max((out - 1) * stride + window - size, 0)
        before = 0 if window == stride else pad // 2
    else:
        out, before = (size - window) // stride + 1, 0
    found = np.zeros((len(x), out, out, x.shape[-1]), np.float32)
    for b, i, j, c in np.ndindex(*found.shape):
        values = [
            x[b, row, column, c]
            for row in range(i * stride - before, i * stride - before + window)
            for column in range(j * stride - before, j * stride - before + window)
            if 0 <= row < size and 0 <= column < size
        ]
        # Padding has no maximum; in a mean it counts as zeros.
        found[b, i, j, c] = max(values) if kind == "max" else sum(values) / window**2
    return found


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("size, window, stride", [(6, 2, 2), (7, 2, 2), (8, 3, 3), (7, 3, 2)])
def test_pooling_by_a_slow_loop(kind, padding, size, window, stride):
    x = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32) - 1
    found = Pool(kind, window, stride, padding).apply({}, x)
    np.testing.assert_allclose(found, slow_pool(x, kind, window, stride, padding), rtol=1e-5)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_gradient_of_pooling(kind):
    rng = np.random.default_rng(1)
    x = rng.permutation(2 * 5 * 5 * 2).reshape(2, 5, 5, 2).astype(np.float32)
    scale = rng.normal(size=(2, 3, 3, 2))
    check_grads(lambda x: Pool(kind).apply({}, x) * scale, (x,), order=1, modes="rev", eps=0.1)


def test_maximum_of_ties_and_of_what_is_no_number():
    x = jnp.array([[1.0, 3.0], [3.0, 3.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: Pool().apply({}, x).sum())(x)
    np.testing.assert_array_equal(gradient.reshape(-1), [0, 1, 0, 0])
    for place in range(4):
        bad = x.reshape(4).at[place].set(jnp.nan).reshape(x.shape)
        assert jnp.isnan(Pool().apply({}, bad)).all()


@pytest.mark.parametrize("kind, reduce", [("max", np.max), ("avg", np.mean)])
def test_global_pooling(kind, reduce):
    np.testing.assert_allclose(GlobalPool(kind).apply({}, X), reduce(X, axis=(1, 2)), atol=1e-6)


def test_zero_padded_shortcut_averages_and_adds_zero_channels():
    found = ZeroPadShortcut(5, 2).apply({}, X)
    assert found.shape == (4, 16, 16, 5)
    means = X.reshape(4, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(found[..., :3], means, atol=1e-6)
    assert (found[..., 3:] == 0).all()


def test_batch_norm_by_numpy():
    layer = ConvNorm(4, size=1, relu=False, conv="xla")
    variables = layer.init(KEY, X, train=False)
    scale, bias = np.array([0.5, -1, 2, 3.0]), np.array([0.1, 0.2, -0.3, 0])
    norm = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
    params = {"conv": variables["params"]["conv"], "norm": norm}
    stats = variables["batch_stats"]
    y = X @ np.asarray(params["conv"]["kernel"])[0, 0]
    mean, var = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))
    found, changed = layer.apply(
        {"params": params, "batch_stats": stats}, X, train=True, mutable=["batch_stats"]
    )
    expected = (y - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    running = changed["batch_stats"]["norm"]
    np.testing.assert_allclose(running["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * var, rtol=1e-4)
    scored = layer.apply({"params": params, **changed}, X, train=False)
    expected = (y - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5) * scale + bias
    np.testing.assert_allclose(scored, expected, rtol=1e-3, atol=1e-4)
