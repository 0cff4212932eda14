"""Processes meet, and say what keeps them from it."""

import socket
import threading
import time

import pytest

from common.errors import InputError
from common.rendezvous import listen, meet, split_address


@pytest.fixture
def port():
    with listen(0, 1) as found:
        return found.getsockname()[1]


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_processes_wait_for_one_another(port, host, late):
    """Whoever comes last, a stranger between them too; nobody goes before all are there."""
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    gone = []

    def come(index):
        meet(f"{host}:{port}", 3, index, wait=20)
        gone.append(index)

    threads = [threading.Thread(target=come, args=(index,)) for index in range(3)]
    for thread in threads:
        if thread is not threads[late]:
            thread.start()
    time.sleep(0.7)
    if late:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n")
    assert not gone
    threads[late].start()
    for thread in threads:
        thread.join(20)
    assert sorted(gone) == [0, 1, 2]


def test_a_port_in_use_is_told(port):
    with listen(port, 1), pytest.raises(InputError, match="cannot listen at that port.*choose"):
        meet(f"127.0.0.1:{port}", 2, 0, wait=5)


def test_those_who_do_not_come_are_named(port):
    with pytest.raises(InputError, match="no sign of --process_id=1 and 2 at 127.0.0.1"):
        meet(f"127.0.0.1:{port}", 3, 0, wait=0.3)
    with pytest.raises(InputError, match="process 0 did not answer there"):
        meet(f"127.0.0.1:{port}", 3, 1, wait=0.3)


def test_another_number_of_processes_is_refused(port):
    """The first waits on, the other is told at once."""
    told = []

    def wait():
        with pytest.raises(InputError, match="no sign of --process_id=1 at"):
            meet(f"127.0.0.1:{port}", 2, 0, wait=3)
        told.append(True)

    first = threading.Thread(target=wait)
    first.start()
    with pytest.raises(InputError, match="--num_processes=3: process 0 has another number"):
        meet(f"127.0.0.1:{port}", 3, 1, wait=20)
    first.join(20)
    assert told


def test_a_host_that_is_not_known(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(InputError, match="nosuch.invalid is no known host"):
        meet("nosuch.invalid:1234", 2, 1)


def test_addresses():
    assert split_address("a.b:1") == ("a.b", 1)
    assert split_address("[::1]:65535") == ("::1", 65535)
    for bad in ("a", "a:", ":1", "a:0", "a:65536", "::1:5", "a b:1"):
        with pytest.raises(InputError, match="is not HOST:PORT"):
            split_address(bad)
