"""Pictures that a LeRobot data set keeps in parquet, as coded bytes: copied as they are where a store can hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from robot_rl.data import frame_codec
from robot_rl.data.lerobot_parquet import ParquetFile
from robot_rl.data.lerobot_paths import inside
from robot_rl.data.lerobot_scan import RowSpan
from robot_rl.errors import DataFormatError
from robot_rl.specs import ArraySpec

_BATCH = 16
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
"""PNG colour type (gray, RGB, palette, gray and alpha, RGB and alpha) -> channels kept."""


@dataclass(frozen=True, kw_only=True)
class ImageKind:
    """What a coded picture is, by its header.

    Args:
        shape: Height, width, channels kept.
        dtype: `uint8`, or `uint16` for 16-bit gray such as depth.
        codec: How a store keeps it without loss.
        whole: Whether its bytes can be kept as they are.
        dropped: What of it is not kept.
    """

    shape: tuple[int, ...]
    dtype: str
    codec: str
    whole: bool
    dropped: str = ""


def image_kind(data: bytes) -> ImageKind:
    """Return what a picture is.

    Raises:
        DataFormatError: The bytes are no whole picture.
    """
    if frame_codec.is_whole(data, "png") and len(data) > 33:
        width, height = (int.from_bytes(data[i : i + 4]) for i in (16, 20))
        depth, colour = data[24], data[25]
        shape = (height, width, _PNG_CHANNELS.get(colour, 3))
        if depth == 16 and colour == 0:
            return ImageKind(shape=shape, dtype="uint16", codec="raw", whole=False)
        dropped = "transparency" if colour in (4, 6) else "16-bit colours, kept as 8 bit" if depth == 16 else ""
        return ImageKind(
            shape=shape, dtype="uint8", codec="png", whole=depth == 8 and colour in (0, 2), dropped=dropped
        )
    if frame_codec.is_whole(data, "jpeg"):
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            raise DataFormatError(f"holds a damaged JPEG ({error})") from error
        shape = (height, width, 1 if space == "Gray" else 3)
        return ImageKind(shape=shape, dtype="uint8", codec="jpeg", whole=space in ("Gray", "YCbCr"))
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if found is None:
        raise DataFormatError(f"holds {len(data)} bytes that are no whole picture, they start {data[:4].hex()!r}")
    return ImageKind(shape=found.shape, dtype="uint8", codec="png", whole=False)


def first_picture(root: Path, column: str, span: RowSpan) -> ImageKind:
    """Return what the first picture of an episode is.

    Raises:
        DataFormatError: It cannot be read.
    """
    for data in _pictures(root, column, RowSpan(path=span.path, start=span.start, stop=span.start + 1)):
        return image_kind(data)
    raise DataFormatError("has no picture")


class ImageRows:
    """Pictures of a parquet column as rows, best read in their order.

    Args:
        root: The data set's folder.
        column: The feature.
        span: The episode's rows.
        spec: What a picture is.
        codec: How `encoded` codes them.
    """

    def __init__(self, root: Path, column: str, span: RowSpan, spec: ArraySpec, codec: str) -> None:
        self.codec = codec
        self.shape = (len(span), *spec.shape)
        self.dtype = np.dtype(spec.dtype)
        self._root, self._column, self._span = root, column, span
        self._stream: Iterator[bytes] = iter(())
        self._next = len(span)

    def __len__(self) -> int:
        return self.shape[0]

    def _bytes(self, index: int) -> bytes:
        if index != self._next:
            span = RowSpan(path=self._span.path, start=self._span.start + index, stop=self._span.stop)
            self._stream, self._next = _pictures(self._root, self._column, span), index
        self._next += 1
        return next(self._stream)

    def encoded(self, index: int) -> bytes:
        """Return one picture's bytes, those of the source where they already are of this codec.

        Raises:
            DataFormatError: The picture is damaged or of another size.
        """
        data = self._bytes(range(len(self))[index])
        kind = image_kind(data)
        if kind.whole and kind.codec == self.codec and kind.shape == self.shape[1:]:
            return data
        return frame_codec.encode(self._decode(data), self.codec)

    def _decode(self, data: bytes) -> np.ndarray:
        kind = image_kind(data)
        if (kind.shape, kind.dtype) != (self.shape[1:], self.dtype.name):
            raise DataFormatError(
                f"pictures of `{self._column}` must be {self.dtype.name}{self.shape[1:]}, got {kind.dtype}{kind.shape}"
            )
        gray = kind.shape[-1] == 1
        how = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if kind.dtype == "uint16" else how)
        if found is None:
            raise DataFormatError(f"a picture of `{self._column}` is damaged; copy the data set again")
        image = found.reshape(self.shape[1:]) if gray else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
        return np.asarray(image)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return decoded pictures."""
        wanted = np.arange(len(self))[index]
        out = np.empty((*wanted.shape, *self.shape[1:]), self.dtype)
        for i in np.unique(wanted).tolist():
            out[wanted == i] = self._decode(self._bytes(i))
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _pictures(root: Path, column: str, span: RowSpan) -> Iterator[bytes]:
    """Yield the coded pictures of some rows, a few in memory."""
    file = ParquetFile(root / span.path)
    try:
        if column not in file.columns:
            raise DataFormatError(f"{span.path} has no column `{column}`")
        for batch in file.batches(column, span.start, span.stop, _BATCH):
            for value in batch.to_pylist():
                yield _picture_bytes(root, column, value)
    finally:
        file.close()


def _picture_bytes(root: Path, column: str, value: Any) -> bytes:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return data
    if isinstance(path, str):
        found = inside(root, path)
        if found is not None and found.is_file():
            return found.read_bytes()
        raise DataFormatError(f"`{column}` names the file {path!r}, which is not in the data set")
    raise DataFormatError(f"`{column}` must hold coded pictures, got {type(value).__name__}")
