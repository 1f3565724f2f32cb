"""The control loop at 100, 250 and 500 Hz: inference in a thread or a process, alone or beside a busy core.

    python -m benchmarks.loop_500hz --seconds 30

A flow-matching residual MLP of more than 2 million parameters, ten Euler steps, one thread, on state observations at
25 Hz; the simulated arm steps at the loop's rate and is led from row to row in straight lines. Garbage collection is
paused in every run; the thread and the process are compared at ordinary priority and under SCHED_FIFO, where allowed.
Raw reports go to outputs/benchmarks/loop_500hz/, one a run; a run that is there is not repeated (`--again` does).
Writes benchmarks/results/loop_500hz.json and docs/img/loop_500hz.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks._results import DOC_IMAGES, write_results
from benchmarks.loop_latency import NAMES, limits, make_bundle, rest_action
from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.execution import Execution, open_policy
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.process_policy import ProcessPolicy
from robot_rl.deploy.report import LoopReport
from robot_rl.deploy.runners import ProcessRunner, ThreadRunner
from robot_rl.deploy.safety import SafetyFilter
from robot_rl.deploy.timing import Timing, split_cores
from robot_rl.interfaces import Policy
from sim.env import ArmEnv

RAW = Path("outputs/benchmarks/loop_500hz")
POLICY_HZ = 25.0
TARGET_MS = 0.5
RATES = (100.0, 250.0, 500.0)
INFERENCE = ("thread", "process")
LOADS = ("idle", "busy")
PRIORITIES = ("ordinary", "fifo")
LATENCIES = {
    "lateness": "tick lateness", "obs_to_command": "observation read to command", "inference": "one policy call",
    "reaction": "observation to first command computed from it",
}  # fmt: skip
WORDS = {"idle": "nothing else runs", "busy": "beside one busy core", "ordinary": "ordinary priority"}


@dataclass(frozen=True)
class Run:
    """One combination."""

    hz: float
    inference: str
    load: str
    priority: str

    @property
    def file(self) -> Path:
        """Where its raw report is kept."""
        return RAW / f"{self.hz:g}_{self.inference}_{self.load}_{self.priority}.json"

    @property
    def words(self) -> str:
        """What a row says about it."""
        return f"{self.hz:g} Hz, inference in a {self.inference}, {WORDS[self.load]}"


def burn() -> None:
    """Keep a core busy for ever."""
    while True:
        pass


@contextmanager
def beside(load: str) -> Iterator[None]:
    """Run with a process that keeps one core busy, or without."""
    if load == "idle":
        yield
        return
    other = get_context("spawn").Process(target=burn, daemon=True)
    other.start()
    try:
        yield
    finally:
        other.kill()
        other.join()


@contextmanager
def inference(kind: str, bundle: PolicyBundle, cores: list[int] | None) -> Iterator[Policy]:
    """Open and warm up the policy in this process or in one of its own."""
    make = partial(open_policy, str(bundle.path), Execution(), threads=1, seed=0)
    if kind == "process":
        with ProcessPolicy(make, bundle.manifest.robot, cores=cores) as policy:
            yield policy
        return
    here = make()
    here.warm_up(20)
    yield here


def measure(run: Run, bundle: PolicyBundle, seconds: float) -> LoopReport:
    """Drive the arm for a while."""
    apart = split_cores() if run.inference == "process" else None
    env = ArmEnv(control_hz=POLICY_HZ, max_steps=10**6).at_rate(run.hz)
    timing = Timing(realtime=run.priority == "fifo", cores=None if apart is None else apart[0])
    runner = ProcessRunner if run.inference == "process" else ThreadRunner
    with inference(run.inference, bundle, None if apart is None else apart[1]) as policy, beside(run.load):
        loop = ControlLoop(
            env, policy, SafetyFilter(limits(), step_ns=env.spec.step_ns), rest_action=rest_action, obs_names=NAMES,
            policy_hz=POLICY_HZ, make_runner=runner, timing=timing,
        )  # fmt: skip
        loop.run(seed=0, ticks=round(run.hz))  # a second for caches, branch predictors and the clock's governor
        report = loop.run(seed=0, ticks=round(seconds * run.hz))
    env.close()
    if report.stopped is not None:
        raise RuntimeError(f"the run at {run.words} was stopped: {report.stopped}")
    return report


def rows_of(run: Run, raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return result rows of one run, from its raw report."""
    where = f"{run.words}, {raw['report']['scheduling']}"
    rows: list[dict[str, Any]] = []
    for name, words in LATENCIES.items():
        for figure in ("p50_ms", "p99_ms", "max_ms"):
            value = raw["report"]["latency"][name][figure]
            row = {"claim": f"{words}, {figure[:-3]}; {where}", "value": None if value is None else round(value, 3)}
            aim = {"baseline": f"aim: below {TARGET_MS} ms"} if (name, figure) == ("lateness", "p99_ms") else {}
            rows.append({**row, "unit": "ms", **aim})
    ticks = raw["report"]["ticks"]
    for name in ("overruns", "skipped_ticks", "held_ticks"):
        words = name.replace("_", " ")
        rows.append({"claim": f"{words}; {where}", "value": raw["report"][name], "unit": f"of {ticks} ticks"})
    load = {"claim": f"load average of the machine at the end; {where}", "value": raw["load_average"], "unit": "1"}
    return [*rows, load]


