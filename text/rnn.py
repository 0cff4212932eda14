"""Recurrent layers over padded batches: simple RNN, LSTM and GRU, in one direction or both.

    RNN("lstm", 128).apply(variables, x, lengths, train) -> float [B, T, 2H]

with x float [B, T, D] and lengths int32 [B]. What stands at padding reaches neither a value
nor a gradient, and outputs there are 0. The equations and the order of the gates are
PyTorch's, so that weights can be compared. Dropout draws from the rng stream `dropout`.

Time is a `lax.scan`; on a CPU it is a loop that ends at the longest sequence (`steps_to_make`;
`lax.fori_loop` is a scan where the number of steps is known).

Sources: Elman 1990; Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000;
Cho et al. 2014, arXiv 1406.1078, the reset gate acting after the recurrent product; Gal and
Ghahramani 2016, arXiv 1512.05287 (recurrent dropout).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from common.config import check_choice
from common.layers import Dropout

Carry = tuple[Array, ...]
# Units from which a recurrent kernel is not transposed.
WIDE_UNITS = 256


def step_rnn(gates: Array, carry: Carry) -> Carry:
    """h = tanh(x W + b + h U)."""
    return (jnp.tanh(gates),)


def step_lstm(gates: Array, carry: Carry) -> Carry:
    """Gates i, f, g, o of x W + b + h U; the carry is (h, c)."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def step_gru(gates: Array, carry: Carry) -> Carry:
    """Gates r and z, and the state's and the input's part of n, of which r multiplies the first."""
    r, z, n_h, n_x = jnp.split(gates, 4, axis=-1)
    z = jax.nn.sigmoid(z)
    n = jnp.tanh(n_x + jax.nn.sigmoid(r) * n_h)
    return ((1.0 - z) * n + z * carry[0],)


class Cell(NamedTuple):
    """A recurrence with H units.

    Attributes:
        step: (gates [B, G*H], carry) -> the next carry, of which h is the first.
        biases: where the bias b of each gate of x W + b starts.
        states: how many arrays [B, H] the carry has.
        divided: whether the last gate gets x W + b and h U + b' apart, as two.
    """

    step: Callable[[Array, Carry], Carry]
    biases: tuple[float, ...]
    states: int = 1
    divided: bool = False


CELLS = {
    "rnn": Cell(step_rnn, (0.0,)),
    # A forget gate that starts open: Jozefowicz et al. 2015.
    "lstm": Cell(step_lstm, (0.0, 1.0, 0.0, 0.0), states=2),
    "gru": Cell(step_gru, (0.0, 0.0, 0.0), divided=True),
}

MERGES: dict[str, Callable[[list[Array]], Array]] = {
    "concat": partial(jnp.concatenate, axis=-1),
    "sum": sum,  # type: ignore[dict-item]
}


def real_steps(lengths: Array, steps: int) -> Array:
    """Which of `steps` steps are not padding: bool [B, T, 1] for lengths int32 [B]."""
    return (jnp.arange(steps)[None] < lengths[:, None])[:, :, None]


@jax.custom_batching.custom_vmap
def longest(lengths: Array) -> Array:
    """The greatest length, int32 []; under `vmap` of all that is mapped, and so one for all."""
    return lengths.max()


@longest.def_vmap
def _longest_of_all(size: int, batched: list[bool], lengths: Array) -> tuple[Array, bool]:
    return longest(lengths), False


def steps_to_make(lengths: Array, steps: int) -> Array | int:
    """How many of `steps` steps a loop has to make.

    On a CPU none after the longest sequence: a batch is padded to one of few widths, which at
    B = 64 adds 60 % to the tokens of laptop14, the steps to the longest 14 %. An accelerator would
    wait for the host at every step of a loop whose end the program does not know.
    """
    return longest(lengths) if jax.default_backend() == "cpu" else steps


def multiply(h: Array, kernel: Array) -> Array:
    """h U, float32 [B, G*H], of h [B, H] and U [H, G*H]; factors and product have the type of U.

    The sums are made in float32 and rounded once: only such products does XLA hand to the
    matrix units of CPUs, where they take a quarter of the time (bfloat16, H = 512, B = 64, one
    core of a Xeon with AMX).
    """
    return jnp.dot(h.astype(kernel.dtype), kernel).astype(jnp.float32)


def multiplier_by_transposed(kernel: Array) -> Callable[[Array], Array]:
    """The function d -> d U^T, float32 [B, H] of d [B, G*H].

    A wide kernel is read as it is; a narrow one is quicker to multiply by once transposed (a
    product of H = 512, B = 64 takes 0.53 ms instead of 0.65, and the 4 ms of transposing; of
    H = 128, B = 16 0.022 instead of 0.020; two cores of a Xeon).
    """
    if kernel.shape[0] < WIDE_UNITS:
        transposed = kernel.T
        return lambda d: multiply(d, transposed)
    contract = (((1,), (1,)), ((), ()))
    return lambda d: jax.lax.dot_general(d.astype(kernel.dtype), kernel, contract).astype(
        jnp.float32
    )


