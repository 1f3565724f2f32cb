"""Frames of a video file as pictures of a store: found by time, decoded in order, coded on other threads meanwhile.

A JPEG keeps luma and chroma as a video does. Frames of the usual layout (8 bit, 4:2:0, BT.601 or not said) therefore
go from the video's planes to JPEG's with only their range changed; others go by RGB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg

from robot_rl.data import frame_codec
from robot_rl.errors import DataFormatError

_BATCH = 8
"""Frames that are decoded while those before them are coded; two batches are in memory."""
_BT601 = (2, 5, 6)
"""AVColorSpace: unspecified (which FFmpeg takes as BT.601), BT.470BG, SMPTE 170M."""
_FULL_RANGE = 2


@dataclass(frozen=True, kw_only=True)
class VideoHeader:
    """What a video's container says, without decoding.

    Args:
        codec: FFmpeg's name of the codec: `h264`, `hevc`, `av1`, `mpeg4` ...
        height: Of a picture [px].
        width: Of a picture [px].
        frames: How many there are.
        rate: Frames per second on average, 0 where it is not said.
        pix_fmt: FFmpeg's name of the pixel layout.
        cut_short: Whether the file ends before its last frame does; False where PyAV is older than 16 and cannot tell.
    """

    codec: str
    height: int
    width: int
    frames: int
    rate: float
    pix_fmt: str
    cut_short: bool


def read_header(path: Path) -> VideoHeader:
    """Return what a video's container says.

    Raises:
        DataFormatError: It is missing, cannot be opened, or holds no video.
    """
    if not path.is_file():
        raise DataFormatError(f"{path.name} is missing")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataFormatError(f"{path.name} holds no video stream")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise DataFormatError(
                    f"{path.name} is of a codec that cannot be decoded here; convert it to AV1 or H.264"
                )
            # PyAV 15, which LeRobot 0.6 asks for, has no index; there a cut file shows when it is decoded.
            ends = [entry.pos + entry.size for entry in getattr(stream, "index_entries", ())]
            frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            return VideoHeader(
                codec=context.codec.canonical_name, height=context.height, width=context.width, frames=frames,
                rate=float(stream.average_rate or 0), pix_fmt=str(context.pix_fmt),
                cut_short=bool(ends) and max(ends) > path.stat().st_size,
            )  # fmt: skip
    except av.FFmpegError as error:
        raise DataFormatError(f"{path.name} cannot be opened as a video ({error.strerror}); copy it again") from error


def decode_frames(
    path: Path, *, count: int, start_s: float = 0.0, fps: float, timed: bool = False, threads: int = 1
) -> Iterator[Any]:
    """Yield `count` frames from time `start_s` on, as PyAV gives them, keeping none.

    Args:
        path: The video.
        count: How many.
        start_s: Time of the first one [s]; the nearest frame is taken.
        fps: Rate that they should have.
        timed: Refuse a frame that is more than one period from its time.
        threads: Decoding threads.

    Raises:
        DataFormatError: The video ends early, is damaged, or a frame is missing from its time.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = threads
            stream.thread_type = "NONE" if threads == 1 else "AUTO"
            first_s = float((stream.start_time or 0) * stream.time_base)
            if start_s > 0:
                container.seek(int((first_s + start_s) / stream.time_base), stream=stream)
            due = first_s + start_s
            late = itertools.dropwhile(
                lambda f: f.time is not None and f.time < due - 0.5 / fps, container.decode(stream)
            )
            given = 0
            for frame in itertools.islice(late, count):
                if frame.is_corrupt or (timed and abs(float(frame.time) - due - given / fps) > 1 / fps):
                    what = (
                        "is damaged"
                        if frame.is_corrupt
                        else f"is at {frame.time:.4f} s, not at {due + given / fps:.4f} s"
                    )
                    raise DataFormatError(f"{path.name}: frame {given} from {start_s:g} s on {what}; copy it again")
                yield frame
                given += 1
    except av.FFmpegError as error:
        raise DataFormatError(f"{path.name} cannot be decoded ({error.strerror}); copy it again") from error
    if given < count:
        raise DataFormatError(f"{path.name} must have {count} frames from {start_s:g} s on, it ends after {given}")


