"""Files of word vectors, streamed: word2vec binary and text, GloVe, fastText .vec, also gzipped.

The content decides, never the name:

    header  "N D" in the first line: word2vec and fastText; none: GloVe, D is the usual width
    text    a word and D numbers in each line
    binary  a word, a space, D float32 (little endian), and a newline or none

Nothing but the words asked for is kept, so a file may be larger than the memory.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from common.errors import InputError

ACCEPTED = (
    "--embeddings takes glove, word2vec, random, or the path of a word2vec (.bin, .txt), "
    "GloVe (.txt) or fastText (.vec) file, plain or gzipped"
)
Log = Callable[[str], None]

_PEEK = 1 << 18  # bytes that show the format: 100 lines of 300 numbers
_BLOCK = 1 << 20  # bytes of a binary file read at a time
_LINE, _FIELD = 1 << 16, 64  # bytes of the longest line: for its word, for each number
_REMEDIES = {
    b"PK\x03\x04": "is a zip archive: unpack it and give the file inside",
    b"\xba\x16\x4f\x2f": "is a fastText model: give the .vec file that belongs to it",
    b"\x80": "is a pickle, which is never read: save it with gensim's save_word2vec_format",
}


class VectorFile(NamedTuple):
    """What the start of a file of word vectors tells."""

    path: Path
    binary: bool
    dimension: int
    total: int | None  # words, as the header says; None without a header


@contextmanager
def _open(path: Path) -> Iterator[BufferedIOBase]:
    """The content of `path`, unpacked where gzip's magic number is; errors as InputError."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} cannot be read: it is no regular file; {ACCEPTED}")
    try:
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if gzipped else nullcontext(raw) as stream:
                yield stream
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; {ACCEPTED}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or cut off ({error}): copy it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {ACCEPTED}") from error


def _count_numbers(line: bytes) -> int:
    """How many numbers end the line; the first field is the word, whatever it looks like."""
    count = 0
    for field in reversed(line.split()[1:]):
        try:
            float(field)
        except ValueError:
            break
        count += 1
    return count


def sniff(path: Path) -> VectorFile:
    """Tell the format of `path` from its content.

    Raises:
        InputError: no file, an empty one, or one that holds no word vectors.
    """
    with _open(path) as stream:
        start = stream.read(_PEEK)
    for magic, remedy in _REMEDIES.items():
        if start.startswith(magic):
            raise InputError(f"{path} {remedy}; {ACCEPTED}")
    lines = start.split(b"\n")
    if len(start) == _PEEK:
        lines.pop()  # it may be cut
    widths = [_count_numbers(line) for line in lines if line.strip()]
    header = re.fullmatch(rb"\s*([1-9]\d{0,11})\s+([1-9]\d{0,5})\s*", lines[0]) if lines else None
    total, dimension = (int(header[1]), int(header[2])) if header else (None, 0)
    usual = Counter(widths[bool(header) :]).most_common(1)
    width = usual[0][0] if usual else 0
    if header and dimension not in widths[1:]:
        if width > 1:
            raise InputError(
                f"{path}: line 1 says {dimension} numbers a word, the lines below have {width}: "
                "correct line 1"
            )
        return VectorFile(path, True, dimension, total)
    if not header and width < 2:
        raise InputError(f"{path} holds no word vectors; {ACCEPTED}")
    return VectorFile(path, False, dimension or width, total)


_Rows = Iterator[tuple[int, str, np.ndarray | None]]  # None: not D finite numbers


def _read_binary(file: VectorFile, wanted: Container[str] | None) -> _Rows:
    """Number, word and vector of each wanted word of a binary file."""
    assert file.total is not None
    size = 4 * file.dimension
    with _open(file.path) as stream:
        stream.readline()
        buffer, at = b"", 0
        for number in range(1, file.total + 1):
            space = buffer.find(b" ", at)
            if space < 0 or space + 1 + size > len(buffer):
                buffer, at = buffer[at:] + stream.read(_BLOCK + size), 0
                space = buffer.find(b" ")
                if space < 0 or space + 1 + size > len(buffer):
                    raise InputError(
                        f"{file.path} ends after {number - 1:,} of {file.total:,} words: it was "
                        "cut off or is damaged, copy it again"
                    )
            # The original word2vec ends every vector with a newline, gensim does not.
            word = buffer[at:space].lstrip(b"\n").decode(errors="replace")
            at = space + 1 + size
            if wanted is None or word in wanted:
                vector = np.frombuffer(buffer, "<f4", file.dimension, space + 1)
                yield number, word, vector.astype(np.float32)  # a copy: the buffer is let go
        if (buffer[at:] + stream.read(1)).strip(b"\n"):
            raise InputError(
                f"{file.path} goes on after the {file.total:,} words of {file.dimension} numbers "
                "that line 1 promises: it is damaged, copy it again"
            )


def _split(line: bytes, dimension: int) -> tuple[bytes, bytes]:
    """The word of a line and its numbers; no word where there are not enough fields."""
    line = line.rstrip()
    if line.count(b" ") == dimension:
        word, _, numbers = line.partition(b" ")
        return word, numbers
    fields = line.rsplit(None, dimension)  # slower, but a word may contain spaces
    return (fields[0], b" ".join(fields[1:])) if len(fields) > dimension else (b"", b"")


