"""Optimisers and learning-rate schedules by name, built from optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from common.config import check_choice
from common.errors import InputError

SCHEDULES = ("constant", "step", "linear", "cosine", "one_cycle")

# A setting of the optimiser: a number, or inside a compiled program an array that holds it.
Number = float | jax.Array

WITH_MOMENTUM = ("momentum", "nesterov", "muon")

# The direction of a step for a learning rate of one; only WITH_MOMENTUM use the momentum.
# RMSprop's decay 0.9 and epsilon 1e-7 are Keras's (report B's).
DIRECTIONS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": lambda momentum: optax.identity(),
    "momentum": lambda momentum: optax.trace(momentum),
    "nesterov": lambda momentum: optax.trace(momentum, nesterov=True),
    "adam": lambda momentum: optax.scale_by_adam(),
    "adamw": lambda momentum: optax.scale_by_adam(),
    "rmsprop": lambda momentum: optax.scale_by_rms(decay=0.9, eps=1e-7, eps_in_sqrt=False),
    # Jordan et al. 2024: orthogonal steps of the filters; the rest by Nesterov.
    "muon": lambda momentum: optax.partition(
        {
            "filters": optax.contrib.scale_by_muon(
                beta=momentum, weight_dimension_numbers=filters_as_matrices
            ),
            "kernels": optax.trace(momentum, nesterov=True),
            "biases": optax.trace(momentum, nesterov=True),
        },
        parameter_groups,
    ),
}


def parameter_groups(params: Any) -> Any:
    """For each array its group: the `filters` of convolutions, other `kernels`, or `biases`.

    Scales of normalisations are among the biases, word embeddings too.
    """

    def group(path: tuple, leaf: Any) -> str:
        if path[-1].key != "kernel":
            return "biases"
        return "filters" if leaf.ndim > 2 else "kernels"

    return jax.tree_util.tree_map_with_path(group, params)


def filters_as_matrices(params: Any) -> Any:
    """How Muon sees filters [h, w, C, K] or [w, C, K]: as matrices [h w C, K]."""

    def numbers(leaf: Any) -> optax.contrib.MuonDimensionNumbers:
        *inputs, output = range(leaf.ndim)
        return optax.contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree.map(numbers, params)


def keep_norms() -> optax.GradientTransformation:
    """Steps that start from the array of K filters at the norm sqrt(K), wherever it is.

    Batch normalisation takes the scale of filters away, so that growing filters would only
    make the following steps turn them less. Source: Jordan 2024 (airbench with Muon).
    """

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        def step(update: jax.Array, filters: jax.Array) -> jax.Array:
            scale = jnp.sqrt(filters.shape[-1]) / jnp.linalg.norm(filters)
            return update + (scale - 1) * filters

        return jax.tree.map(step, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_schedule(
    name: str, peak: Number, total_steps: int, *, warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate by step.

    Args:
        name: `constant`; `step`: a tenth at one half and at three quarters of the run;
            `linear` and `cosine`: to zero; `one_cycle`: up for 30 % of the run, then down to almost
            nothing, both by cosine (Smith and Topin 2017, arXiv 1708.07120).
        peak: the largest learning rate; inside a compiled program it may be an array.
        total_steps: updates of the whole run.
        warmup_steps: linear rise from zero before any but `one_cycle`.

    Raises:
        InputError: unknown name, warm-up with one-cycle, warm-up longer than the run.
    """
    check_choice("--schedule", name, SCHEDULES)
    if name == "one_cycle":
        if warmup_steps:
            raise InputError(
                "--warmup_epochs does not go with --schedule=one_cycle, which warms up"
            )
        # optax divides by the length of each phase, so a run has at least four steps.
        return _scaled(peak, optax.cosine_onecycle_schedule(max(total_steps, 4), 1.0))
    if warmup_steps >= total_steps:
        raise InputError("--warmup_epochs must be shorter than the run: raise --epochs")
    rest = total_steps - warmup_steps
    after = {
        "constant": lambda: optax.constant_schedule(1.0),
        "step": lambda: optax.piecewise_constant_schedule(
            1.0, {rest // 2: 0.1, rest * 3 // 4: 0.1}
        ),
        "linear": lambda: optax.linear_schedule(1.0, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, rest),
    }[name]()
    if not warmup_steps:
        return _scaled(peak, after)
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return _scaled(peak, optax.join_schedules([rise, after], [warmup_steps]))


def _scaled(peak: Number, schedule: optax.Schedule) -> optax.Schedule:
    """A schedule for a peak of one, for another."""
    return lambda count: peak * schedule(count)


def kernel_mask(params: Any, *, conv_only: bool = False) -> Any:
    """True at kernels (of convolutions only, if asked), false at biases and norms."""
    wanted = ("filters",) if conv_only else ("filters", "kernels")
    return jax.tree.map(lambda group: group in wanted, parameter_groups(params))


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float | None = None,
    weight_decay: Number | None = None,
    l2: float = 0.0,
    clip: float = 0.0,
    kernel_rate: float = 1.0,
    bias_rate: float = 1.0,
) -> optax.GradientTransformation:
    """Clip, add L2, find the direction, decay, scale by the learning rates; in that order.

    Args:
        name: a key of `DIRECTIONS`.
        schedule: learning rate by step.
        momentum: of `momentum`, `nesterov` and `muon`; None is 0.9.
        weight_decay: decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101): each step
            also takes learning rate x weight_decay of every kernel away, whatever the
            optimiser. None means 0.01 for `adamw` and 0 for the others; an array is not 0.
        l2: of the penalty l2 x sum(w^2) on convolution kernels, as Keras defines it; its
            gradient 2 x l2 x w goes through the optimiser.
        clip: largest global norm of the gradient; 0 is off.
        kernel_rate, bias_rate: factors of the learning rate for kernels that are no filters,
            and for biases and scales.
    """
    check_choice("--optimizer", name, DIRECTIONS)
    if weight_decay is None:
        weight_decay = 0.01 if name == "adamw" else 0.0
    parts = []
    if clip:
        parts.append(optax.clip_by_global_norm(clip))
    if l2:
        parts.append(
            optax.add_decayed_weights(2 * l2, mask=lambda p: kernel_mask(p, conv_only=True))
        )
    parts.append(DIRECTIONS[name](0.9 if momentum is None else momentum))
    if isinstance(weight_decay, jax.Array) or weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, mask=kernel_mask))
    if (kernel_rate, bias_rate) != (1.0, 1.0):
        rates = {"filters": 1.0, "kernels": kernel_rate, "biases": bias_rate}
        parts.append(
            optax.partition({n: optax.scale(r) for n, r in rates.items()}, parameter_groups)
        )
    parts.append(optax.scale_by_learning_rate(schedule))
    if name == "muon":
        parts.append(optax.masked(keep_norms(), lambda p: kernel_mask(p, conv_only=True)))
    return optax.chain(*parts)
