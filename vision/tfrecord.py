"""Records of a TFRecord file, without TensorFlow.

Each record is: length (8 bytes, little endian), masked CRC-32C of it, the data, masked
CRC-32C of the data. The lengths' checksums are checked; the data's are not, for a CRC-32C
in Python is too slow for it, and the PNGs inside carry checksums of their own.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import struct
from collections.abc import Iterator
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
    content = path.read_bytes()
    start = number = 0
    while start < len(content):
        begin = start + _HEADER.size
        if begin <= len(content):
            length, checksum = _HEADER.unpack_from(content, start)
            if masked_crc32c(content[start : start + 8]) != checksum:
                raise InputError(f"{path} is damaged at record {number}: prepare it again")
        if begin > len(content) or begin + length + _FOOTER > len(content):
            raise InputError(
                f"{path} ({len(content):,} bytes) ends inside record {number}: prepare it again"
            )
        yield content[begin : begin + length]
        start = begin + length + _FOOTER
        number += 1
