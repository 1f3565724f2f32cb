"""Cameras of a LeRobot data set: what the headers of videos and pictures say, and their frames as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robot_rl.data.foreign import Findings
from robot_rl.data.frame_codec import JPEG_QUALITY
from robot_rl.data.lerobot_images import ImageKind, ImageRows, first_picture
from robot_rl.data.lerobot_info import Info
from robot_rl.data.lerobot_meta import EpisodeEntry, VideoSpan
from robot_rl.data.lerobot_paths import is_pointer
from robot_rl.data.lerobot_plan import Plan, Source
from robot_rl.data.lerobot_scan import RowSpan, Scan
from robot_rl.data.video_frames import VideoHeader, VideoRows, read_header
from robot_rl.errors import DataFormatError
from robot_rl.specs import ArraySpec
from robot_rl.values import Rows

_SAME_CODEC = {
    "avc1": "h264", "libx264": "h264", "h265": "hevc", "hvc1": "hevc", "hev1": "hevc", "libx265": "hevc", "av01": "av1",
    "libsvtav1": "av1", "libaom-av1": "av1", "libdav1d": "av1", "mp4v": "mpeg4",
}  # fmt: skip


@dataclass(kw_only=True)
class Pictures:
    """The cameras that can be imported.

    Args:
        root: The data set's folder.
        fps: Rate of the frames.
        threads: Threads that decode one video.
        specs: What a frame is, by stream.
        codecs: How the store keeps frames, by stream.
        lost: What is not kept, by feature.
    """

    root: Path
    fps: float
    threads: int
    specs: dict[str, ArraySpec] = field(default_factory=dict)
    codecs: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def rows(self, source: Source, entry: EpisodeEntry, span: RowSpan) -> Rows:
        """Return an episode's frames of one camera, decoded when read.

        Raises:
            DataFormatError: Nobody says where they lie.
        """
        spec, codec = self.specs[source.stream], self.codecs.get(source.stream, "raw")
        if source.feature.dtype == "image":
            return ImageRows(self.root, source.feature.name, span, spec, codec)
        if source.feature.name not in entry.videos:
            raise DataFormatError(f"meta/episodes does not say where `{source.feature.name}` of {entry.index} lies")
        video = entry.videos[source.feature.name]
        return VideoRows(
            self.root / video.path, shape=spec.shape, count=len(span), fps=self.fps, codec=codec,
            start_s=video.start_s, timed=video.shared, threads=self.threads,
        )  # fmt: skip


def look_at_pictures(
    root: Path, info: Info, entries: Sequence[EpisodeEntry], plan: Plan, scan: Scan, findings: Findings, *,
    codec: str | None, threads: int,
) -> Pictures:  # fmt: skip
    """Return the cameras that can be imported, and add what is wrong with their files to `findings`."""
    pictures = Pictures(root=root, fps=info.fps, threads=threads)
    for source in plan.pictures:
        if source.feature.dtype == "video":
            _look_at_videos(pictures, source, entries, scan, findings, codec=codec)
        else:
            _look_at_images(pictures, source, entries, scan, findings, codec=codec)
    return pictures


def _look_at_videos(
    pictures: Pictures, source: Source, entries: Sequence[EpisodeEntry], scan: Scan, findings: Findings, *,
    codec: str | None,
) -> None:  # fmt: skip
    name, stream, feature = source.feature.name, source.stream, source.feature
    headers = _headers(pictures.root, name, entries, findings)
    sizes = Counter((h.height, h.width) for h in headers.values())
    if feature.video_info("is_depth_map") or any(h.pix_fmt.startswith("gray1") for h in headers.values()):
        pictures.lost[name] = "is a depth map coded as video, which is not decoded to metres here"
        return
    height, width = sizes.most_common(1)[0][0] if sizes else feature.shape[:2]
    if (height, width) != feature.shape[:2]:
        what = f"feature `{name}` must be {feature.shape[0]}x{feature.shape[1]}, its videos are {height}x{width}"
        findings.add("warning", "meta/info.json", what, "it is imported as the videos are")
    channels = feature.shape[2] if feature.shape[2] in (1, 3) else 3
    kept = codec or "jpeg"
    pictures.specs[stream] = ArraySpec(name=stream, shape=(height, width, channels), dtype="uint8")
    pictures.codecs[stream] = kept
    coded = f"JPEG of quality {JPEG_QUALITY}" if kept == "jpeg" else f"{kept}, in RGB"
    pictures.lost[name] = f"the video's own bytes; its frames are kept as {coded}"
    for entry in entries:
        video = entry.videos.get(name)
        if video is not None and video.path in headers and entry.number in scan.spans:
            rows = len(scan.spans[entry.number])
            _check_video(
                headers[video.path], video, entry.number, rows, source, (height, width), pictures.fps, findings
            )


def _headers(root: Path, name: str, entries: Sequence[EpisodeEntry], findings: Findings) -> dict[str, VideoHeader]:
    """Return the header of each video that can be opened."""
    users: dict[str, list[int]] = {}
    for entry in entries:
        if name in entry.videos:
            users.setdefault(entry.videos[name].path, []).append(entry.number)
        else:
            findings.add("episode", name, "nobody says where the video lies", "copy meta/ again", entry.number)
    headers = {}
    for path, numbers in users.items():
        try:
            headers[path] = read_header(root / path)
        except DataFormatError as error:
            what = "videos are missing" if not (root / path).exists() else str(error)
            if (root / path).is_file() and is_pointer(root / path):
                what = "videos are Git LFS pointers; run `git lfs pull` in the data set's folder"
            findings.add("episode", name, what, "copy them again, or import.videos=false", *numbers)
            continue
        if headers[path].cut_short:
            what = f"{path} ends before its last frame"
            findings.add("episode", name, what, "copy it again, or import.videos=false", *numbers)
    return headers


def _check_video(
    header: VideoHeader, video: VideoSpan, number: int, rows: int, source: Source, size: tuple[int, ...], fps: float,
    findings: Findings,
) -> None:  # fmt: skip
    name, said = source.feature.name, source.feature.video_info("codec")
    if (header.height, header.width) != size:
        what = f"videos must be {size[0]}x{size[1]} as the others, got {header.height}x{header.width}"
        findings.add("episode", name, what, "convert these episodes again", number)
    if isinstance(said, str) and _SAME_CODEC.get(said, said) != header.codec:
        what = f"codec must be {said}, as meta/info.json says, got {header.codec}"
        findings.add("warning", name, what, "it is decoded as what it is", number)
    if header.rate and abs(header.rate - fps) > 0.001 * fps:
        what = f"videos must run at {fps:g} Hz, got {header.rate:g} Hz"
        findings.add("warning", name, what, "frames are taken in their order, one a row", number)
    first = round(video.start_s * fps)
    if header.frames < first + rows:
        what = f"{video.path} has too few frames: {header.frames}, the rows need {first + rows}"
        findings.add("episode", name, what, "copy it again, or import.videos=false", number)
    elif header.frames > rows and not video.shared:
        what = f"videos have more frames than the episode has rows, {header.frames} for {rows}"
        findings.add("warning", name, what, "the last frames are not taken", number)


def _look_at_images(
    pictures: Pictures, source: Source, entries: Sequence[EpisodeEntry], scan: Scan, findings: Findings, *,
    codec: str | None,
) -> None:  # fmt: skip
    name, stream = source.feature.name, source.stream
    kinds: dict[int, ImageKind] = {}
    for entry in entries:
        span = scan.spans.get(entry.number)
        if span is None or not len(span):
            continue
        try:
            kinds[entry.number] = first_picture(pictures.root, name, span)
        except DataFormatError as error:
            findings.add("episode", name, str(error), "leave it out with import.features", entry.number)
    if not kinds:
        pictures.lost[name] = "no picture of it can be read"
        return
    usual = Counter(kinds.values()).most_common(1)[0][0]
    if usual.shape != source.feature.shape:
        what = f"feature `{name}` must be {source.feature.shape}, its pictures are {usual.shape}"
        findings.add("warning", "meta/info.json", what, "it is imported as the pictures are")
    for number, kind in kinds.items():
        if (kind.shape, kind.dtype) != (usual.shape, usual.dtype):
            findings.add("episode", name, f"pictures must be {usual.shape}, got {kind.shape}", "convert again", number)
    pictures.specs[stream] = ArraySpec(name=stream, shape=usual.shape, dtype=usual.dtype)
    if usual.dtype == "uint8":
        pictures.codecs[stream] = codec or usual.codec
    if usual.dropped:
        pictures.lost[name] = usual.dropped
