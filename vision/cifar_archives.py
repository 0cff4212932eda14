"""CIFAR-10 and CIFAR-100 as Krizhevsky published them: python or binary batches.

Read from the folder or from the .tar.gz. Both are treated as untrusted: nothing is
extracted to disk, and the python batches, which are pickles, are read without unpickling.
Source: https://www.cs.toronto.edu/~kriz/cifar.html, which defines both formats.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from common.errors import InputError
from vision.arrays import Arrays, Source, Split
from vision.cifar_pickle import read_pickle

TRAIN_ROWS, TEST_ROWS = 50_000, 10_000
PIXELS = 3 * 32 * 32  # bytes of an image: red, green and blue planes, each by rows
MAX_UNPACKED = 256 << 20  # bytes; the originals unpack to less than 190 MB
REMEDY = "it may be truncated or altered: fetch it again"


class Layout(NamedTuple):
    """The files of one published form of a data set."""

    folder: str
    archive: str
    archive_bytes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str  # class names: lines of text, or names_key in a pickle
    classes: int
    label_bytes: int = 0  # binary form: bytes before each image, the last one the label
    labels_key: str = ""  # python form
    names_key: str = ""  # python form


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS = {
    "cifar10": (
        Layout(
            "cifar-10-batches-py",
            "cifar-10-python.tar.gz",
            170_498_071,
            _BATCHES,
            ("test_batch",),
            "batches.meta",
            10,
            labels_key="labels",
            names_key="label_names",
        ),
        Layout(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            170_052_171,
            tuple(f"{batch}.bin" for batch in _BATCHES),
            ("test_batch.bin",),
            "batches.meta.txt",
            10,
            label_bytes=1,
        ),
    ),
    "cifar100": (
        Layout(
            "cifar-100-python",
            "cifar-100-python.tar.gz",
            169_001_437,
            ("train",),
            ("test",),
            "meta",
            100,
            labels_key="fine_labels",
            names_key="fine_label_names",
        ),
        Layout(
            "cifar-100-binary",
            "cifar-100-binary.tar.gz",
            168_513_733,
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            100,
            label_bytes=2,  # coarse, fine
        ),
    ),
}


def find(name: str, path: Path) -> Source | None:
    """The batches of `name` at `path`, or None.

    Args:
        name: cifar10 or cifar100.
        path: the folder of the batches, its parent, the archive, or the archive's folder.

    Raises:
        InputError: some of the files are there and others are missing.
    """
    if path.is_file():
        inside = _first_folder(path)
        layouts = [layout for layout in LAYOUTS[name] if layout.folder == inside]
        return _archive_source(layouts[0], path) if layouts else None
    for layout in LAYOUTS[name]:
        for folder in (path, path / layout.folder):
            if any((folder / file).is_file() for file in layout.train + layout.test):
                return _folder_source(layout, folder)
    for layout in LAYOUTS[name]:
        if (path / layout.archive).is_file():
            return _archive_source(layout, path / layout.archive)
    return None


def _folder_source(layout: Layout, folder: Path) -> Source:
    files = tuple(folder / file for file in (*layout.train, *layout.test, layout.meta))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}: unpack {layout.archive} again")

    def read() -> Arrays:
        for file in files:
            if file.stat().st_size > MAX_UNPACKED:
                raise InputError(f"{file} is larger than any CIFAR batch: {REMEDY}")
        contents = {file.name: file.read_bytes() for file in files}
        return _assemble(layout, contents, lambda file: str(folder / file))

    return Source(str(folder.resolve()), files, read)


def _archive_source(layout: Layout, archive: Path) -> Source:
    def read() -> Arrays:
        contents = _members(layout, archive)
        return _assemble(layout, contents, lambda file: f"{archive}: {layout.folder}/{file}")

    return Source(str(archive.resolve()), (archive,), read)


def _assemble(layout: Layout, contents: dict[str, bytes], place: Callable[[str], str]) -> Arrays:
    """Arrays of the files' contents; `place` says in an error where a file is."""
    names = _class_names(layout, contents[layout.meta], place(layout.meta))
    splits = []
    for files, rows in ((layout.train, TRAIN_ROWS), (layout.test, TEST_ROWS)):
        parts = []
        for file in files:
            read = _binary_batch if layout.label_bytes else _python_batch
            parts.append(read(layout, contents[file], rows // len(files), place(file)))
        images = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        if labels.min() < 0 or labels.max() >= len(names):
            raise InputError(
                f"{place(files[0])}: labels {labels.min()}..{labels.max()}, "
                f"expected 0..{len(names) - 1}; {REMEDY}"
            )
        splits.append(Split(images, labels))
    return Arrays(splits[0], splits[1], names)


def _to_images(planes: np.ndarray) -> np.ndarray:
    """uint8 [N, 3072] in planes -> [N, 32, 32, 3]."""
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _binary_batch(layout: Layout, content: bytes, rows: int, place: str) -> Split:
    record = layout.label_bytes + PIXELS
    if len(content) != rows * record:
        raise InputError(f"{place}: {len(content):,} bytes, expected {rows * record:,}; {REMEDY}")
    table = np.frombuffer(content, np.uint8).reshape(rows, record)
    labels = table[:, layout.label_bytes - 1].astype(np.int32)
    return Split(_to_images(table[:, layout.label_bytes :]), labels)


def _python_batch(layout: Layout, content: bytes, rows: int, place: str) -> Split:
    batch = read_pickle(content, place)
    planes, labels = batch.get("data"), batch.get(layout.labels_key)
    if not isinstance(planes, np.ndarray) or not isinstance(labels, list):
        raise InputError(f"{place}: no data and {layout.labels_key} in it; {REMEDY}")
    if planes.shape != (rows, PIXELS) or len(labels) != rows:
        raise InputError(
            f"{place}: pixels of shape {planes.shape} and {len(labels)} labels, "
            f"expected ({rows}, {PIXELS}) and {rows}; {REMEDY}"
        )
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise InputError(f"{place}: {layout.labels_key} are not all class numbers; {REMEDY}")
    return Split(_to_images(planes), np.array(labels, np.int32))


def _class_names(layout: Layout, content: bytes, place: str) -> tuple[str, ...]:
    if layout.label_bytes:
        names = content.decode("utf-8", "replace").split()
    else:
        listed = read_pickle(content, place).get(layout.names_key)
        names = listed if isinstance(listed, list) else []
        names = [
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names
        ]
    if len(names) != layout.classes or not all(isinstance(name, str) for name in names):
        raise InputError(f"{place} does not hold {layout.classes} class names; {REMEDY}")
    return tuple(names)


class _Bounded:
    """A stream that gives at most `limit` bytes: a small archive may unpack to terabytes."""

    def __init__(self, stream: gzip.GzipFile, limit: int):
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError("it unpacks to more than any CIFAR archive")
        return data


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
    """The archive as a forward-only tar; whatever is wrong with it becomes an InputError."""
    try:
        with gzip.open(archive) as unzipped:
            stream = _Bounded(unzipped, MAX_UNPACKED)
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                yield tar, stream
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        sizes = {
            layout.archive: layout.archive_bytes for each in LAYOUTS.values() for layout in each
        }
        expected = sizes.get(archive.name)
        original = f", the original has {expected:,}" if expected else ""
        raise InputError(
            f"{archive} ({archive.stat().st_size:,} bytes{original}) is no readable "
            f".tar.gz: {error}; {REMEDY}"
        ) from error


def _first_folder(archive: Path) -> str:
    """The folder that the archive's first member is in, or names."""
    with _opened(archive) as (tar, _):
        first = tar.next()
        if first is None:
            return ""
        parts = [part for part in PurePosixPath(first.name).parts if part != "."]
        return parts[0] if parts else ""


def _members(layout: Layout, archive: Path) -> dict[str, bytes]:
    """The contents of the layout's files, by file name, read in memory in one pass."""
    wanted = {f"{layout.folder}/{file}": file for file in (*layout.train, *layout.test)}
    wanted[f"{layout.folder}/{layout.meta}"] = layout.meta
    contents: dict[str, bytes] = {}
    with _opened(archive) as (tar, stream):
        for member in tar:
            path = PurePosixPath(member.name)
            plain = member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            if path.is_absolute() or ".." in path.parts or not plain:
                raise tarfile.ReadError(f"member {member.name!r} has no place in it")
            file = wanted.get(str(path))
            if file is None or member.isdir():
                continue
            if file in contents:
                raise tarfile.ReadError(f"member {member.name!r} is in it twice")
            if member.size > MAX_UNPACKED:
                raise tarfile.ReadError(f"member {member.name!r} claims {member.size:,} bytes")
            content = tar.extractfile(member)
            contents[file] = content.read() if content else b""
        while stream.read(1 << 20):  # up to the end, where gzip keeps its checksum
            pass
    missing = [name for name, file in wanted.items() if file not in contents]
    if missing:
        raise InputError(f"{archive} lacks {', '.join(missing)}: {REMEDY}")
    return contents
