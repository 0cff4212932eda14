"""The relay passes bytes both ways, and outlives what it leads to."""

import os
import socket
import time

import pytest

from common.relay import PROXIES, open_relay
from common.rendezvous import split_address


def call(address: str) -> socket.socket:
    return socket.create_connection(split_address(address), timeout=10)


def test_bytes_pass_both_ways_and_the_near_end_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = call(open_relay(*server.getsockname()))
        far = server.accept()[0]
    large = bytes(range(256)) * 1000
    near.sendall(b"up")
    assert far.recv(10) == b"up"
    far.sendall(large)
    got = b""
    while len(got) < len(large):
        got += near.recv(1 << 20)
    assert got == large
    far.close()
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(1)
    near.close()


def test_the_far_end_is_closed_with_the_near_one():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = call(open_relay(*server.getsockname()))
        far = server.accept()[0]
    for source, sink in ((near, far), (far, near)):  # both ways are being waited at
        source.sendall(b"x")
        assert sink.recv(1) == b"x"
    time.sleep(0.1)
    near.close()
    far.settimeout(10)
    assert far.recv(1) == b""
    far.close()


def test_what_is_not_there_yet_can_be_called_again():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
    address = open_relay(host, port)
    with call(address) as near:
        assert near.recv(1) == b""
    with socket.create_server((host, port)) as server, call(address) as near:
        near.sendall(b"x")
        with server.accept()[0] as far:
            assert far.recv(1) == b"x"


@pytest.mark.parametrize(
    "given, spared",
    [
        ({}, ""),
        ({"http_proxy": "http://10.0.0.2:80"}, "127.0.0.1"),
        ({"http_proxy": "x", "no_proxy": "10.0.0.1"}, "10.0.0.1,127.0.0.1"),
        ({"grpc_proxy": "x", "no_proxy": "10.0.0.1", "no_grpc_proxy": "a,b"}, "a,b,127.0.0.1"),
    ],
)
def test_no_proxy_is_asked_for_the_relay(monkeypatch, given, spared):
    for name in ("no_proxy", "no_grpc_proxy", *PROXIES):
        monkeypatch.setenv(name, given.get(name, ""))
    open_relay("127.0.0.1", 1)
    assert os.environ["no_grpc_proxy"] == spared
