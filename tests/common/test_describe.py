"""The layer table, against counts by hand, flax's own parameters and XLA's count of FLOPs."""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.describe import Row, describe, engineering, format_table, shape_text

IMAGE = jax.ShapeDtypeStruct((1, 12, 10, 3), jnp.float32)


class Pool(nn.Module):
    kind: str = "max"

    @nn.compact
    def __call__(self, x):
        return nn.max_pool(x, (2, 2), strides=(2, 2))


class Block(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(self.channels, (3, 3), padding="VALID", use_bias=False, name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(y))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = Block(8, name="block1")(x, train)
        x = Pool(name="pool")(x)
        x = nn.Conv(12, (3, 1), strides=(2, 1), feature_group_count=4, name="groups")(x)
        x = nn.Dropout(0.5, deterministic=not train, name="dropout")(x)
        return nn.Dense(7, name="head")(x.reshape(x.shape[0], -1))


def test_rows_of_a_small_net_by_hand():
    expected = [
        # 27 weights for each of 8 channels at 10 x 8 places.
        Row("block1/conv", "Conv 3x3", (1, 12, 10, 3), (1, 10, 8, 8), 216, 2 * 216 * 80),
        Row("block1/norm", "BatchNorm", (1, 10, 8, 8), (1, 10, 8, 8), 16, 0),
        Row("pool", "Pool max", (1, 10, 8, 8), (1, 5, 4, 8), 0, 0),
        # 3 x 1 over 2 of the 8 channels, 12 of them and their bias, at 3 x 4 places.
        Row("groups", "Conv 3x1/2x1", (1, 5, 4, 8), (1, 3, 4, 12), 84, 2 * 72 * 12),
        Row("dropout", "Dropout 0.5", (1, 3, 4, 12), (1, 3, 4, 12), 0, 0),
        Row("head", "Dense", (1, 144), (1, 7), 1015, 2 * 144 * 7),
    ]
    assert describe(Net(), IMAGE, train=False) == expected
    assert describe(Net(), IMAGE, train=True) == expected


def test_flops_agree_with_xla():
    class Convs(nn.Module):
        @nn.compact
        def __call__(self, x):
            for channels in (16, 24):
                x = nn.relu(nn.Conv(channels, (3, 3), padding="VALID")(x))
            return nn.Dense(10)(x.reshape(x.shape[0], -1))

    net, x = Convs(), jnp.asarray(np.random.default_rng(0).normal(size=(1, 12, 10, 3)), jnp.float32)
    variables = net.init(jax.random.key(0), x)
    analysis = jax.jit(net.apply).lower(variables, x).compile().cost_analysis()
    flops = sum(row.flops for row in describe(net, x))
    assert flops == 2 * (27 * 16 * 80 + 144 * 24 * 48 + 1152 * 10)
    # XLA adds bias and ReLU, which are a few operations per output.
    assert flops <= analysis["flops"] <= 1.05 * flops


def test_depth_costs_no_compilation():
    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(150):
                x = x + nn.Conv(256, (3, 3))(nn.BatchNorm(use_running_average=True)(x))
            return x

    start = time.perf_counter()
    rows = describe(Deep(), jax.ShapeDtypeStruct((1, 224, 224, 256), jnp.float32))
    assert len(rows) == 300
    assert time.perf_counter() - start < 10  # computing would take minutes


def test_parameters_of_a_module_that_calls_others_are_counted():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            scale = self.param("scale", nn.initializers.ones, (5, 1))
            return nn.Dense(4, name="dense")(x) * scale

    rows = describe(Scaled(), jax.ShapeDtypeStruct((1, 5, 3), jnp.float32))
    assert [(row.path, row.params) for row in rows] == [("", 5), ("dense", 16)]
    assert rows[1].flops == 2 * 12 * 5  # at each of 5 places


def test_a_layer_called_again_counts_its_work_but_not_its_parameters():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(3, name="dense")
            return dense(nn.relu(dense(x)))

    rows = describe(Twice(), jax.ShapeDtypeStruct((1, 3), jnp.float32))
    assert [(row.path, row.params, row.flops) for row in rows] == [
        ("dense", 12, 18),
        ("dense", 0, 18),
    ]


@pytest.mark.parametrize(("cell", "gates"), [(nn.OptimizedLSTMCell, 4), (nn.GRUCell, 3)])
@pytest.mark.parametrize("return_carry", [False, True])
def test_recurrent_layers_count_every_step_once(cell, gates, return_carry):
    module = nn.RNN(cell(8), return_carry=return_carry)
    (row,) = describe(module, jax.ShapeDtypeStruct((1, 5, 3), jnp.float32))
    assert row.kind == f"RNN {cell.__name__}"
    assert (row.inputs, row.outputs) == ((1, 5, 3), (1, 5, 8))
    assert row.flops == 5 * 2 * gates * (3 + 8) * 8


def test_other_arguments_may_be_arrays():
    module = nn.RNN(nn.SimpleCell(4))
    lengths = jax.ShapeDtypeStruct((1,), jnp.int32)
    rows = describe(module, jax.ShapeDtypeStruct((1, 5, 3), jnp.float32), seq_lengths=lengths)
    assert sum(row.params for row in rows) == 3 * 4 + 4 * 4 + 4


@pytest.mark.parametrize(
    "module",
    [
        nn.MultiHeadDotProductAttention(2),
        nn.Bidirectional(nn.RNN(nn.GRUCell(8)), nn.RNN(nn.GRUCell(8))),
        nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.relu, nn.Dense(2)]),
        nn.remat(nn.Dense)(4),
    ],
)
def test_rows_hold_every_parameter(module):
    x = jax.ShapeDtypeStruct((1, 5, 6), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    expected = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert sum(row.params for row in describe(module, x)) == expected > 0


def test_format_table():
    lines = format_table(describe(Net(), IMAGE, train=False), "a net").splitlines()
    assert lines[0] == "a net"
    assert lines[2].split() == ["layer", "kind", "input", "output", "parameters", "FLOPs"]
    head = "block1/conv  Conv 3x3      12x10x3  10x8x8         216  34.6 k"
    assert lines[4] == head
    assert lines[-3].split() == ["total", "of", "6", "1,331", "38.3", "k"]
    assert {len(line) for line in lines[1:-1]} == {len(head)}


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (330, "330"), (999, "999"), (1000, "1 k"), (999_700, "1 M"), (1.113e9, "1.11 G")]
    + [(4.2e15, "4.2e+03 T")],
)
def test_engineering(number, text):
    assert engineering(number) == text


def test_engineering_with_a_unit():
    assert engineering(2_340_000, "FLOPs") == "2.34 MFLOPs"
    assert engineering(12, "FLOPs") == "12 FLOPs"


@pytest.mark.parametrize(
    ("shape", "text"), [((1, 32, 32, 3), "32x32x3"), ((1, 10), "10"), ((1,), "scalar")]
)
def test_shape_text(shape, text):
    assert shape_text(shape) == text
