"""The episodes and tasks that a LeRobot data set lists, in either layout: JSON lines (v2) or parquet (v3.0)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_rl.data.foreign import Findings
from robot_rl.data.lerobot_info import DATA_PATH, VIDEO_PATH, Info
from robot_rl.data.lerobot_paths import PathTemplate
from robot_rl.errors import MissingExtraError

Stats = Mapping[str, Mapping[str, Any]]
"""Feature -> statistic (`min`, `max`, `mean`) -> numbers."""

STATISTICS = ("min", "max", "mean")

UNREADABLE = (OSError, ValueError, KeyError, NotImplementedError)
"""What pyarrow raises at a damaged file, by its own classes' parents."""


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """Where an episode's frames of one camera lie.

    Args:
        path: The video, relative to the data set's folder.
        start_s: Time of its first frame in the video [s].
        shared: Whether other episodes' frames are in the same file.
    """

    path: str
    start_s: float = 0.0
    shared: bool = False


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """What the meta data say about one episode.

    Args:
        number: Its place in the list.
        index: Its `episode_index`.
        length: Its rows, `None` where that is not said.
        tasks: What was attempted, in words.
        data: Its parquet file, relative to the data set's folder.
        videos: Where its frames lie, by feature.
        stats: Its statistics.
    """

    number: int
    index: int
    length: int | None
    tasks: tuple[str, ...]
    data: str
    videos: Mapping[str, VideoSpan]
    stats: Stats = field(default_factory=dict)


def parquet() -> Any:
    """Return `pyarrow.parquet`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as found
    except ImportError as error:
        raise MissingExtraError("pyarrow", "lerobot") from error
    return found


def read_tasks(root: Path, info: Info, findings: Findings) -> dict[int, str]:
    """Return every task's words by its index; empty, with a finding, where they cannot be read."""
    name = "meta/tasks.jsonl" if info.major == 2 else "meta/tasks.parquet"
    if not (root / name).exists():
        findings.add("warning", name, "is missing", "episodes get the words that the list of episodes gives, if any")
        return {}
    tasks = {}
    for row in _json_lines(root, name, findings) if info.major == 2 else _task_rows(root, name, findings):
        index, task = row.get("task_index"), row.get("task")
        if isinstance(index, int) and isinstance(task, str):
            tasks[index] = task
        else:
            findings.add("warning", name, f"each line needs task_index and task, got {row}", "it is left out")
    return tasks


