"""Notice at once that another process of the run is gone, by a connection of each to the first.

A collective operation may wait for ever for a process that has died; what JAX does about it,
after its heartbeats have failed, is to abort with a stack trace. A process that fails says so a
little before it ends: others may have failed alike, and have their own words for it. The first one
lingers, since with it goes the service of JAX's, and processes without a relay (common/relay.py)
would be aborted.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from common.rendezvous import listen
from common.writer import warn

LOST = (
    "launch.py: another process of this run has ended: see what it said, and start all of them "
    "again with --resume"
)
FINISHED, FAILED = b".", b"!"
LINGER = 2  # seconds between the first one's last word and its end
CONNECT = 30  # seconds


class Watch:
    """The connections of this process."""

    def __init__(
        self, first: bool, count: int, host: str | None, from_first: Callable[[Callable], Any]
    ):
        """Connect the processes, as far as the network lets them.

        Args:
            first: whether this is the first one.
            count: how many there are.
            host: the first one's; None is what it takes for its name.
            from_first: `from_first(f)` is what `f` gives in the first one, in all of them.
        """
        self._first, self._ending = first, False
        self._links: list[socket.socket] = []
        listener = listen(0, backlog=count) if first else None
        name, port = from_first(lambda: [socket.gethostname(), _port(listener)])
        try:
            if listener is None:
                self._follow(socket.create_connection((host or name, port), timeout=CONNECT))
                return
            listener.settimeout(CONNECT)
            with listener:
                for _ in range(count - 1):
                    self._follow(listener.accept()[0])
        except OSError as error:
            warn(f"process ends will be noticed late, as {host or name}:{port} fails: {error}")

    def _follow(self, link: socket.socket) -> None:
        link.settimeout(None)
        self._links.append(link)
        threading.Thread(target=self._read, args=(link,), daemon=True).start()

    def _read(self, link: socket.socket) -> None:
        try:
            told = link.recv(1)
        except OSError:
            told = b""
        if told == FINISHED:
            return
        if told == FAILED:
            time.sleep(LINGER / 2)  # all may have failed alike, and this one be about to say so
        if not self._ending:
            warn(LOST)
            self.leave(1)

    def finish(self) -> None:
        """Tell the others that this process ends with them, having done its part."""
        for link in self._links:
            with suppress(OSError):  # that one has ended, too
                link.sendall(FINISHED)

    def leave(self, status: int) -> NoReturn:
        """End this process, and by that the others."""
        self._ending = True
        if threading.current_thread() is threading.main_thread():  # else it may be writing
            sys.stdout.flush()
        for link in self._links:
            with suppress(OSError):  # that one has ended, too
                link.sendall(FAILED)
                link.shutdown(socket.SHUT_RDWR)
        if self._first:
            time.sleep(LINGER)
        os._exit(status)


def _port(listener: socket.socket | None) -> int:
    return 0 if listener is None else listener.getsockname()[1]
