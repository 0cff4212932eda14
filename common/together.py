"""Several runs in one process, their steps as one program: each keeps its folder, order and scores.

What a run computes is what it computes alone, but for rounding; so one that is stopped and goes on
with others, or alone, is not the same bit for bit. It may pay where a step of one run leaves the
device idle, as a small tagger's does on an accelerator. On CPUs it does not: see
common/study_runs.py.

Runs go together if their configurations have the same `training.program_of` and their states the
same shapes; of those that are given, what does not fit is trained on its own.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import Array

from common import metrics, processes
from common.claim import claim
from common.config import parse, read_json
from common.errors import DivergedError, InputError, StopNow, StoppedBySignal
from common.loop import FIRST_WORDS, LAG, SLOW, diverged, finish_epoch, fit, is_stale, save
from common.modes import was_given
from common.plan import Plan, Progress, Session
from common.resume import find_start
from common.signals import StopRequest
from common.stacked import StackedSteps, cut_states, stack_states
from common.state import TrainState
from common.training import TrainingConfig
from common.writer import EpochBar, say, warn

LEFT = "left at once; the same command goes on from the last checkpoints"


@dataclass(eq=False)
class Member:
    """A run among several.

    Attributes:
        session: the run.
        like: shapes and types of its state.
        state: one copy; old while the group trains.
        progress: where it stands.
        failure: why it cannot go on.
    """

    session: Session
    like: Any
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
        """Whether it has an epoch to finish."""
        left = self.progress.epoch < self.plan.epochs and not is_stale(self.plan, self.progress)
        return left and self.failure is None

    @property
    def done(self) -> int:
        """Steps made of the epoch to finish."""
        return int(self.state.step) - self.progress.epoch * self.plan.steps_per_epoch

    @property
    def is_late(self) -> bool:
        """Whether all steps of the epoch are made, and it is to be scored."""
        return self.done == self.plan.steps_per_epoch

    def fail(self, error: DivergedError) -> None:
        """Note and say why it cannot go on."""
        self.failure = error
        warn(f"{self.name}: {error}")


def train_together(
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    kind: type[TrainingConfig],
    find: Callable[[Mapping[str, Any], dict[str, Any]], tuple[TrainingConfig, Path]],
    begin: Callable[..., Session],
) -> None:
    """Train the runs that --together=FILE lists.

    The file is JSON, `{"runs": [{"settings": {...}, "workdir": "...", "command": "..."}, ...]}`;
    each run begins or is resumed as by its own command.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given.
        kind: of the configurations.
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
    if processes.process_count() > 1:
        raise InputError("--together is for one process: start it alone")
    with ExitStack() as claims:
        sessions = []
        for run in read_runs(Path(launcher["together"]), kind):
            place = {"workdir": run["workdir"], "resume": True}
            config, workdir = find(place, run["settings"])
            claims.enter_context(claim(workdir))
            sessions.append(begin(config, workdir, resume=True, command=run["command"]))
        run_together(sessions)


def read_runs(path: Path, kind: type[TrainingConfig]) -> list[dict[str, Any]]:
    """The runs that a file lists, with settings of the types of `kind`; else InputError."""
    runs = read_json(path).get("runs")
    kinds = {"settings": dict, "workdir": str, "command": str}
    whole = isinstance(runs, list) and all(
        isinstance(run, dict) and all(isinstance(run.get(key), kinds[key]) for key in kinds)
        for run in runs
    )
    if not whole or not runs or len({run["workdir"] for run in runs}) < len(runs):
        raise InputError(f"--together={path} is no list of runs: a study with --vmap writes it")
    try:
        return [
            {**run, "settings": {n: parse(kind, n, v) for n, v in run["settings"].items()}}
            for run in runs
        ]
    except InputError as error:
        raise InputError(f"--together={path}: {error}") from None


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
            best, _ = member.plan.checkpoints.restore("best", member.like)
            member.session.finish(best, member.progress)
    for member in members:
        if member.failure:
            raise DivergedError(f"{member.name}: {member.failure}")


def _begin(session: Session) -> Member:
    """The run where its newest checkpoint is."""
    like = session.plan.devices.abstract(session.state)
    state, saved = find_start(session.state, like, session.plan)
    return Member(session, like, state, Progress(**saved))


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """Groups that can make their steps together."""
    groups: dict[Any, list[Member]] = {}
    for place, member in enumerate(members):
        leaves, structure = jax.tree.flatten(member.like)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        size = member.plan.steps_per_epoch
        # Those of pmap are not stacked, and a run that has made all its steps makes none.
        apart = place if member.plan.devices.count > 1 or not member.goes_on else None
        key = (member.session.program, structure, shapes, size, member.done % size, apart)
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _fit_alone(member: Member) -> None:
    if member.goes_on:
        say(f"{member.name} is trained on its own")
    try:
        fit(member.plan.devices.replicate(member.state), member.plan, member.progress)
    except DivergedError as error:
        member.fail(error)


