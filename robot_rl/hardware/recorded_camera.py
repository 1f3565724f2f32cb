"""A camera that plays frames in real time: from arrays, an episode of a store, or a video file.

It stands in for a device in tests, load measurements and demonstrations, and it can be pulled out: with a `presence`
file it is there exactly while that file is, as /dev/video0 is while the cable is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from robot_rl.data.rows import RowView
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import CameraError, CameraLost, CameraTimeout, ConfigError
from robot_rl.hardware.cameras import CameraClock, CameraInfo, Frame, SystemCameraClock, stamp_of
from robot_rl.values import Rows, Stream

Shot = tuple[int, np.ndarray, np.ndarray | None]
"""Nanoseconds since the first frame, colour, depth."""
FrameSource = Callable[[], Iterator[Shot]]
"""Starts the recording anew."""

BUFFERED_FRAMES = 4
"""How many frames wait for a reader that is late, as in a V4L2 queue; older ones are dropped and counted."""


class RecordedCamera:
    """Plays a recording in real time; stamps are the moments at which each frame was due.

    Args:
        source: Gives the frames from the first one on.
        info: What they look like.
        loop: Start again after the last frame; otherwise the camera is lost there.
        presence: File that must exist for the camera to be there; `None` means that it always is.
        clock: Its times.
    """

    def __init__(
        self,
        source: FrameSource,
        info: CameraInfo,
        *,
        loop: bool = True,
        presence: str | Path | None = None,
        clock: CameraClock | None = None,
    ) -> None:
        self.info = info
        self.dropped = 0
        self._source, self._loop = source, loop
        self._presence = None if presence is None else Path(presence)
        self._clock = SystemCameraClock() if clock is None else clock
        self._shots: Iterator[Shot] | None = None
        self._next: Shot | None = None
        self._start_ns = self._last_offset_ns = 0

    def open(self) -> None:
        """Start playing from the first frame.

        Raises:
            CameraLost: The presence file is missing.
        """
        self._check_present()
        self._shots = self._source()
        self._start_ns = self._clock.monotonic_ns()
        self._next = None

    def read(self, timeout_s: float) -> Frame:
        """Return the next frame when it is due.

        Raises:
            CameraTimeout: It is not due within `timeout_s`.
            CameraLost: The presence file is gone, or a recording that does not loop has ended.
            CameraError: Not open, or a frame is not of the promised size.
        """
        if self._shots is None:
            raise CameraError(f"camera `{self.info.frame_id}` is not open; call open first")
        offset, color, depth = self._peek()
        wait_ns = self._start_ns + offset - self._clock.monotonic_ns()
        if wait_ns > 0:
            self._clock.sleep(min(wait_ns / 1e9, timeout_s))
        self._check_present()
        due_ns = self._start_ns + offset
        if due_ns > self._clock.monotonic_ns():
            raise CameraTimeout(f"camera `{self.info.frame_id}` gave no frame within {timeout_s:g} s")
        self._next = None
        self._check_size(color, depth)
        return Frame(stamp_of(due_ns, self._clock), self._clock.monotonic_ns(), color, depth)

    def close(self) -> None:
        """Stop playing."""
        self._shots = self._next = None

    def _check_present(self) -> None:
        if self._presence is not None and not self._presence.exists():
            self.close()
            raise CameraLost(f"camera `{self.info.frame_id}` is not there: {self._presence} is missing")

    def _peek(self) -> Shot:
        """Return the frame that is next for this reader, dropping what no longer fits the queue."""
        if self._next is None:
            self._next = self._advance()
        oldest_ns = self._clock.monotonic_ns() - self._start_ns - BUFFERED_FRAMES * self.info.period_ns
        while self._next[0] < oldest_ns:
            self._next = self._advance()
            self.dropped += 1
        return self._next

    def _advance(self) -> Shot:
        shot = next(self._shots, None) if self._shots is not None else None
        if shot is None:
            if not self._loop:
                self.close()
                raise CameraLost(f"camera `{self.info.frame_id}`: the recording has ended")
            self._start_ns += self._last_offset_ns + self.info.period_ns
            self._shots = self._source()
            shot = next(self._shots, None)
            if shot is None:
                raise CameraError(f"camera `{self.info.frame_id}`: the recording holds no frames")
        self._last_offset_ns = shot[0]
        return shot

    def _check_size(self, color: np.ndarray, depth: np.ndarray | None) -> None:
        wanted = (self.info.height, self.info.width, 3)
        if color.shape != wanted or color.dtype != np.uint8:
            raise CameraError(f"camera `{self.info.frame_id}` must give uint8{wanted}, got {color.dtype}{color.shape}")
        if (depth is not None) != self.info.has_depth:
            raise CameraError(f"camera `{self.info.frame_id}` must {'' if self.info.has_depth else 'not '}give depth")


def from_array(
    color: Rows,
    *,
    fps: float,
    depth: Rows | None = None,
    frame_id: str = "camera_color_optical_frame",
    loop: bool = True,
    presence: str | Path | None = None,
    clock: CameraClock | None = None,
) -> RecordedCamera:
    """Return a camera that plays pictures at a steady rate.

    Args:
        color: uint8 [M, height, width, 3].
        fps: Frames a second.
        depth: uint16 [M, height, width] in millimetres.
        frame_id: Optical frame.
        loop: As `RecordedCamera`.
        presence: As `RecordedCamera`.
        clock: As `RecordedCamera`.

    Raises:
        ConfigError: No pictures, or not pictures.
    """
    stamps = np.round(np.arange(len(color)) * 1e9 / fps).astype(np.int64)
    info = _info(color, fps=fps, frame_id=frame_id, depth=depth)
    return RecordedCamera(_rows_source(stamps, color, depth), info, loop=loop, presence=presence, clock=clock)


def from_store(
    url: str | Path,
    *,
    episode: str,
    stream: str,
    depth_stream: str | None = None,
    frame_id: str = "camera_color_optical_frame",
    loop: bool = True,
    presence: str | Path | None = None,
    clock: CameraClock | None = None,
) -> RecordedCamera:
    """Return a camera that plays a camera stream of a stored episode with its own timing.

    Args:
        url: The store.
        episode: Episode id.
        stream: Its colour stream.
        depth_stream: Its depth stream (uint16 millimetres), whose newest sample goes with each picture.
        frame_id: Optical frame.
        loop: As `RecordedCamera`.
        presence: As `RecordedCamera`.
        clock: As `RecordedCamera`.

    Raises:
        StoreError: No such store or episode.
        ConfigError: No such stream, or it holds no pictures.
    """
    streams = EpisodeStore.open(url).read(episode).streams
    unknown = [name for name in (stream, depth_stream) if name is not None and name not in streams]
    if unknown:
        raise ConfigError(f"episode {episode} of {url} has no stream {unknown}; it has {sorted(streams)}")
    color = streams[stream]
    depth = None if depth_stream is None else _depth_for(color.stamp_ns, streams[depth_stream])
    seconds = (int(color.stamp_ns[-1]) - int(color.stamp_ns[0])) / 1e9
    fps = (len(color) - 1) / seconds if seconds > 0 else 30.0
    info = _info(color.data, fps=fps, frame_id=frame_id, depth=depth)
    source = _rows_source(color.stamp_ns - color.stamp_ns[0], color.data, depth)
    return RecordedCamera(source, info, loop=loop, presence=presence, clock=clock)


def from_npy(
    path: str | Path,
    *,
    fps: float,
    frame_id: str = "camera_color_optical_frame",
    loop: bool = True,
    presence: str | Path | None = None,
    clock: CameraClock | None = None,
) -> RecordedCamera:
    """Return a camera that plays an array from a .npy file, which stays on disk; nothing is decoded.

    Args:
        path: uint8 [M, height, width, 3].
        fps: Frames a second.
        frame_id: Optical frame.
        loop: As `RecordedCamera`.
        presence: As `RecordedCamera`.
        clock: As `RecordedCamera`.

    Raises:
        ConfigError: No such file, or it holds no pictures.
    """
    try:
        color = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be played as a camera: {error}") from error
    return from_array(color, fps=fps, frame_id=frame_id, loop=loop, presence=presence, clock=clock)


def from_video(
    path: str | Path,
    *,
    frame_id: str = "camera_color_optical_frame",
    loop: bool = True,
    presence: str | Path | None = None,
    clock: CameraClock | None = None,
) -> RecordedCamera:
    """Return a camera that plays a video file (anything FFmpeg reads), decoded as it goes.

    Args:
        path: The file.
        frame_id: Optical frame.
        loop: As `RecordedCamera`.
        presence: As `RecordedCamera`.
        clock: As `RecordedCamera`.

    Raises:
        ConfigError: No such file, or it holds no video.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ConfigError(f"{path} holds no video; a recorded camera needs one")
            video = container.streams.video[0]
            rate = video.average_rate
            info = CameraInfo(
                width=video.width, height=video.height, fps=30.0 if rate is None else float(rate), frame_id=frame_id
            )
    except (OSError, av.error.FFmpegError) as error:
        raise ConfigError(f"{path} cannot be played as a camera: {error}") from error
    return RecordedCamera(lambda: _video_shots(Path(path)), info, loop=loop, presence=presence, clock=clock)


