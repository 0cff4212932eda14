"""Our training steps, without PyTorch in the process: as one, over devices, over seeds.

A step returns its loss, the mean of its examples' as before the update. They are the twins of
torch_steps.py's: the same arrays and optimiser, and by `classifier_calls` and `tagger_calls` the
same weights, with which classifier.py and memory.py check that the losses are the same.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax import Array

from benchmarks.problems import (
    ADAM_RATE,
    CLIP,
    EMBEDDING,
    MOMENTUM,
    RATE,
    TAGS,
    make_images,
    make_sentences,
)
from common.parallel import Devices, local_devices
from common.state import TrainState, create_state
from common.step import LossFn, make_train_step, scan_steps
from text.models import Tagger
from text.train import make_loss_fn
from vision import models


class Task(NamedTuple):
    """What training steps are made of.

    Attributes:
        loss_fn: see `common.step`.
        tx: the optimiser.
        init: key -> the state before the first step.
        batch: arrays of the batch that every step repeats, examples first.
        tables: arrays that belong to all examples.
        axis_name: the device axis that the model knows of, None on one device.
    """

    loss_fn: LossFn
    tx: optax.GradientTransformation
    init: Callable[[Array], TrainState]
    batch: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray]
    axis_name: str | None

    def step(self, state: TrainState, tables: dict, batch: dict, key: Array) -> tuple:
        """The update that `make_train_step` makes, not yet compiled."""
        step = make_train_step(self.loss_fn, self.tx, axis_name=self.axis_name)
        return step(state, tables | batch, key)


def classifier(
    name: str,
    batch_size: int,
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
    tx: optax.GradientTransformation | None = None,
) -> Task:
    """A network without dropout under an optimiser; None is Nesterov SGD."""
    images, labels = make_images(batch_size)
    model = models.create(name, 10, axis_name=axis_name, dtype=dtype)
    tx = tx or optax.sgd(RATE, MOMENTUM, nesterov=True)

    def loss_fn(params: Any, batch_stats: Any, batch: dict, key: Array) -> tuple:
        logits, changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        weight = jnp.float32(len(losses))
        sums = {"weight": weight, "loss": losses.sum()}
        return losses.sum(), (changed.get("batch_stats", {}), sums)

    def init(key: Array) -> TrainState:
        return create_state(dict(model.init(key, images[:1], train=False)), tx)

    return Task(loss_fn, tx, init, {"image": images, "label": labels}, {}, axis_name)


def tagger(hidden: int, batch_size: int, length: int) -> Task:
    """A bidirectional LSTM under a CRF, over fixed vectors, without dropout, by clipped Adam."""
    tokens, tags, lengths, vectors = make_sentences(batch_size, length)
    model = Tagger(TAGS, hidden_size=(hidden,), embedding_size=EMBEDDING, crf=True)
    tx = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(ADAM_RATE))
    weight = np.ones(batch_size, np.float32)
    batch = {"tokens": tokens, "tags": tags, "lengths": lengths, "weight": weight}
    tables = {"vectors": vectors}

    def init(key: Array) -> TrainState:
        return create_state(dict(model.init(key, tables | batch)), tx)

    return Task(make_loss_fn(model), tx, init, batch, tables, None)


class Trainer:
    """Calls the step of a task again and again, or so many as one program, on the devices given."""

    def __init__(
        self, task: Task, devices: Devices | None = None, seed: int = 0, *, steps: int = 1
    ):
        devices = devices or local_devices(1)
        self._devices, keys = devices, jax.random.split(jax.random.key(seed))
        self.state = devices.replicate(jax.jit(task.init)(keys[0]))
        step = task.step if steps == 1 else partial(repeat, task.step, steps)
        self._step = devices.compile(step, donate_first=True)
        self._tables = devices.replicate(dict(task.tables))
        self._batch = devices.shard({name: np.array(part) for name, part in task.batch.items()})
        self._key = devices.replicate(keys[1])
        if devices.count == 1:
            self._batch = jax.device_put(self._batch)

    def __call__(self) -> float:
        self.state, sums = self._step(self.state, self._tables, self._batch, self._key)
        sums = jax.device_get(self._devices.unreplicate(sums))
        return float(np.ravel(sums["loss"] / sums["weight"])[-1])


def repeat(
    step: Callable, count: int, state: TrainState, tables: dict, batch: dict, key: Array
) -> tuple:
    """So many steps as one program: (state, sums of every step)."""
    steps = scan_steps(lambda state, data, _, key: step(state, *data, key))
    return steps(state, (tables, batch), {"step": jnp.arange(count)}, key)


class SeedsTrainer:
    """Calls the steps of several seeds, each with a state and a key of its own, as one step."""

    def __init__(self, task: Task, seeds: int):
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.arange(seeds))
        self._state = jax.jit(jax.vmap(task.init))(keys[:, 0])
        step = jax.vmap(task.step, in_axes=(0, None, None, 0))
        self._step = local_devices(1).compile(step, donate_first=True)
        self._data = jax.device_put((dict(task.tables), dict(task.batch)))
        self._keys = keys[:, 1]

    def __call__(self) -> list[float]:
        self._state, sums = self._step(self._state, *self._data, self._keys)
        sums = jax.device_get(sums)
        return list(sums["loss"] / sums["weight"])


def classifier_calls(name: str, batch_size: int, dtype: str, steps: int = 1) -> dict[str, Callable]:
    """A training step, and inference, of the same network.

    Args:
        name, batch_size, dtype: see `classifier`.
        steps: if more than one, there is also a program of so many.
    """
    task = classifier(name, batch_size, dtype=jnp.dtype(dtype))
    trainer = Trainer(task)
    model, x = models.create(name, 10, dtype=jnp.dtype(dtype)), jax.device_put(task.batch["image"])
    apply = local_devices(1).compile(lambda variables, x: model.apply(variables, x, train=False))
    calls: dict[str, Callable] = {
        "parameters": lambda: flatten_dict(trainer.state.params, sep="."),
        "training step": trainer,
        "inference": lambda: np.asarray(apply(trainer.state.variables, x)),
    }
    if steps > 1:
        calls[f"{steps} training steps"] = Trainer(task, steps=steps)
    return calls


def tagger_calls(hidden: int, batch_size: int, length: int) -> dict[str, Callable]:
    """A training step over made-up sentences."""
    trainer = Trainer(tagger(hidden, batch_size, length))
    return {
        "parameters": lambda: flatten_dict(trainer.state.params, sep="."),
        "training step": trainer,
    }


def waiting(function: Callable, *arguments: Any) -> Callable[[], Any]:
    """A call of the function, jitted for one device, that returns when its work is done.

    On a CPU every call does, after `local_devices` (`compute_in_place`). Elsewhere one result is
    waited for: a program's results are ready together.
    """
    if platform() == "cpu":
        return partial(function, *arguments)

    def call() -> Any:
        results = function(*arguments)
        jax.tree.leaves(results)[-1].block_until_ready()
        return results

    return call


def platform() -> str:
    """What JAX computes on: "cpu" or "gpu"."""
    return "cpu" if local_devices(1).on_cpu else "gpu"


# What memory.py calls in processes of their own; they return the loss of the first step.


def load() -> None:
    """Nothing but JAX, started."""
    local_devices()


def classifier_loss(name: str, batch_size: int) -> float:
    step = Trainer(classifier(name, batch_size))
    return [step(), step()][0]


def tagger_loss(hidden: int, batch_size: int, length: int) -> float:
    return Trainer(tagger(hidden, batch_size, length))()