def _at(array: Array, t: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(array, t, keepdims=False)


def _row(gates: Array, t: Array) -> Array:
    """Row t, which is read before it is overwritten: else XLA copies `gates` at every step."""
    return jax.lax.optimization_barrier(_at(gates, t))


def _put(array: Array, t: Array, value: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(array, value.astype(array.dtype), t, axis=0)


def _run(
    cell: Cell,
    reverse: bool,
    kernel: Array,
    bias: Array,
    inputs: Array,
    lengths: Array,
    scale: Array,
    every: bool,
) -> tuple[Carry, Array]:
    """The states after every step and with `every` the gates; see `recur`.

    Returns:
        h, with `every` the other states too, float32 [T + 1, B, H]: one place is the state before
        the first step, the last place for `reverse` and else the first.
        `inputs`, which the gates before their activations, float32, have replaced with `every`.
    """
    T, B, GH = inputs.shape
    steps, (H, PH) = steps_to_make(lengths, T), kernel.shape

    def step(i: Array, loop: tuple) -> tuple:
        carry, kept, gates = loop
        t = steps - 1 - i if reverse else i
        product = jnp.pad(multiply(carry[0] * scale, kernel), ((0, 0), (0, GH - PH)))
        at = _row(gates, t).astype(jnp.float32) + bias[None] + product
        real = (t < lengths)[:, None]
        carry = tuple(jnp.where(real, new, 0) for new in cell.step(at, carry))
        place = t if reverse else t + 1
        kept = tuple(_put(one, place, state) for one, state in zip(kept, carry, strict=False))
        return carry, kept, _put(gates, t, at) if every else gates

    start = (jnp.zeros((B, H), jnp.float32),) * cell.states
    kept = (jnp.zeros((T + 1, B, H), jnp.float32),) * (cell.states if every else 1)
    gates = inputs.astype(jnp.float32) if every else inputs
    return jax.lax.fori_loop(0, steps, step, (start, kept, gates))[1:]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    cell: Cell,
    reverse: bool,
    kernel: Array,
    bias: Array,
    inputs: Array,
    lengths: Array,
    scale: Array,
) -> Array:
    """The hidden state after every step: float32 [T, B, H], 0 at padding.

    Only what is sequential is here: the recurrent product and the gates. The carry is 0 at
    padding, so that a reversed loop comes to the last token with zeros.

    The gradient, in reverse mode only and none of `scale`, is written out. It keeps the states
    and the gates before their activations, in the place of the inputs, and activates them again:
    a scan's own gradient keeps every factor of every activation. That of U is one product over
    all the steps, where a scan's adds up a matrix of U's size step by step.

    Args:
        cell: the recurrence.
        reverse: whether it runs from the last step to the first.
        kernel: U [H, P*H], in the type of the products.
        bias: float32 [G*H], of every step.
        inputs: [T, B, G*H] in the type of U, 0 at padding; h U is added to the first P*H features.
        lengths: int32 [B], 0 to T.
        scale: [B, H], multiplies h before the product (dropout).
    """
    states, _ = _run(cell, reverse, kernel, bias, inputs, lengths, scale, every=False)
    return _after(states[0], reverse)


def _after(states: Array, reverse: bool) -> Array:
    """The states after every step, [T, B, H], of those of `_run`."""
    return states[:-1] if reverse else states[1:]


def _recur_forward(
    cell: Cell,
    reverse: bool,
    kernel: Array,
    bias: Array,
    inputs: Array,
    lengths: Array,
    scale: Array,
) -> tuple[Array, tuple]:
    states, gates = _run(cell, reverse, kernel, bias, inputs, lengths, scale, every=True)
    return _after(states[0], reverse), (kernel, lengths, scale, states, gates)


def _recur_backward(cell: Cell, reverse: bool, saved: tuple, d_h: Array) -> tuple:
    kernel, lengths, scale, states, gates = saved
    T, B, GH = gates.shape
    H, PH = kernel.shape
    steps, multiply_back = steps_to_make(lengths, T), multiplier_by_transposed(kernel)
    before = tuple(_after(state, not reverse) for state in states)

    def step(i: Array, loop: tuple) -> tuple:
        d_carry, gates = loop
        t = i if reverse else steps - 1 - i
        real = (t < lengths)[:, None]
        d_carry = (d_carry[0] + _at(d_h, t), *d_carry[1:])
        _, pull = jax.vjp(cell.step, _row(gates, t), tuple(_at(state, t) for state in before))
        d_gates, d_carry = pull(tuple(jnp.where(real, d, 0) for d in d_carry))
        by_product = multiply_back(d_gates[:, :PH]) * scale
        return (d_carry[0] + by_product, *d_carry[1:]), _put(gates, t, d_gates)

    # Where no step was made both inputs and gradient are 0.
    start = (jnp.zeros((B, H), jnp.float32),) * cell.states
    d_inputs = jax.lax.fori_loop(0, steps, step, (start, gates))[1].reshape(-1, GH)
    d_bias, d_inputs = d_inputs.sum(axis=0), d_inputs.astype(kernel.dtype)
    factor = (before[0] * scale).astype(kernel.dtype).reshape(-1, H)
    d_kernel = jnp.dot(factor.T, d_inputs[:, :PH])
    return d_kernel, d_bias, d_inputs.reshape(T, B, GH), None, None


recur.defvjp(_recur_forward, _recur_backward)


class Weights(nn.Module):
    """A kernel of H columns for each of G gates and biases, for a product that is made elsewhere.

    Attributes:
        shape: rows of the kernel, G and H.
        kernel_init: its start.
        starts: where the biases start, H equal ones of each; () makes none.
        positions: how often the kernel is multiplied, for the layer table.
    """

    shape: tuple[int, int, int]
    kernel_init: Any
    starts: tuple[float, ...]
    positions: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """The kernel [rows, G*H] and the biases, float32 [len(starts)*H]."""
        rows, gates, features = self.shape
        kernel = self.param("kernel", self.kernel_init, (rows, gates * features))
        start = jnp.repeat(jnp.array(self.starts, jnp.float32), features)
        return kernel, self.param("bias", lambda _: start) if self.starts else start


class Direction(nn.Module):
    """A recurrence from left to right, or with `reverse` from right to left.

    The recurrence is in float32 but for its product, which is in `dtype`. Kernels of all gates
    are drawn at once, as Keras does: Glorot uniform, and orthogonal rows of the recurrent one.
    """

    cell: str
    features: int
    reverse: bool = False
    recurrent_dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, lengths: Array, train: bool) -> tuple[Array, Array]:
        """Outputs [B, T, H], and the hidden state after the last step, float32 [B, H]."""
        cell = CELLS[check_choice("--cell", self.cell, CELLS)]
        B, T, D = x.shape
        G, H = len(cell.biases), self.features
        glorot, orthogonal = nn.initializers.glorot_uniform(), nn.initializers.orthogonal()
        W, bias = Weights((D, G, H), glorot, cell.biases, T * B, name="input")()
        starts = (0.0,) if cell.divided else ()
        U, apart = Weights((H, G, H), orthogonal, starts, T * B, name="recurrent")()
        # Time first.
        listed = jnp.where(real_steps(lengths, T), x, 0).swapaxes(0, 1).reshape(T * B, D)
        inputs = jnp.dot(listed.astype(self.dtype), W.astype(self.dtype)).reshape(T, B, G * H)
        if cell.divided:
            shared, last = jnp.split(inputs, [(G - 1) * H], axis=-1)
            inputs = jnp.concatenate([shared, jnp.zeros_like(last), last], axis=-1)
            bias = jnp.concatenate([bias[:-H], apart, bias[-H:]])
        # One mask for all the steps of a sequence.
        dropout = Dropout(self.recurrent_dropout, self.axis_name, name="recurrent_dropout")
        scale = dropout(jnp.ones((B, H)), train)
        h = recur(cell, self.reverse, U.astype(self.dtype), bias, inputs, lengths, scale)
        last = h[0] if self.reverse else h[jnp.maximum(lengths - 1, 0), jnp.arange(B)]
        return h.swapaxes(0, 1).astype(self.dtype), last


