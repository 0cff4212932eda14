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


def step_gru(projected: Array, recurrent: Array, carry: Carry) -> Carry:
    """Gates r, z, n of x W + b and of h U + b', where r multiplies the recurrent part of n."""
    x_r, x_z, x_n = jnp.split(projected, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(recurrent, 3, axis=-1)
    z = jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
    return ((1.0 - z) * n + z * carry[0],)


class Cell(NamedTuple):
    """A recurrence with H units.

    Attributes:
        step: (x W + b + h U [B, G*H], carry) -> the next carry, of which h is the first; or
            (x W + b, h U + b', carry) with `recurrent_bias`.
        biases: where the bias b of each of the G gates starts.
        states: how many arrays [B, H] the carry has.
        recurrent_bias: whether h U has a bias of its own, which only the last gate learns.
    """

    step: Callable[..., Carry]
    biases: tuple[float, ...]
    states: int = 1
    recurrent_bias: bool = False


CELLS = {
    "rnn": Cell(step_rnn, (0.0,)),
    # A forget gate that starts open: Jozefowicz et al. 2015.
    "lstm": Cell(step_lstm, (0.0, 1.0, 0.0, 0.0), states=2),
    "gru": Cell(step_gru, (0.0, 0.0, 0.0), recurrent_bias=True),
}

MERGES: dict[str, Callable[[list[Array]], Array]] = {
    "concat": partial(jnp.concatenate, axis=-1),
    "sum": sum,  # type: ignore[dict-item]
}


def real_steps(lengths: Array, steps: int) -> Array:
    """Which of `steps` steps are not padding: bool [B, T, 1] for lengths int32 [B]."""
    return (jnp.arange(steps)[None] < lengths[:, None])[:, :, None]


@jax.custom_vjp
def multiply(h: Array, kernel: Array) -> Array:
    """h U, float32 [B, G*H], of h [B, H] and U [H, G*H]; factors and product have the type of U.

    So have those of its gradients: without a rule of its own, a bfloat16 product has gradients
    whose factors are widened to float32, which matrix units are slow at. The sums are made in
    float32 and rounded once: only such products does XLA hand to the matrix units of CPUs,
    where they take a quarter of the time (H = 512, B = 64, one core of a Xeon with AMX).
    """
    return jnp.dot(h.astype(kernel.dtype), kernel).astype(jnp.float32)


def _multiply_backward(saved: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
    h, kernel = saved
    d, rows = d.astype(kernel.dtype), h.astype(kernel.dtype)
    d_h = jnp.dot(d, kernel.T)
    return d_h.astype(h.dtype), jnp.dot(rows.T, d)


multiply.defvjp(lambda h, kernel: (multiply(h, kernel), (h, kernel)), _multiply_backward)


def scan_cell(
    cell: Cell,
    reverse: bool,
    kernel: Array,
    inputs: tuple[Array, ...],
    real: Array,
    scale: Array,
) -> Array:
    """The hidden state after every step: float32 [T, B, H].

    Only what is sequential is here: the recurrent product and the gates. The carry is held
    through padding, so that a reversed scan comes to the last token with a carry of zeros.
    `recur` is the same with a faster gradient: in reverse mode only, and none of `scale`.

    Args:
        cell: the recurrence.
        reverse: whether it runs from the last step to the first.
        kernel: U [H, G*H], in the type of the products.
        inputs: of every step, [T, B, G*H]; h U is added to the last of them.
        real: bool [T, B, 1], whether a step is not padding.
        scale: [B, H], multiplies h before the product (dropout).
    """

    def step(carry: Carry, at: tuple[tuple[Array, ...], Array]) -> tuple[Carry, Array]:
        inputs, real = at
        *others, last = (part.astype(jnp.float32) for part in inputs)
        last = last + multiply(carry[0] * scale, kernel)
        new = cell.step(*others, last, carry)
        held = tuple(jnp.where(real, n, old) for n, old in zip(new, carry, strict=True))
        return held, held[0]

    start = (jnp.zeros(scale.shape, jnp.float32),) * cell.states
    return jax.lax.scan(step, start, (inputs, real), reverse=reverse)[1]


# The gradient of U is one product over all the steps: h U is added to the last input, so what
# reaches one reaches the other. The gradient of a scan would add up a matrix of U's size step
# by step, for 11 % more CPU time at H = 128, B = 16, T = 24 (LSTM, one core of a Xeon).
recur = jax.custom_vjp(scan_cell, nondiff_argnums=(0, 1))


def _recur_forward(
    cell: Cell,
    reverse: bool,
    kernel: Array,
    inputs: tuple[Array, ...],
    real: Array,
    scale: Array,
) -> tuple[Array, tuple]:
    h, pull = jax.vjp(lambda inputs: scan_cell(cell, reverse, kernel, inputs, real, scale), inputs)
    return h, (kernel, scale, h, pull)


def _recur_backward(cell: Cell, reverse: bool, saved: tuple, d_h: Array) -> tuple:
    kernel, scale, h, pull = saved
    (d_inputs,) = pull(d_h)
    start = jnp.zeros_like(h[:1])
    before = jnp.concatenate([h[1:], start] if reverse else [start, h[:-1]])
    before = (before * scale).astype(kernel.dtype)
    d_last = d_inputs[-1].astype(kernel.dtype)
    H, GH = kernel.shape
    d_kernel = jnp.dot(before.reshape(-1, H).T, d_last.reshape(-1, GH))  # [H, G*H]
    return d_kernel, d_inputs, None, None


recur.defvjp(_recur_forward, _recur_backward)


class RecurrentWeights(nn.Module):
    """What multiplies the hidden state: kernel U [H, G*H] and bias [G*H] or None."""

    cell: Cell
    features: int
    positions: int  # how often the kernel is multiplied, for the layer table

    @nn.compact
    def __call__(self) -> tuple[Array, Array | None]:
        gates = len(self.cell.biases)
        shape = (self.features, gates * self.features)
        kernel = self.param("kernel", nn.initializers.orthogonal(), shape)
        if not self.cell.recurrent_bias:
            return kernel, None
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel, jnp.pad(bias, ((gates - 1) * self.features, 0))


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
        real, positions = real_steps(lengths, T), T * B
        # Time first, and as one long list: the gradient of the bias is a sum over both, which took
        # 34 ms of [T, B, G*H] and almost nothing of [T*B, G*H] (LSTM in bfloat16, T = 32, B = 64,
        # H = 512, one core of a Xeon).
        listed = jnp.where(real, x, 0).swapaxes(0, 1).reshape(positions, D)
        projected = nn.Dense(
            gates * self.features,
            kernel_init=nn.initializers.glorot_uniform(),
            bias_init=lambda *_: jnp.repeat(jnp.float32(cell.biases), self.features),
            dtype=self.dtype,
            name="input",
        )(listed).reshape(T, B, gates * self.features)
        kernel, bias = RecurrentWeights(cell, self.features, positions, name="recurrent")()
        # One mask for all the steps of a sequence.
        dropout = Dropout(self.recurrent_dropout, self.axis_name, name="recurrent_dropout")
        scale = dropout(jnp.ones((B, self.features)), train)
        inputs: tuple[Array, ...] = (projected,)
        if bias is not None:
            inputs += (jnp.broadcast_to(bias, inputs[0].shape),)
        h = recur(cell, self.reverse, kernel.astype(self.dtype), inputs, real.swapaxes(0, 1), scale)
        last = h[0] if self.reverse else h[-1]
        return jnp.where(real, h.swapaxes(0, 1), 0).astype(self.dtype), last


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
