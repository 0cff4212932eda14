"""Steps of several runs as one program: states, data and rows stacked, the step under `vmap`."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from common.batching import Rows
from common.plan import Plan, Progress, Stopwatch
from common.state import TrainState
from common.step import scan_steps


class StackedSteps:
    """The steps of N runs, whose plans have the same step but for the data that it is given.

    Attributes:
        plans: N of them, on one device.
        clock: for steps that are made.
        spent: what the clock has measured.
    """

    def __init__(self, plans: Sequence[Plan]):
        self.plans = list(plans)
        first = self.plans[0]
        step = jax.vmap(first.step)
        compiled = partial(first.devices.compile, donate_first=True, onednn=first.onednn)
        self._one, self._chunk = compiled(step), compiled(scan_steps(step))
        self._data = jax.tree.map(_stack_padded, *(plan.data for plan in self.plans))
        self._keys = jnp.stack([plan.key for plan in self.plans])
        self.spent = Progress()
        self.clock = Stopwatch(self.spent)

    def make(
        self,
        state: TrainState,
        steps: Sequence[Sequence[Rows]],
        tell_compiling: Callable[[], None],
    ) -> tuple[TrainState, Any]:
        """Make steps.

        Args:
            state: the stacked states; donated.
            steps: S times the rows of N runs.
            tell_compiling: called before steps that compile.

        Returns:
            The states after them, and the sums of every step and run, by name [S, N].
        """
        stacked = [_stack(self.plans[0].align(step)) for step in steps]
        rows = stacked[0] if len(stacked) == 1 else _stack(stacked)
        if self.clock.expect(rows):
            tell_compiling()
        if len(stacked) > 1:
            return self._chunk(state, self._data, rows, self._keys)
        state, sums = self._one(state, self._data, rows, self._keys)
        return state, {name: values[None] for name, values in sums.items()}


def _stack(parts: Sequence[Rows]) -> Rows:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _stack_padded(*arrays: Array) -> Array:
    """Arrays of the same rank, stacked; the smaller ones end in zeros, which no row names."""
    shape = tuple(max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    return jnp.stack([array if array.shape == shape else _pad(array, shape) for array in arrays])


def _pad(array: Array, shape: tuple[int, ...]) -> Array:
    missing = [(0, wanted - size) for wanted, size in zip(shape, array.shape, strict=True)]
    return jnp.pad(array, missing)


@jax.jit
def stack_states(states: Sequence[TrainState]) -> TrainState:
    """The states of N runs, [N, ...] in every array."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@partial(jax.jit, static_argnums=1)
def cut_states(state: TrainState, count: int) -> list[TrainState]:
    """Undo `stack_states` for `count` runs."""
    return [jax.tree.map(operator.itemgetter(place), state) for place in range(count)]
