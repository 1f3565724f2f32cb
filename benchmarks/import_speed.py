"""How fast videos come into a store, beside decoding them alone, and how much memory that takes.

    python -m benchmarks.import_speed [--frames 240] [--episodes 4] [--repeats 5] [--threads 1] [--redraw]

Drawn 480x640 data sets (LeRobot v2.1, H.264 and AV1) and, where it is, the real robot's AV1 videos from
../shared/data/lerobot_g1_v21 ($ROBOT_RL_DATA). Decoding alone uses the same decoder with the same number of threads;
`to RGB` makes of each frame the array that a reader of the video needs, `bare` throws frames away undecoded to RGB.
The jobs of one repeat run one after the other, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from benchmarks._results import DOC_IMAGES, write_results
from benchmarks.store_codecs import scene
from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.video_frames import decode_frames, read_header
from robot_rl.evaluation.statistics import student_t

OUT = Path(__file__).resolve().parents[1] / "outputs" / "benchmarks" / "import_speed"
CAMERA = "observation.images.front"
FPS = 30
ENCODERS = {
    "h264": ("libx264", {"crf": "20", "g": "30", "preset": "veryfast"}),
    "av1": ("libsvtav1", {"crf": "30", "g": "30", "preset": "10"}),
}
"""Encoder and its options by codec; AV1 as LeRobot records it, but with an encoder setting that is fast."""
JOBS = ("bare", "rgb", "import")
NAMES = {"bare": "decoding alone, bare", "rgb": "decoding alone, to RGB", "import": "import into a store"}


def write_dataset(root: Path, codec: str, *, episodes: int, frames: int) -> Path:
    """Write a drawn data set of one camera, a state and an action; one that is there already stays."""
    if (root / "meta" / "info.json").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    (root / "meta").mkdir(parents=True)
    (root / "data" / "chunk-000").mkdir(parents=True)
    (root / "videos" / "chunk-000" / CAMERA).mkdir(parents=True)
    lines = []
    for e in range(episodes):
        pq.write_table(_rows(e, frames), root / "data" / "chunk-000" / f"episode_{e:06d}.parquet")
        _write_video(root / "videos" / "chunk-000" / CAMERA / f"episode_{e:06d}.mp4", codec, frames, seed=e)
        lines.append(json.dumps({"episode_index": e, "tasks": ["draw"], "length": frames}))
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    (root / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "draw"}\n')
    (root / "meta" / "info.json").write_text(json.dumps(_info(codec, episodes, frames)))
    return root


def _rows(episode: int, frames: int) -> pa.Table:
    steps = np.arange(frames)
    vector = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(steps, 7).astype(np.float32)), 7)
    return pa.table({
        "observation.state": vector, "action": vector, "timestamp": (steps / FPS).astype(np.float32),
        "frame_index": steps, "episode_index": np.full(frames, episode), "index": steps + episode * frames,
        "task_index": np.zeros(frames, np.int64),
    })  # fmt: skip


def _info(codec: str, episodes: int, frames: int) -> dict[str, Any]:
    vector = {"dtype": "float32", "shape": [7], "names": None}
    camera = {"dtype": "video", "shape": [480, 640, 3], "names": None, "info": {"video.codec": codec}}
    return {
        "codebase_version": "v2.1", "robot_type": "drawn", "fps": FPS, "chunks_size": 1000,
        "total_episodes": episodes, "total_frames": episodes * frames,
        "features": {"observation.state": vector, "action": vector, CAMERA: camera},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }  # fmt: skip


def _write_video(path: Path, codec: str, frames: int, *, seed: int) -> None:
    encoder, options = ENCODERS[codec]
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream: Any = out.add_stream(encoder, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = 480, 640, "yuv420p"
        for picture in scene(frames, seed):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def run_job(job: str, root: Path, threads: int) -> dict[str, float]:
    """Do one job in this process; returns frames, wall and processor seconds, and the growth of memory [MiB]."""
    data = open_dataset(root, threads=threads)
    broken = {i for d in data.defects if d.severity == "episode" for i in d.episodes}
    videos = [path for path in sorted(root.glob("videos/**/*.mp4"))]
    store = OUT / "store"
    shutil.rmtree(store, ignore_errors=True)
    before = _forget_peak_mib()
    start, cpu = time.perf_counter(), time.process_time()
    if job == "import":
        import_dataset(data, store, keep_sound=True)
        frames = sum(len(data.episode(i).streams["action"]) for i in range(len(data)) if i not in broken)
    else:
        frames = sum(_decode(path, threads, rgb=job == "rgb") for path in videos)
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    grown = _status_mib("VmHWM") - before
    shutil.rmtree(store, ignore_errors=True)
    return {"frames": frames, "wall_s": wall, "cpu_s": used, "grown_mib": grown}


def _forget_peak_mib() -> float:
    """Return the memory in use now [MiB], and have Linux count its peak from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mib("VmRSS")


