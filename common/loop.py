"""The training loop of both tasks: epochs, validation, selection, resume, stop on signal."""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from common import metrics, processes
from common.batching import Rows
from common.errors import (
    DivergedError,
    InputError,
    StopNow,
    StoppedBySignal,
    is_out_of_memory,
)
from common.memory import advise_batch
from common.plan import Plan, Progress, Session, Stopwatch
from common.resume import find_start
from common.signals import StopRequest
from common.state import TrainState
from common.writer import EpochBar, say, warn

# Steps, or chunks of them, that run ahead of the host's look at their loss, so that the device
# never waits. Those of a second do not: nothing is won then, and a signal would wait for all.
LAG = 2
SLOW = 1.0  # seconds
FIRST_WORDS = "stopping after this step, with a checkpoint; once more leaves at once, without"


def train(session: Session) -> dict[str, Any]:
    """Train, select an epoch, score the test split once, write the run folder.

    Returns:
        The contents of summary.json. Raises as `fit`.
    """
    return session.finish(*run(session.state, session.plan))


def run(state: TrainState, plan: Plan) -> tuple[TrainState, Progress]:
    """Train from the newest checkpoint, or where there is none from `state`.

    Args:
        state: the first one, not yet on all devices.
        plan: of the run.

    Returns:
        The selected state, not on all devices, and the progress. Raises as `fit`.
    """
    like = plan.devices.abstract(state)
    state, saved = processes.arrays_from_first(lambda: find_start(state, like, plan), like)
    try:
        _, progress = fit(plan.devices.replicate(state), plan, Progress(**saved))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or processes.process_count() > 1:
            raise
        error.__traceback__ = None  # its frames hold the arrays of the step that failed
        raise _advise(plan, like) from None
    best, _ = processes.arrays_from_first(lambda: plan.checkpoints.restore("best", like), like)
    return best, progress


def _advise(plan: Plan, like: TrainState) -> InputError:
    """The error of a batch that does not fit into memory."""

    def step(state: TrainState, rows: Rows) -> tuple:
        return plan.train_step(state, plan.data, plan.devices.shard(rows), plan.key)

    return InputError(advise_batch(step, plan.epoch_batches(0), like, plan.devices))


def fit(state: TrainState, plan: Plan, progress: Progress) -> tuple[TrainState, Progress]:
    """Train to the plan's end, or until validation stops improving.

    Args:
        state: on the plan's devices; donated.
        progress: `Progress()`, or what the state's checkpoint holds. Updated in place.

    Returns:
        The last state and the progress. The selected state is the checkpoint `best`.

    Raises:
        StoppedBySignal: after Ctrl-C or SIGTERM, with the state saved as `latest`; after a
            second one at once, without.
        DivergedError: the loss or a parameter is not finite.
    """
    plan.writer.open(progress.epoch)
    stop = StopRequest(FIRST_WORDS, lambda: _left(plan), processes.leave)
    try:
        clock = Stopwatch(progress)
        with stop:
            while progress.epoch < plan.epochs and not is_stale(plan, progress):
                state = _train_epoch(state, plan, progress, clock, stop)
                scores = _validate(state, plan, progress, stop)
                finish_epoch(state, plan, progress, scores)
                if number := processes.largest(stop.number or 0):
                    raise _stopped(number, plan, progress)
    except KeyboardInterrupt:
        number = stop.number or signal.SIGINT
        if processes.process_count() > 1:  # the others are not waited for
            warn(f"launch.py: {_left(plan)}")
            processes.leave(128 + number)
        raise StoppedBySignal(number, _left(plan)) from None
    finally:
        plan.writer.close()
    return state, progress


def is_stale(plan: Plan, progress: Progress) -> bool:
    """Whether validation has stopped improving."""
    return bool(plan.patience) and progress.epoch - progress.best_epoch >= plan.patience


