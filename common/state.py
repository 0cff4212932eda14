"""The training state: arrays only, so that it can be donated, replicated and saved."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: int32 [], updates made so far.
        params: the trained arrays.
        batch_stats: running statistics of batch normalisation, `{}` without any.
        opt_state: the optimiser's arrays.
        ema: moving average of `{"params", "batch_stats"}`, or None when it is off.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What a model is scored with: the moving average where there is one."""
        if self.ema is not None:
            return self.ema
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: dict[str, Any], tx: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """The state before the first step, from a model's `init`."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    # Copies: a donated buffer may stand in the state only once.
    average = {"params": params, "batch_stats": batch_stats} if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        ema=jax.tree.map(jnp.copy, average),
    )


def count_parameters(params: Any) -> int:
    """Number of trained values."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
