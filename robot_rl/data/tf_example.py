"""tf.train.Example and SequenceExample read from their bytes (protobuf wire format), without TensorFlow.

Example          { Features features = 1 }
SequenceExample  { Features context = 1; FeatureLists feature_lists = 2 }
Features         { map<string, Feature> feature = 1 }        FeatureLists { map<string, FeatureList> = 1 }
Feature          { BytesList = 1 | FloatList = 2 | Int64List = 3 }, each { repeated value = 1 }
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from robot_rl.errors import DataFormatError

Values = list[bytes] | np.ndarray
"""Of one feature: bytes, float32 [n] or int64 [n]."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse_example(data: bytes) -> dict[str, Values]:
    """Return every feature by its name; the steps of a SequenceExample one after another as `steps/<name>`.

    Raises:
        DataFormatError: The bytes are not such a message.
    """
    found: dict[str, Values] = {}
    try:
        for field, value in _fields(memoryview(data)):
            if field == 1:
                found.update({name: _feature(feature) for name, feature in _entries(value)})
            elif field == 2:
                for name, feature_list in _entries(value):
                    steps = [_feature(feature) for number, feature in _fields(feature_list) if number == 1]
                    found[name if name.startswith("steps/") else f"steps/{name}"] = _joined(steps)
    except (IndexError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise DataFormatError(f"a record of {len(data)} bytes is not a tf.train.Example: {error}") from error
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Return the fields of a message: number, and a memoryview, or an int for numbers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(data)}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 10 bytes at byte {at}")


def _entries(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Return the entries of a map<string, message> that is field 1."""
    for field, entry in _fields(data):
        if field != 1:
            continue
        parts = dict(_fields(entry))
        yield bytes(parts.get(1, b"")).decode("utf-8"), parts.get(2, memoryview(b""))


def _feature(data: memoryview) -> Values:
    for field, values in _fields(data):
        if field == 1:
            return [bytes(item) for number, item in _fields(values) if number == 1]
        if field == 2:
            floats = [np.frombuffer(item, "<f4") for number, item in _fields(values) if number == 1]
            return np.concatenate(floats) if floats else np.empty(0, np.float32)
        if field == 3:
            ints = [_int64s(item) for number, item in _fields(values) if number == 1]
            return np.concatenate(ints) if ints else np.empty(0, np.int64)
    return []


def _int64s(item: memoryview | int) -> np.ndarray:
    """Return packed varints, or a single one, as int64."""
    if isinstance(item, int):
        return np.array([item], np.uint64).view(np.int64)
    raw = np.frombuffer(item, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(raw) and (len(ends) == 0 or ends[-1] != len(raw) - 1):
        raise ValueError("packed numbers end inside a number")
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    sizes = ends - starts + 1
    if len(sizes) and sizes.max() > 10:
        raise ValueError("a packed number of more than 10 bytes")
    value = np.zeros(len(ends), np.uint64)
    for j in range(int(sizes.max()) if len(sizes) else 0):
        has = sizes > j
        value[has] |= (raw[starts[has] + j] & 0x7F).astype(np.uint64) << np.uint64(7 * j)
    return value.view(np.int64)


def _joined(steps: list[Values]) -> Values:
    if any(isinstance(step, list) and step for step in steps):
        return [item for step in steps for item in step]
    arrays = [step for step in steps if isinstance(step, np.ndarray)]
    return np.concatenate(arrays) if arrays else []
