"""Download one large file from a slow host: resume, check, and give up in time."""

import hashlib
import http.client
import queue
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import InputError

CONNECT_SECONDS = 6.0  # from asking to the first header, name look-up included
STALL_SECONDS = 60.0  # without a byte before the connection is made anew
RETRIES = 5  # connections in a row that bring nothing
PAUSE_SECONDS = 1.0  # longer after each of them
BLOCK = 1 << 16
_NETWORK_ERRORS = (OSError, http.client.HTTPException)  # URLError and TimeoutError are OSErrors


class NoConnection(Exception):
    """The host was not reached in time, or not at all."""


def fetch(url: str, target: Path, *, size: int, sha256: str, log: Callable[[str], None]) -> None:
    """Fetch `url` to `target`, going on from what an earlier call left in target.part.

    Args:
        url: http or https; the server may or may not know ranges.
        target: file to make; if it exists it is checked, and fetched only where it is wrong.
        size: bytes of the whole file.
        sha256: hex digest of the whole file.
        log: receives lines for the person at the terminal.

    Raises:
        NoConnection: the host could not be reached at first, within CONNECT_SECONDS.
        InputError: the transfer broke off for good, the checksum is wrong, or the disk is full.
    """
    part = target.with_name(target.name + ".part")
    try:
        if target.is_file() and target.stat().st_size == size and _sha256(target) == sha256:
            return
        if _size(part) > size:
            part.unlink()
        if _size(part) < size:
            response = _connect(url, _size(part))  # before a folder is made or a line printed
            part.parent.mkdir(parents=True, exist_ok=True)
            log(
                f"downloading {url} ({size / 1e6:.0f} MB) to {part}; this host is often slow (tens "
                "of kB/s, hours): Ctrl-C keeps what has come, and the next start resumes"
            )
            _transfer(url, response, part, size)
        if _sha256(part) != sha256:
            part.unlink()
            raise InputError(f"{url} came with a wrong SHA-256 and was removed: start again")
        part.replace(target)
    except OSError as error:  # the network's own errors have become NoConnection
        raise InputError(
            f"{part} cannot be written ({error}): free or choose another disk"
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _connect(url: str, start: int) -> Any:
    """An open response from byte `start` on (or from 0, if the server knows no ranges).

    Opening happens in a thread that may be left behind: no time-out of Python's covers a name
    look-up that hangs.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "athanor"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except (*_NETWORK_ERRORS, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise NoConnection(f"no answer within {CONNECT_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise NoConnection(str(answer)) from answer
    return answer


def _transfer(url: str, response: Any, part: Path, size: int) -> None:
    """Append to `part` until it has `size` bytes, connecting anew after an interruption."""
    from tqdm import tqdm

    failures = 0
    with tqdm(total=size, unit="B", unit_scale=True, desc=part.stem) as bar:
        while _size(part) < size:
            before = _size(part)
            try:
                response = response or _connect(url, before)
                _append(url, response, part, size, bar)
                problem = "the server closed the connection"
            except NoConnection as error:
                problem = str(error)
            response = None
            failures = 0 if _size(part) > before else failures + 1
            if failures == RETRIES:
                raise InputError(
                    f"{url} broke off at {_size(part):,} of {size:,} bytes ({problem}): "
                    "start again to resume"
                )
            time.sleep(failures * PAUSE_SECONDS)


def _append(url: str, response: Any, part: Path, size: int, bar: Any) -> None:
    """Write the response's bytes where they belong, up to the end of file or connection."""
    resumes = response.status == 206
    begin = _size(part) if resumes else 0
    with response, part.open("ab" if resumes else "wb") as file:
        span, whole = (response.headers.get(f"Content-{it}", "") for it in ("Range", "Length"))
        offered = span.partition("/")[2] if resumes else whole
        if offered.isdecimal() and offered != str(size):
            raise InputError(f"{url} offers {offered} bytes, expected {size}: not the file")
        if resumes and not span.startswith(f"bytes {begin}-"):
            raise NoConnection(f"asked for bytes from {begin} on, got another range")
        bar.n = begin
        bar.refresh()
        done = begin
        while done < size:
            try:
                block = response.read1(min(BLOCK, size - done))
            except _NETWORK_ERRORS as error:
                raise NoConnection(str(error)) from error
            if not block:
                return
            file.write(block)
            done += len(block)
            bar.update(len(block))
