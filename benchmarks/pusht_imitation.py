"""PushT from 206 human demonstrations, state observations: overlap and success on 500 seeds not used in training."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._imitation import plot, rows, run_line
from benchmarks._results import write_results


def main() -> None:
    """Run the line on the replay buffer given and write benchmarks/results/pusht_imitation.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="folder of the pusht_cchi_v7 Zarr replay buffer")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/pusht_imitation"))
    parser.add_argument("overrides", nargs="*", help="robot-rl overrides")
    args = parser.parse_args()
    arguments = [
        "task=pusht",
        f"source={args.source}",
        "evaluate.episodes=500",
        "train.max_minutes=60",
        *args.overrides,
    ]
    summary = run_line(args.out, "import", arguments)
    baseline = {
        "success": "goal 0.64, floor 0.45; LeRobot diffusion_pusht 0.638 (published)",
        "reward": "goal 0.97, floor 0.93; LeRobot diffusion_pusht 0.959 (published)",
        "time": "at most 60 min on two cores",
    }
    command = " ".join(["python -m benchmarks.pusht_imitation <pusht_cchi_v7_replay.zarr>", *args.overrides])
    done = rows(summary, args.out, what="PushT, state, bundle in ONNX Runtime", baseline=baseline)
    write_results("pusht_imitation", [{**row, "command": command} for row in done])
    plot("pusht_imitation", summary, args.out, goals={"success threshold": 1.0})


if __name__ == "__main__":
    main()