def plot(raws: Mapping[Run, Mapping[str, Any]]) -> None:
    """Draw how often each lateness is exceeded: a row per priority, a column per rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rates = sorted({run.hz for run in raws})
    priorities = [p for p in PRIORITIES if any(run.priority == p for run in raws)]
    figure, axes = plt.subplots(
        len(priorities), len(rates), figsize=(3.6 * len(rates), 3.0 * len(priorities)), layout="constrained",
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    for run, raw in raws.items():
        axis, data = axes[priorities.index(run.priority), rates.index(run.hz)], raw["report"]["latency"]["lateness"]
        above = 1.0 - np.cumsum(data["counts"]) / data["count"]
        style = {"color": "C0" if run.inference == "thread" else "C1", "linestyle": "-" if run.load == "idle" else "--"}
        label = f"{run.inference}, {WORDS[run.load]}"
        axis.step(data["edges_ms"], np.maximum(above, 0.5 / data["count"]), where="post", label=label, **style)
        axis.set(xscale="log", yscale="log", title=f"{run.hz:g} Hz, {raw['report']['scheduling'].split('; ')[-1]}")
    for axis in axes.flat:
        axis.axvline(TARGET_MS, color="black", linestyle=":", linewidth=1)
        axis.axhline(0.01, color="black", linestyle=":", linewidth=1)
    for axis in axes[-1]:
        axis.set_xlabel("lateness [ms] (dotted: 0.5 ms, 1 %)")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of ticks above")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOC_IMAGES / "loop_500hz.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each run")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--priorities", nargs="+", default=list(PRIORITIES), choices=PRIORITIES)
    parser.add_argument("--again", action="store_true", help="repeat runs whose raw report is there")
    parser.add_argument("--dry", action="store_true", help="measure and print, but write no results and no plot")
    args = parser.parse_args()
    RAW.mkdir(parents=True, exist_ok=True)
    runs = [Run(*parts) for parts in itertools.product(args.rates, INFERENCE, LOADS, args.priorities)]
    env = ArmEnv(control_hz=POLICY_HZ)
    folder = RAW / "bundle"
    bundle = PolicyBundle.open(folder) if folder.exists() else make_bundle(env, folder)[0]
    raws: dict[Run, dict[str, Any]] = {}
    for run in track(runs, description="runs", auto_refresh=False):  # a refreshing thread would be in the way
        if args.again or not run.file.exists():
            report = measure(run, bundle, args.seconds)
            kept = {"report": report.to_dict(), "load_average": round(os.getloadavg()[0], 2)}
            run.file.write_text(json.dumps(kept) + "\n")
        raws[run] = json.loads(run.file.read_text())
    rows = [row for run, raw in raws.items() for row in rows_of(run, raw)]
    for row in rows:
        if "lateness" in row["claim"]:
            print(f"{row['claim']}: {row['value']} {row['unit']}")
    if not args.dry:
        write_results("loop_500hz", rows)
        plot(raws)


if __name__ == "__main__":
    main()