def _parse(numbers: bytes, dimension: int) -> np.ndarray | None:
    """float32 [D] of the numbers, or None where they are not D numbers."""
    try:
        with np.errstate(over="ignore"):  # infinity is noticed by `read`
            vector = np.array(numbers.split(), np.float32)
    except ValueError:
        return None
    return vector if len(vector) == dimension else None


def _lines(stream: BufferedIOBase, longest: int) -> Iterator[bytes]:
    """The lines of a stream in bounded memory: one of more than `longest` bytes comes empty."""
    while line := stream.readline(longest):
        whole = line.endswith(b"\n") or len(line) < longest
        yield line if whole else b""
        while line and not line.endswith(b"\n"):
            line = stream.readline(longest)


def _read_text(file: VectorFile, wanted: Container[str] | None, log: Log) -> _Rows:
    """Line number, word and vector of each wanted word, and of each line without a word."""
    number = 0
    with _open(file.path) as stream:
        for number, line in enumerate(_lines(stream, _LINE + _FIELD * file.dimension), 1):
            if number == 1 and file.total is not None:
                continue
            field, numbers = _split(line, file.dimension)
            word = field.decode(errors="replace")
            if not word or wanted is None or word in wanted:
                yield number, word, _parse(numbers, file.dimension)
    if file.total is not None and number <= file.total:
        log(f"{file.path}: line 1 says {file.total:,} words, but {number - 1:,} lines follow")


def read(
    file: VectorFile, wanted: Container[str] | None, log: Log
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the words of `file` with their vectors, in the file's order.

    Args:
        file: from `sniff`.
        wanted: the words to yield; None for all. The numbers of others are not looked at.
        log: is told how many words or lines could not be used, and where the first is.

    Yields:
        A word and float32 [D]; a word that the file repeats comes again.

    Raises:
        InputError: a binary or gzipped file that is cut off or damaged.
    """
    rows = _read_binary(file, wanted) if file.binary else _read_text(file, wanted, log)
    bad = []
    for number, word, vector in rows:
        if word and vector is not None and np.isfinite(vector).all():
            yield word, vector
        else:
            bad.append(number)
    if bad:
        what = "word" if file.binary else "line"
        log(
            f"{file.path}: left out {len(bad):,} {what}s that are not a word and "
            f"{file.dimension} finite float32 numbers; the first is {what} {bad[0]:,}"
        )


def _packed_files(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(stem.name + ".npy"), stem.with_name(stem.name + ".words.txt")


def write_packed(
    stem: Path, dimension: int, rows: Iterable[tuple[str, np.ndarray]], limit: int
) -> bool:
    """Stream words and vectors to stem.npy and stem.words.txt, which open without a parser.

    The first is float16 [N, D]; the second UTF-8, a word in each line, a newline in it as \\n
    and a backslash as two.

    Args:
        stem: the path without the endings.
        dimension: D.
        rows: words and float32 [D].
        limit: the most words to write; of more nothing is left.

    Returns:
        Whether all were written.
    """
    files = _packed_files(stem)
    count = 0
    with open(files[0], "wb") as matrix, open(files[1], "wb") as listed:
        _write_header(matrix, 0, dimension)
        for count, (word, vector) in enumerate(rows, 1):
            if count > limit:
                break
            matrix.write(vector.astype("<f2").tobytes())
            listed.write(word.replace("\\", "\\\\").replace("\n", "\\n").encode() + b"\n")
        matrix.seek(0)
        _write_header(matrix, count, dimension)
    if count > limit:
        for file in files:
            file.unlink()
    return count <= limit


def _write_header(stream: BinaryIO, count: int, dimension: int) -> None:
    """The .npy header, whose length numpy keeps for any count so that files can grow."""
    shape = {"descr": "<f2", "fortran_order": False, "shape": (count, dimension)}
    np.lib.format.write_array_header_1_0(stream, shape)


def open_packed(stem: Path, dimension: int) -> tuple[list[str], np.ndarray]:
    """The words, and the vectors float16 [N, D] left on disk, that `write_packed` wrote.

    Raises:
        InputError: a file is missing or does not fit the other.
    """
    files = _packed_files(stem)
    try:
        mapped = np.lib.format.open_memmap(files[0], mode="r")  # takes no pickle and no zip
        text = files[1].read_bytes().decode()
    except Exception as error:  # numpy raises nearly every kind for a damaged header
        raise InputError(
            f"{files[0]} or {files[1]} is missing or damaged: copy the run folder again"
        ) from error
    words = text.split("\n")[:-1]
    if mapped.shape != (len(words), dimension) or mapped.dtype != np.float16:
        raise InputError(
            f"{files[0]} and {files[1]} do not belong together: copy the run folder again"
        )
    if "\\" in text:
        words = [_unescape(word) if "\\" in word else word for word in words]
    return words, np.asarray(mapped)  # the same memory, but rows of a plain array are cheap


def _unescape(word: str) -> str:
    """The word that `write_packed` wrote so."""
    return "\\".join(part.replace("\\n", "\n") for part in word.split("\\\\"))
