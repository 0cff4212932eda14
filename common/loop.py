"""The training loop of both tasks: epochs, validation, selection, resume, stop on signal."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from common import metrics, processes
from common.batching import Rows
from common.checkpoint import Checkpoints
from common.errors import DivergedError, InputError, StoppedBySignal
from common.parallel import Devices
from common.signals import StopRequest
from common.state import TrainState
from common.writer import EpochBar, RunWriter, say, warn

# Steps that run ahead of the host's look at their loss, so that the device never waits.
LAG = 2


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


class _Stopwatch:
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


def run(state: TrainState, plan: Plan) -> tuple[TrainState, Progress]:
    """Train from the latest checkpoint, or where there is none from `state`.

    Args:
        state: the first one, not yet on all devices.
        plan: of the run.

    Returns:
        The selected state, not on all devices, and the progress. Raises as `fit`.
    """
    like = plan.devices.abstract(state)
    state, saved = processes.arrays_from_first(lambda: _find_start(state, like, plan), like)
    _, progress = fit(plan.devices.replicate(state), plan, Progress(**saved))
    best, _ = processes.arrays_from_first(lambda: plan.checkpoints.restore("best", like), like)
    return best, progress


def _find_start(state: TrainState, like: Any, plan: Plan) -> tuple[TrainState, dict[str, Any]]:
    """The latest checkpoint's state and progress, or where there is none those of the start."""
    progress = Progress()
    if plan.checkpoints.exists():
        state, saved = plan.checkpoints.restore("latest", like, repair=True)
        progress = Progress(**saved)
        total = plan.epochs * plan.steps_per_epoch
        say(f"resuming {plan.writer.folder} after step {int(state.step)} of {total}")
    elif plan.checkpoints.exists("best"):
        raise InputError(
            f"{plan.writer.folder} has lost its latest checkpoint, so there is nothing to resume; "
            "--mode=eval still works; to train again choose another --workdir"
        )
    if progress.best_epoch and not plan.checkpoints.exists("best"):
        if progress.epoch >= plan.epochs:
            raise InputError(
                f"{plan.writer.folder} has lost its best checkpoint, that of epoch "
                f"{progress.best_epoch}: restore it from a copy, or train in another --workdir"
            )
        warn("the best checkpoint is lost: the best of the epochs to come will be selected")
        progress.best_epoch, progress.best_score = 0, None
    return state, asdict(progress)


def fit(state: TrainState, plan: Plan, progress: Progress) -> tuple[TrainState, Progress]:
    """Train to the plan's end, or until validation stops improving.

    Args:
        state: on the plan's devices; donated.
        progress: `Progress()`, or what the state's checkpoint holds. Updated in place.

    Returns:
        The last state and the progress. The selected state is the checkpoint `best`.

    Raises:
        StoppedBySignal: after Ctrl-C or SIGTERM, with the state saved as `latest`; at once
            within an epoch, after the validation at its end.
        DivergedError: the loss or a parameter is not finite.
    """
    plan.writer.open(progress.epoch)
    try:
        clock = _Stopwatch(progress)
        with StopRequest() as stop:
            while progress.epoch < plan.epochs and not _is_stale(plan, progress):
                state = _train_epoch(state, plan, progress, clock, stop)
                _finish_epoch(state, plan, progress)
                if number := processes.largest(stop.number or 0):
                    raise _stopped(number, plan, progress)
    finally:
        plan.writer.close()
    return state, progress


def _is_stale(plan: Plan, progress: Progress) -> bool:
    return bool(plan.patience) and progress.epoch - progress.best_epoch >= plan.patience