class RNN(nn.Module):
    """A recurrent layer, in both directions unless told otherwise.

    Attributes:
        cell: a key of `CELLS`.
        features: H, units of a direction.
        bidirectional: whether a second recurrence runs from right to left.
        merge: a key of `MERGES`, how the directions' outputs become one.
        recurrent_dropout: chance that a unit of the hidden state is missing from the
            recurrent product, at all steps of a sequence alike; training only.
        dtype: of the products and the outputs.
        axis_name: the device axis under `pmap`, None on one device.
    """

    cell: str = "lstm"
    features: int = 128
    bidirectional: bool = True
    merge: str = "concat"
    recurrent_dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, lengths: Array, train: bool = False) -> Array:
        """Outputs of every step, 0 at padding.

        Args:
            x: float [B, T, D].
            lengths: int32 [B], 0 to T.
            train: whether dropout acts.

        Returns:
            `dtype` [B, T, 2H] if two directions are concatenated, else [B, T, H].

        Raises:
            InputError: the cell or the merge does not exist.
        """
        merge = MERGES[check_choice("--merge", self.merge, MERGES)]
        outputs = []
        for name in ("forward", "backward") if self.bidirectional else ("forward",):
            direction = Direction(
                self.cell,
                self.features,
                reverse=name == "backward",
                recurrent_dropout=self.recurrent_dropout,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=name,
            )
            outputs.append(direction(x, lengths, train)[0])
        return merge(outputs)
