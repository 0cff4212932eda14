"""Tells how far a study is, and how long the rest will take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.study import Run
from common.writer import PLAIN_SECONDS, say

COMPILE_SECONDS = 20.0  # of a first epoch, about, with the start: what later ones do not take
START_SECONDS = 10.0  # of a run, about, that are not training: its start, compilation, pictures


@dataclass
class _Going:
    """A run that goes on.

    Attributes:
        begun: when.
        before: epochs that it had finished by then.
        first: epochs when more were first seen; these took the compilation too.
        seen: when that was, 0 before.
    """

    begun: float
    before: int
    first: int = 0
    seen: float = 0.0


class StudyProgress:
    """Lines for the person: a run begins, goes on, ends; with the time left for the study."""

    def __init__(self, runs: Sequence[Run], metric: str, words: str, jobs: int):
        """Args: metric and what it is called; about `jobs` runs go on together."""
        self._runs, self._metric, self._words, self._jobs = runs, metric, words, jobs
        self._going: dict[Run, _Going] = {}
        self._failed: set[Run] = set()
        self._seconds: dict[str, list[float]] = {}
        self._told = time.monotonic()
        for run in runs:
            if run.finished:  # before this session: training alone is known
                seconds = run.read_summary()["seconds"] + START_SECONDS
                self._seconds.setdefault(run.arm, []).append(seconds)

    @property
    def done(self) -> int:
        """Runs that are finished or have failed."""
        return sum(run.finished or run in self._failed for run in self._runs)

    def begin(self, run: Run) -> None:
        self._going[run] = _Going(time.monotonic(), finished_epochs(run))
        say(f"[{self._place(run)}] {run.title}{self._left()}")

    def finish(self, run: Run) -> None:
        seconds = time.monotonic() - self._going.pop(run).begun
        self._seconds.setdefault(run.arm, []).append(seconds)
        score = run.read_summary().get(self._metric)
        shown = f"{self._words} {score:.4f}, " if isinstance(score, float) else ""
        say(f"[{self._place(run)}] {run.title}: {shown}{format_seconds(seconds)}{self._left()}")

    def fail(self, run: Run, reason: str) -> None:
        self._going.pop(run, None)
        self._failed.add(run)
        say(f"[{self._place(run)}] {run.title} FAILED: {reason}")

    def again(self, run: Run, reason: str) -> None:
        """A run that was one of several is begun again, alone."""
        self._going.pop(run, None)
        say(f"[{self._place(run)}] {run.title} did not end with the others ({reason}): now alone")

    def tell(self) -> None:
        """Now and then a line of what goes on."""
        for run, going in self._going.items():
            if not going.seen and (epoch := finished_epochs(run)) > going.before:
                going.first, going.seen = epoch, time.monotonic()
        if not self._going or time.monotonic() - self._told < PLAIN_SECONDS:
            return
        self._told = time.monotonic()
        now = ", ".join(
            f"{run.title} at epoch {finished_epochs(run)}/{run.epochs}" for run in self._going
        )
        say(f"{self.done}/{len(self._runs)} runs done; {now}{self._left()}")

    def _place(self, run: Run) -> str:
        self._told = time.monotonic()
        return f"{self._runs.index(run) + 1}/{len(self._runs)}"

    def _left(self) -> str:
        """ "; about 5 min left", or nothing before that can be known."""
        open_runs = [r for r in self._runs if not r.finished and r not in self._failed]
        durations = {run: self._duration(run) for run in open_runs}
        known = [seconds for seconds in durations.values() if seconds is not None]
        known = known or [seconds for arm in self._seconds.values() for seconds in arm]
        if not open_runs or not known:
            return ""
        mean = sum(known) / len(known)
        left = 0.0
        for run, seconds in durations.items():
            spent = time.monotonic() - self._going[run].begun if run in self._going else 0.0
            left += max((mean if seconds is None else seconds) - spent, 0.0)
        return f"; about {format_seconds(left / min(self._jobs, len(open_runs)))} left"

    def _duration(self, run: Run) -> float | None:
        """Seconds of a whole run, by its arm's other runs or by its own epochs so far."""
        if done := self._seconds.get(run.arm):
            return sum(done) / len(done)
        going = self._going.get(run)
        if not going or not going.seen:
            return None
        epoch, started = finished_epochs(run), going.seen - going.begun
        if epoch == going.first:  # of which the start and the compilation are a part
            later = max(started - COMPILE_SECONDS, 0.0) / (epoch - going.before)
            return started + later * (run.epochs - epoch)
        later = (time.monotonic() - going.seen) / (epoch - going.first)
        return started + later * (run.epochs - going.first)


def format_seconds(seconds: float) -> str:
    """As a person says it: "45 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def finished_epochs(run: Run) -> int:
    """Epochs that a run has finished."""
    path = run.folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0
