"""Pictures on their way into a LeRobot data set: mp4 files that hold many episodes each, or PNG bytes in the tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from robot_rl.data import frame_codec
from robot_rl.data.lerobot_stats import Stats, picture_stats, sampled_frames, shrunk
from robot_rl.errors import ConfigError, DataFormatError
from robot_rl.values import Rows

VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILE_MB = 200
"""A video file that has this size gets no further episode."""
CHUNK_FILES = 1000
GOP = 2
"""Every other picture is a key frame, as LeRobot has it, so that reading at random decodes two at most."""
_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """An encoder and its settings.

    Args:
        encoder: FFmpeg's name of it.
        name: What `info.json` calls the codec.
        crf: Quality: lower is better and larger.
        options: Further options of the encoder.
    """

    encoder: str
    name: str
    crf: int
    options: Mapping[str, str] = field(default_factory=dict)


VIDEO_CODECS: dict[str, VideoCodec] = {
    "av1": VideoCodec(encoder="libsvtav1", name="av1", crf=30, options={"preset": "12"}),
    # Without B-frames pictures are shown in the order in which they are stored.
    "h264": VideoCodec(encoder="libx264", name="h264", crf=23, options={"preset": "veryfast", "bf": "0"}),
}


def video_codec(name: str) -> VideoCodec:
    """Return a codec by name.

    Raises:
        ConfigError: There is none of that name, or this FFmpeg lacks its encoder.
    """
    if name not in VIDEO_CODECS:
        raise ConfigError(f"`export.codec` must be one of {sorted(VIDEO_CODECS)}, got {name!r}")
    codec = VIDEO_CODECS[name]
    if codec.encoder not in av.codecs_available:
        raise ConfigError(f"`export.codec` {name} needs FFmpeg's {codec.encoder}, which PyAV lacks here; try another")
    return codec


class _VideoFile:
    """One mp4 being written."""

    def __init__(self, path: Path, fps: Fraction, shape: tuple[int, ...], codec: VideoCodec) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("SVT_LOG", "1")  # errors only: the encoder prints its settings otherwise
        self._container = av.open(str(path), "w")
        options = {"g": str(GOP), "crf": str(codec.crf), **codec.options}
        self._stream: Any = self._container.add_stream(codec.encoder, rate=fps, options=options)
        self._stream.height, self._stream.width = shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._fps, self.frames, self.nbytes = fps, 0, 0

    def add(self, picture: np.ndarray) -> None:
        """Append a picture."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self.frames, 1 / self._fps
        self.frames += 1
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        try:
            if self.frames:
                self._mux(self._stream.encode())
        finally:
            self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.nbytes += packet.size
            self._container.mux(packet)


class VideoWriter:
    """The videos of one camera: episodes one after another in each file, a file closed when it has `file_mb`.

    Args:
        root: Folder of the data set.
        key: Feature of the camera.
        shape: (height, width, 3).
        fps: Pictures per second.
        codec: How they are encoded.
        file_mb: Size in MB at which the next episode starts a new file.
    """

    def __init__(
        self, root: Path, key: str, shape: tuple[int, ...], *, fps: Fraction, codec: VideoCodec, file_mb: float
    ) -> None:
        self._root, self._key, self._shape, self._fps, self._codec = root, key, shape, fps, codec
        self._limit, self._number = file_mb * 2**20, -1
        self._file: _VideoFile | None = None

    def add(self, rows: Rows) -> tuple[dict[str, Any], Stats]:
        """Append an episode and return what `meta/episodes` says of it, and its statistics."""
        file = self._open_file()
        start, sampled, kept = file.frames, set(sampled_frames(len(rows))), []
        for i, picture in _pictures(rows):
            file.add(picture)
            if i in sampled:
                kept.append(shrunk(picture))
        entry = {
            **_place(self._number),
            "from_timestamp": float(start / self._fps), "to_timestamp": float(file.frames / self._fps),
        }  # fmt: skip
        return {f"videos/{self._key}/{name}": value for name, value in entry.items()}, picture_stats(np.stack(kept))

    def info(self) -> dict[str, Any]:
        """Return what `info.json` says of the videos."""
        height, width, channels = self._shape
        fps = int(self._fps) if self._fps.denominator == 1 else float(self._fps)
        return {
            "video.height": height, "video.width": width, "video.codec": self._codec.name, "video.pix_fmt": "yuv420p",
            "video.fps": fps, "video.channels": channels, "has_audio": False, "video.g": GOP,
            "video.crf": self._codec.crf, "video.is_depth_map": False, "is_depth_map": False,
        }  # fmt: skip

    def close(self) -> None:
        """Finish the file that is open."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _open_file(self) -> _VideoFile:
        if self._file is not None and self._file.nbytes >= self._limit:
            self.close()
        if self._file is None:
            self._number += 1
            path = self._root / VIDEO_PATH.format(video_key=self._key, **_place(self._number))
            try:
                self._file = _VideoFile(path, self._fps, self._shape, self._codec)
            except (av.FFmpegError, ValueError) as error:
                raise DataFormatError(f"{self._codec.encoder} cannot write {self._key}: {error}") from error
        return self._file


def png_rows(rows: Rows) -> tuple[list[bytes], Stats]:
    """Return an episode's pictures as PNG bytes, and their statistics."""
    sampled, kept, data = set(sampled_frames(len(rows))), [], []
    for i, picture in _pictures(rows):
        data.append(frame_codec.encode(picture, "png"))
        if i in sampled:
            kept.append(shrunk(picture))
    return data, picture_stats(np.stack(kept))


def _pictures(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """Yield every picture with its number, a few decoded at a time."""
    for first in range(0, len(rows), _BATCH):
        yield from enumerate(rows[first : first + _BATCH], start=first)


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}
