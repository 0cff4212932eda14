"""Ctrl-C and SIGTERM ask a run to stop; asking twice stops it at once."""

import os
import signal
import threading
from types import FrameType
from typing import Self

# The environment variable by which a study tells its runs the pipe that closes when it dies.
PARENT_PIPE = "ATHANOR_STUDY_PIPE"


def stop_with_parent() -> None:
    """In a run that a study began, act as on SIGTERM when the study's process is gone.

    Otherwise a study that was killed would leave a run behind, which nobody sees.
    """
    pipe = os.environ.pop(PARENT_PIPE, None)
    if pipe is None:
        return

    def wait() -> None:
        os.read(int(pipe), 1)  # nothing is ever written: this returns at the end of the pipe
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


class StopRequest:
    """While entered, the first SIGINT or SIGTERM only sets `number`."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        name = signal.Signals(number).name
        # Not print: it may be what the signal interrupted.
        os.write(2, f"\n{name}: stopping after this step, with a checkpoint\n".encode())
