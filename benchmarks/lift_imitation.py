"""Lift from 100 scripted demonstrations: success on 100 seeds not used in training."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._imitation import plot, rows, run_line
from benchmarks._results import write_results


def main() -> None:
    """Run the line and write benchmarks/results/lift_imitation.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/lift_imitation"))
    parser.add_argument("overrides", nargs="*", help="robot-rl overrides")
    args = parser.parse_args()
    summary = run_line(
        args.out, "collect", ["task=lift", "collect.episodes=100", "evaluate.episodes=100", *args.overrides]
    )
    baseline = {"success": "at least 0.90", "time": "the demo's share of ten minutes"}
    write_results(
        "lift_imitation", rows(summary, args.out, what="lift, state, bundle in ONNX Runtime", baseline=baseline)
    )
    plot("lift_imitation", summary, args.out, goals={})


if __name__ == "__main__":
    main()
