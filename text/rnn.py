"""Recurrent layers over padded batches: simple RNN, LSTM and GRU, in one direction or both.

    RNN("lstm", 128).apply(variables, x, lengths, train) -> float [B, T, 2H]

with x float [B, T, D] and lengths int32 [B]. What stands at padding reaches neither a value
nor a gradient, and outputs there are 0. The equations and the order of the gates are
PyTorch's, so that weights can be compared. Dropout draws from the rng stream `dropout`.

What is sequential is in text/recurrence.py.

Sources: Elman 1990; Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000;
Cho et al. 2014, arXiv 1406.1078, the reset gate acting after the recurrent product; Gal and
Ghahramani 2016, arXiv 1512.05287 (recurrent dropout).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from common.config import check_choice
from common.layers import Dropout
from text.recurrence import Carry, Cell, Operands, run_directions


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


class DenseApart(nn.Dense):
    """A dense layer without its bias, which it gives apart: a recurrence adds it at every step."""

    @nn.compact
    def __call__(self, inputs: Array) -> tuple[Array, Array]:  # type: ignore[override]
        """x W, `dtype` [N, features], of x [N, D], and the bias, float32 [features]."""
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, shape[1:])
        return jnp.dot(inputs.astype(self.dtype), kernel.astype(self.dtype)), bias


class RecurrentWeights(nn.Module):
    """What multiplies the hidden state: kernel U [H, P*H] and bias [H] or None."""

    cell: Cell
    features: int
    positions: int  # how often the kernel is multiplied, for the layer table

    @nn.compact
    def __call__(self) -> tuple[Array, Array | None]:
        shape = (self.features, len(self.cell.biases) * self.features)
        kernel = self.param("kernel", nn.initializers.orthogonal(), shape)
        if not self.cell.divided:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Direction(nn.Module):
    """The weights of a recurrence in one direction, and what it reads with them.

    Kernels of all gates are drawn at once, as Keras does: Glorot uniform, and orthogonal rows of
    the recurrent one.
    """

    cell: str
    features: int
    recurrent_dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, lengths: Array, train: bool) -> Operands:
        """What `recur` reads for x [B, T, D] and lengths int32 [B], from either end."""
        cell = CELLS[check_choice("--cell", self.cell, CELLS)]
        B, T, D = x.shape
        H, PH = self.features, len(cell.biases) * self.features
        listed = jnp.where(real_steps(lengths, T), x, 0).swapaxes(0, 1).reshape(T * B, D)
        inputs, bias = DenseApart(
            PH,
            kernel_init=nn.initializers.glorot_uniform(),
            bias_init=lambda *_: jnp.repeat(jnp.float32(cell.biases), H),
            dtype=self.dtype,
            name="input",
        )(listed)
        kernel, apart = RecurrentWeights(cell, H, T * B, name="recurrent")()
        if apart is not None:
            shared, last = jnp.split(inputs, [PH - H], axis=-1)
            inputs = jnp.concatenate([shared, jnp.zeros_like(last), last], axis=-1)
            bias = jnp.concatenate([bias[:-H], apart, bias[-H:]])
        # One mask for all the steps of a sequence.
        dropout = Dropout(self.recurrent_dropout, self.axis_name, name="recurrent_dropout")
        scale = dropout(jnp.ones((B, H)), train)
        inputs = inputs.reshape(T, B, inputs.shape[-1])
        return Operands(kernel.astype(self.dtype), bias, inputs, scale)


class RNN(nn.Module):
    """A recurrent layer, in both directions unless told otherwise.

    Recurrences are in float32 but for their products, which are in `dtype`, and their gradient,
    which steps again from gates rounded to `dtype`.

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
        direction = partial(
            Direction,
            self.cell,
            self.features,
            self.recurrent_dropout,
            self.dtype,
            self.axis_name,
        )
        names = ("forward", "backward") if self.bidirectional else ("forward",)
        operands = [direction(name=name)(x, lengths, train) for name in names]
        states = run_directions(CELLS[self.cell], operands, lengths)
        return merge([h.swapaxes(0, 1).astype(self.dtype) for h in states])
