"""Ctrl-C and SIGTERM ask a run to stop; asking twice stops it at once."""

import os
import signal
from types import FrameType
from typing import Self


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
