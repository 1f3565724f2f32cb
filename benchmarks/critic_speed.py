"""Complete SAC updates a second, against Stable-Baselines3 in one run, and how their time grows with the critics.

Equal networks (two critics and an actor of 256x256, ReLU, no layer norm), batch 256, one thread, sampling from the
replay included; both sides update critics, targets, actor and temperature every time. Each subject has a process of its
own; rounds take turns, so that what else the machine does falls on all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks._results import DOC_IMAGES, write_results
from robot_rl.evaluation.statistics import bootstrap_mean

mpl.use("Agg")
N_OBS, N_ACTION, BATCH, ROWS, WIDTH = 17, 6, 256, 20_000, 256
COMMAND = "python -m benchmarks.critic_speed --sb3-python <interpreter with stable-baselines3>"
MEMBERS = (2, 3, 5, 10)


class Subject:
    """A program that times so many updates when it is told to, in a process of its own, as a learner is.

    Args:
        command: The interpreter, what it runs, and its arguments.
    """

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(
                f"{self._command} did not start; --sb3-python must be an interpreter that has stable-baselines3"
            )
        return line

    def __call__(self, n: int) -> float:
        """Return the seconds that so many updates took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n}\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def take_turns(subjects: dict[str, Subject], rounds: int, n: int) -> dict[str, np.ndarray]:
    """Return milliseconds per update [rounds] of each subject, measured by turns."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            taken[name].append(1e3 * run(n) / n)
    return {name: np.array(values) for name, values in taken.items()}


def rows(taken: dict[str, np.ndarray], version: str | None) -> list[dict[str, Any]]:
    """Return result rows from milliseconds per update."""
    two, found = taken["2 critics"], []
    if version is not None:
        ratio = bootstrap_mean((taken["sb3"] / two).tolist())
        found = [
            {"claim": "complete SAC updates per second, two critics, 256x256, batch 256, one thread",
             "value": 1e3 / float(np.median(two)), "unit": "1/s",
             "baseline": f"Stable-Baselines3 {version}: {1e3 / float(np.median(taken['sb3'])):.1f}/s"},
            {"claim": "speed against Stable-Baselines3, mean over rounds", "value": ratio.value, "unit": "times",
             "interval": [ratio.low, ratio.high], "baseline": "at least 1.3, goal 2"},
        ]  # fmt: skip
    for n in MEMBERS[1:]:
        growth = bootstrap_mean((taken[f"{n} critics"] / two).tolist())
        found.append(
            {"claim": f"time of an update with {n} critics over that with 2", "value": growth.value, "unit": "times",
             "interval": [growth.low, growth.high], "baseline": f"less than {n / 2:g}, the number of critics"}
        )  # fmt: skip
    norm = bootstrap_mean((taken["2 critics, layer norm"] / two).tolist())
    found.append(
        {"claim": "time of an update with layer norm over that without, two critics", "value": norm.value,
         "unit": "times", "interval": [norm.low, norm.high]}
    )  # fmt: skip
    return found


def plot(taken: dict[str, np.ndarray]) -> None:
    """Draw milliseconds per update."""
    fig, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    names: Sequence[str] = list(taken)
    axes.boxplot([taken[name] for name in names], orientation="horizontal")
    axes.set_yticks(range(1, len(names) + 1), ["Stable-Baselines3" if name == "sb3" else name for name in names])
    axes.set(xlabel="milliseconds per complete SAC update, one thread, rounds by turns", xlim=(0, None))
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "critic_speed.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Measure and write benchmarks/results/critic_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sb3-python", help="an interpreter with stable-baselines3; without it only ours is timed")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=100, help="of a round")
    args = parser.parse_args()
    mine = [sys.executable, "-m", "benchmarks._sac_ours"]
    subjects: dict[str, Subject] = {}
    if args.sb3_python is not None:
        sizes = [str(n) for n in (N_OBS, N_ACTION, BATCH, ROWS, WIDTH)]
        subjects["sb3"] = Subject(args.sb3_python, str(Path(__file__).with_name("_sb3_sac.py")), *sizes)
    subjects |= {f"{n} critics": Subject(*mine, str(n), "0") for n in MEMBERS}
    subjects["2 critics, layer norm"] = Subject(*mine, "2", "1")
    taken = take_turns(subjects, args.rounds, args.updates)
    for subject in subjects.values():
        subject.close()
    theirs = subjects.get("sb3")
    told = f"{COMMAND} --rounds {args.rounds}"
    found = rows(taken, None if theirs is None else theirs.version)
    write_results("critic_speed", [{**row, "command": told} for row in found])
    plot(taken)
    for name, values in taken.items():
        print(f"{name}: median {np.median(values):.2f} ms per update")


if __name__ == "__main__":
    main()