def _train_epoch(
    state: TrainState, plan: Plan, progress: Progress, clock: Stopwatch, stop: StopRequest
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
                    raise diverged(f"the loss of step {finished}", plan)
            clock.tick(len(steps))
            bar.step(metrics.means(progress.sums), progress.steps_per_second, len(steps))

    with EpochBar(title, plan.steps_per_epoch, done, plan.unit, plan.batch_size) as bar:
        clock.start()
        while done < plan.steps_per_epoch:
            run_steps, rows = _next_steps(plan, batches, done)
            if clock.expect(rows):
                bar.compiles()
            state, sums = run_steps(state, plan.data, rows, plan.key)
            done += plan.chunk_steps if run_steps is plan.train_chunk else 1
            pending.append(sums)
            fast = progress.steps_per_second * SLOW > plan.chunk_steps
            # Processes must not have two programs under way whose collectives could cross.
            absorb(keep=LAG if fast and processes.process_count() == 1 else 0)
            overdue = time.monotonic() - saved > plan.checkpoint_seconds
            last = done == plan.steps_per_epoch
            number = 0 if last else processes.largest(stop.number or 0)
            if number or (overdue and not last):
                absorb(keep=0)
                save("latest", state, plan, progress)
                saved = time.monotonic()
                if number:
                    raise _stopped(number, plan, progress)
        absorb(keep=0)
    return state


def _next_steps(plan: Plan, batches: Sequence[Rows], done: int) -> tuple[Callable, Rows]:
    """What runs the batches after `done`, a chunk if enough are left, else one; and their rows."""
    if 1 < plan.chunk_steps <= len(batches) - done:
        return plan.train_chunk, plan.devices.shard_steps(batches[done : done + plan.chunk_steps])
    return plan.train_step, plan.devices.shard(batches[done])


def _validate(
    state: TrainState, plan: Plan, progress: Progress, stop: StopRequest
) -> dict[str, float]:
    """The scores of the validation data; a signal saves the state before them, at once.

    Several processes finish it, since all of them take part.
    """
    if processes.process_count() > 1:
        return plan.evaluate(state)
    try:
        with stop.raising():
            return plan.evaluate(state)
    except StopNow:
        save("latest", state, plan, progress)
        raise _stopped(stop.number or signal.SIGINT, plan, progress) from None


def finish_epoch(
    state: TrainState, plan: Plan, progress: Progress, scores: dict[str, float], name: str = ""
) -> None:
    """Log, select, save; `name` says which run it is, where several are trained."""
    step = int(plan.devices.unreplicate(state.step))
    row: dict[str, Any] = {"epoch": progress.epoch + 1, "step": step}
    row |= metrics.means(progress.sums, "train/") | scores
    row["learning_rate"] = float(plan.schedule(step - 1))
    row["examples_per_second"] = progress.steps_per_second * plan.batch_size
    progress.epoch, progress.sums = progress.epoch + 1, {}
    score = row[plan.select] if plan.select else float(progress.epoch)
    better = progress.best_score is None or score > progress.best_score
    if better:
        progress.best_epoch, progress.best_score = progress.epoch, score
    plan.writer.write(row)
    save("latest", state, plan, progress)
    if better:  # after the latest: a run that is killed between them saves it when resumed
        save("best", state, plan, progress)
    metrics_shown = [f"{split}/{metric}" for split in ("train", "val") for metric in plan.shown]
    shown = "  ".join(f"{metric} {row[metric]:.4f}" for metric in metrics_shown if metric in row)
    mark = "  *best" if better and plan.select else ""
    rate = f"{row['examples_per_second']:.0f} {plan.unit}/s"
    say(f"{name}epoch {progress.epoch}/{plan.epochs}  {shown}  {rate}{mark}")


def save(name: str, state: TrainState, plan: Plan, progress: Progress) -> None:
    """Save as `latest` or `best`; DivergedError unless all parameters are finite."""
    if not processes.is_first():
        return
    state = plan.devices.unreplicate(state)
    if not _all_finite((state.params, state.batch_stats)):
        raise diverged(f"a parameter after step {int(state.step)}", plan)
    plan.checkpoints.save(name, jax.device_get(state), asdict(progress))


@jax.jit
def _all_finite(tree: Any) -> Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def diverged(what: str, plan: Plan) -> DivergedError:
    """The error of a run in which `what` is not finite."""
    # Not by `from_first`: a parameter is looked at where it is saved, in the first process alone.
    return DivergedError(
        f"{what} is not a finite number; the last good checkpoint is {_latest(plan)}; try a lower "
        "--learning_rate, --clip=1, a longer warm-up or --precision=float32"
    )


def _stopped(number: int, plan: Plan, progress: Progress) -> StoppedBySignal:
    where = processes.from_first(plan.checkpoints.describe_newest)
    return StoppedBySignal(
        number,
        f"stopped after {progress.epoch} of {plan.epochs} epochs"
        f"{' and a part' if progress.sums else ''}; saved {where}; --resume continues",
    )


def _left(plan: Plan) -> str:
    latest = _latest(plan)
    if latest == "none":
        return "left at once; there is no checkpoint yet: --resume starts anew"
    return f"left at once; the last checkpoint is {latest}; --resume goes on from it"


def _latest(plan: Plan) -> str:
    """Where the latest checkpoint is, for a message of any process."""
    first = processes.is_first()
    return plan.checkpoints.describe_newest() if first else "what the first process says"
