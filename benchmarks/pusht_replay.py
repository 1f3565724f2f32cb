"""Replays the 206 human PushT demonstrations in our Env: `python -m benchmarks.pusht_replay <replay buffer .zarr>`."""

from __future__ import annotations

import sys

import numpy as np
import zarr

from benchmarks._results import write_results
from sim.pusht import PushTEnv, replay_episode


def _errors(path: str, *, open_loop: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return position errors [N, 4] in px and angle errors [N] in rad of every episode."""
    group = zarr.open_group(path, mode="r")
    states, actions = np.asarray(group["data/state"]), np.asarray(group["data/action"])
    env, begin = PushTEnv(), 0
    position, angle = [], []
    for end in np.asarray(group["meta/episode_ends"]).tolist():
        replay = replay_episode(env, states[begin:end], actions[begin:end], open_loop=open_loop)
        position.append(replay.position_error_px)
        angle.append(replay.angle_error_rad)
        begin = end
    return position, angle


def main(path: str) -> None:
    """Measure both replays and write benchmarks/results/pusht_replay.json."""
    rows = []
    for open_loop in (True, False):
        position, angle = _errors(path, open_loop=open_loop)
        pixels, radians = np.concatenate(position), np.concatenate(angle)
        how = "whole episode from its first state" if open_loop else "one step from each recorded state"
        about = f"PushT, {len(position)} human demonstrations, {len(pixels)} steps, {how}"
        figures = {
            "median position error": (float(np.median(pixels)), "px"),
            "99th percentile position error": (float(np.quantile(pixels, 0.99)), "px"),
            "largest position error": (float(pixels.max()), "px"),
            "median angle error": (float(np.median(radians)), "rad"),
            "episodes with every position error below 0.001 px": (
                sum(bool(e.max() < 1e-3) for e in position) / len(position),
                "fraction",
            ),
        }
        rows += [{"claim": f"{about}: {name}", "value": value, "unit": unit} for name, (value, unit) in figures.items()]
    command = "python -m benchmarks.pusht_replay <pusht_cchi_v7_replay.zarr>"
    write_results("pusht_replay", [{**row, "command": command} for row in rows])
    for row in rows:
        print(f"{row['value']:.3g} {row['unit']}  {row['claim']}")


if __name__ == "__main__":
    main(sys.argv[1])
