"""A run folder belongs to one process at a time."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import InputError


@contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Hold the run folder, which is made when needed; what stays empty of it is removed.

    The system forgets the claim when the process ends, however it ends. Where the file system
    knows no locks, as some network drives, there is no claim.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    path = workdir / "lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise InputError(f"--workdir={workdir} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"--workdir={workdir} is in use by {_holder(file.read())}: "
                "wait until that has stopped, or choose another folder"
            ) from None
        except OSError:
            pass
        try:
            with suppress(OSError):  # a full disk: it is claimed all the same
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
        finally:
            if made and list(workdir.iterdir()) == [path]:
                path.unlink()
                for folder in made:
                    with suppress(OSError):  # a folder above may be in use by now
                        folder.rmdir()


def _holder(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip() or "another process"
