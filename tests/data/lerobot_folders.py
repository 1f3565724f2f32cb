"""Small LeRobot data sets that tests make: every value says which episode and frame it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError

FPS = 20
LENGTHS = (12, 9, 15)
HEIGHT, WIDTH = 48, 64
TASKS = ("pick", "place", "pick")
CAMERA = "observation.images.front"


def picture(episode: int, frame: int) -> np.ndarray:
    """Return an RGB picture of three flat bands whose levels tell the episode and the frame."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :24] = (40 + 12 * frame, 60, 90)
    image[:, 24:48] = (120, 40 + 12 * frame, 50)
    image[:, 48:] = (80, 70, 60 + 50 * episode)
    return image


def write_video(
    path: Path, frames: list[np.ndarray], *, codec: str = "libx264", options: Mapping[str, str] | None = None
) -> None:
    """Write frames as mp4, near lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream(codec, rate=FPS)
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        stream.options = {"crf": "4", "g": "4", **(options or {})}
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def features(kind: str | None) -> dict[str, Any]:
    """Return the `features` of info.json; `kind` is `video`, `image` or `None` for no camera."""
    number = {"dtype": "int64", "shape": [1], "names": None}
    found: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": [["a", "b", "c"]]},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "next.success": {"dtype": "bool", "shape": [1], "names": None},
        "effort": {"dtype": "float64", "shape": [2, 2], "names": None},
    }
    if kind is not None:
        found[CAMERA] = {"dtype": kind, "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
        if kind == "video":
            found[CAMERA]["info"] = {"video.codec": "h264", "video.fps": FPS, "video.is_depth_map": False}
    return found | {"timestamp": {"dtype": "float32", "shape": [1], "names": None}} | {
        name: dict(number) for name in ("frame_index", "episode_index", "index", "task_index")
    }  # fmt: skip


def columns(episode: int, kind: str | None = None) -> dict[str, Any]:
    """Return the rows of an episode, column by column; `value[i] = 100 * episode + i` and so on."""
    n, first = LENGTHS[episode], sum(LENGTHS[:episode])
    steps = np.arange(n)
    state = np.stack([100 * episode + steps, steps / 2, np.full(n, episode)], 1).astype(np.float32)
    action = np.stack([1000 + 100 * episode + steps, -steps], 1).astype(np.float32)
    effort = (episode + np.arange(4 * n).reshape(n, 2, 2) / 3).astype(np.float64)
    last = steps == n - 1
    found: dict[str, Any] = {
        "observation.state": list(state), "action": list(action), "next.reward": (steps / 10).astype(np.float32),
        "next.done": last, "next.success": last & (episode != 1), "effort": [[list(r) for r in e] for e in effort],
        "timestamp": (steps / FPS).astype(np.float32), "frame_index": steps,
        "episode_index": np.full(n, episode), "index": first + steps,
        "task_index": np.full(n, 1 if TASKS[episode] == "place" else 0),
    }  # fmt: skip
    if kind == "image":
        found[CAMERA] = [{"bytes": png(picture(episode, i)), "path": f"frame_{i:06d}.png"} for i in range(n)]
    return found


def png(image: np.ndarray) -> bytes:
    """Return a picture as PNG bytes."""
    return bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def table(found: Mapping[str, Any]) -> pa.Table:
    """Return columns as the table that LeRobot writes: vectors as lists of float32."""
    types = {"observation.state": pa.list_(pa.float32(), 3), "action": pa.list_(pa.float32(), 2)}
    return pa.table({name: pa.array(list(v), types.get(name)) for name, v in found.items()})


def statistics(episode: int) -> dict[str, Any]:
    """Return the statistics of one episode as episodes_stats.jsonl has them."""
    found = columns(episode)
    out = {}
    for name in ("observation.state", "action"):
        values = np.stack(found[name]).astype(np.float64)
        out[name] = {
            "min": values.min(0).tolist(), "max": values.max(0).tolist(), "mean": values.mean(0).tolist(),
            "std": values.std(0).tolist(), "count": [len(values)],
        }  # fmt: skip
    return out


def _info(version: str, kind: str | None) -> dict[str, Any]:
    v2 = version != "v3.0"
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    return {
        "codebase_version": version, "robot_type": "toy", "fps": FPS, "chunks_size": 1000,
        "total_episodes": len(LENGTHS), "total_frames": sum(LENGTHS), "total_tasks": 2, "splits": {"train": "0:3"},
        "data_path": data if v2 else "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": video if v2 else "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features(kind),
    }  # fmt: skip


def _json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_v2(root: Path, *, kind: str | None = None, version: str = "v2.1") -> Path:
    """Write a data set of codebase v2.0 or v2.1: one parquet and one mp4 per episode."""
    (root / "meta").mkdir(parents=True)
    (root / "data" / "chunk-000").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(_info(version, kind)))
    _json_lines(root / "meta" / "tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(("pick", "place"))])
    numbers = range(len(LENGTHS))
    rows = [{"episode_index": e, "tasks": [TASKS[e]], "length": LENGTHS[e]} for e in numbers]
    _json_lines(root / "meta" / "episodes.jsonl", rows)
    if version == "v2.1":
        stats = [{"episode_index": e, "stats": statistics(e)} for e in numbers]
        _json_lines(root / "meta" / "episodes_stats.jsonl", stats)
    for e in numbers:
        pq.write_table(table(columns(e, kind)), root / "data" / "chunk-000" / f"episode_{e:06d}.parquet")
        if kind == "video":
            frames = [picture(e, i) for i in range(LENGTHS[e])]
            write_video(root / "videos" / "chunk-000" / CAMERA / f"episode_{e:06d}.mp4", frames)
    return root


def write_v3(root: Path, *, kind: str | None = None) -> Path:
    """Write a data set of codebase v3.0: episodes 0 and 1 share a parquet file, and all share one mp4."""
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(_info("v3.0", kind)))
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": ["pick", "place"]})
    pq.write_table(tasks, root / "meta" / "tasks.parquet")
    files, starts = (0, 0, 1), np.cumsum([0, *LENGTHS])
    rows = []
    for e, length in enumerate(LENGTHS):
        row = {
            "episode_index": e, "tasks": [TASKS[e]], "length": length, "data/chunk_index": 0,
            "data/file_index": files[e], "dataset_from_index": int(starts[e]), "dataset_to_index": int(starts[e + 1]),
        }  # fmt: skip
        for name, values in statistics(e).items():
            row |= {f"stats/{name}/{key}": value for key, value in values.items()}
        if kind == "video":
            row |= {f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": 0}
            span = (starts[e] / FPS, starts[e + 1] / FPS)
            row |= {f"videos/{CAMERA}/{key}_timestamp": float(t) for key, t in zip(("from", "to"), span, strict=True)}
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    first = pa.concat_tables([table(columns(0, kind)), table(columns(1, kind))])
    pq.write_table(first, root / "data" / "chunk-000" / "file-000.parquet")
    pq.write_table(table(columns(2, kind)), root / "data" / "chunk-000" / "file-001.parquet")
    if kind == "video":
        frames = [picture(e, i) for e in range(len(LENGTHS)) for i in range(LENGTHS[e])]
        write_video(root / "videos" / CAMERA / "chunk-000" / "file-000.mp4", frames)
    return root


def change_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change info.json in place."""
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_rows(root: Path, episode: int, change: Callable[[dict[str, Any]], None], kind: str | None = None) -> None:
    """Write the parquet file of a v2 episode again, its columns changed."""
    found = columns(episode, kind)
    change(found)
    pq.write_table(table(found), root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet")


def video_of(root: Path, episode: int) -> Path:
    """Return the mp4 of a v2 episode."""
    return root / "videos" / "chunk-000" / CAMERA / f"episode_{episode:06d}.mp4"


def data_of(root: Path, episode: int) -> Path:
    """Return the parquet file of a v2 episode."""
    return root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"


def found(root: Path, **options: Any) -> list[tuple[str, tuple[int, ...], str]]:
    """Return (severity, episodes, text) of every defect."""
    return [(d.severity, d.episodes, f"{d.where}: {d.what}") for d in open_dataset(root, **options).defects]


def only(root: Path, **options: Any) -> tuple[str, tuple[int, ...], str]:
    """Return the one defect of a data set."""
    defects = found(root, **options)
    assert len(defects) == 1, defects
    return defects[0]


def sound_ones(root: Path, store: Path, **options: Any) -> list[int]:
    """Import what is sound, and return the episodes that came in."""
    data = open_dataset(root, **options)
    if any(d.severity == "episode" for d in data.defects):
        with pytest.raises(DataFormatError, match=r"import\.skip_broken=true"):
            import_dataset(data, store)
        assert not EpisodeStore.exists(store)
    import_dataset(data, store, keep_sound=True)
    return [int(id[-6:]) for id in EpisodeStore.open(store).ids()]