def _status_mib(key: str) -> float:
    """Return a line of this process's status [MiB]: `VmRSS` now, `VmHWM` at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def _decode(path: Path, threads: int, *, rgb: bool) -> int:
    header = read_header(path)
    count = 0
    for frame in decode_frames(path, count=header.frames, fps=header.rate, threads=threads):
        if rgb:
            frame.to_ndarray(format="rgb24")
        count += 1
    return count


def measure(path: Path, sources: Mapping[str, Path], *, repeats: int, threads: int) -> list[dict[str, Any]]:
    """Return every job's figures, each from a fresh process; those that are in `path` already are not done again."""
    raw: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(r["source"], r["job"], r["repeat"]) for r in raw}
    wanted = [(s, j, r) for r in range(repeats) for s in sources for j in JOBS]
    with Progress() as progress:
        for source, job, repeat in progress.track(wanted, description="jobs"):
            if (source, job, repeat) in done:
                continue
            arguments = ["--job", job, "--root", str(sources[source]), "--threads", str(threads)]
            command = [sys.executable, "-m", "benchmarks.import_speed", *arguments]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            raw.append({"source": source, "job": job, "repeat": repeat, **json.loads(answer.splitlines()[-1])})
            path.write_text(json.dumps(raw, indent=1))
    return raw


def rows(raw: Sequence[Mapping[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Return the results: import beside decoding alone in each repeat, and memory."""
    found = []
    for source in dict.fromkeys(r["source"] for r in raw):
        rates = {j: _rates(raw, source, j) for j in JOBS}
        for against in ("rgb", "bare"):
            ratio = rates["import"] / rates[against]
            found.append({
                "claim": f"import / {NAMES[against]}; {source}, {threads} decoding thread(s)",
                "value": round(float(ratio.mean()), 3), "unit": "ratio of frames per second",
                "interval": _interval(ratio), "seeds": len(ratio),
                "baseline": f"{rates[against].mean():.0f} frames/s; the mark is 0.8",
            })  # fmt: skip
        grown = [r["grown_mib"] for r in raw if r["source"] == source and r["job"] == "import"]
        frames = next(r["frames"] for r in raw if r["source"] == source and r["job"] == "import")
        found.append({
            "claim": f"growth of peak memory while importing; {source}, {frames:.0f} frames of 480x640",
            "value": round(max(grown), 1), "unit": "MiB", "seeds": len(grown),
            "baseline": f"all frames decoded: {frames * 480 * 640 * 3 / 2**20:.0f} MiB",
        })  # fmt: skip
    return found


def _rates(raw: Sequence[Mapping[str, Any]], source: str, job: str) -> np.ndarray:
    own = sorted((r for r in raw if r["source"] == source and r["job"] == job), key=lambda r: r["repeat"])
    return np.array([r["frames"] / r["wall_s"] for r in own])


def _interval(ratio: np.ndarray) -> list[float] | None:
    if len(ratio) < 2:
        return None
    found = student_t(ratio)
    return [round(found.low, 3), round(found.high, 3)]


def draw(raw: Sequence[Mapping[str, Any]]) -> Path:
    """Draw frames per second of each job on each source."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sources = list(dict.fromkeys(r["source"] for r in raw))
    fig, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    for k, job in enumerate(JOBS):
        rates = [_rates(raw, source, job) for source in sources]
        places = np.arange(len(sources)) + 0.27 * (k - 1)
        spread = [[r.mean() - r.min() for r in rates], [r.max() - r.mean() for r in rates]]
        axes.bar(places, [r.mean() for r in rates], 0.25, yerr=spread, label=NAMES[job], capsize=3)
    axes.set(xticks=range(len(sources)), xticklabels=sources, ylabel="frames per second (480x640)")
    axes.legend()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    path = DOC_IMAGES / "import_speed.png"
    fig.savefig(path, dpi=120)
    plt.close(fig)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--redraw", action="store_true", help="write rows and plot of what was measured before")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if args.job:
        sys.stdout.write(json.dumps(run_job(args.job, args.root, args.threads)) + "\n")
        return
    name = f"{args.episodes}x{args.frames}"
    path = OUT / f"raw_{name}_{args.threads}.json"
    if args.redraw:
        raw = json.loads(path.read_text())
    else:
        sources = {
            f"drawn, {codec}": write_dataset(OUT / f"{codec}_{name}", codec, episodes=args.episodes, frames=args.frames)
            for codec in ENCODERS
        }
        real = Path(os.environ.get("ROBOT_RL_DATA", "../shared/data")) / "lerobot_g1_v21"
        if real.is_dir():
            sources["real robot, av1"] = real.resolve()
        raw = measure(path, sources, repeats=args.repeats, threads=args.threads)
    write_results("import_speed", rows(raw, args.threads))
    draw(raw)


if __name__ == "__main__":
    main()
