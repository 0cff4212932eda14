"""Recurrent layers: against hand-stepped cells and PyTorch, their padding, masks and starts."""

import itertools
from functools import partial
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from common.errors import InputError
from common.layers import dropped_bytes
from common.parallel import local_devices
from common.state import count_parameters
from text.recurrence import multiply, recur, run_directions
from text.rnn import CELLS, RNN, Direction

KEY = jax.random.key(0)
B, T, D, H = 5, 6, 3, 4
LENGTHS = np.array([6, 0, 1, 4, 2], np.int32)
REAL = np.arange(T) < LENGTHS[:, None]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D)).astype(np.float32)
TORCH = dict(np.load(Path(__file__).parents[1] / "fixtures" / "torch_rnn.npz"))


def make(seed=1, **options):
    """A layer and variables of which nothing is at its start."""
    layer = RNN(features=H, **options)
    shapes = jax.eval_shape(layer.init, KEY, X, LENGTHS)
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(scale=0.5, size=leaf.shape).astype(np.float32)  # noqa: E731
    return layer, jax.tree.map(draw, shapes)


@partial(jax.jit, static_argnames=("layer", "train"))
def run(layer, variables, x, lengths, key, train):
    return layer.apply(variables, x, lengths, train, rngs={"dropout": key})


def apply(layer, variables, x=X, lengths=LENGTHS, key=KEY, train=False):
    """Outputs on the host; a layer is compiled once for each shape."""
    return np.array(run(layer, variables, x, lengths, key, train))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hand_step(cell, params, x, h, c):
    """One step of one sequence, gate by gate."""
    W, U, b = params["input"]["kernel"], params["recurrent"]["kernel"], params["input"]["bias"]
    gates = len(CELLS[cell].biases)
    parts = [slice(g * H, (g + 1) * H) for g in range(gates)]
    pre = [x @ W[:, part] + b[part] + h @ U[:, part] for part in parts]
    if cell == "rnn":
        return np.tanh(pre[0]), c
    if cell == "lstm":
        i, f, g, o = sigmoid(pre[0]), sigmoid(pre[1]), np.tanh(pre[2]), sigmoid(pre[3])
        c = f * c + i * g
        return o * np.tanh(c), c
    r, z = sigmoid(pre[0]), sigmoid(pre[1])
    inner = h @ U[:, parts[2]] + params["recurrent"]["bias"]
    n = np.tanh(x @ W[:, parts[2]] + b[parts[2]] + r * inner)
    return (1 - z) * n + z * h, c


def hand_run(cell, params, *, reverse):
    """Outputs [B, T, H] of one direction, one sequence at a time without its padding."""
    found = np.zeros((B, T, H))
    for i, length in enumerate(LENGTHS):
        h = c = np.zeros(H)
        for t in reversed(range(length)) if reverse else range(length):
            h, c = hand_step(cell, params, X[i, t], h, c)
            found[i, t] = h
    return found


@pytest.mark.parametrize("bidirectional, merge", [(True, "concat"), (True, "sum"), (False, "sum")])
@pytest.mark.parametrize("cell", CELLS)
def test_cells_by_hand(cell, bidirectional, merge):
    layer, variables = make(cell=cell, bidirectional=bidirectional, merge=merge)
    parts = [
        hand_run(cell, params, reverse=name == "backward")
        for name, params in sorted(variables["params"].items(), reverse=True)
    ]
    assert len(parts) == 1 + bidirectional
    expected = np.concatenate(parts, axis=-1) if merge == "concat" else sum(parts)
    found = apply(layer, variables)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not found[~REAL].any()


