"""Optimisers and learning-rate schedules by name, built from optax."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from common.config import check_choice
from common.errors import InputError

SCHEDULES = ("constant", "step", "cosine", "one_cycle")

WITH_MOMENTUM = ("momentum", "nesterov")

# The direction of a step for a learning rate of one; only WITH_MOMENTUM use the momentum.
# RMSprop's decay 0.9 and epsilon 1e-7 are Keras's (report B's).
DIRECTIONS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": lambda momentum: optax.identity(),
    "momentum": lambda momentum: optax.trace(momentum),
    "nesterov": lambda momentum: optax.trace(momentum, nesterov=True),
    "adam": lambda momentum: optax.scale_by_adam(),
    "adamw": lambda momentum: optax.scale_by_adam(),
    "rmsprop": lambda momentum: optax.scale_by_rms(decay=0.9, eps=1e-7, eps_in_sqrt=False),
}


def make_schedule(
    name: str, peak: float, total_steps: int, *, warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate by step.

    Args:
        name: `constant`; `step`: a tenth at one half and at three quarters of the run;
            `cosine`: to zero; `one_cycle`: up for 30 % of the run, then down to almost
            nothing, both by cosine (Smith and Topin 2017, arXiv 1708.07120).
        peak: the largest learning rate.
        total_steps: updates of the whole run.
        warmup_steps: linear rise from zero before `constant`, `step` or `cosine`.

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
        return optax.cosine_onecycle_schedule(max(total_steps, 4), peak)
    if warmup_steps >= total_steps:
        raise InputError("--warmup_epochs must be shorter than the run: raise --epochs")
    rest = total_steps - warmup_steps
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "step": lambda: optax.piecewise_constant_schedule(
            peak, {rest // 2: 0.1, rest * 3 // 4: 0.1}
        ),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
    }[name]()
    if not warmup_steps:
        return after
    rise = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([rise, after], [warmup_steps])


def kernel_mask(params: Any, *, conv_only: bool = False) -> Any:
    """True at kernels (of convolutions only, if asked), false at biases and norms."""

    def is_kernel(path: tuple, leaf: Any) -> bool:
        return path[-1].key == "kernel" and (leaf.ndim > 2 or not conv_only)

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float | None = None,
    weight_decay: float | None = None,
    l2: float = 0.0,
    clip: float = 0.0,
) -> optax.GradientTransformation:
    """Clip, add L2, find the direction, decay, scale by the learning rate; in that order.

    Args:
        name: a key of `DIRECTIONS`.
        schedule: learning rate by step.
        momentum: of `momentum` and `nesterov`; None is 0.9.
        weight_decay: decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101): each step
            also takes learning rate x weight_decay of every kernel away, whatever the
            optimiser. None means 0.01 for `adamw` and 0 for the others.
        l2: of the penalty l2 x sum(w^2) on convolution kernels, as Keras defines it; its
            gradient 2 x l2 x w goes through the optimiser.
        clip: largest global norm of the gradient; 0 is off.
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
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, mask=kernel_mask))
    parts.append(optax.scale_by_learning_rate(schedule))
    return optax.chain(*parts)
