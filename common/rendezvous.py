"""Where the processes of a run meet before JAX joins them.

JAX's own meeting ends a process with a stack trace where the port is taken or another process does
not come, and does not answer Ctrl-C meanwhile. So they meet here first, at the same address.
"""

import re
import socket
import time
from contextlib import ExitStack, suppress

from common.errors import InputError
from common.writer import say

WAIT = 300  # seconds for the others to come
AGAIN = 0.5  # seconds between two tries to reach the first one
GREETING = re.compile(rb"athanor (\d+) (\d+)\n")
LONGEST = 32  # bytes of a greeting
GO, NO = b".", b"!"


def split_address(coordinator: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPv6]:PORT; InputError for what is neither."""
    found = re.fullmatch(r"([^\s:]+|\[[\da-fA-F:]+\]):(\d{1,5})", coordinator)
    if not found or not 0 < int(found[2]) < 65536:
        raise InputError(
            f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:1234, with a port "
            "below 65536"
        )
    return found[1].strip("[]"), int(found[2])


def listen(port: int, backlog: int) -> socket.socket:
    """A listener on all addresses of this machine; port 0 takes a free one. Raises OSError."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
        )
    return socket.create_server(("", port), backlog=backlog)


def meet(coordinator: str, count: int, index: int, wait: float = WAIT) -> None:
    """Return when all processes have come, in all of them.

    Args:
        coordinator: HOST:PORT, where the process 0 listens.
        count: how many processes there are.
        index: this one's.
        wait: seconds.

    Raises:
        InputError: the address cannot be used, or not all come in time.
    """
    deadline = time.monotonic() + wait
    if index:
        _go_there(coordinator, count, index, deadline)
        return
    if count > 1:
        say(f"waiting at {coordinator} until all {count} processes are there, {wait:.0f} s at most")
    _receive(coordinator, count, deadline)


def _receive(coordinator: str, count: int, deadline: float) -> None:
    """The first process: wait for the others, then let them go."""
    try:
        listener = listen(split_address(coordinator)[1], backlog=count)
    except OSError as error:
        raise InputError(
            f"--coordinator={coordinator}: process 0 cannot listen at that port "
            f"({error.strerror}): choose another, in all processes"
        ) from None
    come: dict[int, socket.socket] = {}
    with ExitStack() as at_end:
        at_end.enter_context(listener)
        at_end.callback(_close, come)
        while len(come) < count - 1:
            if time.monotonic() >= deadline:
                missing = [str(i) for i in range(1, count) if i not in come]
                raise InputError(
                    f"--num_processes={count}: no sign of --process_id={' and '.join(missing)} at "
                    f"{coordinator}: start all processes, with this --coordinator"
                )
            _accept(listener, count, come)
            for i in [i for i, link in come.items() if _has_gone(link)]:
                come.pop(i).close()
        for link in come.values():
            with suppress(OSError):  # it has just gone, as JAX will notice
                link.sendall(GO)


def _close(links: dict[int, socket.socket]) -> None:
    for link in links.values():
        link.close()


def _accept(listener: socket.socket, count: int, come: dict[int, socket.socket]) -> None:
    """Add one that comes within a moment; those who do not say who they are are sent away."""
    listener.settimeout(AGAIN)
    try:
        link = listener.accept()[0]
    except OSError:  # nobody, or it has gone again
        time.sleep(0.01)
        return
    link.settimeout(AGAIN)
    try:
        greeting = GREETING.fullmatch(link.recv(LONGEST))
    except OSError:
        greeting = None
    index = int(greeting[1]) if greeting and int(greeting[2]) == count else 0
    if not 0 < index < count or index in come:
        with suppress(OSError), link:
            if greeting:
                link.sendall(NO)
        return
    come[index] = link


def _has_gone(link: socket.socket) -> bool:
    """Whether the process at the other end has closed its link."""
    link.setblocking(False)
    try:
        return link.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        link.setblocking(True)


def _go_there(coordinator: str, count: int, index: int, deadline: float) -> None:
    """Another process: call the first one until it lets this one go."""
    host, port = split_address(coordinator)
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=AGAIN) as link:
                link.sendall(b"athanor %d %d\n" % (index, count))
                link.settimeout(max(deadline - time.monotonic(), 0.01))
                answer = link.recv(1)
        except UnicodeError:
            raise InputError(f"--coordinator={coordinator}: {host} is no name of a host") from None
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                raise InputError(
                    f"--coordinator={coordinator}: {host} is no known host ({error.strerror})"
                ) from None
        except OSError:
            pass
        else:
            if answer == GO:
                return
            if answer == NO:
                raise InputError(
                    f"--process_id={index} --num_processes={count}: process 0 has another number "
                    "of processes, or one of this id already: give each process its own id"
                )
        time.sleep(AGAIN)
    raise InputError(
        f"--coordinator={coordinator}: process 0 did not answer there: start all processes, "
        "process 0 on that machine"
    )
