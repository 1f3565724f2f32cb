"""`meta/info.json` of a LeRobot data set: its version, rate, features and where its files lie.

Source: LeRobot's dataset format, codebase versions v2.0, v2.1 and v3.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_rl.data.foreign import Findings

VERSIONS = ("v2.0", "v2.1", "v3.0")
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Features that number the rows; their content is in the stamps, the ids and the task of an episode."""

DATA_PATH = {
    2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO_PATH = {
    2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_INFO = "meta/info.json"
_NUMBERS = {"bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)), "float16", "float32", "float64"}


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One entry of `features`.

    Args:
        name: Its name.
        dtype: `video`, `image`, `string` or a numpy dtype's name; anything else is of no kind known here.
        shape: Shape of one frame; pictures as (height, width, channels), however the file orders them.
        raw: The entry as it stands: names, codec and the rest.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_picture(self) -> bool:
        """Whether frames are pictures."""
        return self.dtype in ("video", "image")

    @property
    def is_number(self) -> bool:
        """Whether frames are arrays of numbers."""
        return self.dtype in _NUMBERS

    def video_info(self, key: str) -> Any:
        """Return an entry of the feature's video information (`codec`, `pix_fmt`, `is_depth_map`), or `None`."""
        for place in ("info", "video_info"):
            info = self.raw.get(place)
            if isinstance(info, Mapping):
                for name in (f"video.{key}", key):
                    if name in info:
                        return info[name]
        return None


@dataclass(frozen=True, kw_only=True)
class Info:
    """What `meta/info.json` says.

    Args:
        version: `v2.0`, `v2.1` or `v3.0`.
        fps: Rows per second.
        robot: `robot_type`, or `unknown`.
        features: Every feature by name.
        data_path: Template of the parquet files.
        video_path: Template of the video files.
        chunks_size: Episodes (v2) or files (v3) in a folder.
        raw: The document as it stands.
    """

    version: str
    fps: float
    robot: str
    features: Mapping[str, Feature]
    data_path: str
    video_path: str
    chunks_size: int
    raw: Mapping[str, Any]

    @property
    def major(self) -> int:
        """2 or 3."""
        return int(self.version[1])


def read_info(root: Path, findings: Findings, *, fps: float | None = None) -> Info | None:
    """Return what `meta/info.json` says, or `None` with a fatal finding; `fps` is taken in place of its rate."""
    try:
        raw = json.loads((root / _INFO).read_text())
    except FileNotFoundError:
        findings.add("fatal", _INFO, "is missing", "it holds rate and features; copy the data set again")
        return None
    except (ValueError, OSError) as error:
        findings.add("fatal", _INFO, f"is not JSON: {error}", "copy it again")
        return None
    if not isinstance(raw, dict):
        findings.add("fatal", _INFO, f"must hold an object, got {type(raw).__name__}", "copy it again")
        return None
    rate = fps if fps is not None else _fps(raw, findings)
    version, features = _version(root, raw, findings), _features(raw, findings)
    if version is None or rate is None or features is None:
        return None
    major = int(version[1])
    return Info(
        version=version, fps=rate, robot=str(raw.get("robot_type") or "unknown"), features=features,
        data_path=_template(raw, "data_path", DATA_PATH[major], findings),
        video_path=_template(raw, "video_path", VIDEO_PATH[major], findings),
        chunks_size=_chunks_size(raw, findings), raw=raw,
    )  # fmt: skip


def _version(root: Path, raw: Mapping[str, Any], findings: Findings) -> str | None:
    said = raw.get("codebase_version")
    known = f"one of {', '.join(VERSIONS)}"
    if said in VERSIONS:
        return str(said)
    if isinstance(said, str) and said.startswith(("v2.", "v3.")):
        nearest = "v2.1" if said.startswith("v2.") else "v3.0"
        findings.add("warning", _INFO, f"codebase_version must be {known}, got {said!r}", f"it is read as {nearest}")
        return nearest
    if said is None:
        guess = "v2.1" if (root / "meta" / "episodes.jsonl").exists() else "v3.0"
        if guess == "v2.1" or (root / "meta" / "episodes").is_dir():
            findings.add("warning", _INFO, "codebase_version is missing", f"by its files it is read as {guess}")
            return guess
    findings.add(
        "fatal", _INFO, f"codebase_version must be {known}, got {said!r}",
        "convert it with LeRobot's own converter to v3.0",
    )  # fmt: skip
    return None


def _fps(raw: Mapping[str, Any], findings: Findings) -> float | None:
    fps = raw.get("fps")
    if isinstance(fps, int | float) and not isinstance(fps, bool) and math.isfinite(fps) and fps > 0:
        return float(fps)
    findings.add("fatal", _INFO, f"fps must be a number above 0, got {fps!r}", "give the rate that it was recorded at")
    return None


def _features(raw: Mapping[str, Any], findings: Findings) -> dict[str, Feature] | None:
    listed = raw.get("features")
    if not isinstance(listed, dict) or not listed:
        findings.add("fatal", _INFO, f"features must be an object of features, got {listed!r}", "copy it again")
        return None
    features = {}
    for name, about in listed.items():
        try:
            features[name] = _feature(name, about)
        except (KeyError, TypeError, ValueError) as error:
            findings.add(
                "warning",
                _INFO,
                f"feature `{name}` must have dtype and shape, got {about!r} ({error})",
                "it is left out",
            )
    return features


def _feature(name: str, about: Mapping[str, Any]) -> Feature:
    dtype = str(about["dtype"])
    given = about["shape"]
    shape = tuple(int(n) for n in (given if isinstance(given, list | tuple) else [] if given is None else [given]))
    if dtype in ("video", "image"):
        shape = (
            _channels_last(shape, about.get("names")) if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else shape
        )
    return Feature(name=name, dtype=dtype, shape=shape, raw=about)


def _channels_last(shape: tuple[int, ...], names: Any) -> tuple[int, ...]:
    first = str(names[0]).startswith("channel") if isinstance(names, list) and len(names) == 3 else False
    if first or (shape[0] in (1, 3) and shape[2] not in (1, 3)):
        return (*shape[1:], shape[0])
    return shape


def _template(raw: Mapping[str, Any], key: str, standard: str, findings: Findings) -> str:
    said = raw.get(key)
    if isinstance(said, str) and said:
        return said
    # Data sets without videos have `video_path: null`.
    if key == "data_path" or any(
        isinstance(f, dict) and f.get("dtype") == "video" for f in raw.get("features", {}).values()
    ):
        findings.add("warning", _INFO, f"{key} must be a path template, got {said!r}", f"{standard} is tried")
    return standard


def _chunks_size(raw: Mapping[str, Any], findings: Findings) -> int:
    size = raw.get("chunks_size", 1000)
    if isinstance(size, int) and size > 0:
        return size
    findings.add("warning", _INFO, f"chunks_size must be a number above 0, got {size!r}", "1000 is taken")
    return 1000
