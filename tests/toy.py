"""A problem small enough to check by hand: linear regression on the frame's contracts."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common.batching import epoch_batches, gather, steps_per_epoch
from common.checkpoint import Checkpoints
from common.layers import example_keys
from common.parallel import local_devices
from common.plan import Plan, Step
from common.state import TrainState, create_state
from common.step import LossFn, make_train_step, scan_steps
from common.writer import RunWriter

TX = optax.sgd(0.05, momentum=0.9)


def make_data(size: int = 40) -> dict[str, np.ndarray]:
    """x float32 [N, 3] and y float32 [N], nearly linear in x."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    y = x @ [1.0, -2.0, 0.5] + 0.3 + 0.1 * rng.normal(size=size)
    return {"x": x, "y": y.astype(np.float32)}


def make_params() -> dict[str, Any]:
    return {"dense": {"kernel": jnp.float32([0.1, 0.2, -0.3]), "bias": jnp.float32(0.05)}}


def make_loss_fn(noise: float = 0.0, axis_name: str | None = None) -> LossFn:
    """Half the squared error, the targets moved by `noise` times a draw per example.

    Its batch statistic is a running mean of x over the batch of all devices.
    """

    def loss_fn(params: Any, batch_stats: Any, batch: dict, key: jax.Array) -> tuple:
        keys = example_keys(key, len(batch["y"]), axis_name)
        y = batch["y"] + noise * jax.vmap(jax.random.normal)(keys)
        error = batch["x"] @ params["dense"]["kernel"] + params["dense"]["bias"] - y
        losses = error**2 / 2 * batch["weight"]
        mean = batch["x"].mean(axis=0)
        if axis_name is not None:
            mean = jax.lax.pmean(mean, axis_name)
        stats = {"mean": 0.9 * batch_stats["mean"] + 0.1 * mean}
        return losses.sum(), (stats, {"weight": batch["weight"].sum(), "loss": losses.sum()})

    return loss_fn


def make_state(tx: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
    variables = {"params": make_params(), "batch_stats": {"mean": jnp.zeros(3)}}
    return create_state(variables, tx, ema=ema)


@cache
def toy_step(device_count: int) -> Step:
    """The step of a toy run, with noisy targets, momentum and averages."""
    devices = local_devices(device_count)
    loss_fn = make_loss_fn(noise=0.5, axis_name=devices.axis_name)
    step = make_train_step(loss_fn, TX, ema_decay=0.8, axis_name=devices.axis_name)

    def toy_step(state: TrainState, data: dict, rows: dict, key: jax.Array) -> tuple:
        return step(state, gather(data, rows), key)

    return toy_step


@cache
def compiled_step(device_count: int, chunk: bool = False) -> Step:
    """`toy_step` for all plans; with `chunk` of several steps."""
    step = toy_step(device_count)
    return local_devices(device_count).compile(
        scan_steps(step) if chunk else step, donate_first=True
    )


def make_plan(folder: Path, *, device_count: int = 1, **changes: Any) -> tuple[Plan, TrainState]:
    """A run of 3 epochs of 5 steps, and the state before it."""
    devices = local_devices(device_count)
    folder.mkdir(exist_ok=True)

    def evaluate(state: TrainState) -> dict[str, float]:
        return {"val/score": -abs(float(devices.unreplicate(state.params)["dense"]["bias"]))}

    settings: dict[str, Any] = {
        "step": toy_step(device_count),
        "data": devices.replicate(make_data()),
        "epoch_batches": lambda epoch: epoch_batches(0, epoch, 40, 8),
        "key": devices.replicate(jax.random.key(1)),
        "evaluate": evaluate,
        "schedule": optax.constant_schedule(0.05),
        "devices": devices,
        "checkpoints": Checkpoints(folder / "checkpoints"),
        "writer": RunWriter(folder),
        "epochs": 3,
        "steps_per_epoch": steps_per_epoch(40, 8),
        "batch_size": 8,
        "select": "val/score",
    }
    plan = patched(
        Plan(**settings | changes),
        train_step=compiled_step(device_count),
        train_chunk=compiled_step(device_count, chunk=True),
    )
    return plan, make_state(TX, ema=True)


def patched(plan: Plan, **steps: Callable) -> Plan:
    """The plan with other compiled steps."""
    copy = replace(plan)
    vars(copy).update({name: getattr(plan, name) for name in ("train_step", "train_chunk")} | steps)
    return copy


def assert_same(tree: Any, other: Any) -> None:
    """Every leaf equal, bit for bit."""
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path), strict=True)


def counting(function: Callable[..., Any], at: int, action: Callable[[], None]) -> Callable:
    """`function`, but its call number `at`, from 1, is followed by `action`."""
    calls = 0

    def wrapped(*args: Any) -> Any:
        nonlocal calls
        result = function(*args)
        calls += 1
        if calls == at:
            action()
        return result

    return wrapped
