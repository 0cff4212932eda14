"""Each side of a comparison in a process of its own, as its users have it.

In one process both libraries share an allocator and keep threads for the same cores: a ResNet-18
step of ours took a third longer beside PyTorch's than alone (two cores of a Xeon).

    python -m benchmarks.sides FD    # what `Side` starts: serves the functions of one side
"""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from benchmarks.process import NO_CHANGES, ROOT
from benchmarks.timing import seconds_of, time_sides
from common.host import keep_freed_memory

Calls = Mapping[str, Callable[..., Any]]  # functions by name
# On a GPU no side may take three quarters of the memory, as JAX does unasked.
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Side:
    """Functions of another process, by name; it ends with the `with` block."""

    def __init__(self, maker: str, *arguments: Any, environment: Mapping[str, str] = NO_CHANGES):
        """Start the process, and wait until it has made its functions.

        Args:
            maker: "module:name" of what makes them: a function that returns `Calls`.
            arguments: of the maker: anything that pickle knows.
            environment: variables set for the process.

        Raises:
            RuntimeError: the process ended; why, it has printed itself.
        """
        self._maker = maker
        self._connection, other = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides", str(other.fileno())],
            cwd=ROOT,
            env={**os.environ, **SHARED_GPU, **environment},
            pass_fds=[other.fileno()],
        )
        other.close()
        self.names: tuple[str, ...] = self._ask(maker, arguments)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.terminate()  # what it may still compute, nobody asks for
        self._process.wait()

    def call(self, name: str, *arguments: Any) -> Any:
        """What the function returns, with NumPy arrays for both libraries' own."""
        return self._ask("call", name, arguments)

    def timer(self, name: str) -> Callable[[int], float]:
        """A function that calls this one so many times, and returns the seconds of one call."""
        return partial(self._ask, "time", name)

    def _ask(self, *question: Any) -> Any:
        try:
            self._connection.send(question)
            return self._connection.recv()
        except (EOFError, ConnectionError):
            status = self._process.wait()
            raise RuntimeError(f"{self._maker}: its process ended with {status}") from None


@contextmanager
def start(
    makers: Mapping[str, tuple], environment: Mapping[str, str] = NO_CHANGES
) -> Iterator[dict[str, Side]]:
    """The sides of a comparison, each by its maker and this one's arguments, as `Side` has them."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Side(*maker, environment=environment))
            for name, maker in makers.items()
        }


def twins(function: str, *arguments: Any) -> dict[str, tuple]:
    """Makers of ours and PyTorch's side, of the same name in modules whose names say the side.

    Args:
        function: "steps:NAME" is that of our_steps.py and of torch_steps.py.
        arguments: of both.
    """
    sides = {"athanor": "our", "PyTorch": "torch"}
    return {name: (f"benchmarks.{side}_{function}", *arguments) for name, side in sides.items()}


def time_operation(sides: Mapping[str, Side], operation: str, **options: Any) -> dict[str, float]:
    """`time_sides` of an operation, with its options, for the sides that have it."""
    timers = {n: side.timer(operation) for n, side in sides.items() if operation in side.names}
    return time_sides(timers, **options)


def agree(sides: Mapping[str, Side], tolerances: Sequence[float]) -> None:
    """Give theirs the weights of ours, and raise an AssertionError if a loss differs.

    Args:
        sides: ours, with "parameters", and theirs, with "load"; both with "training step".
        tolerances: of the losses of as many steps, relative.
    """
    ours, theirs = sides.values()
    theirs.call("load", ours.call("parameters"))
    for tolerance in tolerances:
        found, expected = ours.call("training step"), theirs.call("training step")
        np.testing.assert_allclose(found, expected, rtol=tolerance)


def leaves(nested: Any) -> list[np.ndarray]:
    """The arrays of what `Side.call` returned, in order."""
    return sum(map(leaves, nested), []) if isinstance(nested, list) else [np.asarray(nested)]


def to_numpy(value: Any) -> Any:
    """A nested value with NumPy arrays in place of JAX's and PyTorch's."""
    if isinstance(value, Mapping):
        return {key: to_numpy(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_numpy(part) for part in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has none
    return np.asarray(value) if hasattr(value, "__array__") else value


def serve(connection: Connection) -> None:
    """Make functions, then call or time them, as asked, until nobody asks any more."""
    # What a run of ours sets; PyTorch gains a tenth by it, too.
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks is stopped, and ends this process
    maker, arguments = connection.recv()
    module, _, name = maker.partition(":")
    calls: Calls = getattr(importlib.import_module(module), name)(*arguments)
    connection.send(tuple(calls))
    with suppress(EOFError, ConnectionError):  # nobody asks any more
        while True:
            question, operation, detail = connection.recv()
            if question == "time":
                connection.send(seconds_of(calls[operation], detail))
            else:
                connection.send(to_numpy(calls[operation](*detail)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