def _video_shots(path: Path) -> Iterator[Shot]:
    with av.open(str(path)) as container:
        first: float | None = None
        for frame in container.decode(video=0):
            seconds = float(frame.time)
            first = seconds if first is None else first
            yield round((seconds - first) * 1e9), frame.to_ndarray(format="rgb24"), None


def _rows_source(offset_ns: np.ndarray, color: Rows, depth: Rows | None) -> FrameSource:
    def shots() -> Iterator[Shot]:
        for i, offset in enumerate(offset_ns):
            picture = np.array(color[i])
            yield int(offset), picture, None if depth is None else np.array(depth[i])

    return shots


def _depth_for(stamp_ns: np.ndarray, depth: Stream) -> Rows:
    """Return the newest depth at or before each stamp (the first one before that)."""
    index = np.searchsorted(depth.stamp_ns, stamp_ns, side="right") - 1
    return RowView(depth.data, np.maximum(index, 0))


def _info(color: Rows, *, fps: float, frame_id: str, depth: Rows | None) -> CameraInfo:
    if len(color) == 0 or len(color.shape) != 4 or color.shape[3] != 3 or np.dtype(color.dtype) != np.uint8:
        raise ConfigError(f"a recorded camera needs uint8 [M, height, width, 3], got {color.dtype}{color.shape}")
    if depth is not None and (depth.shape != color.shape[:3] or np.dtype(depth.dtype) != np.uint16):
        raise ConfigError(f"depth must be uint16{tuple(color.shape[:3])}, got {depth.dtype}{depth.shape}")
    height, width = color.shape[1:3]
    return CameraInfo(width=width, height=height, fps=fps, frame_id=frame_id, has_depth=depth is not None)
