"""Does `LeRobotDataset` open what we export, with equal arrays? Runs where lerobot is installed (`make test-lerobot`).

    .venv-lerobot/bin/python -m benchmarks.lerobot_opens --source <LeRobot data set>

Imports the data set, exports it again, opens the export with lerobot's own reader and compares every number of every
frame with the store; where there are cameras, every picture too. What is in `raw.json` already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks._results import write_results
from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.lerobot_columns import columns_of, survey
from robot_rl.data.lerobot_export import export_lerobot
from robot_rl.data.store import EpisodeStore

PARTS = {"G1 without cameras": ("low", False), "G1 with cameras, AV1": ("cameras", True)}
"""What is measured -> (folder under `--out`, whether cameras are taken)."""
_COMMAND = "python -m benchmarks.lerobot_opens --source G1_DATA_SET"


@dataclass(frozen=True)
class Opened:
    """What lerobot found in an export.

    Args:
        episodes: Episodes that it lists.
        frames: Frames that it lists.
        numbers: Numbers compared.
        unequal: How many of them differ from the store's.
        pictures: Pictures compared.
        worst_psnr_db: The worst picture's ratio of peak to error; infinite where all are exact, None without any.
        median_psnr_db: Likewise of the picture in the middle.
    """

    episodes: int
    frames: int
    numbers: int
    unequal: int
    pictures: int
    worst_psnr_db: float | None
    median_psnr_db: float | None


def open_in_lerobot(store: EpisodeStore, root: Path, *, pictures: bool = True) -> Opened:
    """Return how an export compares with the store it came from, read by lerobot.

    Args:
        store: The store.
        root: What `export_lerobot` made of it.
        pictures: Compare pictures too, each decoded on its own as training does.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(f"local/{root.name}", root=root)
    columns, _ = columns_of(store.schema, survey(store), videos=dataset.meta.video_keys != [])
    numbers = {c.feature: c for c in columns if not c.is_picture}
    cameras = {c.feature: c for c in columns if c.is_picture} if pictures else {}
    table = dataset.hf_dataset.select_columns(list(numbers)).with_format("arrow")
    compared = unequal = start = 0
    ratios: list[float] = []
    for id in track(store.ids(), description="comparing"):
        episode = store.episode(id)
        rows = table[start : start + len(episode)]
        for feature, column in numbers.items():
            mine = np.asarray(column.rows(episode)[:]).reshape(len(episode), -1)
            theirs = np.array(rows[feature].to_pylist()).astype(mine.dtype).reshape(len(episode), -1)
            compared, unequal = compared + mine.size, unequal + int((~_same(mine, theirs)).sum())
        for i in range(len(episode)) if cameras else ():
            item = dataset[start + i]
            for feature, column in cameras.items():
                ratios.append(_psnr(column.rows(episode)[i], item[feature].numpy()))
        start += len(episode)
    worst, median = (float(min(ratios)), float(np.median(ratios))) if ratios else (None, None)
    return Opened(dataset.meta.total_episodes, len(dataset), compared, unequal, len(ratios), worst, median)


def _same(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    both_nan = np.isnan(mine) & np.isnan(theirs) if mine.dtype.kind == "f" else np.zeros(mine.shape, bool)
    return np.asarray((mine == theirs) | both_nan)


def _psnr(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Return the ratio in decibels of a picture [H, W, C] and lerobot's [C, H, W] in [0, 1]."""
    error = float(np.mean((mine.astype(np.float64) - theirs.transpose(1, 2, 0).astype(np.float64) * 255.0) ** 2))
    return float("inf") if error < 1e-6 else 10 * np.log10(255.0**2 / error)


def rows(raw: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return result rows of what was measured: part of the data set -> `Opened` as plain values."""
    made: list[dict[str, Any]] = []
    for part, found in raw.items():
        equal = found["numbers"] - found["unequal"]
        size = f"{found['episodes']} episodes, {found['frames']} frames"
        claim = f"{part}, {size}: equal of {found['numbers']} numbers in LeRobotDataset"
        made.append({"claim": claim, "value": 100.0 * equal / max(found["numbers"], 1), "unit": "%", "baseline": "100"})
        for name in ("worst", "median") if found["pictures"] else ():
            claim = (
                f"{part}, {size}: {name} of {found['pictures']} pictures that LeRobotDataset decodes, against the store"
            )
            made.append({"claim": claim, "value": round(found[f"{name}_psnr_db"], 2), "unit": "dB PSNR"})
            if name == "worst":
                made[-1]["baseline"] = "at least 30"
    return [{**row, "command": _COMMAND} for row in made]


def measure(source: Path, out: Path, *, videos: bool, limit: int | None) -> Opened:
    """Import `source`, export it to `out` and look at that with lerobot."""
    dataset = open_dataset(source, videos=videos)
    store_url, target = out / "store", out / "export"
    for folder in (store_url, target):
        shutil.rmtree(folder, ignore_errors=True)
    import_dataset(dataset, store_url, source=source, keep_sound=True, limit=limit)
    store = EpisodeStore.open(store_url)
    export_lerobot(store, target)
    return open_in_lerobot(store, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a LeRobot data set")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/lerobot_opens"))
    parser.add_argument("--camera-episodes", type=int, default=None, help="only so many of the episodes with videos")
    args = parser.parse_args()
    kept = args.out / "raw.json"
    raw = json.loads(kept.read_text()) if kept.is_file() else {}
    for part, (name, videos) in PARTS.items():
        if part not in raw:
            limit = args.camera_episodes if videos else None
            raw[part] = asdict(measure(args.source, args.out / name, videos=videos, limit=limit))
            kept.write_text(json.dumps(raw, indent=1) + "\n")
    write_results("lerobot_opens", rows(raw))


if __name__ == "__main__":
    main()