def _fit_group(members: Sequence[Member]) -> None:
    """Train all to their ends, epoch by epoch; as `loop.fit`."""
    say(f"{len(members)} runs as one program: {', '.join(member.name for member in members)}")
    stop = StopRequest(FIRST_WORDS, lambda: LEFT)
    steps = StackedSteps([member.plan for member in members])
    for member in members:
        member.plan.writer.open(member.progress.epoch)
        member.progress.together = max(member.progress.together, len(members))
    try:
        with stop:
            while group := [member for member in members if member.goes_on]:
                if late := [member for member in group if member.is_late]:
                    _end_epoch(late, group, stop)
                    continue
                if len(group) < len(steps.plans):
                    steps = StackedSteps([member.plan for member in group])
                _train_epoch(group, steps, stop)
    except KeyboardInterrupt:
        raise StoppedBySignal(stop.number or signal.SIGINT, LEFT) from None
    finally:
        for member in members:
            member.plan.writer.close()


def _train_epoch(group: Sequence[Member], steps: StackedSteps, stop: StopRequest) -> None:
    """The rest of the current epoch of every run; a stop saves them all."""
    plan, done = group[0].plan, group[0].done
    batches = list(zip(*(m.plan.epoch_batches(m.progress.epoch) for m in group), strict=True))
    # Put on the device as the steps leave it: another placing would be compiled anew.
    state = plan.devices.replicate(stack_states([member.state for member in group]))
    pending: deque[dict[str, Array]] = deque()
    title = f"epoch {group[0].progress.epoch + 1}/{plan.epochs} of {len(group)} runs"
    saved = time.monotonic()

    def absorb(keep: int) -> None:
        """Add all but the newest `keep` sums, each of a step or a chunk, to the progress."""
        while len(pending) > keep:
            sums = jax.device_get(pending.popleft())
            for values in zip(*sums.values(), strict=True):  # of a step, each [N]
                _add_step(group, dict(zip(sums, values, strict=True)))
            made = len(next(iter(sums.values())))
            steps.clock.tick(made)
            bar.step(_mean(group), steps.spent.steps_per_second, made)

    def settle() -> None:
        """Every run has its own state again, and its share of the time."""
        absorb(keep=0)
        for member, own in zip(group, cut_states(state, len(group)), strict=True):
            member.state = own
            member.progress.seconds += steps.spent.seconds / len(group)
            member.progress.steps_timed += steps.spent.steps_timed
        steps.spent.seconds, steps.spent.steps_timed = 0.0, 0

    size = plan.batch_size * len(group)
    with EpochBar(title, plan.steps_per_epoch, done, plan.unit, size) as bar:
        steps.clock.start()
        while done < plan.steps_per_epoch and not all(member.failure for member in group):
            left = plan.steps_per_epoch - done
            count = plan.chunk_steps if 1 < plan.chunk_steps <= left else 1
            state, sums = steps.make(state, batches[done : done + count], bar.compiles)
            done += count
            pending.append(sums)
            fast = steps.spent.steps_per_second * SLOW > count
            absorb(keep=LAG if fast else 0)
            overdue = time.monotonic() - saved > plan.checkpoint_seconds
            if done < plan.steps_per_epoch and (stop.number or overdue):
                settle()
                _save_all(group)
                saved = time.monotonic()
                if stop.number:
                    raise _stopped(stop.number, group)
        settle()


def _add_step(group: Sequence[Member], sums: dict[str, Any]) -> None:
    """Add a step's sums, [N], to every run's; note which run cannot go on."""
    for place, member in enumerate(group):
        own = {name: float(values[place]) for name, values in sums.items()}
        member.progress.sums = metrics.add(member.progress.sums, own)
        if member.failure is None and not math.isfinite(member.progress.sums["loss"]):
            member.fail(diverged(f"the loss in epoch {member.progress.epoch + 1}", member.plan))


def _mean(group: Sequence[Member]) -> dict[str, float]:
    """The means so far, over all runs."""
    total: dict[str, float] = {}
    for member in group:
        total = {k: total.get(k, 0.0) + v for k, v in member.progress.sums.items()}
    return metrics.means(total)


def _end_epoch(late: Sequence[Member], group: Sequence[Member], stop: StopRequest) -> None:
    """Score, log and save the runs that are late; a signal saves the whole group at once."""
    for member in late:
        state = member.plan.devices.replicate(member.state)
        try:
            with stop.raising():
                scores = member.plan.evaluate(state)
        except StopNow:
            _save_all(group)
            raise _stopped(stop.number or signal.SIGINT, group) from None
        with _noting(member):
            finish_epoch(state, member.plan, member.progress, scores, f"{member.name}: ")
    if stop.number:
        raise _stopped(stop.number, group)


def _save_all(group: Sequence[Member]) -> None:
    for member in group:
        if member.failure is None:
            with _noting(member):
                save("latest", member.state, member.plan, member.progress)


def _stopped(number: int, group: Sequence[Member]) -> StoppedBySignal:
    whole = sum(member.failure is None for member in group)
    return StoppedBySignal(number, f"stopped; {whole} runs are saved; the same command goes on")


@contextmanager
def _noting(member: Member) -> Iterator[None]:
    """A parameter that is not finite ends this run alone."""
    try:
        yield
    except DivergedError as error:
        member.fail(error)
