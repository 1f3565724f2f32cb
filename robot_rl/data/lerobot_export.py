"""An episode store as a LeRobot v3.0 data set, without lerobot. What becomes what: `robot_rl.data.lerobot_columns`.

Episodes are seen from the control clock, in the order of their ids. What LeRobot has no place for (schema, outcome,
source, provenance) is kept in `meta/robot_rl.json`, which LeRobot does not read and our importer does
(`robot_rl.data.lerobot_restore`). The data set is written beside its place and appears there by one rename.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.align import Alignment
from robot_rl.data.lerobot_columns import DEFAULTS, Column, Survey, columns_of, stream_map, survey
from robot_rl.data.lerobot_encode import FILE_MB, VIDEO_PATH, VideoCodec, VideoWriter, png_rows, video_codec
from robot_rl.data.lerobot_stats import Stats, joined, number_stats
from robot_rl.data.lerobot_tables import DATA_PATH, FrameTables, write_episodes, write_tasks
from robot_rl.data.lerobot_tables import FILE_MB as TABLE_MB
from robot_rl.data.schema import meta_to_dict
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from robot_rl.values import Episode

VERSION = "v3.0"
ABOUT = "meta/robot_rl.json"
LOST = "lost.json"
Progress = Callable[[int, int], None]


@dataclass
class _Written:
    """What has been written so far."""

    episodes: list[dict[str, Any]] = field(default_factory=list)
    stats: list[dict[str, Stats]] = field(default_factory=list)
    about: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    frames: int = 0
    off_grid: int = 0
    dropped: int = 0
    finals: int = 0
    shifted: int = 0

    def task(self, name: str) -> int:
        """Return a task's number, a new one if it has none."""
        if name not in self.tasks:
            self.tasks.append(name)
        return self.tasks.index(name)


