"""Several runs as one program, by `vmap`: each keeps its folder, data, order and scores.

A step of all is a step of each, with its own rows, on stacked states; what a run computes is what
it computes alone, but for rounding. That pays where a step of one run leaves the device idle, as a
small tagger's does on an accelerator. On CPUs it does not: see common/study_runs.py.

Runs can go together if their configurations have the same `training.program_of` and their states
the same shapes; of those that are given, what does not fit is trained on its own.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from common import metrics
from common.batching import Rows
from common.claim import claim
from common.config import read_json
from common.errors import DivergedError, InputError, StopNow, StoppedBySignal
from common.loop import FIRST_WORDS, LAG, diverged, finish_epoch, fit, is_stale, save
from common.modes import was_given
from common.plan import Plan, Progress, Session, Stopwatch
from common.resume import find_start
from common.signals import StopRequest
from common.state import TrainState
from common.step import scan_steps
from common.training import TrainingConfig
from common.writer import EpochBar, say

LEFT = "left at once; --resume goes on from the last checkpoints"


@dataclass
class Member:
    """A run among several.

    Attributes:
        session: the run.
        state: on the device; old while the group trains.
        progress: where it stands.
        failure: why it cannot go on.
    """

    session: Session
    state: TrainState
    progress: Progress
    failure: DivergedError | None = None

    @property
    def plan(self) -> Plan:
        return self.session.plan

    @property
    def name(self) -> str:
        """As lines for the person call it: ARM/seedN in a study."""
        return "/".join(self.plan.writer.folder.parts[-2:])

    @property
    def goes_on(self) -> bool:
        """Whether there are steps to make."""
        left = self.progress.epoch < self.plan.epochs and not is_stale(self.plan, self.progress)
        return left and self.failure is None

    @property
    def done(self) -> int:
        """Steps made of the epoch to come."""
        return int(self.state.step) - self.progress.epoch * self.plan.steps_per_epoch


def train_together(
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    find: Callable[[Mapping[str, Any], dict[str, Any]], tuple[TrainingConfig, Path]],
    begin: Callable[..., Session],
) -> None:
    """Train the runs that --together=FILE lists, as one program where they fit.

    The file is JSON, `{"runs": [{"settings": {...}, "workdir": "...", "command": "..."}, ...]}`;
    each run begins or is resumed as by its own command.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given.
        find: (launcher's flags, settings) -> configuration and run folder; see
            `modes.training_run`.
        begin: of the task's train.py.

    Raises:
        InputError: the file is not such a one, or a run cannot be begun.
        DivergedError: of the first run that failed, after the others are finished.
        StoppedBySignal: all are saved.
    """
    given = [name for name, value in launcher.items() if was_given(value)]
    for name in (*given, *settings):
        if name not in ("task", "mode", "together"):
            raise InputError(f"--{name} does not go with --together: the file says it")
    with ExitStack() as claims:
        sessions = []
        for run in _read_runs(Path(launcher["together"])):
            place = {"workdir": run["workdir"], "resume": True}
            config, workdir = find(place, run["settings"])
            claims.enter_context(claim(workdir))
            sessions.append(begin(config, workdir, resume=True, command=run["command"]))
        run_together(sessions)


def _read_runs(path: Path) -> list[dict[str, Any]]:
    runs = read_json(path).get("runs")
    kinds = {"settings": dict, "workdir": str, "command": str}
    whole = isinstance(runs, list) and all(
        isinstance(run, dict) and all(isinstance(run.get(key), kinds[key]) for key in kinds)
        for run in runs
    )
    if not whole:
        raise InputError(f"--together={path} lists no runs: a study writes such files")
    return list(runs)


def run_together(sessions: Sequence[Session]) -> None:
    """Train and finish them all. Raises as `train_together`."""
    members = [_begin(session) for session in sessions]
    for group in _alike(members):
        if len(group) > 1:
            _fit_group(group)
        else:
            _fit_alone(group[0])
    for member in members:
        if member.failure is None:
            like = member.plan.devices.abstract(member.state)
            best, _ = member.plan.checkpoints.restore("best", like)
            member.session.finish(best, member.progress)
    if failures := [member.failure for member in members if member.failure]:
        raise failures[0]


def _begin(session: Session) -> Member:
    """The run where its newest checkpoint is."""
    devices = session.plan.devices
    state, saved = find_start(session.state, devices.abstract(session.state), session.plan)
    return Member(session, devices.replicate(state), Progress(**saved))


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """Those that have steps to make, in groups that can make them together."""
    groups: dict[Any, list[Member]] = {}
    for place, member in enumerate(members):
        if not member.goes_on:
            continue
        leaves, structure = jax.tree.flatten(member.state)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        steps = (member.plan.steps_per_epoch, member.done)
        apart = place if member.plan.devices.count > 1 else None  # pmap's steps are not stacked
        key = (member.session.program, structure, shapes, steps, apart)
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _fit_alone(member: Member) -> None:
    say(f"{member.name} is trained on its own")
    try:
        member.state, _ = fit(member.state, member.plan, member.progress)
    except DivergedError as error:
        member.failure = error


def _fit_group(members: Sequence[Member]) -> None:
    """Train all to their ends, epoch by epoch; as `loop.fit`."""
    say(f"{len(members)} runs as one program: {', '.join(member.name for member in members)}")
    steps = _GroupSteps(members[0].plan)
    stop = StopRequest(FIRST_WORDS, lambda: LEFT)
    for member in members:
        member.plan.writer.open(member.progress.epoch)
    try:
        with stop:
            while group := [member for member in members if member.goes_on]:
                _train_epoch(group, steps, stop)
                _end_epoch(group, stop)
                if stop.number:
                    raise _stopped(stop.number, group)
    except KeyboardInterrupt:
        raise StoppedBySignal(stop.number or signal.SIGINT, LEFT) from None
    finally:
        for member in members:
            member.plan.writer.close()


class _GroupSteps:
    """What a group's steps need: the compiled programs, the stacked data, the clock."""

    def __init__(self, plan: Plan):
        step = jax.vmap(plan.step)
        self._one = plan.devices.compile(step, donate_first=True)
        self._chunk = plan.devices.compile(scan_steps(step), donate_first=True)
        self._group: list[Member] = []
        self._inputs: tuple[Any, Any] = (None, None)
        self.spent = Progress()
        self.clock = Stopwatch(self.spent)

    def take(self, group: list[Member], state: Any, steps: Sequence[Sequence[Rows]]) -> tuple:
        """Make the steps, each of all runs of the group; (state, sums [S, N] of every step)."""
        if self._group != group:
            data = jax.tree.map(_stack_padded, *(member.plan.data for member in group))
            self._inputs = data, jnp.stack([member.plan.key for member in group])
            self._group = group
        data, keys = self._inputs
        align = group[0].plan.align
        if len(steps) == 1:
            rows = _stack(align(steps[0]))
            self.clock.expect(rows)
            state, sums = self._one(state, data, rows, keys)
            return state, {name: values[None] for name, values in sums.items()}
        rows = _stack([_stack(align(step)) for step in steps])
        self.clock.expect(rows)
        return self._chunk(state, data, rows, keys)

    def settle(self, group: Sequence[Member]) -> None:
        """Give every run its share of the time so far."""
        for member in group:
            member.progress.seconds += self.spent.seconds / len(group)
            member.progress.steps_timed += self.spent.steps_timed
        self.spent.seconds, self.spent.steps_timed = 0.0, 0


def _train_epoch(group: list[Member], steps: _GroupSteps, stop: StopRequest) -> None:
    """The rest of the current epoch of every run; a stop saves them all."""
    plan, done = group[0].plan, group[0].done
    batches = list(zip(*(m.plan.epoch_batches(m.progress.epoch) for m in group), strict=True))
    state = _stack_states([member.state for member in group])
    pending: deque[dict[str, Array]] = deque()
    title = f"epoch {group[0].progress.epoch + 1}/{plan.epochs} of {len(group)} runs"
    saved = time.monotonic()

    def absorb(keep: int) -> None:
        while len(pending) > keep:
            sums = jax.device_get(pending.popleft())
            for values in zip(*sums.values(), strict=True):  # of a step, each [N]
                _add_step(group, dict(zip(sums, values, strict=True)))
            made = len(next(iter(sums.values())))
            steps.clock.tick(made)
            bar.step(_mean(group), made)

    with EpochBar(
        title, plan.steps_per_epoch, done, plan.unit, plan.batch_size * len(group)
    ) as bar:
        steps.clock.start()
        while done < plan.steps_per_epoch:
            chunk = 1 < plan.chunk_steps <= len(batches) - done
            count = plan.chunk_steps if chunk else 1
            state, sums = steps.take(group, state, batches[done : done + count])
            done += count
            pending.append(sums)
            absorb(keep=LAG)
            overdue = time.monotonic() - saved > plan.checkpoint_seconds
            if done < plan.steps_per_epoch and (stop.number or overdue):
                absorb(keep=0)
                steps.settle(group)
                _unstack_states(group, state)
                _save_all(group)
                saved = time.monotonic()
                if stop.number:
                    raise _stopped(stop.number, group)
        absorb(keep=0)
    steps.settle(group)
    _unstack_states(group, state)


def _add_step(group: Sequence[Member], sums: dict[str, np.ndarray]) -> None:
    """Add a step's sums, [N], to every run's; note which run cannot go on."""
    for place, member in enumerate(group):
        own = {name: float(values[place]) for name, values in sums.items()}
        member.progress.sums = metrics.add(member.progress.sums, own)
        if member.failure is None and not math.isfinite(member.progress.sums["loss"]):
            epoch = member.progress.epoch + 1
            member.failure = diverged(f"the loss of {member.name} in epoch {epoch}", member.plan)


def _mean(group: Sequence[Member]) -> dict[str, float]:
    """The means so far, over all runs."""
    total: dict[str, float] = {}
    for member in group:
        total = {k: total.get(k, 0.0) + v for k, v in member.progress.sums.items()}
    return metrics.means(total)


def _end_epoch(group: Sequence[Member], stop: StopRequest) -> None:
    """Validate, log and save every run; a signal saves at once what is left."""
    for member in group:
        if member.failure is not None:
            continue
        try:
            with stop.raising():
                scores = member.plan.evaluate(member.state)
        except StopNow:
            _save_all(group)
            raise _stopped(stop.number or signal.SIGINT, group) from None
        with _noting(member):
            finish_epoch(member.state, member.plan, member.progress, scores, f"{member.name}: ")


def _save_all(group: Sequence[Member]) -> None:
    for member in group:
        if member.failure is None:
            with _noting(member):
                save("latest", member.state, member.plan, member.progress)


@contextmanager
def _noting(member: Member) -> Iterator[None]:
    """A parameter that is not finite ends this run alone."""
    try:
        yield
    except DivergedError as error:
        member.failure = error


def _stopped(number: int, group: Sequence[Member]) -> StoppedBySignal:
    return StoppedBySignal(
        number, f"stopped {len(group)} runs, each saved in its folder; --resume continues"
    )


def _stack(parts: Sequence[Rows]) -> Rows:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _stack_padded(*arrays: Array) -> Array:
    """Arrays of the same rank, stacked; the smaller ones end in zeros, which no row names."""
    shape = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    missing = [[(0, all_ - own) for all_, own in zip(shape, a.shape, strict=True)] for a in arrays]
    pairs = zip(arrays, missing, strict=True)
    return jnp.stack([jnp.pad(array, pads) if pads else array for array, pads in pairs])


@jax.jit
def _stack_states(states: list[TrainState]) -> TrainState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@partial(jax.jit, static_argnums=1)
def _cut(state: TrainState, count: int) -> list[TrainState]:
    return [jax.tree.map(lambda leaf: leaf[place], state) for place in range(count)]  # noqa: B023


def _unstack_states(group: Sequence[Member], state: TrainState) -> None:
    """Give every run its own state again."""
    for member, own in zip(group, _cut(state, len(group)), strict=True):
        member.state = own
