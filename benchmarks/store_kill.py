"""kill -9 a real writer at random moments: committed episodes must load, the one in flight be salvaged or reported.

python -m benchmarks.store_kill [--kills 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import write_results
from benchmarks._store_writer import SPEC, picture
from robot_rl.data.staging import staged
from robot_rl.data.store import EpisodeStore
from robot_rl.values import Recording

LONGEST_WAIT_S = 0.4


@dataclass
class Tally:
    """What happened over all kills."""

    kills: int = 0
    announced: int = 0
    loaded: int = 0
    wrong: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    salvaged_samples: int = 0


def check_values(recording: Recording) -> None:
    """Raise unless every sample is the one its index says.

    Raises:
        ValueError: Names the stream.
    """
    for name, stream in recording.streams.items():
        index = np.arange(len(stream))
        data = stream.data[:]
        wanted = [picture(int(i)) for i in index] if name == "camera" else np.repeat(index[:, None], 7, 1)
        error = np.abs(data.astype(float) - np.asarray(wanted, float)).max()
        if error > (3 if name == "camera" else 0):
            raise ValueError(f"stream {name}: a sample differs by {error} from what was recorded")


def kill_once(url: Path, *, wait_s: float, steps: int) -> set[str]:
    """Start a writer, kill it `wait_s` after its first sample reached the disk, and return the ids it announced."""
    command = [sys.executable, "-m", "benchmarks._store_writer", str(url), str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not staged(url / "staging") and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(wait_s)
    process.kill()
    output, _ = process.communicate()
    return set(output.split())


def check_store(url: Path, announced: set[str], tally: Tally) -> None:
    """Open the store, and count what loads, what was salvaged and what is wrong."""
    store = EpisodeStore.open(url)
    for found in store.found:
        tally.states[found.state] += 1
    ids = set(store.ids())
    for id in announced - ids:
        tally.wrong.append(f"{id}: committed and gone")
    on_disk = {path.name for path in (url / "episodes").iterdir() if path.is_dir()}
    left = staged(url / "staging")
    if on_disk != ids or left:
        tally.wrong.append(f"kill {tally.kills}: index against episodes/ {on_disk ^ ids}, left in staging {left}")
    for id in ids:
        try:
            store.verify(id)
            recording = store.read(id)
            check_values(recording)
            tally.loaded += 1
            if "salvaged" in recording.meta.extra:
                tally.salvaged_samples += sum(map(len, recording.streams.values()))
        except Exception as error:
            tally.wrong.append(f"{id}: {error}")
        store.delete(id)
    store.empty_trash()


def run(kills: int, seed: int) -> Tally:
    """Kill `kills` writers, one after the other, in one store."""
    rng, tally = np.random.default_rng(seed), Tally()
    with tempfile.TemporaryDirectory() as folder:
        url = Path(folder) / "store"
        EpisodeStore.create(url, SPEC)
        for _ in range(kills):
            # Short episodes make moments inside commit frequent, long ones moments inside append.
            steps = int(rng.choice([1, 4, 40, 100_000]))
            announced = kill_once(url, wait_s=float(rng.uniform(0, LONGEST_WAIT_S)), steps=steps)
            tally.kills += 1
            tally.announced += len(announced)
            check_store(url, announced, tally)
    return tally


def rows(tally: Tally, seed: int) -> list[dict[str, Any]]:
    """Return the result rows."""
    states = ", ".join(f"{state} {count}" for state, count in sorted(tally.states.items()))
    values = [
        ("writers killed with SIGKILL at random moments", tally.kills, "kills"),
        ("episodes committed before a kill", tally.announced, "episodes"),
        ("episodes that load with right checksums and values, salvaged ones included", tally.loaded, "episodes"),
        (f"episodes in flight: {states}", sum(tally.states.values()), "episodes"),
        ("samples salvaged", tally.salvaged_samples, "samples"),
    ]
    faults = {
        "claim": "committed episodes lost or damaged, or store not consistent after open",
        "value": len(tally.wrong), "unit": "faults", "seeds": [seed],
        "baseline": "LeRobotDataset 0.6: 0 of 12 saved episodes load after SIGKILL",
    }  # fmt: skip
    return [faults, *({"claim": c, "value": v, "unit": u, "seeds": [seed]} for c, v, u in values)]


def main() -> None:
    """Run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = run(options.kills, options.seed)
    for row in rows(tally, options.seed):
        print(f"{row['claim']}: {row['value']} {row['unit']}")
    print("\n".join(tally.wrong))
    write_results("store_kill", rows(tally, options.seed))
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
