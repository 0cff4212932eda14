"""Several processes as one run, each with devices of its own, on one machine or on many.

They find one another by JAX's distributed runtime, and take every step together. The first one
decides what cannot be computed from the flags alone, has the run folder and speaks; the others
write to a folder that is thrown away. A process that ends alone ends the run (common/watch.py).

JAX is imported where it is needed: launch.py asks `are_several` before anything else.
"""

import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.errors import (
    DivergedError,
    InputError,
    LostProcessError,
    StoppedBySignal,
    is_out_of_memory,
)
from common.host import prepare_host
from common.relay import open_relay
from common.rendezvous import meet, split_address
from common.watch import CONNECT, Watch

T = TypeVar("T")

FLAGS = ("coordinator", "num_processes", "process_id")  # of the launcher

# Seconds without a sign of life after which JAX takes a process for dead.
HEARTBEAT = 50
# Seconds that processes which have finished wait for the first one to draw its pictures.
FINISH = 600
# What the message of a failed collective has in it.
LOST = re.compile(r"gloo|nccl|coordination|heartbeat|connection (closed|reset)|unavailable", re.I)


@dataclass
class _Place:
    """This process among those of the run."""

    index: int = 0
    count: int = 1
    scratch: Path = Path()
    watch: Watch | None = None


_place = _Place()


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return _place.index == 0


def process_count() -> int:
    """How many processes the run has."""
    return _place.count


def scratch_folder() -> Path:
    """A folder for what only the first process has to keep; it goes with the process."""
    return _place.scratch


def are_several(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Whether flags or the environment of SLURM, Open MPI or a TPU pod ask for processes.

    Raises an InputError unless all three flags are given or none, and fit together.
    """
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in flags.items() if value is None]
    if len(missing) == len(flags):
        names = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
        pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        return pod or any(os.environ.get(name, "1") != "1" for name in names)
    if missing:
        raise InputError(
            f"{' and '.join(missing)} missing: several processes need --coordinator=HOST:PORT (of "
            "the first one), --num_processes=N and --process_id=0 to N - 1"
        )
    assert coordinator is not None and num_processes is not None and process_id is not None
    split_address(coordinator)
    if num_processes < 1:
        raise InputError(f"--num_processes={num_processes} must be at least 1")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id={process_id} is out of range: it must be in [0, {num_processes - 1}], "
            "each in one process"
        )
    return True


@contextmanager
def joined(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """While entered, this process is one of the run's; without values, as the cluster tells.

    Raises:
        InputError: the values do not fit, or the processes do not find one another.
        LostProcessError: another process is gone, and the watch does not see it.
    """
    import jax

    prepare_host()
    host = None
    if coordinator is not None and num_processes is not None and process_id is not None:
        host, port = split_address(coordinator)
        meet(coordinator, num_processes, process_id)
        if process_id:
            coordinator = open_relay(host, port)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=FINISH,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"the processes cannot be joined: {_first_line(error)}") from None
    _place.index, _place.count = jax.process_index(), jax.process_count()
    _place.watch = Watch(is_first(), process_count(), host, from_first)
    if not is_first():
        sys.stdout = open(os.devnull, "w")
    with tempfile.TemporaryDirectory(prefix="athanor-") as scratch:
        _place.scratch = Path(scratch)
        try:
            yield
        except StoppedBySignal:  # in all, after the same step
            _finish()
            raise
        except (InputError, DivergedError, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if not LOST.search(str(error)):
                traceback.print_exc()
                leave(1)
            time.sleep(CONNECT)  # the watch ends this process meanwhile
            raise LostProcessError(
                f"the processes of this run cannot reach one another ({_first_line(error)[:100]}); "
                "start all of them again with --resume"
            ) from None
        _finish()


def _finish() -> None:
    """End with the others: the first may still be drawing its pictures."""
    import jax

    assert _place.watch is not None
    _place.watch.finish()
    jax.distributed.shutdown()


def leave(status: int) -> NoReturn:
    """End a process that failed, without waiting for the others as JAX would."""
    if _place.watch is None:
        os._exit(status)
    _place.watch.leave(status)


def from_first(action: Callable[[], T]) -> T:
    """What `action` gives in the first process, in all of them; so is its InputError.

    It must be something that JSON can tell.
    """
    if _place.count == 1:
        return action()
    found: dict[str, Any] = {}
    if is_first():
        try:
            found = {"value": action()}
        except InputError as error:
            found = {"error": str(error)}
    found = json.loads(_broadcast(json.dumps(found)))
    if "error" in found:
        raise InputError(found["error"])
    return found["value"]


def first_then_others(action: Callable[[], T]) -> T:
    """Call `action` in the first process, then in the others: they find what it left on disk."""
    done: list[T] = []
    from_first(lambda: done.append(action()))
    return done[0] if done else action()


def arrays_from_first(action: Callable[[], tuple[Any, T]], like: Any) -> tuple[Any, T]:
    """`from_first` for a tree of arrays, with the shapes and types of `like`, and for its rest."""
    if _place.count == 1:
        return action()
    import jax
    import numpy as np

    tree = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)

    def call() -> T:
        nonlocal tree
        tree, rest = action()
        return rest

    rest = from_first(call)
    return _send_from_first(tree), rest


def largest(number: int) -> int:
    """The largest of the numbers that the processes have; all must ask."""
    return number if _place.count == 1 else int(gather(number).max())


def gather(array: Any) -> Any:
    """What the processes have, of one shape, along a new first axis, on the host."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array)


def _send_from_first(tree: Any) -> Any:
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def _broadcast(text: str) -> str:
    import numpy as np

    data = np.frombuffer(text.encode(), np.uint8)
    size = int(_send_from_first(np.int32(len(data))))
    return np.asarray(_send_from_first(np.resize(data, size))).tobytes().decode()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
