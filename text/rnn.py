"""Recurrent layers over padded batches: simple RNN, LSTM and GRU, in one direction or both.

    RNN("lstm", 128).apply(variables, x, lengths, train) -> float [B, T, 2H]

with x float [B, T, D] and lengths int32 [B]. What stands at padding reaches neither a value
nor a gradient, and outputs there are 0. The equations and the order of the gates are
PyTorch's, so that weights can be compared. Dropout draws from the rng stream `dropout`.

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
    B = 64 adds 60 % to the tokens of laptop14. An accelerator would wait for the host at every
    step of a loop whose end the program does not know.
    """
    return longest(lengths) if jax.default_backend() == "cpu" else steps


def multiply(h: Array, kernel: Array) -> Array:
    """h U, float32 [B, G*H], of h [B, H] and U [H, G*H]; factors and product have the type of U.

    The sums are made in float32 and rounded once: only such products does XLA hand to the
    matrix units of CPUs, where they take a quarter of the time (bfloat16, H = 512, B = 64, one
    core of a Xeon with AMX).
    """
    return jnp.dot(h.astype(kernel.dtype), kernel).astype(jnp.float32)


def _at(array: Array, t: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(array, t, keepdims=False)


def _put(array: Array, t: Array, value: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(array, value.astype(array.dtype), t, axis=0)


def _run(
    cell: Cell,
    reverse: bool,
    kernel: Array,
    inputs: Array,
    lengths: Array,
    scale: Array,
    every: bool,
) -> tuple[Carry, Array | None]:
    """The states after every step, and with `every` the gates; see `recur`.

    Returns:
        h, with `every` the other states too, float32 [T + 1, B, H]: one place is the state before
        the first step, the last place for `reverse` and else the first.
        The gates before their activations, float32 [T, B, G*H].
    """
    T, B, GH = inputs.shape
    steps, H = steps_to_make(lengths, T), kernel.shape[0]

    def step(i: Array, loop: tuple) -> tuple:
        carry, kept, gates = loop
        t = steps - 1 - i if reverse else i
        product = multiply(carry[0] * scale, kernel)
        at = _at(inputs, t).astype(jnp.float32) + jnp.pad(
            product, ((0, 0), (0, GH - product.shape[1]))
        )
        real = (t < lengths)[:, None]
        carry = tuple(jnp.where(real, new, 0) for new in cell.step(at, carry))
        place = t if reverse else t + 1
        kept = tuple(_put(states, place, state) for states, state in zip(kept, carry, strict=False))
        return carry, kept, None if gates is None else _put(gates, t, at)

    start = (jnp.zeros((B, H), jnp.float32),) * cell.states
    kept = (jnp.zeros((T + 1, B, H), jnp.float32),) * (cell.states if every else 1)
    gates = jnp.zeros((T, B, GH), jnp.float32) if every else None
    return jax.lax.fori_loop(0, steps, step, (start, kept, gates))[1:]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    cell: Cell, reverse: bool, kernel: Array, inputs: Array, lengths: Array, scale: Array
) -> Array:
    """The hidden state after every step: float32 [T, B, H], 0 at padding.

    Only what is sequential is here: the recurrent product and the gates. The carry is 0 at
    padding, so that a reversed loop comes to the last token with zeros.

    The gradient, in reverse mode only and none of `scale`, is written out. It keeps the gates
    before their activations, [T, B, G*H], and the states, and activates the gates again: a
    scan's own gradient keeps every factor of every activation. That of U is one product over all
    the steps, where a scan's adds up a matrix of U's size step by step. A step of a tagger
    (LSTM, H = 128, B = 64, T = 24, two cores of a Xeon) takes 18 ms so and 22 by a scan's.

    Args:
        cell: the recurrence.
        reverse: whether it runs from the last step to the first.
        kernel: U [H, P*H], in the type of the products.
        inputs: [T, B, G*H] in that type, to whose first P*H features h U is added.
        lengths: int32 [B], 0 to T.
        scale: [B, H], multiplies h before the product (dropout).
    """
    return _after(_run(cell, reverse, kernel, inputs, lengths, scale, every=False)[0][0], reverse)


def _after(states: Array, reverse: bool) -> Array:
    """The states after every step, [T, B, H], of those of `_run`."""
    return states[:-1] if reverse else states[1:]


def _recur_forward(
    cell: Cell, reverse: bool, kernel: Array, inputs: Array, lengths: Array, scale: Array
) -> tuple[Array, tuple]:
    states, gates = _run(cell, reverse, kernel, inputs, lengths, scale, every=True)
    return _after(states[0], reverse), (kernel, lengths, scale, states, gates)


def _recur_backward(cell: Cell, reverse: bool, saved: tuple, d_h: Array) -> tuple:
    kernel, lengths, scale, states, gates = saved
    T, B, _ = gates.shape
    H, PH = kernel.shape
    steps, transposed = steps_to_make(lengths, T), kernel.T
    before = tuple(_after(state, not reverse) for state in states)

    def step(i: Array, loop: tuple) -> tuple:
        d_carry, d_inputs = loop
        t = i if reverse else steps - 1 - i
        real = (t < lengths)[:, None]
        d_carry = (d_carry[0] + _at(d_h, t), *d_carry[1:])
        _, pull = jax.vjp(cell.step, _at(gates, t), tuple(_at(state, t) for state in before))
        d_gates, d_carry = pull(tuple(jnp.where(real, d, 0) for d in d_carry))
        d_gates = d_gates.astype(kernel.dtype)
        by_product = multiply(d_gates[:, :PH], transposed) * scale
        return (d_carry[0] + by_product, *d_carry[1:]), _put(d_inputs, t, d_gates)

    start = (jnp.zeros((B, H), jnp.float32),) * cell.states
    d_inputs = jnp.zeros(gates.shape, kernel.dtype)
    d_inputs = jax.lax.fori_loop(0, steps, step, (start, d_inputs))[1]
    factor = (before[0] * scale).astype(kernel.dtype).reshape(-1, H)
    d_kernel = jnp.dot(factor.T, d_inputs[:, :, :PH].reshape(-1, PH))
    return d_kernel, d_inputs, None, None


recur.defvjp(_recur_forward, _recur_backward)


class RecurrentWeights(nn.Module):
    """What multiplies the hidden state: kernel U [H, G*H] and bias [H] or None."""

    cell: Cell
    features: int
    positions: int  # how often the kernel is multiplied, for the layer table

    @nn.compact
    def __call__(self) -> tuple[Array, Array | None]:
        gates = len(self.cell.biases)
        shape = (self.features, gates * self.features)
        kernel = self.param("kernel", nn.initializers.orthogonal(), shape)
        if not self.cell.divided:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


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
        gates = len(cell.biases)
        B, T, D = x.shape
        positions = T * B
        # Time first, and as one long list: the gradient of the bias is a sum over both, which took
        # 34 ms of [T, B, G*H] and almost nothing of [T*B, G*H] (LSTM in bfloat16, T = 32, B = 64,
        # H = 512, one core of a Xeon).
        listed = jnp.where(real_steps(lengths, T), x, 0).swapaxes(0, 1).reshape(positions, D)
        inputs = nn.Dense(
            gates * self.features,
            kernel_init=nn.initializers.glorot_uniform(),
            bias_init=lambda *_: jnp.repeat(jnp.float32(cell.biases), self.features),
            dtype=self.dtype,
            name="input",
        )(listed).reshape(T, B, gates * self.features)
        kernel, bias = RecurrentWeights(cell, self.features, positions, name="recurrent")()
        if bias is not None:
            apart = jnp.broadcast_to(bias.astype(self.dtype), (T, B, self.features))
            both, last = jnp.split(inputs, [-self.features], axis=-1)
            inputs = jnp.concatenate([both, apart, last], axis=-1)
        # One mask for all the steps of a sequence.
        dropout = Dropout(self.recurrent_dropout, self.axis_name, name="recurrent_dropout")
        scale = dropout(jnp.ones((B, self.features)), train)
        h = recur(cell, self.reverse, kernel.astype(self.dtype), inputs, lengths, scale)
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