def torch_params(cell, suffix):
    """PyTorch's two biases are one but for the last gate of a GRU."""
    W, U, b_in, b_h = (
        TORCH[f"{cell}/{name}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    recurrent = {"kernel": U.T}
    if cell == "gru":
        recurrent["bias"] = b_h[-H:]
        b_h = np.concatenate([b_h[:-H], np.zeros(H, np.float32)])
    return {"input": {"kernel": W.T, "bias": b_in + b_h}, "recurrent": recurrent}


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_gradients_are_those_of_torch(cell):
    forward, backward = torch_params(cell, ""), torch_params(cell, "_reverse")
    variables = {"params": {"forward": forward, "backward": backward}}
    lengths = TORCH["lengths"].astype(np.int32)

    def loss(variables, x):
        output = RNN(cell, H).apply(variables, x, lengths)
        return (output * TORCH["cotangent"]).sum(), output

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (by_variables, by_x), output = grad(variables, TORCH["x"])
    np.testing.assert_allclose(output, TORCH[f"{cell}/output"], atol=1e-5)
    np.testing.assert_allclose(by_x, TORCH[f"{cell}/gradient"], atol=1e-5)
    by_kernel = by_variables["params"]["forward"]["recurrent"]["kernel"]
    np.testing.assert_allclose(by_kernel.T, TORCH[f"{cell}/gradient_hh"], atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_reaches_neither_values_nor_gradients(cell):
    layer, variables = make(cell=cell, recurrent_dropout=0.3)
    scale = RNG.normal(size=(B, T, 2 * H)).astype(np.float32)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def grad(variables, x):
        output = layer.apply(variables, x, LENGTHS, True, rngs={"dropout": KEY})
        return (output * scale).sum(), output

    clean = grad(variables, X)
    for bad in (np.nan, np.inf, 1e30):
        found = grad(variables, np.where(REAL[:, :, None], X, np.float32(bad)))
        jax.tree.map(np.testing.assert_array_equal, found, clean)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    by_x = np.asarray(clean[0][1])
    assert not by_x[~REAL].any() and by_x[REAL].all()


@pytest.mark.parametrize("cell", CELLS)
def test_reversing_time_swaps_the_directions(cell):
    layer, variables = make(cell=cell)
    params = variables["params"]
    swapped = {"params": {"forward": params["backward"], "backward": params["forward"]}}
    full = np.full(B, T, np.int32)
    found = apply(layer, swapped, X[:, ::-1], full)[:, ::-1]
    expected = apply(layer, variables, X, full)
    np.testing.assert_allclose(found, np.roll(expected, H, axis=-1), atol=1e-6)


def test_gradients():
    """By differences, of the sum of two directions."""
    layer, variables = make(cell="gru", merge="sum")
    scale = RNG.normal(size=(B, T, H)).astype(np.float32)
    fn = jax.jit(lambda v, x: (layer.apply(v, x, LENGTHS) * scale).sum())
    check_grads(fn, (variables, X), order=1, modes="rev", atol=2e-2, rtol=2e-2)


def step_by_step(cell, reverse, kernel, bias, inputs, lengths, scale):
    """`recur` as its equations say it, with a gradient that is JAX's own."""
    carry, found = (jnp.zeros(scale.shape),) * cell.states, [None] * len(inputs)
    for t in reversed(range(len(inputs))) if reverse else range(len(inputs)):
        product = (carry[0] * scale) @ kernel
        gates = (inputs[t] + bias).at[:, : product.shape[1]].add(product)
        carry = tuple(jnp.where((t < lengths)[:, None], x, 0) for x in cell.step(gates, carry))
        found[t] = carry[0]
    return jnp.stack(found)


def draw_recurrence(cell, *first):
    """Random (kernel, bias, inputs), dropout's scale and a cotangent, with more first axes."""
    gates = len(cell.biases)
    width = (gates + cell.divided) * H
    *numbers, cotangent = (
        RNG.normal(size=(*first, *shape)).astype(np.float32)
        for shape in [(H, gates * H), (width,), (T, B, width), (T, B, H)]
    )
    return numbers, np.float32(RNG.integers(0, 2, (*first, B, H)) * 2), cotangent


def value_and_gradients(fn, cell, reverse):
    """The function of ((kernel, bias, inputs), lengths, scale, cotangent)."""

    def weighed(numbers, lengths, scale, cotangent):
        # At padding inputs are 0.
        *weights, inputs = numbers
        inputs = jnp.where((jnp.arange(T)[:, None] < lengths)[:, :, None], inputs, 0)
        h = fn(cell, reverse, *weights, inputs, lengths, scale)
        return (h * cotangent).sum(), h

    return jax.grad(weighed, has_aux=True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_gradient_written_out_is_jaxs_own(cell, reverse):
    numbers, scale, cotangent = draw_recurrence(cell)
    ours = jax.jit(value_and_gradients(recur, cell, reverse))
    plain = jax.jit(value_and_gradients(step_by_step, cell, reverse))
    # The loop ends at the longest: the last step, an earlier one, the first, before any.
    for lengths in (LENGTHS, LENGTHS // 2, LENGTHS // 6, LENGTHS * 0):
        args = numbers, lengths, scale, cotangent
        found, expected = ours(*args), plain(*args)
        assert np.any(expected[1]) == lengths.any()
        for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_mapped_batches_get_the_numbers_of_each_alone(reverse):
    cell = CELLS["lstm"]
    numbers, scale, cotangent = draw_recurrence(cell, 3)
    args = numbers, np.stack([LENGTHS // 3, LENGTHS, LENGTHS * 0]), scale, cotangent
    fn = value_and_gradients(recur, cell, reverse)
    found = jax.jit(jax.vmap(fn))(*args)
    each = (jax.tree.map(itemgetter(place), args) for place in range(3))
    expected = jax.tree.map(lambda *parts: np.stack(parts), *itertools.starmap(jax.jit(fn), each))
    check_close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(check_close, found, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("cell", CELLS)
def test_an_accelerators_one_loop_of_both_directions_gives_their_numbers(monkeypatch, cell, dtype):
    layer, variables = make(cell=cell, recurrent_dropout=0.3, dtype=dtype)
    scale = RNG.normal(size=(B, T, 2 * H)).astype(np.float32)

    def compute(lengths):
        def weighed(variables, x):
            h = layer.apply(variables, x, lengths, True, rngs={"dropout": KEY})
            return (h * scale).sum(), h

        fn = jax.jit(jax.grad(weighed, (0, 1), has_aux=True)).lower(variables, X)
        return fn.as_text().count("stablehlo.while"), fn.compile()(variables, X)

    lengths = np.array([T, 0, 1, T + 3, 2], np.int32)
    loops, expected = compute(lengths)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    fewer, found = compute(lengths)
    assert loops - fewer == 2  # forward and back; others draw the dropout
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        one, other = (np.asarray(x, np.float32) for x in (one, other))
        tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_loops_end_at_the_longest_sequence(reverse, mapped):
    made = []

    def step(gates, carry):
        jax.debug.callback(lambda: made.append(1))
        return CELLS["rnn"].step(gates, carry)

    cell = CELLS["rnn"]._replace(step=step)
    numbers, scale, cotangent = draw_recurrence(cell, *[3] * mapped)
    lengths = np.stack([LENGTHS // 3, LENGTHS // 2, LENGTHS * 0]) if mapped else LENGTHS // 2
    fn = value_and_gradients(recur, cell, reverse)
    jax.block_until_ready(
        jax.jit(jax.vmap(fn) if mapped else fn)(numbers, lengths, scale, cotangent)
    )
    jax.effects_barrier()
    assert len(made) == 2 * max(LENGTHS // 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_the_cell_read_is_kept_in_the_inputs_type(dtype):
    cell = CELLS["lstm"]
    (kernel, bias, inputs), scale, _ = draw_recurrence(cell)
    half = (jax.ShapeDtypeStruct(x.shape, dtype) for x in (kernel, inputs))
    fn = lambda kernel, inputs: jax.vjp(  # noqa: E731
        lambda *args: recur(cell, False, args[0], bias, args[1], LENGTHS, scale), kernel, inputs
    )[1]
    kept = [x.dtype for x in jax.tree.leaves(jax.eval_shape(fn, *half)) if x.shape == inputs.shape]
    assert kept == [dtype]


def test_lengths_beyond_the_padded_ones_and_batches_of_nothing():
    layer, variables = make(cell="lstm")
    expected = apply(layer, variables, lengths=np.full(B, T, np.int32))
    np.testing.assert_array_equal(apply(layer, variables, lengths=LENGTHS * 0 + T + 3), expected)
    assert apply(layer, variables, X[:0], LENGTHS[:0]).shape == (0, T, 2 * H)


def test_without_a_step_there_is_no_output_and_no_gradient():
    layer, variables = make(cell="lstm")
    x, lengths = X[:, :0], LENGTHS * 0
    assert apply(layer, variables, x, lengths).shape == (B, 0, 2 * H)
    found = jax.grad(lambda v: run(layer, v, x, lengths, KEY, False).sum())(variables)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found))


def test_several_devices_end_at_their_own_longest_sequence():
    devices = local_devices(2)
    layer, variables = make(cell="lstm", merge="sum")

    def grad(variables, batch):
        loss = lambda v: (layer.apply(v, batch["x"], batch["lengths"]) ** 2).sum()  # noqa: E731
        return jax.tree.map(lambda d: jax.lax.psum(d, devices.axis_name), jax.grad(loss)(variables))

    batch = {"x": X[:4], "lengths": np.array([1, 2, 6, 4], np.int32)}
    found = devices.compile(grad)(devices.replicate(variables), devices.shard(batch))
    one = jax.jit(jax.grad(lambda v: (layer.apply(v, *batch.values()) ** 2).sum()))(variables)
    check_close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(check_close, devices.unreplicate(found), one)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
def test_products_by_both_axes_of_a_kernel(dtype, tolerance):
    left, kernel = (RNG.normal(size=shape).astype(np.float32) for shape in [(B, 6), (6, 8)])
    kernel = jnp.asarray(kernel, dtype)
    exact = left @ np.asarray(kernel, np.float32)
    found = (multiply(left, kernel), multiply(left, kernel.T, axis=1))
    for product in found:
        assert product.dtype == jnp.float32
        np.testing.assert_allclose(product, exact, atol=tolerance * np.abs(exact).max())


@pytest.mark.parametrize("cell", CELLS)
def test_starts_and_counts(cell):
    params = jax.jit(RNN(cell, 16).init)(KEY, X, LENGTHS)["params"]
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    extra = 16 if cell == "gru" else 0
    assert count_parameters(params) == 2 * (gates * (D * 16 + 16 * 16 + 16) + extra)
    draws = set()
    for direction in params.values():
        U, W = (np.asarray(direction[name]["kernel"]) for name in ("recurrent", "input"))
        np.testing.assert_allclose(U @ U.T, np.eye(16), atol=1e-5)
        limit = np.sqrt(6 / (D + gates * 16))
        assert 0.8 * limit < np.abs(W).max() <= limit
        draws |= {U.tobytes(), W.tobytes()}
        bias = np.asarray(direction["input"]["bias"]).reshape(gates, 16)
        expected = [0.0, 1.0, 0.0, 0.0] if cell == "lstm" else [0.0] * gates
        np.testing.assert_array_equal(bias, np.repeat(expected, 16).reshape(gates, 16))
    assert len(draws) == 2 * 2


def units_alone(rate, *, key=KEY, train=True, count=8, units=32, steps=5):
    """Outputs [B, T, 2, H] of units that see only themselves and a bias of 1."""
    layer = RNN("rnn", units, recurrent_dropout=rate)
    x, lengths = np.zeros((count, steps, D), np.float32), np.full(count, steps, np.int32)
    weights = {
        "input": {"kernel": np.zeros((D, units)), "bias": np.ones(units)},
        "recurrent": {"kernel": np.eye(units)},
    }
    variables = {"params": {"forward": weights, "backward": weights}}
    found = apply(layer, variables, x, lengths, key, train)
    return found.reshape(count, steps, 2, units)


def courses(rate, steps=5):
    """What such a unit puts out if it is dropped, and if it is kept."""
    dropped, kept = np.full(steps, np.tanh(1.0)), np.zeros(steps)
    h = 0.0
    for t in range(steps):
        kept[t] = h = np.tanh(1 + h / (1 - rate))
    return dropped, kept


def test_recurrent_dropout_has_one_mask_per_sequence_and_direction():
    found = units_alone(0.3)
    found[:, :, 1] = found[:, ::-1, 1]
    dropped, kept = (
        np.isclose(found, course[:, None, None]).all(axis=1)
        for course in courses(dropped_bytes(0.3) / 256)
    )
    assert (dropped ^ kept).all()
    # 512 draws: the share has a deviation of 0.02.
    assert abs(kept.mean() - 0.7) < 0.08
    masks = kept.reshape(-1, kept.shape[-1])
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_recurrent_dropout_is_by_key_and_place_and_for_training_only():
    first = units_alone(0.3)
    np.testing.assert_array_equal(first, units_alone(0.3))
    np.testing.assert_array_equal(first[:3], units_alone(0.3, count=3))
    assert (first != units_alone(0.3, key=jax.random.key(1))).any()
    scored = units_alone(0.3, train=False)
    np.testing.assert_array_equal(scored, units_alone(0.0))
    expected = np.broadcast_to(courses(0.0)[1][:, None], (8, 5, 32))
    np.testing.assert_allclose(scored[:, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_is_near_float32(cell):
    layer, variables = make(cell=cell)
    half = RNN(cell, H, dtype=jnp.bfloat16)
    found = apply(half, variables)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), apply(layer, variables), atol=0.05)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_gradients_are_near_float32s(cell):
    layer, variables = make(cell=cell)
    half = RNN(cell, H, dtype=jnp.bfloat16)
    loss = lambda layer, v, x: (layer.apply(v, x, LENGTHS).astype(jnp.float32) ** 2).sum()  # noqa: E731
    grad = jax.jit(jax.grad(loss, argnums=(1, 2)), static_argnums=0)
    for one, other in zip(
        jax.tree.leaves(grad(half, variables, X)),
        jax.tree.leaves(grad(layer, variables, X)),
        strict=True,
    ):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=0.03 * np.abs(other).max())


def test_carry_is_float32():
    """An LSTM that adds 2^-10 a step: a bfloat16 sum would stop at a quarter."""
    bias = np.repeat(np.array([20, 20, 2**-10, 20], np.float32), H)
    params = {
        "input": {"kernel": np.zeros((D, 4 * H)), "bias": bias},
        "recurrent": {"kernel": np.zeros((H, 4 * H))},
    }
    x, lengths = np.zeros((1, 1024, D), np.float32), np.array([1024], np.int32)
    layer = Direction("lstm", H, dtype=jnp.bfloat16)

    @jax.jit
    def run_layer(params):
        operands = layer.apply({"params": params}, x, lengths, False)
        return operands.inputs, run_directions(CELLS["lstm"], [operands], lengths)[0]

    inputs, states = run_layer(params)
    assert (inputs.dtype, states.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(states[-1], np.full((1, H), np.tanh(1.0)), rtol=1e-3)
    whole = RNN("lstm", H, bidirectional=False, dtype=jnp.bfloat16)
    output = jax.eval_shape(whole.apply, {"params": {"forward": params}}, x, lengths)
    assert output.dtype == jnp.bfloat16


def test_no_rank_is_promoted():
    for cell in CELLS:
        with jax.numpy_rank_promotion("raise"):
            jax.eval_shape(RNN(cell, H).init, KEY, X, LENGTHS)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cell": "elman"}, "--cell=elman is unknown: choose one of rnn, lstm, gru"),
        ({"merge": "mean"}, "--merge=mean is unknown: choose one of concat, sum"),
    ],
)
def test_errors_list_the_choices(options, message):
    with pytest.raises(InputError, match=message):
        RNN(**options).init(KEY, X, LENGTHS)
