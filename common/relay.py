"""A way to the first process's service that stays open when that process dies.

JAX ends a process with a stack trace as soon as it loses the service of the first one, before
the watch (common/watch.py) can say why. Its messages to that service are few and small, as arrays
take other ways; so they go through this machine's own relay, whose near end outlives the far one.
"""

import socket
import threading
from contextlib import suppress

CHUNK = 1 << 16  # bytes


def open_relay(host: str, port: int) -> str:
    """HOST:PORT on this machine that leads to the given one, until this process ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, host, port), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _serve(listener: socket.socket, host: str, port: int) -> None:
    while True:
        near = listener.accept()[0]
        try:
            far = socket.create_connection((host, port))
        except OSError:  # not there yet: the caller tries again
            near.close()
            continue
        threading.Thread(target=_send, args=(near, far), daemon=True).start()
        threading.Thread(target=_receive, args=(far, near), daemon=True).start()


def _send(near: socket.socket, far: socket.socket) -> None:
    """Pass on what comes from the near end; when that closes, or cannot be sent, close both."""
    with near, far:
        _copy(near, far)


def _receive(far: socket.socket, near: socket.socket) -> None:
    """Pass on what comes from the far end; when that closes the near one stays open."""
    _copy(far, near)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
