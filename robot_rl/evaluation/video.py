"""mp4 files that every browser plays: H.264, yuv420p, index at the front."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from robot_rl.errors import ConfigError, SpecError


class Mp4Writer:
    """Writes pictures to an mp4 as they come; the file appears under its name when it is whole.

    Args:
        path: File to write; its folder is made.
        fps: Pictures per second of playback.
        crf: H.264 quality, 0 (lossless) to 51; 23 is the encoder's own default.

    Raises:
        ConfigError: `fps` is not positive.
    """

    def __init__(self, path: str | Path, fps: float, *, crf: int = 23) -> None:
        if not fps > 0:
            raise ConfigError(f"`fps` must be positive, got {fps}")
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._container = av.open(str(self._part), "w", format="mp4", container_options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(crf), "threads": "1"}
        self._shape: tuple[int, ...] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append one picture, uint8 [height, width, 3]; odd sides are padded by one row or column of the edge.

        Raises:
            SpecError: Not a picture, or of another size than the first.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise SpecError(f"`frame` must be uint8(height, width, 3), got {frame.dtype}{frame.shape}")
        if self._shape is None:
            self._shape = frame.shape
            self._stream.height, self._stream.width = (side + side % 2 for side in frame.shape[:2])
        if frame.shape != self._shape:
            raise SpecError(f"`frame` must keep the first frame's shape {self._shape}, got {frame.shape}")
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file and put it under its name.

        Raises:
            SpecError: No picture was added.
        """
        if self._shape is None:
            self.discard()
            raise SpecError(f"`{self.path.name}` has no frames; a video needs at least one")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Throw away what was written."""
        self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write_mp4(frames: Iterable[np.ndarray], path: str | Path, fps: float) -> Path:
    """Write pictures, uint8 [height, width, 3] each, to an mp4 and return its path.

    Raises:
        ConfigError: `fps` is not positive.
        SpecError: No frames, not pictures, or not all of one size.
    """
    with Mp4Writer(path, fps) as writer:
        for frame in frames:
            writer.add(frame)
    return Path(path)
