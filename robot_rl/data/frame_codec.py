"""Pictures as bytes: JPEG for cameras, PNG where every bit counts. RGB in, RGB out."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec

JPEG_QUALITY = 95
PNG_LEVEL = 1

_START = {"jpeg": b"\xff\xd8", "png": b"\x89PNG"}
_END = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}


def encode(image: np.ndarray, codec: str) -> bytes:
    """Return `image` (uint8 [height, width, 1 or 3], RGB) as JPEG (quality 95, 4:2:0) or PNG bytes."""
    gray = image.shape[-1] == 1
    if codec == "jpeg":
        space, sampling = ("GRAY", "Gray") if gray else ("RGB", "420")
        pixels = np.ascontiguousarray(image)
        return bytes(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, colorspace=space, colorsubsampling=sampling))
    ordered = image if gray else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    return bytes(data)


def decode(data: bytes | np.ndarray, codec: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the picture in `data` as uint8 of `shape`.

    Raises:
        StoreError: The bytes are damaged or hold a picture of another size.
    """
    gray = shape[-1] == 1
    if codec == "jpeg":
        try:
            image = simplejpeg.decode_jpeg(data, colorspace="GRAY" if gray else "RGB")
        except ValueError as error:
            raise StoreError(f"a JPEG frame cannot be decoded: {error}") from error
    else:
        flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if found is None:
            raise StoreError("a PNG frame cannot be decoded")
        image = found[..., None] if gray else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
    if image.shape != shape:
        raise StoreError(f"a frame must be {shape}, its {codec} bytes hold {image.shape}")
    return np.asarray(image)


def is_whole(data: bytes | memoryview | np.ndarray, codec: str) -> bool:
    """Whether `data` begins and ends as a picture of that codec does (no decoding)."""
    head, tail = _START[codec], _END[codec]
    return bytes(data[: len(head)]) == head and bytes(data[-len(tail) :]) == tail


def check_encoded(data: bytes, codec: str, spec: ArraySpec) -> None:
    """Raise unless `data` is a whole picture of `spec`'s size, from its header.

    Raises:
        SpecError: Names the stream, what was expected and what came.
    """
    wanted = f"`{spec.name}` must be whole {codec} bytes of {spec.describe()}"
    if codec not in _START:
        raise SpecError(f"`{spec.name}` is stored {codec}, so it takes arrays and not encoded bytes")
    if not is_whole(data, codec):
        raise SpecError(f"{wanted}, got {len(data)} bytes that start {data[:4].hex()} and end {data[-4:].hex()}")
    if codec == "jpeg":
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        channels = 1 if space == "Gray" else 3
    else:
        width, height = (int.from_bytes(data[i : i + 4]) for i in (16, 20))
        channels = {0: 1, 2: 3}.get(data[25], 0)
    if (height, width, channels) != spec.shape:
        raise SpecError(f"{wanted}, got a picture of {(height, width, channels)}")
