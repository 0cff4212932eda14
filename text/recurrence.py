"""The loops of a recurrent layer over time, and their gradient, which is written out.

Time is a `lax.scan`; on a CPU it is a loop that ends at the longest sequence (`steps_to_make`;
`lax.fori_loop` is a scan where the number of steps is known).

Letters: T steps, B sequences, H units, P gates that get h U, G >= P parts that a cell reads.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from common.parallel import default_is_cpu

Carry = tuple[Array, ...]


class Cell(NamedTuple):
    """A recurrence with H units.

    Attributes:
        step: (gates [B, G*H], carry) -> the next carry, of which h is the first.
        biases: where the biases of the P gates start.
        states: how many arrays [B, H] the carry has.
        divided: whether the last gate gets x W + b and h U + b' apart: then G = P + 1, the
            state's part before the input's; else G = P.
    """

    step: Callable[[Array, Carry], Carry]
    biases: tuple[float, ...]
    states: int = 1
    divided: bool = False


class Operands(NamedTuple):
    """What a recurrence in one direction reads: arguments of `recur`, with their shapes there."""

    kernel: Array
    bias: Array
    inputs: Array
    scale: Array


def run_directions(cell: Cell, operands: Sequence[Operands], lengths: Array) -> list[Array]:
    """The states of `recur` in one direction or two, of which the second is from right to left.

    On an accelerator the two are one loop with the products of both kernels: a step there takes
    what starting its few kernels takes. A tagger's epoch (laptop14, batch 64, bfloat16) on an H100
    that other measurements shared takes 41 instead of 70 ms with 128 units, 57 instead of 81 with
    512. On CPUs it loses.

    Args:
        cell: the recurrence.
        operands: of one direction or two.
        lengths: int32 [B].
    """
    if len(operands[0].inputs) == 0:  # a loop's body reads a step
        return [jnp.zeros((0, len(lengths), len(one.kernel)), jnp.float32) for one in operands]
    if len(operands) == 1 or default_is_cpu():
        return [
            recur(cell, reverse, one.kernel, one.bias, one.inputs, lengths, one.scale)
            for reverse, one in zip((False, True), operands, strict=False)
        ]
    forward, backward = operands
    backward = backward._replace(inputs=flip(backward.inputs, lengths))
    kernel, bias, inputs, scale = (jnp.stack(pair) for pair in zip(forward, backward, strict=True))
    run = jax.vmap(partial(recur, cell, False), in_axes=(0, 0, 0, None, 0))
    states = run(kernel, bias, inputs, lengths, scale)
    return [states[0], flip(states[1], lengths)]


@jax.custom_vjp
def flip(rows: Array, lengths: Array) -> Array:
    """Each sequence of [T, B, N] from its last step to its first; the padding stays in its place.

    It is its own inverse, and its gradient a flip, which JAX would make a sum by index.
    """
    t, end = jnp.arange(len(rows))[:, None], jnp.minimum(lengths, len(rows))[None]
    index = jnp.where(t < end, end - 1 - t, t)
    return jnp.take_along_axis(rows, index[:, :, None], axis=0, mode="promise_in_bounds")


flip.defvjp(
    lambda rows, lengths: (flip(rows, lengths), lengths),
    lambda lengths, d_rows: (flip(d_rows, lengths), None),
)


@jax.custom_batching.custom_vmap
def longest(lengths: Array) -> Array:
    """The greatest length, int32 []; under `vmap` of all that is mapped, and so one for all."""
    return lengths.max(initial=0)


@longest.def_vmap
def _longest_of_all(size: int, batched: list[bool], lengths: Array) -> tuple[Array, bool]:
    return longest(lengths), False


def steps_to_make(lengths: Array, steps: int) -> Array | int:
    """How many of `steps` steps a loop has to make.

    On a CPU none after the longest sequence: batches are padded to few widths, for laptop14 at
    B = 64 by half of its tokens, of which such loops make a quarter. An accelerator would
    wait for the host at every step of a loop whose end the program does not know.
    """
    return jnp.minimum(longest(lengths), steps) if default_is_cpu() else steps


def multiply(left: Array, kernel: Array, axis: int = 0) -> Array:
    """left [B, N] times the kernel, whose `axis` has N numbers: float32 [B, M].

    Factors and product have the type of the kernel. The sums are made in float32 and rounded
    once: only such products does XLA hand to the matrix units of CPUs, where they take a quarter
    of the time (bfloat16, H = 512, B = 64, one core of a Xeon with AMX).
    """
    contracted = (((1,), (axis,)), ((), ()))
    product = jax.lax.dot_general(left.astype(kernel.dtype), kernel, contracted)
    return product.astype(jnp.float32)


def _at(array: Array, t: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(array, t, keepdims=False)


def _put(array: Array, t: Array, value: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(array, value, t, axis=0)


def _at_to_overwrite(rows: Array, t: Array) -> Array:
    """Row t. Without the barrier XLA copies all rows at every step, so that none is lost."""
    return jax.lax.optimization_barrier(_at(rows, t))


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

    The gradient, in reverse mode only, once, and none of `scale`, is written out. It keeps the
    states and, in the place of the inputs and in their type, what the cell read, and steps the
    cell again: a scan's own gradient keeps every factor of every activation. That of U is one
    product over all the steps, where a scan's adds up a matrix of U's size step by step.

    Args:
        cell: the recurrence.
        reverse: whether it runs from the last step to the first.
        kernel: U [H, P*H], in the type of the products.
        bias: float32 [G*H], of every step.
        inputs: [T, B, G*H] in the type of U, 0 at padding; h U is added to the first P*H.
        lengths: int32 [B], 0 to T.
        scale: [B, H], multiplies h before the product (dropout).
    """
    states, _ = _run(cell, reverse, (kernel, bias, inputs, lengths, scale), keep=False)
    return _after(states[0], reverse)


