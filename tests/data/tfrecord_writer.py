"""TFDS folders built byte by byte from the definitions of TFRecord and protobuf, independent of the reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def crc32c(data: bytes) -> int:
    """Return the Castagnoli CRC by its definition: reflected polynomial 0x82F63B78, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(records: Sequence[bytes]) -> bytes:
    lengths = [struct.pack("<Q", len(record)) for record in records]
    return b"".join(n + masked(n) + record + masked(record) for n, record in zip(lengths, records, strict=True))


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = b""
    while n >= 128:
        out, n = out + bytes([n % 128 + 128]), n // 128
    return out + bytes([n])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values: Sequence[Any], *, packed: bool = True) -> bytes:
    """Return a tf.train.Feature of bytes, floats or ints."""
    if values and isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if values and isinstance(values[0], float):
        if packed:
            return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
        return field(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in values))
    if packed:
        return field(3, field(1, b"".join(map(varint, values))))
    return field(3, b"".join(varint(1 << 3) + varint(value) for value in values))


def features(values: Mapping[str, Sequence[Any]], *, packed: bool = True) -> bytes:
    entries = ((name.encode(), feature(of, packed=packed)) for name, of in values.items())
    return b"".join(field(1, field(1, name) + field(2, data)) for name, data in entries)


def example(values: Mapping[str, Sequence[Any]], *, packed: bool = True) -> bytes:
    return field(1, features(values, packed=packed))


def sequence_example(context: Mapping[str, Sequence[Any]], lists: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    entries = ((k.encode(), b"".join(field(1, feature(step)) for step in steps)) for k, steps in lists.items())
    return field(1, features(context)) + field(2, b"".join(field(1, field(1, k) + field(2, v)) for k, v in entries))


CORE = "tensorflow_datasets.core.features"


def tensor(shape: Sequence[int], dtype: str, encoding: str = "none") -> dict[str, Any]:
    about = {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encoding": encoding}
    return {"pythonClassName": f"{CORE}.tensor_feature.Tensor", "tensor": about}


def image(shape: Sequence[int], encoding: str, dtype: str = "uint8") -> dict[str, Any]:
    about = {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": f"{CORE}.image_feature.Image", "image": about}


def text() -> dict[str, Any]:
    return {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}


def mapping(children: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{CORE}.features_dict.FeaturesDict", "featuresDict": {"features": dict(children)},
    }  # fmt: skip


def steps(children: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{CORE}.dataset_feature.Dataset"
    return {"pythonClassName": name, "sequence": {"feature": mapping(children), "length": "-1"}}


def write_tfds(
    folder: Path,
    shards: Sequence[Sequence[bytes]],
    children: Mapping[str, Any] | None,
    *,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a TFDS folder `toy` with one split `train`."""
    folder.mkdir(parents=True)
    for i, records in enumerate(shards):
        (folder / f"toy-train.tfrecord-{i:05d}-of-{len(shards):05d}").write_bytes(framed(records))
    if children is not None:
        document = mapping({"steps": steps(children), "episode_metadata": mapping(about or {})})
        (folder / "features.json").write_text(json.dumps(document))
        lengths = [str(len(records)) for records in shards]
        info = {"name": "toy", "version": "1.0.0", "splits": [{"name": "train", "shardLengths": lengths}]}
        (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
