"""What a run is made of: its plan, where it stands, and the watch that times its steps."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optax
from jax import Array

from common.batching import Rows
from common.checkpoint import Checkpoints
from common.parallel import Devices
from common.state import TrainState
from common.writer import RunWriter


@dataclass(frozen=True)
class Plan:
    """What `fit` needs besides the state; made by the task.

    Attributes:
        train_step: compiled, (state, data, rows, key) -> (state, sums).
        train_chunk: compiled, the same for the rows of `chunk_steps` steps at a time; what an
            epoch leaves goes step by step, as all does if `chunk_steps` is 1.
        data: the training arrays, on the devices.
        epoch_batches: epoch, from 0 -> the rows of each of its steps; of that number alone.
        key: the key of training, on the devices.
        evaluate: state -> scores of the validation data, by name; {} without any.
        select: the score to maximise; None selects the last epoch.
        patience: epochs without a better score before an early stop; 0 is off.
        checkpoint_seconds: longest time between two checkpoints.
        batch_size: examples of a step, on average, for the speed that is shown.
        unit: what an example is called.
        shown: the metrics in the line that ends an epoch.
    """

    train_step: Callable[..., tuple[TrainState, dict[str, Array]]]
    data: dict[str, Array]
    epoch_batches: Callable[[int], list[Rows]]
    key: Array
    evaluate: Callable[[TrainState], dict[str, float]]
    schedule: optax.Schedule
    devices: Devices
    checkpoints: Checkpoints
    writer: RunWriter
    epochs: int
    steps_per_epoch: int
    batch_size: float
    select: str | None
    train_chunk: Callable[..., tuple[TrainState, dict[str, Array]]] | None = None
    chunk_steps: int = 1
    patience: int = 0
    checkpoint_seconds: float = 600.0
    unit: str = "examples"
    shown: tuple[str, ...] = ("loss", "accuracy")


@dataclass
class Progress:
    """Where a run stands; saved as JSON beside each state."""

    epoch: int = 0  # finished epochs
    sums: dict[str, float] = field(default_factory=dict)  # of the unfinished epoch
    best_epoch: int = 0
    best_score: float | None = None
    seconds: float = 0.0  # of training steps, over all sessions of the run
    steps_timed: int = 0  # in those seconds: a step that compiles is not timed

    @property
    def steps_per_second(self) -> float:
        return self.steps_timed / self.seconds if self.seconds else 0.0


def summarise(plan: Plan, progress: Progress) -> dict[str, Any]:
    """What summary.json says of any training."""
    return {
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        **plan.writer.scores(progress.best_epoch),
        f"{plan.unit}_per_second": progress.steps_per_second * plan.batch_size,
        "seconds": progress.seconds,
        "device": plan.devices.describe(),
    }


class Stopwatch:
    """Times the finished steps of a session into the progress, without those that compile:
    the first with rows of each shape."""

    def __init__(self, progress: Progress):
        self._progress, self._last = progress, math.nan
        self._shapes: set[tuple] = set()

    def start(self) -> None:
        """Tell that steps begin."""
        self._last = time.monotonic()

    def expect(self, rows: Rows) -> None:
        """Tell the rows of the step to come."""
        shapes = tuple(array.shape for array in rows.values())
        if shapes not in self._shapes:
            self._shapes.add(shapes)
            self._last = math.nan

    def tick(self, steps: int) -> None:
        """Tell that so many steps are finished."""
        now = time.monotonic()
        if not math.isnan(self._last):
            self._progress.seconds += now - self._last
            self._progress.steps_timed += steps
        self._last = now
