"""A reader for the pickles of the python CIFAR batches that can run no code.

Unpickling calls whatever the file names. Here the few names that a pickled numpy array
needs stand for inert classes that only keep their arguments; any other name is an error.
"""

import io
import pickle
from typing import Any

import numpy as np

from common.errors import InputError

MAX_ENTRIES = 16  # a batch has four or five; bytes are copied per entry, so this bounds memory
MAX_NAMES = 1000


class _Inert:
    """Keeps the arguments it is made with and the state it is given."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        # Also what protects the class: a pickle that sets the state of the class itself, not
        # of an instance, finds this function unbound and fails.
        self.state = state


class _Array(_Inert):
    """Stands for numpy.ndarray and for the function that makes an empty one."""


class _Dtype(_Inert):
    """Stands for numpy.dtype."""


class _Encoded(_Inert):
    """Stands for _codecs.encode: how Python 3 writes bytes in protocol 2."""


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}") from None


def read_pickle(content: bytes, place: str) -> dict[str, Any]:
    """A pickled dictionary with str keys, its byte arrays as numpy arrays.

    Args:
        content: the file.
        place: what to call it in an error.

    Raises:
        InputError: the pickle is damaged, names anything but an array, or is no dictionary.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict) or len(loaded) > MAX_ENTRIES:
            raise pickle.UnpicklingError("it holds no small dictionary")
        return {_text(key): _plain(value) for key, value in loaded.items()}
    except Exception as error:  # damaged pickles raise nearly every kind
        message = " ".join(str(error).split())[:200]
        raise InputError(
            f"{place} ({len(content):,} bytes) is no CIFAR batch: {message}; "
            "it may be truncated or altered: fetch it again"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return _array(value)
    if isinstance(value, _Encoded):
        return _bytes(value)
    if isinstance(value, list) and len(value) <= MAX_NAMES:
        return [_bytes(entry) if isinstance(entry, _Encoded) else entry for entry in value]
    return value


def _text(key: Any) -> str:
    return _bytes(key).decode("latin1") if isinstance(key, bytes | _Encoded) else str(key)


def _bytes(value: Any) -> bytes:
    """Bytes as they are, or as Python 3 writes them in protocol 2."""
    if not isinstance(value, _Encoded):
        return value
    text, codec = value.arguments
    if codec not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("its bytes are encoded in an unknown way")
    return text.encode("latin1")


def _array(value: _Array) -> np.ndarray:
    _, shape, dtype, fortran, data = value.state
    if not isinstance(dtype, _Dtype) or _text(dtype.arguments[0]) not in ("u1", "|u1"):
        raise pickle.UnpicklingError("its array does not hold bytes")
    return np.frombuffer(_bytes(data), np.uint8).reshape(shape, order="F" if fortran else "C")
