"""How the store scales: opening many episodes, appending to a large store, tailing it, and recording at rate.

python -m benchmarks.store_scale [--episodes 10000] [--folder <where>]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import write_results
from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

MS = 1_000_000
SPEC = RobotSpec(
    name="scale",
    obs={"q": ArraySpec(name="q", shape=(7,))},
    action=ActionSpec(name="action", shape=(7,)),
    control_hz=20.0,
)
CAMERA = ArraySpec(name="camera", shape=(480, 640, 3), dtype="uint8")


def recording(n: int = 100) -> Recording:
    """Return a small on-grid recording."""
    stamps = np.arange(n + 1, dtype=np.int64) * 50 * MS
    q = np.arange(7 * (n + 1), dtype=np.float32).reshape(-1, 7)
    return Recording(
        {"q": Stream(stamps, q), "action": Stream(stamps[:n], q[:n])}, RecordingMeta(task="t", on_grid=True)
    )


def fill(store: EpisodeStore, folder: Path, count: int) -> None:
    """Fill a store to `count` episodes with copies of a real one (hard links: the test is of names, not of bytes)."""
    first = folder / "episodes" / store.append(recording(), id="fill-000000")
    document = json.loads((first / "episode.json").read_text())
    inside = [path.relative_to(first) for path in sorted(first.rglob("*"))]
    for i in range(1, count):
        target = first.with_name(f"fill-{i:06d}")
        target.mkdir()
        for path in inside:
            if (first / path).is_dir():
                (target / path).mkdir()
            elif path.name != "episode.json":
                os.link(first / path, target / path)
        (target / "episode.json").write_text(json.dumps({**document, "id": target.name}))


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Return how long each call took, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def append_from_another_process(url: str, count: int) -> None:
    """Append `count` episodes with pauses, writing id and time of return: the other side of `tail_ms`."""
    store, rng = EpisodeStore.open(url), np.random.default_rng(0)
    for _ in range(count):
        time.sleep(float(rng.uniform(0.05, 0.15)))
        id = store.append(recording())
        sys.stdout.write(f"{id} {time.monotonic_ns()}\n")
        sys.stdout.flush()


def tail_ms(store: EpisodeStore, count: int) -> list[float]:
    """Return how long after each commit returned in another process the tail here had the id (0 when before)."""
    command = [sys.executable, "-m", "benchmarks.store_scale", "--append-to", store.url, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen: dict[str, int] = {}
    for id in store.follow(stop=lambda: len(seen) >= count):
        seen[id] = time.monotonic_ns()
    output, _ = process.communicate()
    done = dict(line.split() for line in output.splitlines())
    return [max(0.0, (seen[id] - int(stamp)) / 1e6) for id, stamp in done.items()]


def live_ms(folder: Path, seconds: int) -> tuple[dict[str, list[float]], float]:
    """Return the times of live appends by stream and of the commit, for joints at 500 Hz and a camera at 30 Hz."""
    spec = RobotSpec(name="live", obs={**SPEC.obs, "camera": CAMERA}, action=SPEC.action, control_hz=20.0)
    store = EpisodeStore.create(folder / "live", spec)
    rng = np.random.default_rng(0)
    y = np.linspace(0, 200, 480)[:, None, None] + np.zeros((480, 640, 3))
    frames = [(y + rng.normal(0, 2, y.shape)).clip(0, 255).astype(np.uint8) for _ in range(4)]
    writer, row = store.writer(RecordingMeta()), np.zeros(7, np.float32)
    times: dict[str, list[float]] = {"q": [], "camera": [], "action": []}
    due = sorted(
        (int(i * 1e9 / hz), name)
        for name, hz in (("q", 500), ("camera", 30), ("action", 20))
        for i in range(seconds * hz)
    )
    start = time.monotonic_ns()
    for stamp, name in due:
        time.sleep(max(0.0, (start + stamp - time.monotonic_ns()) / 1e9))
        value = frames[len(times["camera"]) % 4] if name == "camera" else row
        times[name] += timed(lambda name=name, stamp=stamp, value=value: writer.append(name, stamp, value), 1)
    return times, timed(writer.commit, 1)[0]


def result(claim: str, times: Sequence[float], *, unit: str = "ms", **fields: Any) -> dict[str, Any]:
    """Return a row with the median, and p1, p99 and the maximum as the interval's reading."""
    p50, p99 = np.percentile(times, [50, 99])
    print(f"{claim}: p50 {p50:.2f}, p99 {p99:.2f}, max {max(times):.2f} {unit} (n = {len(times)})")
    spread = f"p99 {p99:.2f}, max {max(times):.2f}, n {len(times)}"
    return {"claim": f"{claim} (median; {spread})", "value": round(float(p50), 3), "unit": unit, **fields}


def run(folder: Path, episodes: int) -> list[dict[str, Any]]:
    """Measure everything in `folder`."""
    path = folder / "many"
    store = EpisodeStore.create(path, SPEC)
    few = timed(lambda: store.append(recording()), 30)
    fill(store, path, episodes)
    rebuild = timed(store.rebuild_index, 1)
    opening = timed(lambda: EpisodeStore.open(path), 5)
    many = timed(lambda: store.append(recording()), 30)
    tail = tail_ms(store, 40)
    live, commit = live_ms(folder, 5)
    return [
        result(f"open a store of {episodes} episodes", opening),
        result(f"rebuild the index of {episodes} episodes", rebuild),
        result("append an episode of 100 steps to a store of 0 to 30", few),
        result(f"append an episode of 100 steps to a store of {episodes}", many),
        result(f"a tail in another process sees an episode after its commit, store of {episodes}", tail),
        result("append one row of joints, live at 500 Hz", live["q"]),
        result("append one 480x640 picture as JPEG, live at 30 Hz", live["camera"]),
        result("commit an episode of 5 s", [commit]),
    ]


def main() -> None:
    """Run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--append-to", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.append_to is not None:
        append_from_another_process(options.append_to[0], int(options.append_to[1]))
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        write_results("store_scale", run(folder, options.episodes))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
