"""The LeRobot side of benchmarks/loader.py; runs in LeRobot's own environment and imports nothing of ours.

`write` makes a data set of the frames in a folder; `check` saves some windows; `serve` times random windows of it, once
for each line of settings on standard input, and answers each with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERAS = ("front", "wrist")


def write(frames: Path, root: Path, *, video: bool, fps: int) -> None:
    """Write every episode of `frames` into a new data set, with the library's default encoder."""
    kind = "video" if video else "image"
    picture = {"dtype": kind, "shape": (240, 320, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (7,), "names": None}
    features = {f"observation.images.{c}": picture for c in CAMERAS} | {"observation.state": vector, "action": vector}
    data = LeRobotDataset.create("local/loader", fps, features, root=root, use_videos=video)
    for path in sorted(frames.glob("*.npz")):
        episode = np.load(path)
        for n in range(len(episode["action"])):
            row = {f"observation.images.{c}": episode[c][n] for c in CAMERAS}
            data.add_frame(
                row | {"observation.state": episode["state"][n], "action": episode["action"][n], "task": "t"}
            )
        data.save_episode()
    data.finalize()


def open_windows(root: Path, fps: int) -> LeRobotDataset:
    """Open the data set with 2 observation and 16 action steps, pictures as uint8 as ours gives them."""
    observed = [-1 / fps, 0.0]
    deltas = {f"observation.images.{c}": observed for c in CAMERAS}
    deltas |= {"observation.state": observed, "action": [n / fps for n in range(-1, 15)]}
    return LeRobotDataset("local/loader", root=root, delta_timestamps=deltas, return_uint8=True)


def samples(data: LeRobotDataset, *, batch_size: int, workers: int, seed: int) -> Iterator[int]:
    """Yield how many samples each random access gave: items when `batch_size` is 1, else the library's loader."""
    generator = torch.Generator().manual_seed(seed)
    if batch_size == 1:
        for i in torch.randperm(len(data), generator=generator).tolist():
            yield len(data[i]["action"]) // 16
        return
    loader = torch.utils.data.DataLoader(
        data, batch_size=batch_size, shuffle=True, num_workers=workers, generator=generator, drop_last=True
    )
    for batch in loader:
        yield len(batch["action"])


def measure(data: LeRobotDataset, args: argparse.Namespace) -> dict[str, Any]:
    """Count samples for `args.seconds` after one warm-up access."""
    stream, seed, count = samples(data, batch_size=args.batch_size, workers=args.workers, seed=args.seed), args.seed, 0
    next(stream)
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < args.seconds:
        got = next(stream, None)
        if got is None:
            seed += 1
            stream = samples(data, batch_size=args.batch_size, workers=args.workers, seed=seed)
            continue
        count += got
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    return {"samples": count, "wall_s": wall, "cpu_s": used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=["write", "serve", "check"])
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--fps", type=int, default=20)
    parser.add_argument("--image", action="store_true")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.disable(logging.INFO)
    if args.job == "write":
        write(args.frames, args.root, video=not args.image, fps=args.fps)
        return
    data = open_windows(args.root, args.fps)
    if args.job == "serve":
        print("{}", flush=True)
        for line in sys.stdin:
            asked = parser.parse_args([args.job, "--root", str(args.root), *line.split()])
            print(json.dumps(measure(data, asked)), flush=True)
        return
    items = [data[i] for i in range(0, len(data), max(1, len(data) // 16))]
    arrays: dict[str, Any] = {
        key: np.stack([np.asarray(item[key]) for item in items]) for key in items[0] if key != "task"
    }
    np.savez(args.out, **arrays)


if __name__ == "__main__":
    main()