@dataclass(frozen=True, kw_only=True)
class _Coder:
    """Turns decoded frames into arrays and coded pictures of one shape."""

    name: str
    shape: tuple[int, ...]
    codec: str

    def array(self, frame: Any) -> np.ndarray:
        """Return a frame as an RGB or gray picture."""
        if (frame.height, frame.width) != self.shape[:2]:
            raise DataFormatError(
                f"{self.name}: pictures must be {self.shape[0]}x{self.shape[1]}, got {frame.height}x{frame.width}"
            )
        array: np.ndarray = frame.to_ndarray(format="rgb24" if self.shape[-1] == 3 else "gray")
        return array.reshape(self.shape)

    def encode(self, frame: Any) -> bytes:
        """Return a frame as JPEG or PNG bytes."""
        fits = (frame.height, frame.width, 3) == self.shape and _planes_fit(frame)
        if self.codec != "jpeg" or not fits:
            return frame_codec.encode(self.array(frame), self.codec)
        planes = (_plane(frame, i) for i in range(3))
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, frame_codec.JPEG_QUALITY))


class VideoRows:
    """Frames of a video as rows [count, height, width, channel], best read in their order.

    Args:
        path: The video.
        shape: Height, width, channels (1 or 3).
        count: How many frames.
        fps: Their rate.
        codec: How `encoded` codes them: `jpeg` or `png`.
        start_s: Time of the first one in the video [s].
        timed: Refuse frames that are not at their time; for videos that several episodes share.
        threads: Decoding threads.
    """

    def __init__(
        self, path: Path, *, shape: tuple[int, ...], count: int, fps: float, codec: str, start_s: float = 0.0,
        timed: bool = False, threads: int = 1,
    ) -> None:  # fmt: skip
        self.codec = codec
        self.shape = (count, *shape)
        self.dtype = np.dtype(np.uint8)
        self._path, self._fps, self._start_s, self._timed, self._threads = path, fps, start_s, timed, threads
        self._coder = _Coder(name=path.name, shape=shape, codec=codec)
        self._stream: Iterator[bytes] = iter(())
        self._next = count

    def __len__(self) -> int:
        return self.shape[0]

    def _frames(self, start: int, stop: int) -> Iterator[Any]:
        return decode_frames(
            self._path, count=stop - start, start_s=self._start_s + start / self._fps, fps=self._fps,
            timed=self._timed, threads=self._threads,
        )  # fmt: skip

    def encoded(self, index: int) -> bytes:
        """Return one picture as JPEG or PNG bytes; the one after the last asked for comes without seeking.

        Raises:
            DataFormatError: The video is damaged, ends early, or holds pictures of another size.
        """
        index = range(len(self))[index]
        if index != self._next:
            self._stream, self._next = _encode_ahead(self._frames(index, len(self)), self._coder), index
        self._next += 1
        return next(self._stream)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return pictures decoded to RGB; rows in between are decoded too."""
        wanted = np.arange(len(self))[index]
        out = np.empty((*wanted.shape, *self.shape[1:]), np.uint8)
        if not wanted.size:
            return out
        first, last = int(wanted.min()), int(wanted.max())
        needed = set(wanted.reshape(-1).tolist())
        for i, frame in enumerate(self._frames(first, last + 1), first):
            if i in needed:
                out[wanted == i] = self._coder.array(frame)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _encode_ahead(frames: Iterator[Any], coder: _Coder) -> Iterator[bytes]:
    """Yield coded pictures: one thread decodes the next batch while two code this one.

    It knows no `VideoRows`, so that its threads end with the rows that nobody holds any more.
    """
    with ThreadPoolExecutor(1) as decoder, ThreadPoolExecutor(2) as coders:
        pending = decoder.submit(_take, frames)
        while batch := pending.result():
            pending = decoder.submit(_take, frames)
            yield from coders.map(coder.encode, batch)


def _take(frames: Iterator[Any]) -> list[Any]:
    return list(itertools.islice(frames, _BATCH))


def _planes_fit(frame: Any) -> bool:
    """Whether a frame's planes are a JPEG's but for their range."""
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    return even and frame.format.name in ("yuv420p", "yuvj420p") and int(frame.colorspace) in _BT601


def _plane(frame: Any, index: int) -> np.ndarray:
    """Return one plane in the full range that JPEG has, without padding."""
    plane = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    full = frame.format.name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE
    return np.ascontiguousarray(rows) if full else cv2.LUT(np.ascontiguousarray(rows), _to_full(index > 0))


@cache
def _to_full(chroma: bool) -> np.ndarray:
    """Return the table from limited to full range (ITU-R BT.601): 16..235 luma, 16..240 chroma to 0..255."""
    values = np.arange(256, dtype=np.float64)
    full = (values - 128) * 255 / 224 + 128 if chroma else (values - 16) * 255 / 219
    return np.clip(np.round(full), 0, 255).astype(np.uint8)
