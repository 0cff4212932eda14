"""Downloads from a local server that breaks off, lies, stalls or is not there."""

import hashlib
import http.server
import re
import socket
import threading
import time

import numpy as np
import pytest

from common.errors import InputError
from vision import download

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`; the first `breaks` answers end after `cut` bytes."""

    content, breaks, cut, ranges, shift = CONTENT, 0, 100_000, True, 0
    asked: list[str | None] = []

    def do_GET(self):
        kind = type(self)
        wanted = self.headers.get("Range")
        kind.asked.append(wanted)
        start = int(re.match(r"bytes=(\d+)-$", wanted)[1]) if wanted and self.ranges else 0
        body = self.content[start + self.shift :] if start else self.content
        self.send_response(206 if start else 200)
        if start:
            end, total = len(self.content) - 1, len(self.content)
            self.send_header("Content-Range", f"bytes {start + self.shift}-{end}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind.breaks:
            kind.breaks -= 1
            body = body[: self.cut]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def serve():
    """Start a server with some of Handler's attributes changed; return (url, handler)."""
    servers = []

    def start(**changes):
        handler = type("Changed", (Handler,), {"asked": [], **changes})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/file.tar.gz", handler

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(url, target):
    lines = []
    download.fetch(url, target, size=len(CONTENT), sha256=SHA256, log=lines.append)
    return lines


def test_fetch_and_no_second_time(tmp_path, serve, capfd):
    url, handler = serve()
    target = tmp_path / "new" / "file.tar.gz"
    [line] = fetch(url, target)
    assert "tens of kB/s" in line and "resumes" in line
    assert "file.tar.gz" in capfd.readouterr().err  # the progress bar
    assert target.read_bytes() == CONTENT and [path.name for path in target.parent.iterdir()] == [
        "file.tar.gz"
    ]
    assert fetch(url, target) == [] and len(handler.asked) == 1


def test_goes_on_where_an_earlier_start_ended(tmp_path, serve):
    url, handler = serve()
    (tmp_path / "file.part").write_bytes(CONTENT[:123_456])
    fetch(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert handler.asked == ["bytes=123456-"]


def test_interruptions_are_bridged(tmp_path, serve):
    url, handler = serve(breaks=2)
    fetch(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert handler.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_keyboard_interrupt_keeps_what_has_come(tmp_path, serve, monkeypatch):
    url, handler = serve()
    monkeypatch.setattr(download, "BLOCK", 1000)

    class Bar:
        def __init__(self, **_):
            self.n = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def refresh(self):
            pass

        def update(self, count):
            self.n += count
            if self.n > 50_000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.tqdm", Bar)
        with pytest.raises(KeyboardInterrupt):
            fetch(url, tmp_path / "file")
    kept = (tmp_path / "file.part").stat().st_size
    assert kept > 50_000
    fetch(url, tmp_path / "file")
    assert handler.asked == [None, f"bytes={kept}-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_without_ranges_starts_over(tmp_path, serve):
    url, _ = serve(ranges=False)
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    fetch(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_gives_up_when_nothing_comes_any_more(tmp_path, serve):
    url, handler = serve(breaks=100, cut=0)
    with pytest.raises(InputError, match="broke off at 0 of 300,000 bytes"):
        fetch(url, tmp_path / "file")
    assert len(handler.asked) == download.RETRIES


def test_another_range_than_asked_for_is_not_written(tmp_path, serve):
    url, _ = serve(shift=10)
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match="got another range"):
        fetch(url, tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]


def test_wrong_checksum_is_removed(tmp_path, serve):
    url, _ = serve(content=CONTENT[::-1])
    with pytest.raises(InputError, match="wrong SHA-256"):
        fetch(url, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused_at_once(tmp_path, serve):
    url, _ = serve(content=b"<html>please log in</html>")
    with pytest.raises(InputError, match="offers 26 bytes, expected 300000"):
        fetch(url, tmp_path / "file")


def test_unwritable_target(tmp_path, serve):
    url, _ = serve()
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(url, tmp_path / "folder" / "file")


def test_http_error_is_no_connection(tmp_path, serve):
    url, _ = serve(do_GET=lambda self: self.send_error(404))
    with pytest.raises(download.NoConnection, match="404"):
        fetch(url, tmp_path / "file")


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_closed_port(tmp_path):
    with pytest.raises(download.NoConnection):
        fetch(f"http://127.0.0.1:{closed_port()}/file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("silent", ["name look-up", "server"])
def test_silence_is_bounded(tmp_path, monkeypatch, silent):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.3)
    over = threading.Event()
    if silent == "name look-up":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(download.NoConnection, match=r"no answer within 0\.3 s"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/file", tmp_path / "file")
        assert time.monotonic() - start < 3
        over.set()
