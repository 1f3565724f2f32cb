"""TFRecord files: records framed by length, each half guarded by a masked CRC-32C (TensorFlow, `record_writer.h`).

uint64 length, uint32 masked CRC of the length, `length` bytes, uint32 masked CRC of the bytes; little endian
masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8  modulo 2**32
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google_crc32c import value as crc32c

from robot_rl.errors import DataFormatError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """Return the masked CRC-32C of `data`."""
    crc = int(crc32c(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@dataclass(frozen=True)
class Record:
    """Where a record's bytes lie in its file; `problem` says why they cannot be trusted, empty where they can."""

    offset: int
    length: int
    problem: str = ""


def scan(path: Path) -> Iterator[tuple[Record, bytes]]:
    """Return an iterator over a file's records and their bytes, every checksum checked.

    It ends with the first record whose end cannot be told: a cut file, a wrong length. Such a record has no bytes.

    Raises:
        DataFormatError: The file cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            offset = 0
            while offset < size:
                record, data = _next(file.read(_HEADER.size), file.read, offset, size)
                yield record, data
                if record.problem and not data:
                    return
                offset = record.offset + record.length + _FOOTER.size
    except OSError as error:
        raise DataFormatError(f"{path} cannot be read: {error}") from error


def _next(head: bytes, read: Callable[[int], bytes], offset: int, size: int) -> tuple[Record, bytes]:
    start = offset + _HEADER.size
    if len(head) < _HEADER.size:
        return Record(start, 0, f"the file ends inside the record at byte {offset}, it was cut short"), b""
    length, guard = _HEADER.unpack(head)
    if masked_crc(head[:8]) != guard:
        return Record(start, 0, f"the checksum of the length at byte {offset} is wrong, the file is damaged"), b""
    if start + length + _FOOTER.size > size:
        missing = start + length + _FOOTER.size - size
        return Record(start, 0, f"the file lacks {missing} bytes of the record at byte {offset}, it was cut short"), b""
    data = read(length + _FOOTER.size)
    body, (stored,) = data[:length], _FOOTER.unpack(data[length:])
    wrong = masked_crc(body) != stored
    return Record(start, length, f"the checksum of the record at byte {offset} is wrong" if wrong else ""), body


def read_record(path: Path, record: Record) -> bytes:
    """Return a record's bytes.

    Raises:
        DataFormatError: They are not what they were when the file was opened.
    """
    try:
        with path.open("rb") as file:
            file.seek(record.offset)
            data = file.read(record.length + _FOOTER.size)
    except OSError as error:
        raise DataFormatError(f"{path} cannot be read: {error}") from error
    body = data[: record.length]
    if len(data) < record.length + _FOOTER.size or masked_crc(body) != _FOOTER.unpack(data[record.length :])[0]:
        raise DataFormatError(f"{path}: the record at byte {record.offset} is damaged; copy the file again")
    return body
