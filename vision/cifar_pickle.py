"""A reader of the python CIFAR batches, which are pickles, that does not unpickle.

A pickle is a program for a stack machine, and unpickling runs it. Here is only the part of that
machine that makes numbers, texts, lists, tuples and dictionaries. The names that a pickled numpy
array needs stay names and what is called on them stays a note of the call; any other name, and
any other instruction, is an error.
Source: the instructions are described in Python's Lib/pickletools.py.
"""

import struct
from typing import Any, NamedTuple

import numpy as np

from common.errors import InputError

MAX_ENTRIES = 16  # a batch has four or five; bytes are copied per entry, so this bounds memory
MAX_NAMES = 1000
MAX_STEPS = 4_000_000  # the originals take up to 400,000

_NAMES = (
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "_codecs.encode",  # how Python 3 writes bytes in protocol 2
    "__builtin__.bytes",  # and those of no length
)
# By instruction. Those with an argument have its form, as `struct` writes it.
_SKIPPED = {b"\x80": "<B", b"\x95": "<Q"}  # the protocol, the length of a frame
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i"}
_BYTES = {b"U": "<B", b"T": "<I", b"C": "<B", b"B": "<I"}  # the argument is the length
_TEXTS = {b"\x8c": "<B", b"X": "<I"}
_TUPLES = {b")": 0, b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS, _GETS = {b"q": "<B", b"r": "<I"}, {b"h": "<B", b"j": "<I"}


class _Damaged(Exception):
    """What is wrong with a pickle."""


class _Name(NamedTuple):
    """A function or class that the pickle names."""

    name: str


class _Call:
    """A call that the pickle asks for and that is not made, and the state meant for its result."""

    def __init__(self, name: str, arguments: tuple[Any, ...]):
        self.name, self.arguments = name, arguments
        self.state: Any = None


class _Machine:
    """Runs the instructions of a pickle that only build data."""

    def __init__(self, content: bytes):
        self._content, self._at = content, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # places in the stack
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self._take(1)
            if code == b".":
                return self._stack.pop()
            self._step(code)
        raise _Damaged("it has more instructions than any batch")

    def _take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) < count:
            raise _Damaged("it ends too early")
        self._at += count
        return taken

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._content.index(b"\n", self._at)
        return self._take(end + 1 - self._at)[:-1].decode()

    def _from_mark(self) -> list[Any]:
        place = self._marks.pop()
        values = self._stack[place:]
        del self._stack[place:]
        return values

    def _last(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise _Damaged("its instructions are in disorder")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _step(self, code: bytes) -> None:
        """One instruction that puts a value on the stack, or keeps or fetches one."""
        if code in _NUMBERS:
            self._stack.append(self._number(_NUMBERS[code]))
        elif code in _BYTES:
            self._stack.append(self._take(self._number(_BYTES[code])))
        elif code in _TEXTS:
            self._stack.append(self._take(self._number(_TEXTS[code])).decode("utf-8"))
        elif code in _CONSTANTS:
            self._stack.append(_CONSTANTS[code])
        elif code in _PUTS:
            self._memo[self._number(_PUTS[code])] = self._stack[-1]
        elif code == b"\x94":
            self._memo[len(self._memo)] = self._stack[-1]
        elif code in _GETS:
            self._stack.append(self._memo[self._number(_GETS[code])])
        elif code in _SKIPPED:
            self._number(_SKIPPED[code])
        else:
            self._build(code)

    def _build(self, code: bytes) -> None:
        """One instruction that makes something of what is on the stack."""
        if code == b"(":
            self._marks.append(len(self._stack))
        elif code == b"}":
            self._stack.append({})
        elif code == b"]":
            self._stack.append([])
        elif code in _TUPLES:
            self._stack.append(tuple(self._last(_TUPLES[code])))
        elif code == b"t":
            self._stack.append(tuple(self._from_mark()))
        elif code in (b"e", b"a"):
            values = self._from_mark() if code == b"e" else self._last(1)
            _expect(self._stack[-1], list).extend(values)
        elif code in (b"u", b"s"):
            values = self._from_mark() if code == b"u" else self._last(2)
            pairs = zip(values[::2], values[1::2], strict=True)
            _expect(self._stack[-1], dict).update((_text(key), value) for key, value in pairs)
        elif code in (b"c", b"\x93"):
            parts = self._last(2) if code == b"\x93" else (self._line(), self._line())
            name = ".".join(_expect(part, str) for part in parts)
            if name not in _NAMES:
                raise _Damaged(f"it refers to {name}")
            self._stack.append(_Name(name))
        elif code == b"R":
            function, arguments = self._last(2)
            self._stack.append(_Call(_expect(function, _Name).name, _expect(arguments, tuple)))
        elif code == b"b":
            [state] = self._last(1)
            _expect(self._stack[-1], _Call).state = state
        else:
            raise _Damaged(f"it has the instruction {code!r}")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _Damaged("its instructions are in disorder")
    return value


def read_pickle(content: bytes, place: str) -> dict[str, Any]:
    """A pickled dictionary with str keys, its byte arrays as numpy arrays.

    Args:
        content: the file.
        place: what to call it in an error.

    Raises:
        InputError: the pickle is damaged, names anything but an array, or is no dictionary.
    """
    try:
        loaded = _Machine(content).run()
        if not isinstance(loaded, dict) or len(loaded) > MAX_ENTRIES:
            raise _Damaged("it holds no small dictionary")
        return {key: _plain(value) for key, value in loaded.items()}
    except (_Damaged, ValueError, IndexError, KeyError, TypeError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(
            f"{place} ({len(content):,} bytes) is no CIFAR batch: {message}; "
            "it may be truncated or altered: fetch it again"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Call):
        return _bytes(value) if value.name == "_codecs.encode" else _array(value)
    if isinstance(value, list) and len(value) <= MAX_NAMES:
        return [_bytes(entry) if isinstance(entry, _Call) else entry for entry in value]
    return value


def _text(key: Any) -> str:
    """A key as Python 2 or 3 wrote it."""
    return key if isinstance(key, str) else _bytes(key).decode("latin1")


def _bytes(value: Any) -> bytes:
    """Bytes as they are, or as Python 3 writes them in protocol 2."""
    if not isinstance(value, _Call):
        return _expect(value, bytes)
    if (value.name, value.arguments) == ("__builtin__.bytes", ()):
        return b""
    if value.name != "_codecs.encode" or value.arguments[1:] not in (("latin1",), (b"latin1",)):
        raise _Damaged("its bytes are encoded in an unknown way")
    return _expect(value.arguments[0], str).encode("latin1")


def _array(value: _Call) -> np.ndarray:
    _, shape, dtype, fortran, data = _expect(value.state, tuple)
    if _text(_expect(dtype, _Call).arguments[0]) not in ("u1", "|u1"):
        raise _Damaged("its array does not hold bytes")
    return np.frombuffer(_bytes(data), np.uint8).reshape(shape, order="F" if fortran else "C")
