"""Records of a TFRecord file, without TensorFlow.

Each record is: length (8 bytes, little endian), masked CRC-32C of it, the data, masked
CRC-32C of the data. The lengths' checksums are checked; the data's are not, for a CRC-32C
in Python is too slow for it, and the PNGs inside carry checksums of their own.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from common.errors import InputError

_HEADER, _FOOTER = struct.Struct("<QI"), 4
_MASK = 0xA282EAD8


def _crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit: for the eight bytes of a length."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated and shifted, uint32."""
    crc = _crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the data of each record of `path`.

    Raises:
        InputError: a length with a wrong checksum, or the file ends inside a record.
    """
    left = path.stat().st_size
    with path.open("rb") as file:
        for number in count():
            header = file.read(_HEADER.size)
            if not header:
                return
            cut = InputError(f"{path} ends inside record {number}: prepare it again")
            if len(header) < _HEADER.size:
                raise cut
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                raise InputError(f"{path} is damaged at record {number}: prepare it again")
            left -= _HEADER.size + length + _FOOTER
            if left < 0:  # known before the length is believed and as much memory is taken
                raise cut
            yield file.read(length)
            file.read(_FOOTER)