def _train_epoch(
    state: TrainState, plan: Plan, progress: Progress, clock: _Stopwatch, stop: StopRequest
) -> TrainState:
    """The rest of the current epoch, in chunks of steps and single ones."""
    epoch, devices = progress.epoch, plan.devices
    finished = int(devices.unreplicate(state.step))
    batches = plan.epoch_batches(epoch)
    pending: deque[dict[str, Array]] = deque()
    title = f"epoch {epoch + 1}/{plan.epochs}"
    done = finished - epoch * plan.steps_per_epoch
    saved = time.monotonic()

    def absorb(keep: int) -> None:
        """Add all but the newest `keep` sums, each of a step or a chunk, to the progress."""
        nonlocal finished
        while len(pending) > keep:
            sums = jax.device_get(devices.unreplicate(pending.popleft()))
            steps = list(zip(*map(np.ravel, sums.values()), strict=True))
            for step in steps:
                progress.sums = metrics.add(progress.sums, dict(zip(sums, step, strict=True)))
                finished += 1
                if not math.isfinite(progress.sums["loss"]):
                    raise _diverged(f"the loss of step {finished}", plan)
            clock.tick(len(steps))
            bar.step(metrics.means(progress.sums), len(steps))

    with EpochBar(title, plan.steps_per_epoch, done, plan.unit, plan.batch_size) as bar:
        clock.start()
        while done < plan.steps_per_epoch:
            run_steps, rows = _next_steps(plan, batches[done:])
            clock.expect(rows)
            state, sums = run_steps(state, plan.data, rows, plan.key)
            done += plan.chunk_steps if run_steps is plan.train_chunk else 1
            pending.append(sums)
            absorb(keep=LAG)
            overdue = time.monotonic() - saved > plan.checkpoint_seconds
            last = done == plan.steps_per_epoch
            number = 0 if last else processes.largest(stop.number or 0)
            if number or (overdue and not last):
                absorb(keep=0)
                _save("latest", state, plan, progress)
                saved = time.monotonic()
                if number:
                    raise _stopped(number, plan, progress)
        absorb(keep=0)
    return state


def _next_steps(plan: Plan, batches: Sequence[Rows]) -> tuple[Callable, Rows]:
    """What runs the first of these batches, a chunk if there are enough, and their rows."""
    if plan.train_chunk is not None and 1 < plan.chunk_steps <= len(batches):
        return plan.train_chunk, plan.devices.shard_steps(batches[: plan.chunk_steps])
    return plan.train_step, plan.devices.shard(batches[0])


def _finish_epoch(state: TrainState, plan: Plan, progress: Progress) -> None:
    """Validate, log, select, save."""
    step = int(plan.devices.unreplicate(state.step))
    row: dict[str, Any] = {"epoch": progress.epoch + 1, "step": step}
    row |= metrics.means(progress.sums, "train/") | plan.evaluate(state)
    row["learning_rate"] = float(plan.schedule(step - 1))
    row["examples_per_second"] = progress.steps_per_second * plan.batch_size
    progress.epoch, progress.sums = progress.epoch + 1, {}
    score = row[plan.select] if plan.select else float(progress.epoch)
    better = progress.best_score is None or score > progress.best_score
    if better:
        progress.best_epoch, progress.best_score = progress.epoch, score
        _save("best", state, plan, progress)
    plan.writer.write(row)
    _save("latest", state, plan, progress)
    names = [f"{split}/{metric}" for split in ("train", "val") for metric in plan.shown]
    scores = "  ".join(f"{name} {row[name]:.4f}" for name in names if name in row)
    mark = "  *best" if better and plan.select else ""
    rate = f"{row['examples_per_second']:.0f} {plan.unit}/s"
    say(f"epoch {progress.epoch}/{plan.epochs}  {scores}  {rate}{mark}")


def _save(name: str, state: TrainState, plan: Plan, progress: Progress) -> None:
    if not processes.is_first():
        return
    state = plan.devices.unreplicate(state)
    if not _all_finite((state.params, state.batch_stats)):
        raise _diverged(f"a parameter after step {int(state.step)}", plan)
    plan.checkpoints.save(name, jax.device_get(state), asdict(progress))


@jax.jit
def _all_finite(tree: Any) -> Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _diverged(what: str, plan: Plan) -> DivergedError:
    # Not by `from_first`: a parameter is looked at where it is saved, in the first process alone.
    first = processes.is_first()
    last = plan.checkpoints.describe_latest() if first else "what the first process says"
    return DivergedError(
        f"{what} is not a finite number; the last good checkpoint is {last}; try a lower "
        "--learning_rate, --clip=1, a longer warm-up or --precision=float32"
    )


def _stopped(number: int, plan: Plan, progress: Progress) -> StoppedBySignal:
    where = processes.from_first(plan.checkpoints.describe_latest)
    return StoppedBySignal(
        number,
        f"stopped after {progress.epoch} of {plan.epochs} epochs"
        f"{' and a part' if progress.sums else ''}; saved {where}; --resume continues",
    )