def export_lerobot(
    store: EpisodeStore,
    path: str | Path,
    *,
    progress: Progress | None = None,
    fps: float | None = None,
    videos: bool = True,
    codec: str = "av1",
    table_mb: float = TABLE_MB,
    video_mb: float = FILE_MB,
) -> Mapping[str, str]:
    """Write a store as a LeRobot v3.0 data set and return what is lost, by field; `lost.json` has the same.

    Args:
        store: At least one episode.
        path: Folder to make; must not exist.
        progress: Called with (episodes done, episodes in all).
        fps: Rate of the frames; `None` is the robot's control rate, at which data born on the grid comes out exactly.
        videos: Pictures as mp4, which loses some of them; otherwise as PNG in the tables, exact and larger.
        codec: Of the videos: `av1` (LeRobot's default) or `h264`.
        table_mb: Size in MB at which the next episode starts a new file of the tables.
        video_mb: Likewise of the videos.

    Raises:
        StoreError: `path` exists, or the store is empty.
        ConfigError: A rate that is not above 0, or a codec that this FFmpeg lacks.
        MissingExtraError: pyarrow is not installed.
    """
    if not len(store):
        raise StoreError(f"{store.url} holds no episode; there is nothing to export")
    rate = store.spec.control_hz if fps is None else float(fps)
    if not rate > 0:
        raise ConfigError(f"`export.fps` must be above 0, got {fps}")
    seen, chosen = survey(store), video_codec(codec)
    columns, lost = columns_of(store.schema, seen, videos=videos)
    with _appearing(Path(path)) as root:
        export = _Export(root, columns, rate=rate, codec=chosen, table_mb=table_mb, video_mb=video_mb)
        alignment = Alignment(control_hz=None if rate == store.spec.control_hz else rate)
        with closing(export):
            for i, id in enumerate(seen.metas):
                export.add(store.episode(id, alignment), list(seen.streams[id]))
                if progress is not None:
                    progress(i + 1, len(seen.metas))
        lost |= _losses(store, export, seen, rate=rate)
        export.write_meta(store, lost)
    return lost


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` that becomes `path` when all went well, and is removed otherwise."""
    if path.exists():
        raise StoreError(f"{path} exists already; export to a new folder, or delete that one first")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Export:
    """A data set being written into `root`."""

    def __init__(
        self, root: Path, columns: Sequence[Column], *, rate: float, codec: VideoCodec, table_mb: float, video_mb: float
    ) -> None:
        self.root, self.columns, self.rate = root, columns, rate
        self.written = _Written()
        fps = Fraction(rate).limit_denominator(1001)
        self.videos = {
            c.feature: VideoWriter(root, c.feature, c.shape, fps=fps, codec=codec, file_mb=video_mb)
            for c in columns
            if c.dtype == "video"
        }
        self._tables = FrameTables(root, [c for c in columns if c.dtype != "video"], file_mb=table_mb)

    def close(self) -> None:
        """Finish all files that are open."""
        with ExitStack() as stack:
            stack.callback(self._tables.close)
            for writer in self.videos.values():
                stack.callback(writer.close)

    def add(self, episode: Episode, streams: Sequence[str]) -> None:
        """Append an episode, which has samples of `streams`, from its first valid tick on."""
        first = int(np.argmax(episode.valid)) if episode.valid.any() else 0
        n, written, number = len(episode) - first, self.written, len(self.written.episodes)
        entry = {
            "episode_index": number, "tasks": [episode.meta.task], "length": n,
            "dataset_from_index": written.frames, "dataset_to_index": written.frames + n,
        }  # fmt: skip
        values, stats, places = self._pictures_and_numbers(episode, first)
        values |= self._numbering(n, number, written.task(episode.meta.task))
        stats |= {name: number_stats(values[name]) for name in DEFAULTS}
        written.episodes.append({**entry, **self._tables.add(values), **places})
        written.stats.append(stats)
        written.about.append({"id": episode.id, "length": n, "meta": meta_to_dict(episode.meta), "streams": streams})
        written.frames += n
        written.off_grid += not episode.meta.on_grid
        written.dropped += first
        written.finals += episode.final_obs is not None
        expected = np.round(np.arange(len(episode)) * 1e9 / self.rate).astype(np.int64)
        written.shifted += not np.array_equal(episode.stamp_ns, expected)

    def _pictures_and_numbers(
        self, episode: Episode, first: int
    ) -> tuple[dict[str, Any], dict[str, Stats], dict[str, Any]]:
        values: dict[str, Any] = {}
        stats: dict[str, Stats] = {}
        places: dict[str, Any] = {}
        for column in self.columns:
            rows = column.rows(episode)
            rows = rows[first:] if first else rows
            if column.dtype == "video":
                place, stats[column.feature] = self.videos[column.feature].add(rows)
                places |= place
            elif column.dtype == "image":
                values[column.feature], stats[column.feature] = png_rows(rows)
            else:
                values[column.feature] = np.asarray(rows[:])
                stats[column.feature] = number_stats(values[column.feature].reshape(len(rows), *column.shape))
        return values, stats, places

    def _numbering(self, n: int, number: int, task: int) -> dict[str, np.ndarray]:
        start = self.written.frames
        numbered = {
            "timestamp": np.arange(n) / self.rate, "frame_index": np.arange(n), "episode_index": np.full(n, number),
            "index": np.arange(start, start + n), "task_index": np.full(n, task),
        }  # fmt: skip
        return {name: values.astype(DEFAULTS[name]) for name, values in numbered.items()}

    def write_meta(self, store: EpisodeStore, lost: Mapping[str, str]) -> None:
        """Write everything under `meta/` and `lost.json`."""
        written = self.written
        write_episodes(self.root, written.episodes, written.stats)
        write_tasks(self.root, written.tasks)
        stats = {
            feature: {name: value.tolist() for name, value in own.items()}
            for feature, own in joined(written.stats).items()
        }
        schema = replace(store.schema, spec=replace(store.schema.spec, control_hz=self.rate))
        about = {
            "format_version": 1, "schema": schema.to_dict(), "streams": stream_map(self.columns, store.schema),
            "episodes": written.about,
        }  # fmt: skip
        documents = {"meta/stats.json": stats, "meta/info.json": self._info(store), ABOUT: about, LOST: dict(lost)}
        for name, document in documents.items():
            (self.root / name).write_text(json.dumps(document, indent=1) + "\n", "utf-8")

    def _info(self, store: EpisodeStore) -> dict[str, Any]:
        written = self.written
        features = {c.feature: c.entry() for c in self.columns}
        for name, writer in self.videos.items():
            features[name]["info"] = writer.info()
        for name, dtype in DEFAULTS.items():
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        return {
            "codebase_version": VERSION, "robot_type": store.spec.name, "total_episodes": len(written.episodes),
            "total_frames": written.frames, "total_tasks": len(written.tasks), "chunks_size": 1000,
            "data_files_size_in_mb": TABLE_MB, "video_files_size_in_mb": FILE_MB,
            "fps": int(self.rate) if self.rate.is_integer() else self.rate,
            "splits": {"train": f"0:{len(written.episodes)}"}, "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.videos else None, "features": features,
        }  # fmt: skip


def _losses(store: EpisodeStore, export: _Export, seen: Survey, *, rate: float) -> dict[str, str]:
    """Return what the data set does not hold of the store, by field."""
    written, total, lost = export.written, len(seen.metas), {}
    if rate != store.spec.control_hz:
        lost["rate"] = f"frames at {rate:g} Hz are picked from data at {store.spec.control_hz:g} Hz"
    if written.off_grid:
        lost["streams at their own rates"] = (
            f"{written.off_grid} of {total} episodes: each tick has the newest sample, the others and the time since "
            "it was taken are gone; export-bag keeps them"
        )
    if written.shifted:
        lost["stamp_ns"] = f"{written.shifted} of {total} episodes: time starts at 0 and goes in steps of 1 / fps"
    if written.dropped:
        lost["ticks before the first action"] = f"{written.dropped} ticks, which have no action"
    if written.finals:
        lost["final_obs"] = f"{written.finals} of {total} episodes: the observation after the last action is no frame"
    for name, writer in export.videos.items():
        lost[name] = f"pixels: the video is {writer.info()['video.codec']}; export.videos=false keeps them exactly"
    partly = [n for n in ("action_executed", "reward", "by_human") if 0 < seen.counts.get(n, 0) < total]
    for name in partly:
        lost[f"{name} (where it is missing)"] = f"{total - seen.counts[name]} of {total} episodes: a neutral value"
    lost["schema and meta"] = (
        f"LeRobot has no place for units, bounds, outcome, source, seed and the rest; they are in {ABOUT}, which only "
        "robot_rl reads"
    )
    return lost