def _json_lines(root: Path, name: str, findings: Findings) -> Iterator[dict[str, Any]]:
    for number, line in enumerate((root / name).read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            findings.add("warning", f"{name} line {number}", f"is not JSON: {error}", "it is left out")
            continue
        if isinstance(row, dict):
            yield row
        else:
            findings.add("warning", f"{name} line {number}", "must be an object", "it is left out")


def _task_rows(root: Path, name: str, findings: Findings) -> Iterator[dict[str, Any]]:
    """Yield the rows of tasks.parquet; a pandas frame whose index, under some name, is the task."""
    try:
        rows = parquet().read_table(root / name).to_pylist()
    except UNREADABLE as error:
        findings.add("warning", name, f"cannot be read: {error}", "copy it again")
        return
    for row in rows:
        words = [value for value in row.values() if isinstance(value, str)]
        yield {"task_index": row.get("task_index"), "task": row.get("task", words[0] if words else None)}


def read_episodes(root: Path, info: Info, findings: Findings) -> list[EpisodeEntry]:
    """Return what is said about each episode, in their order; where the list lacks, v2 episodes are found by file."""
    rows = list(_v2_rows(root, info, findings) if info.major == 2 else _v3_rows(root, findings))
    cameras = [f.name for f in info.features.values() if f.dtype == "video"]
    data = PathTemplate(root, "data_path", info.data_path, DATA_PATH[info.major], findings)
    video = PathTemplate(root, "video_path", info.video_path, VIDEO_PATH[info.major], findings)
    entries: dict[int, EpisodeEntry] = {}
    for row in rows:
        index = row.get("episode_index")
        if not isinstance(index, int) or index in entries:
            said = "is there twice" if index in entries else "is no number"
            findings.add("warning", "meta/episodes", f"episode_index {index!r} {said}", "the line is left out")
            continue
        place = _v2_place if info.major == 2 else _v3_place
        path, videos = place(row, index, info, data, video, cameras)
        length = row.get("length")
        entries[index] = EpisodeEntry(
            number=len(entries), index=index, length=length if isinstance(length, int) else None,
            tasks=_words(row.get("tasks")), data=path, videos=videos, stats=row.get("stats") or {},
        )  # fmt: skip
    return list(entries.values())


def _words(said: Any) -> tuple[str, ...]:
    listed = said if isinstance(said, list | tuple) else [said]
    return tuple(word for word in listed if isinstance(word, str))


def _v2_rows(root: Path, info: Info, findings: Findings) -> Iterator[dict[str, Any]]:
    name = "meta/episodes.jsonl"
    if not (root / name).exists():
        found = sorted(root.glob("data/**/episode_*.parquet"))
        numbers = [int(digits) for path in found if (digits := path.stem.removeprefix("episode_")).isdigit()]
        findings.add("warning", name, "is missing", f"the {len(numbers)} episodes that have a data file are taken")
        yield from ({"episode_index": number} for number in numbers)
        return
    stats = {}
    if (root / "meta" / "episodes_stats.jsonl").exists():
        for row in _json_lines(root, "meta/episodes_stats.jsonl", findings):
            stats[row.get("episode_index")] = row.get("stats")
    elif info.version == "v2.1":
        findings.add("warning", "meta/episodes_stats.jsonl", "is missing", "nothing here needs it")
    for row in _json_lines(root, name, findings):
        yield {**row, "stats": stats.get(row.get("episode_index"))}


def _v2_place(
    row: Mapping[str, Any], index: int, info: Info, data: PathTemplate, video: PathTemplate, cameras: Sequence[str]
) -> tuple[str, dict[str, VideoSpan]]:
    fields = {"episode_chunk": index // info.chunks_size, "episode_index": index}
    fields |= {"chunk_index": fields["episode_chunk"], "file_index": index}
    return data.place(**fields), {c: VideoSpan(path=video.place(video_key=c, **fields)) for c in cameras}


def _v3_rows(root: Path, findings: Findings) -> Iterator[dict[str, Any]]:
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        findings.add("fatal", "meta/episodes", "has no parquet file", "it says where episodes lie; copy it again")
    for path in files:
        try:
            file = parquet().ParquetFile(path)
            # Statistics of each feature have columns too; only those that can be checked are read.
            wanted = [
                name
                for name in file.schema_arrow.names
                if not name.startswith("stats/") or name.rsplit("/", 1)[-1] in STATISTICS
            ]
            rows = file.read(columns=wanted).to_pylist()
        except UNREADABLE as error:
            where = path.relative_to(root).as_posix()
            findings.add("warning", where, f"cannot be read: {error}", "its episodes are not imported; copy it again")
            continue
        yield from (_with_stats(row) for row in rows)


def _with_stats(row: dict[str, Any]) -> dict[str, Any]:
    stats: dict[str, dict[str, Any]] = {}
    for name in [name for name in row if name.startswith("stats/")]:
        feature, statistic = name.removeprefix("stats/").rsplit("/", 1)
        stats.setdefault(feature, {})[statistic] = row.pop(name)
    return {**row, "stats": stats}


def _v3_place(
    row: Mapping[str, Any], index: int, info: Info, data: PathTemplate, video: PathTemplate, cameras: Sequence[str]
) -> tuple[str, dict[str, VideoSpan]]:
    numbers = {"episode_index": index, "episode_chunk": index // info.chunks_size}
    path = data.place(**numbers, **_file_of(row, "data"))
    videos = {}
    for camera in cameras:
        place = _file_of(row, f"videos/{camera}")
        start = row.get(f"videos/{camera}/from_timestamp")
        if len(place) == 2 and isinstance(start, int | float):
            path_of = video.place(video_key=camera, **numbers, **place)
            videos[camera] = VideoSpan(path=path_of, start_s=float(start), shared=True)
    return path, videos


def _file_of(row: Mapping[str, Any], prefix: str) -> dict[str, int]:
    fields = {key: row.get(f"{prefix}/{key}") for key in ("chunk_index", "file_index")}
    return {key: value for key, value in fields.items() if isinstance(value, int)}