def _run(cell: Cell, reverse: bool, operands: tuple[Array, ...], keep: bool) -> tuple[Carry, Array]:
    """What `recur` has made in the end of its `operands`, all its arguments from the kernel on.

    Returns:
        The states, with `keep` all and else h alone: float32 [T + 1, B, H], of before the first
        step and after every step in the order of time.
        What the cell read at every step, [T, B, G*H] in the type of the inputs, with `keep`; else
        the inputs.
    """
    kernel, bias, inputs, lengths, scale = operands
    T, B, GH = inputs.shape
    steps, (H, PH) = steps_to_make(lengths, T), kernel.shape
    kept = cell.states if keep else 1
    take = _at_to_overwrite if keep else _at

    def step(i: Array, loop: tuple) -> tuple:
        carry, states, rows = loop
        t = steps - 1 - i if reverse else i
        product = jnp.pad(multiply(carry[0] * scale, kernel), ((0, 0), (0, GH - PH)))
        gates = take(rows, t).astype(jnp.float32) + bias[None] + product
        real = (t < lengths)[:, None]
        carry = tuple(jnp.where(real, new, 0) for new in cell.step(gates, carry))
        place = t if reverse else t + 1
        states = tuple(_put(states[n], place, carry[n]) for n in range(kept))
        return carry, states, _put(rows, t, gates.astype(rows.dtype)) if keep else rows

    start = (jnp.zeros((B, H), jnp.float32),) * cell.states
    states = (jnp.zeros((T + 1, B, H), jnp.float32),) * kept
    return jax.lax.fori_loop(0, steps, step, (start, states, inputs))[1:]


def _after(states: Array, reverse: bool) -> Array:
    """The states after every step, [T, B, H], of those of `_run`."""
    return states[:-1] if reverse else states[1:]


def _before(states: Array, reverse: bool) -> Array:
    """The states before every step, [T, B, H], of those of `_run`."""
    return states[1:] if reverse else states[:-1]


def _recur_forward(cell: Cell, reverse: bool, *operands: Array) -> tuple[Array, tuple]:
    states, gates = _run(cell, reverse, operands, keep=True)
    kernel, _, _, lengths, scale = operands
    return _after(states[0], reverse), (kernel, lengths, scale, states, gates)


def _recur_backward(cell: Cell, reverse: bool, saved: tuple, d_h: Array) -> tuple:
    kernel, lengths, scale, states, gates = saved
    T, B, GH = gates.shape
    steps, (H, PH) = steps_to_make(lengths, T), kernel.shape
    before = tuple(_before(state, reverse) for state in states)

    def step(i: Array, loop: tuple) -> tuple:
        d_carry, rows = loop
        t = i if reverse else steps - 1 - i
        d_carry = (d_carry[0] + _at(d_h, t), *d_carry[1:])
        carry = tuple(_at(state, t) for state in before)
        _, pull = jax.vjp(cell.step, _at_to_overwrite(rows, t).astype(jnp.float32), carry)
        real = (t < lengths)[:, None]
        d_gates, d_carry = pull(tuple(jnp.where(real, d, 0) for d in d_carry))
        by_product = multiply(d_gates[:, :PH], kernel, axis=1) * scale
        return (d_carry[0] + by_product, *d_carry[1:]), _put(rows, t, d_gates.astype(rows.dtype))

    # Rows of steps that are not made still hold the inputs there, which are 0.
    start = (jnp.zeros((B, H), jnp.float32),) * cell.states
    made = jax.lax.fori_loop(0, steps, step, (start, gates))[1]
    # Without the barrier XLA takes the loop's result for constant zeros where oneDNN multiplies it,
    # and the gradients of both kernels are 0 (jaxlib 0.12.0).
    d_inputs = jax.lax.optimization_barrier(made)
    # As one long list: a bias's gradient, a sum over both axes, took 34 ms of [T, B, G*H] and
    # almost nothing of [T*B, G*H] (LSTM in bfloat16, T = 32, B = 64, H = 512, one core of a Xeon).
    listed = d_inputs.reshape(T * B, GH)
    d_bias = listed.sum(axis=0, dtype=jnp.float32)
    factor = (before[0] * scale[None]).astype(kernel.dtype).reshape(T * B, H)
    d_kernel = jnp.dot(factor.T, listed[:, :PH])
    return d_kernel, d_bias, listed.reshape(T, B, GH), None, None


recur.defvjp(_recur_forward, _recur_backward)
