"""What goes wrong in mid-episode, one thing at a time: does motion stop in time, is it named, is the store whole?

Each case starts the graph `deploy` afresh with a policy that turns the first joint, disturbs it, and watches joint
speeds and final commands. Run it on a machine with nothing else to do: a busy one stops the arm by itself.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._fault_cell import FaultCell, Parameters, fault_cell, faulty_streams
from benchmarks._results import write_results
from robot_rl.data.store import EpisodeStore

PERIOD_S = 0.05  # of the policy
TRIES = 3


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong.

    Args:
        what: In words.
        disturb: Does it and returns when (monotonic seconds).
        bound_s: Time-out of the stream that is lost plus one period; `None` where motion may go on.
        changes: Parameters of the graph's nodes, given a folder for files.
    """

    what: str
    disturb: Callable[[FaultCell], float]
    bound_s: float | None
    changes: Callable[[Path], Parameters] = lambda folder: {}


@dataclass(frozen=True)
class Finding:
    """What came of it."""

    frozen_s: float
    still_s: float
    moved_again: bool
    reason: str
    named: dict[str, str]
    whole: bool
    salvaged: int


def kill(name: str) -> Callable[[FaultCell], float]:
    """Return a disturbance that kills a node with -9."""
    return lambda cell: cell.kill(name)


def stall(name: str, seconds: float) -> Callable[[FaultCell], float]:
    """Return a disturbance that stops a node's process for a while."""

    def disturb(cell: FaultCell) -> float:
        since = cell.signal(name, signal.SIGSTOP)
        time.sleep(seconds)
        cell.signal(name, signal.SIGCONT)
        return since

    return disturb


def on_simulated_time(folder: Path) -> Parameters:
    """Replace camera `front` by a recorded one that stamps by /clock, which can jump."""
    np.save(folder / "frames.npy", np.random.default_rng(0).integers(0, 255, (30, 96, 96, 3), dtype=np.uint8))
    camera = {"source": str(folder / "frames.npy"), "fps": 30.0, "use_sim_time": True}
    node = {"__module__": "robot_rl_ros.camera_node", "__config__": "camera_recorded.yaml"}
    return {"camera_front": {**camera, **node}}


CASES = {
    "camera killed": Case("camera `front` killed with -9", kill("camera_front"), 0.15 + 1 / 30),
    "camera stalls": Case("camera `front` stalls for 0.5 s", stall("camera_front", 0.5), 0.15 + 1 / 30),
    "camera's clock jumps ahead": Case(
        "the clock of camera `front` jumps by +1 s", lambda cell: cell.jump_clock(1.0), 0.15 + 1 / 30, on_simulated_time
    ),
    "camera's clock jumps back": Case(
        "the clock of camera `front` jumps by -1 s",
        lambda cell: cell.jump_clock(-1.0),
        0.15 + 1 / 30,
        on_simulated_time,
    ),
    "camera is slow": Case(
        "camera `wrist` runs at 10 Hz instead of 30",
        lambda cell: time.monotonic(),
        None,
        lambda folder: {"camera_wrist": {"fps": 10.0}},
    ),
    "joints stall": Case("joint states stall for 0.5 s", stall("sim_robot", 0.5), 0.1 + 0.01),
    "policy killed": Case("policy killed with -9", kill("policy"), 0.1 + PERIOD_S),
    "policy stalls": Case("policy stalls for 0.5 s", stall("policy", 0.5), 0.1 + PERIOD_S),
    "supervisor killed": Case("supervisor killed with -9", kill("supervisor"), 0.1 + 0.01),
    "safety killed": Case("safety node killed with -9", kill("safety"), 0.1 + 0.01),
    "recorder killed": Case("recorder killed with -9", kill("recorder"), None),
}


def play(case: Case, folder: Path) -> Finding | None:
    """Return what came of a case, or `None` when the arm did not even move undisturbed."""
    with fault_cell(folder, case.changes(folder)) as cell:
        if not cell.start():
            return None
        since = case.disturb(cell)
        time.sleep(1.0)
        frozen, still = cell.stopped_after_s(since)
        again = cell.moved_again(since)
        reason = str(cell.log.texts["safety/state"].get("reason", ""))
        if cell.log.state("episode/status") == "running" and "supervisor" in cell.running.names:
            cell.call("supervisor/failure")
        time.sleep(1.0)
    return _finding(folder / "store", frozen, still, again, reason)


def _finding(url: Path, frozen: float, still: float, again: bool, reason: str) -> Finding:
    store = EpisodeStore.open(url)
    whole = all(len(store.episode(id)) > 0 for id in store.ids())
    named = faulty_streams(store) if store.ids() else {}
    return Finding(frozen, still, again, reason, named, whole, len(store.found))


def _rows(case: Case, found: list[Finding]) -> list[dict[str, Any]]:
    frozen, still = ([getattr(f, name) * 1e3 for f in found] for name in ("frozen_s", "still_s"))
    named = sorted({name for f in found for name in f.named})
    told = next((f.reason for f in found if f.reason), "none")
    rows: list[dict[str, Any]] = [
        {"claim": f"{case.what}: store whole afterwards; verdict names {named}; safety says: {told}",
         "value": float(all(f.whole for f in found)), "unit": ""},
    ]  # fmt: skip
    if case.bound_s is not None:
        again = sum(f.moved_again for f in found)
        bound = f"bound {case.bound_s * 1e3:.0f} ms; moved again in {again} of {len(found)}"
        rows += [
            {"claim": f"{case.what}: last change of the final command, {bound}", "value": round(max(frozen), 1),
             "unit": "ms", "interval": [round(min(frozen), 1), round(max(frozen), 1)]},
            {"claim": f"{case.what}: arm below 0.02 rad/s", "value": round(float(np.median(still)), 1), "unit": "ms",
             "interval": [round(min(still), 1), round(max(still), 1)]},
        ]  # fmt: skip
    return rows


def main() -> None:
    """Play every case and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=sorted(CASES))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, case in CASES.items():
        if arguments.only not in (None, name):
            continue
        found: list[Finding] = []
        for _ in range(arguments.repeats + TRIES):
            try:
                with tempfile.TemporaryDirectory() as folder:
                    finding = play(case, Path(folder))
            except TimeoutError as error:
                print(f"{case.what}: {error}; tried again")
                finding = None
            found += [finding] if finding is not None else []
            if len(found) == arguments.repeats:
                break
        if not found:
            print(f"{case.what}: NOT MEASURED, the arm did not move undisturbed; this machine is too busy")
            continue
        rows += _rows(case, found)
        for row in rows[-3:]:
            print(row)
        if arguments.only is None:
            write_results("node_faults", rows)


if __name__ == "__main__":
    main()
