"""A way to the first process's service that stays open when that process dies.

JAX ends a process with a stack trace as soon as it loses the service of the first one, before
the watch (common/watch.py) can say why. Its messages to that service are few and small, as arrays
take other ways; so they go through this machine's own relay, whose near end outlives the far one.
"""

import os
import socket
import threading
import time
from contextlib import suppress

from common.watch import CONNECT

CHUNK = 1 << 16  # bytes
LOCAL = "127.0.0.1"
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # that gRPC would ask


def open_relay(host: str, port: int) -> str:
    """HOST:PORT on this machine that leads to the given one, until this process ends."""
    _spare_proxy()
    listener = socket.create_server((LOCAL, 0))
    threading.Thread(target=_serve, args=(listener, host, port), daemon=True).start()
    return f"{LOCAL}:{listener.getsockname()[1]}"


def _spare_proxy() -> None:
    """Keep gRPC from asking an HTTP proxy for this machine; its own variable is read first."""
    if not any(os.environ.get(name) for name in PROXIES):  # JAX warns of any such variable
        return
    spared = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy")
    os.environ["no_grpc_proxy"] = f"{spared},{LOCAL}" if spared else LOCAL


def _serve(listener: socket.socket, host: str, port: int) -> None:
    while True:
        try:
            near = listener.accept()[0]
        except OSError:  # such as too many open files
            time.sleep(1)
            continue
        try:
            far = socket.create_connection((host, port), timeout=CONNECT)
        except OSError:  # not there yet: the caller tries again
            near.close()
            continue
        far.settimeout(None)
        threading.Thread(target=_send, args=(near, far), daemon=True).start()
        threading.Thread(target=_copy, args=(far, near), daemon=True).start()


def _send(near: socket.socket, far: socket.socket) -> None:
    """Pass on what comes from the near end; when that closes, or cannot be sent, close both."""
    with near, far:
        _copy(near, far)
        for end in (near, far):  # or who waits there would not notice
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Pass on until the source closes, and leave the sink as it is."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
