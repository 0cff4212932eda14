"""What a run is made of: its plan, where it stands, and the watch that times its steps."""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import optax
from jax import Array

from common.batching import Rows
from common.checkpoint import Checkpoints
from common.parallel import Devices
from common.state import TrainState
from common.step import scan_steps
from common.writer import RunWriter

Step = Callable[..., tuple[TrainState, dict[str, Array]]]


@dataclass(frozen=True)
class Plan:
    """What `fit` needs besides the state; made by the task.

    Attributes:
        step: (state, data, rows, key) -> (state, sums), not yet compiled.
        data: the training arrays, on the devices.
        epoch_batches: epoch, from 0 -> the rows of each of its steps; of that number alone.
        key: the key of training, on the devices.
        evaluate: state -> scores of the validation data, by name; {} without any.
        select: the score to maximise; None selects the last epoch.
        patience: epochs without a better score before an early stop; 0 is off.
        checkpoint_seconds: longest time between two checkpoints.
        batch_size: examples of a step, on average, for the speed that is shown.
        chunk_steps: steps made at a time by `train_chunk`; what an epoch leaves goes step by step.
        onednn: as for `Devices.compile`.
        align: makes the rows of several runs' steps alike in shape, without effect on the steps.
        unit: what an example is called.
        shown: the metrics in the line that ends an epoch.
    """

    step: Step
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
    chunk_steps: int = 1
    onednn: bool = True
    align: Callable[[Sequence[Rows]], Sequence[Rows]] = list
    patience: int = 0
    checkpoint_seconds: float = 600.0
    unit: str = "examples"
    shown: tuple[str, ...] = ("loss", "accuracy")

    @cached_property
    def train_step(self) -> Step:
        """`step`, compiled; it donates the state."""
        return self.devices.compile(self.step, donate_first=True, onednn=self.onednn)

    @cached_property
    def train_chunk(self) -> Step:
        """Several steps as one program: rows and sums have a first axis, the step."""
        steps = scan_steps(self.step)
        return self.devices.compile(steps, donate_first=True, onednn=self.onednn)


@dataclass
class Progress:
    """Where a run stands; saved as JSON beside each state."""

    epoch: int = 0  # finished epochs
    sums: dict[str, float] = field(default_factory=dict)  # of the unfinished epoch
    best_epoch: int = 0
    best_score: float | None = None
    seconds: float = 0.0  # of training steps, over all sessions of the run
    steps_timed: int = 0  # in those seconds: a step that compiles is not timed
    together: int = 1  # runs that made steps as one program, of whose seconds this is a share

    @property
    def steps_per_second(self) -> float:
        return self.steps_timed / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Session:
    """A run that is ready to be trained, by `loop.run`.

    Attributes:
        plan: of the run.
        state: the first one, not yet on all devices.
        finish: (selected state, progress) -> the contents of summary.json; writes all that a run
            leaves.
        program: by `training.program_of`; runs with the same one, states of the same shapes and
            epochs of as many steps can be given the same `plan.step`.
    """

    plan: Plan
    state: TrainState
    finish: Callable[[TrainState, Progress], dict[str, Any]]
    program: Hashable


def summarise(plan: Plan, progress: Progress) -> dict[str, Any]:
    """What summary.json says of any training."""
    return {
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        **plan.writer.scores(progress.best_epoch),
        f"{plan.unit}_per_second": progress.steps_per_second * plan.batch_size,
        "seconds": progress.seconds,
        **({"together": progress.together} if progress.together > 1 else {}),
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

    def expect(self, rows: Rows) -> bool:
        """Tell the rows of the step to come; returns whether their shape is new: it compiles."""
        shapes = tuple(array.shape for array in rows.values())
        if compiles := shapes not in self._shapes:
            self._shapes.add(shapes)
            self._last = math.nan
        return compiles

    def tick(self, steps: int) -> None:
        """Tell that so many steps are finished."""
        now = time.monotonic()
        if not math.isnan(self._last):
            self._progress.seconds += now - self._last
            self._progress.steps_timed += steps
        self._last = now
