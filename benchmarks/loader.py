"""Random training windows per second: our store and loader against LeRobotDataset, on the same frames and machine.

Protocol: 2 cameras 240x320, 7 state and 7 action numbers, windows of 2 observation and 16 action steps in random order.
Each side reads in a process of its own, in turn with the other, from the page cache. LeRobot needs its own environment:

    python3.12 -m venv ../lerobot_venv && ../lerobot_venv/bin/pip install 'lerobot[dataset]==0.6.1'
    apt-get install ffmpeg     # its video decoder (torchcodec) needs the shared libraries
    python -m benchmarks.loader --lerobot-python ../lerobot_venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._loader_report import plot, rows_of
from benchmarks._results import write_results
from robot_rl.data.dataset import LazyEpisodes
from robot_rl.data.loader import BatchLoader
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

CAMERAS = ("front", "wrist")
FPS = 20
WINDOW = WindowSpec(n_obs=2, horizon=16, action_offset=-1)
KEEP, DECODE = ["--memory-mib", "2048"], ["--memory-mib", "0"]
OURS = {
    "ours batch 64, pictures kept in memory": ["--batch-size", "64", "--threads", "2", "--prefetch", "2", *KEEP],
    "ours batch 64, every picture decoded": ["--batch-size", "64", "--threads", "2", "--prefetch", "2", *DECODE],
    "ours batch 64, decoded, one thread": ["--batch-size", "64", "--threads", "1", "--prefetch", "0", *DECODE],
    "ours batch 1, decoded, one thread": ["--batch-size", "1", "--threads", "1", "--prefetch", "0", *DECODE],
}
THEIRS = {
    "LeRobot video, item": ["--batch-size", "1"],
    "LeRobot video, batch 64": ["--batch-size", "64"],
    "LeRobot video, batch 64, 2 workers": ["--batch-size", "64", "--workers", "2"],
    "LeRobot image, item": ["--batch-size", "1"],
}


def scene(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return a picture sequence uint8 [n, 240, 320, 3]: a textured table, three moving blocks, sensor noise."""
    y, x = np.mgrid[:240, :320].astype(np.float32)
    coarse = rng.normal(0, 18, (31, 41, 3)).astype(np.float32)
    table = np.kron(coarse, np.ones((8, 8, 1), np.float32))[:240, :320]
    table += np.stack([90 + y / 4, 100 + x / 5, 110 + (x + y) / 8], axis=-1)
    frames = np.empty((n, 240, 320, 3), np.uint8)
    start, speed = rng.uniform(40, 200, (3, 2)), rng.uniform(-1.5, 1.5, (3, 2))
    colour = rng.uniform(20, 235, (3, 3))
    for i in range(n):
        picture = table.copy()
        for block in range(3):
            cy, cx = start[block] + i * speed[block]
            picture[(abs(y - cy) < 22) & (abs(x - cx) < 22)] = colour[block]
        noisy = picture + rng.normal(0, 2, (240, 320, 1))
        frames[i] = np.clip(noisy, 0, 255)
    return frames


def make_frames(folder: Path, *, episodes: int, steps: int) -> None:
    """Write episode files that both sides read, seeded."""
    folder.mkdir()
    for e in range(episodes):
        rng = np.random.default_rng(e)
        arrays: dict[str, Any] = {camera: scene(rng, steps) for camera in CAMERAS}
        for key in ("state", "action"):
            arrays[key] = rng.normal(size=(steps, 7)).astype(np.float32).cumsum(axis=0)
        np.savez(folder / f"{e:04d}.npz", **arrays)


def robot() -> RobotSpec:
    """Return the spec of the benchmark's arrays."""
    obs = {camera: ArraySpec(name=camera, shape=(240, 320, 3), dtype="uint8") for camera in CAMERAS}
    obs["state"] = ArraySpec(name="state", shape=(7,), unit="rad")
    return RobotSpec(name="bench", obs=obs, action=ActionSpec(name="action", shape=(7,), unit="rad"), control_hz=FPS)


def write_store(frames: Path, url: Path) -> None:
    """Append every episode to a new store (JPEG quality 95, the store's default)."""
    store = EpisodeStore.create(url, robot())
    for path in sorted(frames.glob("*.npz")):
        data = np.load(path)
        stamp_ns = np.arange(len(data["action"]), dtype=np.int64) * robot().step_ns
        streams = {name: Stream(stamp_ns, data[name]) for name in (*CAMERAS, "state", "action")}
        store.append(Recording(streams, RecordingMeta(on_grid=True)))


def open_store(url: Path, threads: int, memory_mib: int = 0) -> WindowDataset:
    """Open the store's windows."""
    store = EpisodeStore.open(url)
    episodes = LazyEpisodes(store.ids(), store.episode)
    return WindowDataset(episodes, WINDOW, threads=threads, max_memory_bytes=memory_mib * 2**20)


def measure_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Count samples of shuffled batches for `args.seconds`; where pictures are kept, from the second epoch on."""
    data = open_store(args.root, args.threads, args.memory_mib)
    with BatchLoader(data, args.batch_size, seed=args.seed, prefetch=args.prefetch) as loader:
        count = 0
        for _ in range(len(loader) if args.memory_mib else 1):
            next(loader)
        start, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - start < args.seconds:
            count += len(next(loader))
        wall, used = time.perf_counter() - start, time.process_time() - cpu
    data.close()
    return {"samples": count, "wall_s": wall, "cpu_s": used}


def call(command: Sequence[str | Path]) -> str:
    """Run a command and return what it printed last.

    Raises:
        RuntimeError: It failed; carries the end of its error output.
    """
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def disk_mb(folder: Path) -> float:
    """Return the size of all files below a folder in megabytes (1e6 bytes)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def rms_error(frames: np.ndarray, truth: np.ndarray) -> float:
    """Return the root mean square difference in grey levels of 255."""
    return float(np.sqrt(np.mean(np.square(frames.astype(np.float64) - truth))))


