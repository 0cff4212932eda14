"""Ctrl-C and SIGTERM ask a run to stop; asking twice stops it at once."""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from common.errors import StopNow

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


# A second signal is obeyed by Python between two calls of a library; one that lasts longer than
# these seconds is left in the middle.
PATIENCE = 1.0
# The same signal within these seconds is the first one's echo: timeout(1) sends it to the process
# and then to its group, a batch system to all of a job.
ECHO = 0.5


class StopRequest:
    """While entered, the first SIGINT or SIGTERM only sets `number`; the second ends the process.

    Another of the same kind that comes at once (`ECHO`) is no second one.

    A thread reads the signals as they come, since Python's own handlers have to wait while a
    library computes: so a person is answered in the middle of a step of minutes.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(
        self,
        first_words: str,
        last_words: Callable[[], str] = str,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        """Args:
        first_words: said after the first signal.
        last_words: makes what is said after the second, where the process is left at once.
        leave: ends the process with a status.
        """
        self.number: int | None = None
        self._insists = False
        self._first_words, self._last_words, self._leave = first_words, last_words, leave
        self._before: dict[int, object] = {}
        self._raises = False
        self._left = threading.Event()

    def __enter__(self) -> Self:
        ear, self._mouth = os.pipe()
        self._main = threading.get_ident()  # signals are the main thread's
        os.set_blocking(self._mouth, False)
        self._mouth_before = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        self._thread = threading.Thread(target=self._answer, args=(ear,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._mouth_before)
        self._left.set()
        os.close(self._mouth)
        self._thread.join()

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Within, the first signal, or one that has come before, raises StopNow."""
        self._raises = True
        try:
            if self.number is not None:
                raise StopNow
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._insists:
            raise KeyboardInterrupt
        if self.number is None:
            self.number = number
            if self._raises:
                raise StopNow

    def _answer(self, ear: int) -> None:
        """The thread: one byte for each signal, the end when `__exit__` closes the pipe."""
        first = os.read(ear, 1)
        if first:
            # Not print: it may be what the signal interrupted.
            name = signal.Signals(first[0]).name
            os.write(2, f"\n{name}: {self._first_words}\n".encode())
            self._left.wait(ECHO)
            come = os.read(ear, 1 << 10) if select.select([ear], [], [], 0)[0] else b""
            others = come.replace(first, b"")
            if second := others[:1] or os.read(ear, 1):
                self._insists = True
                signal.pthread_kill(self._main, second[0])  # `_note`, once more
                if not self._left.wait(PATIENCE):
                    os.write(2, f"\n{self._last_words()}\n".encode())
                    self._leave(128 + second[0])
        os.close(ear)
