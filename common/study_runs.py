"""Trains the runs of a study: a process for each, so that none can harm another, unless asked.

A process costs a start and its compilation, about five seconds once the study's folder holds
the compiled programs; for that a run may fail, run out of memory or be killed, and the others
go on. Every run is an ordinary `launch.py --resume`, and its folder an ordinary run folder.

Light runs go on together, one on a core, and the first of an arm compiles for all.

By --vmap, runs that differ in nothing but their seed and numbers are one program in one process
(common/together.py); what does not end so is then done alone. It is off by default, since on
CPUs it loses: on two cores of a Xeon five seeds of report B's BiLSTM (rest14) take 2.5 times
one's time as five processes, and as one program 4.6 times, with the same scores to the last
digit; five of `cnn_b` (digits) 4.0 and 28 times. A step of five takes as long as five there,
convolutions with weights of their own much longer; loops over time make the steps of the longest
sentence of all runs. (Measured with loops over all padding.) On an accelerator
it should win with small taggers, whose step waits for launches: that of five has the loops and
products of one (tests/test_accelerators.py). That is not timed yet.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from common.config import write_json
from common.errors import InputError, StoppedBySignal
from common.host import cores, has_tpu
from common.signals import PARENT_PIPE, StopRequest
from common.study import Run, to_flags
from common.study_progress import StudyProgress, finished_epochs
from common.writer import say

POLL_SECONDS = 0.1
# Light runs that go on together, at most: each takes about 0.7 GB.
MAX_LIGHT_JOBS = 8
# The exit status of a mistake in flags or data, which another seed would meet as well.
MISTAKE = 2
FIRST_WORDS = "every run stops after its step, with a checkpoint; once more ends them at once"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the study's folder; yields the descriptor, by which its runs hold it too.

    A study that was killed leaves runs that are still stopping: they are waited for.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--workdir={folder} cannot be made: {error.strerror}") from None
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{folder} is in use by another process: waiting until that has stopped")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def light_jobs() -> int:
    """How many light runs go on together: one on each core; one where there is a TPU, which serves
    one process at a time."""
    if has_tpu() and os.environ.get("JAX_PLATFORMS") != "cpu":
        return 1
    return min(len(cores()), MAX_LIGHT_JOBS)


@dataclass
class _Job:
    """A process of one run, or of several as one program. `slot`, from 0, numbers the processes
    that go on together."""

    runs: Sequence[Run]
    begun: bool  # whether there was a run before, which this one resumes
    process: subprocess.Popen
    log: IO[str]
    slot: int


class Runner:
    """Does the unfinished runs of a study.

    After `run_all`, `failures` holds by run the reason why it failed.
    """

    def __init__(
        self,
        program: Sequence[str],
        task: str,
        folder: Path,
        jobs: int,
        lock: int,
        *,
        compile_once: bool = False,
    ):
        """Args:
        program: what starts launch.py.
        task: of --task.
        folder: of the study.
        jobs: processes that go on together.
        lock: from `locked`.
        compile_once: let the first run of an arm finish an epoch, which compiles what its other
            seeds then find in the study's folder, before those begin.
        """
        self._program, self._task, self._folder, self._jobs = list(program), task, folder, jobs
        self._lock, self._compile_once = lock, compile_once
        self._compiled: set[str] = set()
        self.failures: dict[Run, str] = {}

    def run_all(self, runs: Sequence[Run], progress: StudyProgress, *, together: int = 1) -> None:
        """Do them in their order; a failed run is noted, and the rest go on.

        Args:
            runs: all of the study.
            progress: is told.
            together: how many runs may be one program.

        Raises StoppedBySignal after Ctrl-C or SIGTERM, when all processes have stopped.
        """
        waiting = deque(group_runs([run for run in runs if not run.finished], together))
        jobs: list[_Job] = []
        # When this process dies, even by SIGKILL, the pipe closes, and the runs see that.
        ear, mouth = os.pipe()
        try:
            with StopRequest(FIRST_WORDS) as stop:
                while jobs or (waiting and stop.number is None):
                    if stop.number is not None:
                        self._terminate(jobs)
                    while stop.number is None and (group := self._next(waiting, jobs)):
                        waiting.remove(group)
                        jobs.append(self._start(group, jobs, ear))
                        for run in group:
                            progress.begin(run)
                    time.sleep(POLL_SECONDS)
                    for job in [job for job in jobs if job.process.poll() is not None]:
                        jobs.remove(job)
                        job.log.close()
                        if stop.number is None:
                            self._note_end(job, waiting, progress)
                    progress.tell()
        finally:
            for job in jobs:  # only after a second Ctrl-C
                job.process.kill()
                job.process.wait()
            os.close(ear)
            os.close(mouth)
        if stop.number is not None:
            left = sum(not run.finished for run in runs)
            raise StoppedBySignal(
                stop.number,
                f"stopped with {left} of {len(runs)} runs to do; the same command continues",
            )

    def _next(self, waiting: deque[list[Run]], jobs: Sequence[_Job]) -> list[Run] | None:
        """The runs to begin now, if any."""
        if len(jobs) >= self._jobs:
            return None
        compiling: set[str] = set()
        if self._compile_once:
            first = [job.runs[0] for job in jobs]
            self._compiled |= {run.arm for run in first if finished_epochs(run)}
            compiling = {run.arm for run in first} - self._compiled
        return next((group for group in waiting if group[0].arm not in compiling), None)

    def _start(self, group: Sequence[Run], jobs: Sequence[_Job], ear: int) -> _Job:
        """Begin or resume a run, or several as one program; the log of the first has all."""
        for run in group:
            run.folder.parent.mkdir(parents=True, exist_ok=True)
        begun = (group[0].folder / "config.json").exists()
        for run in group[1:]:
            with run.log.open("a") as log:
                log.write(f"one program with {group[0].title}, whose log has all: {group[0].log}\n")
        if len(group) == 1:
            command = [*self._program, *run_flags(self._task, group[0]), "--resume"]
        else:
            self._list_runs(group)
            listed = f"--together={_list_path(group)}"
            command = [*self._program, f"--task={self._task}", listed]
        log = group[0].log.open("a")
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment(ear),
            pass_fds=(ear, self._lock),
            start_new_session=True,  # Ctrl-C is for this process, which tells the runs
        )
        slot = min(set(range(self._jobs)) - {job.slot for job in jobs})
        _share_cores(process.pid, slot, self._jobs)
        return _Job(group, begun, process, log, slot)

    def _list_runs(self, group: Sequence[Run]) -> None:
        """Write what --together reads."""
        runs = [
            {
                "settings": dict(run.settings),
                "workdir": str(run.folder),
                "command": shlex.join(["python", "launch.py", *run_flags(self._task, run)]),
            }
            for run in group
        ]
        write_json(_list_path(group), {"runs": runs})

    def _environment(self, ear: int) -> dict[str, str]:
        """Compiled programs are shared by all runs, the memory of an accelerator divided."""
        shared = {
            "JAX_COMPILATION_CACHE_DIR": str((self._folder / "compiled").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if self._jobs > 1:
            shared["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.75 / self._jobs:.3f}"
        return shared | os.environ | {PARENT_PIPE: str(ear)}

    def _terminate(self, jobs: Sequence[_Job]) -> None:
        """Ask every run once to stop with a checkpoint."""
        for job in jobs:
            if not job.log.closed:
                job.process.terminate()
                job.log.close()

    def _note_end(self, job: _Job, waiting: deque[list[Run]], progress: StudyProgress) -> None:
        """A process has ended by itself: note how."""
        if len(job.runs) > 1:
            reason = _read_reason(job.runs[0].log, job.process.returncode)
            for run in reversed(job.runs):
                if run.finished:
                    progress.finish(run)
                else:
                    progress.again(run, reason)
                    waiting.appendleft([run])
            _list_path(job.runs).unlink(missing_ok=True)
            return
        [run], status = job.runs, job.process.returncode
        if status == 0 and run.finished:
            progress.finish(run)
            return
        reason = _read_reason(run.log, status)
        self.failures[run] = reason
        progress.fail(run, reason)
        if status != MISTAKE or job.begun:  # what was resumed may be at fault in its folder alone
            return
        others = [other for group in waiting for other in group if other.arm == run.arm]
        for other in others:
            group = next(group for group in waiting if other in group)
            group.remove(other)
            if not group:
                waiting.remove(group)
            self.failures[other] = reason
            progress.fail(other, f"not tried, since seed {run.seed} failed by a mistake")


def group_runs(runs: Sequence[Run], together: int) -> list[list[Run]]:
    """The runs in their order, up to `together` of the same program side by side."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            alike = run.program is not None and run.program == group[0].program
            if alike and len(group) < together:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def run_flags(task: str, run: Run) -> list[str]:
    """The flags of a run, but for --resume."""
    return [f"--task={task}", *to_flags(run.settings), f"--workdir={run.folder}"]


def _list_path(group: Sequence[Run]) -> Path:
    return group[0].folder.with_suffix(".together.json")


def _read_reason(log: Path, status: int) -> str:
    """Why a run ended: the last line of its log, or the signal that ended it."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}; {log} has its last words"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "no output")
    return last.removeprefix("launch.py: ")


def _share_cores(pid: int, slot: int, jobs: int) -> None:
    """Give one of several jobs its share of the cores, before it counts them."""
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return
    own = cores()
    try:
        os.sched_setaffinity(pid, set(own[slot::jobs]) or {own[slot % len(own)]})
    except ProcessLookupError:  # it has ended already, as its status will tell
        pass