def check_same(work: Path, lerobot: list[str | Path], kind: str) -> tuple[float, float]:
    """Raise unless both sides give the same windows; return the RMS error of our and their first camera in grey levels.

    Raises:
        RuntimeError: A low-dimensional value or a mask differs.
    """
    out = work / f"check_{kind}.npz"
    call([*lerobot, "check", "--root", work / kind, "--out", out])
    theirs, ours = np.load(out), open_store(work / "store", threads=1)
    index = np.arange(0, len(ours), max(1, len(ours) // 16))
    batch = ours.gather(index)
    same = {
        "action": np.array_equal(batch.action, theirs["action"]),
        "state": np.array_equal(batch.obs["state"], theirs["observation.state"]),
        "mask": np.array_equal(~batch.mask, theirs["action_is_pad"]),
    }
    if not all(same.values()):
        raise RuntimeError(f"the two sides do not give the same windows: {same}")
    files = sorted((work / "frames").glob("*.npz"))
    truth = np.concatenate([np.load(path)["front"] for path in files])[index]
    newest = theirs["observation.images.front"][:, -1].transpose(0, 2, 3, 1)
    newest = newest if newest.dtype == np.uint8 else np.rint(newest * 255.0)
    return rms_error(batch.obs["front"][:, -1], truth), rms_error(newest, truth)


def prepare(work: Path, lerobot: list[str | Path], args: argparse.Namespace) -> dict[str, float]:
    """Write the same frames into the three layouts, check them, and return sizes in MB and errors in grey levels."""
    if not (work / "frames").exists():
        make_frames(work / "frames", episodes=args.episodes, steps=args.steps)
        write_store(work / "frames", work / "store")
        for kind in ("video", "image"):
            flags = ["--image"] if kind == "image" else []
            call([*lerobot, "write", "--frames", work / "frames", "--root", work / kind, "--fps", str(FPS), *flags])
    facts = {f"MB {kind}": disk_mb(work / kind) for kind in ("store", "video", "image")}
    facts["grey store"], facts["grey video"] = check_same(work, lerobot, "video")
    facts["grey image"] = check_same(work, lerobot, "image")[1]
    return facts


class Side:
    """A process that times random windows each time it is asked, so that the sides can take short turns."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._answer()  # it says when it is ready, so that no start-up falls into another side's turn

    def ask(self, flags: Sequence[str]) -> dict[str, Any]:
        """Return samples, wall_s and cpu_s of one timed run.

        Raises:
            RuntimeError: The process ended; carries the end of its error output.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(flags) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self._errors.seek(0)
        raise RuntimeError(f"{self._process.args!r} ended early: {self._errors.read()[-2000:]}")

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        self._errors.close()


def run_rounds(work: Path, lerobot: list[str | Path], args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Time every way of reading in turn, `args.rounds` times over."""
    serve: list[str | Path] = [*lerobot, "serve", "--fps", str(FPS), "--root"]
    ours = Side([sys.executable, "-m", "benchmarks.loader", "--side", "--root", work / "store"])
    # One process each: its workers cannot be forked from one that has opened a video decoder.
    theirs = {name: Side([*serve, work / ("image" if "image" in name else "video")]) for name in THEIRS}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*OURS, *THEIRS)}
    for seed in range(args.rounds):
        for name, flags in {**OURS, **THEIRS}.items():
            load = os.getloadavg()[0]
            result = theirs.get(name, ours).ask([*flags, "--seconds", str(args.seconds), "--seed", str(seed)])
            runs[name].append(result | {"load": load})
            print(f"{name}: {result['samples'] / result['wall_s']:.1f}/s, load {load:.1f}", flush=True)
    for process in (ours, *theirs.values()):
        process.close()
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", type=Path, help="python of an environment with lerobot[dataset]")
    parser.add_argument("--workdir", type=Path, help="keep the data here; default: a temporary folder")
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one timed run")
    side = parser.add_argument_group("one side only (used by the benchmark itself)")
    side.add_argument("--side", action="store_true")
    side.add_argument("--root", type=Path)
    side.add_argument("--batch-size", type=int, default=64)
    side.add_argument("--threads", type=int, default=2)
    side.add_argument("--prefetch", type=int, default=2)
    side.add_argument("--memory-mib", type=int, default=0)
    side.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.side:
        print("{}", flush=True)
        for line in sys.stdin:
            asked = parser.parse_args(["--side", "--root", str(args.root), *line.split()])
            print(json.dumps(measure_ours(asked)), flush=True)
        return
    if args.lerobot_python is None:
        parser.error("--lerobot-python is needed; see the top of this file for how to make one")
    lerobot: list[str | Path] = [args.lerobot_python, Path(__file__).with_name("_loader_lerobot.py")]
    with tempfile.TemporaryDirectory() as scratch:
        work = args.workdir or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        facts = prepare(work, lerobot, args)
        runs = run_rounds(work, lerobot, args)
    write_results("loader", rows_of(runs, facts, args.rounds))
    plot(runs, facts)


if __name__ == "__main__":
    main()
