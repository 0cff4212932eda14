"""Trains the runs of a study: a process for each, so that none can harm another.

A process costs a start and its compilation, about five seconds once the study's folder holds
the compiled programs; for that a run may fail, run out of memory or be killed, and the others
go on. Every run is an ordinary `launch.py --resume`, and its folder an ordinary run folder.

Light runs go on together, one on a core, and the first of an arm compiles for all. They do
not share a program by `vmap`: the steps of five of report B's BiLSTMs, stacked, take 0.8 to 1.1
of the time of five steps, those of five `cnn_b` twice that (benchmarks/scaling.py), and a
process each keeps all cores busy.
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

from common.errors import InputError, StoppedBySignal
from common.host import has_tpu
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
    return min(len(_cores()), MAX_LIGHT_JOBS)


@dataclass
class _Job:
    """A run's process. `slot`, from 0, numbers the runs that go on together."""

    run: Run
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
        jobs: runs that go on together.
        lock: from `locked`.
        compile_once: let the first run of an arm finish an epoch, which compiles what its other
            seeds then find in the study's folder, before those begin.
        """
        self._program, self._task, self._folder, self._jobs = list(program), task, folder, jobs
        self._lock, self._compile_once = lock, compile_once
        self._compiled: set[str] = set()
        self.failures: dict[Run, str] = {}

    def run_all(self, runs: Sequence[Run], progress: StudyProgress) -> None:
        """Do them in their order; a failed run is noted, and the rest go on.

        Raises StoppedBySignal after Ctrl-C or SIGTERM, when all processes have stopped.
        """
        waiting = deque(run for run in runs if not run.finished)
        jobs: list[_Job] = []
        # When this process dies, even by SIGKILL, the pipe closes, and the runs see that.
        ear, mouth = os.pipe()
        try:
            with StopRequest(FIRST_WORDS) as stop:
                while jobs or (waiting and stop.number is None):
                    if stop.number is not None:
                        self._terminate(jobs)
                    while stop.number is None and (run := self._next(waiting, jobs)):
                        waiting.remove(run)
                        jobs.append(self._start(run, jobs, ear))
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

    def _next(self, waiting: deque[Run], jobs: Sequence[_Job]) -> Run | None:
        """The run to begin now, if any."""
        if len(jobs) >= self._jobs:
            return None
        compiling: set[str] = set()
        if self._compile_once:
            self._compiled |= {job.run.arm for job in jobs if finished_epochs(job.run)}
            compiling = {job.run.arm for job in jobs} - self._compiled
        return next((run for run in waiting if run.arm not in compiling), None)

    def _start(self, run: Run, jobs: Sequence[_Job], ear: int) -> _Job:
        """Begin or resume a run."""
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        command = [*self._program, *run_flags(self._task, run), "--resume"]
        log = run.log.open("a")
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
        return _Job(run, process, log, slot)

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

    def _note_end(self, job: _Job, waiting: deque[Run], progress: StudyProgress) -> None:
        """A run has ended by itself: note how."""
        run, status = job.run, job.process.returncode
        if status == 0 and run.finished:
            progress.finish(run)
            return
        reason = _read_reason(run.log, status)
        self.failures[run] = reason
        progress.fail(run, reason)
        if status != MISTAKE:
            return
        for other in [other for other in waiting if other.arm == run.arm]:
            waiting.remove(other)
            self.failures[other] = reason
            progress.fail(other, f"not tried, since seed {run.seed} failed by a mistake")


def run_flags(task: str, run: Run) -> list[str]:
    """The flags of a run, but for --resume."""
    return [f"--task={task}", *to_flags(run.settings), f"--workdir={run.folder}"]


def _read_reason(log: Path, status: int) -> str:
    """Why a run ended: the last line of its log, or the signal that ended it."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}; {log} has its last words"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "no output")
    return last.removeprefix("launch.py: ")


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _share_cores(pid: int, slot: int, jobs: int) -> None:
    """Give one of several jobs its share of the cores, before it counts them."""
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return
    cores = _cores()
    try:
        os.sched_setaffinity(pid, set(cores[slot::jobs]) or {cores[slot % len(cores)]})
    except ProcessLookupError:  # it has ended already, as its status will tell
        pass
