"""The control loop on the simulated arm: latency, lateness and overruns at 20 and 100 Hz, with and without a worker.

    python -m benchmarks.loop_latency --seconds 30

The policy is a flow-matching residual MLP of more than 2 million parameters with ten Euler steps, in ONNX Runtime with
one thread.
Writes benchmarks/results/loop_latency.json and docs/img/loop_latency.png.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._models import N_EXECUTE, make_model, n_parameters, stats_around
from benchmarks._results import DOC_IMAGES, write_results
from policies.export import export_bundle
from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import Clock
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.report import LoopReport
from robot_rl.deploy.runners import Runner, SyncRunner, ThreadRunner
from robot_rl.deploy.safety import UNLIMITED, SafetyFilter, SafetyLimits
from robot_rl.interfaces import Policy
from robot_rl.values import Obs
from sim.env import ArmEnv
from sim.robots import ARM7

NAMES = ("joint_position", "gripper_width", "tcp_pose", "cube_pose")
WIDTH = 8
REACH_RAD = 0.05
RUNNERS: dict[str, Callable[[Policy, ChunkExecutor, Clock], Runner]] = {
    "in a worker": ThreadRunner,
    "in the loop": SyncRunner,
}
LATENCIES = {
    "obs_to_command": "observation read to command",
    "lateness": "tick lateness",
    "inference": "one policy call",
    "reaction": "observation to first command computed from it",
    "period": "between two commands",
}


def rest_action(obs: Obs) -> np.ndarray:
    """Return the action that holds the present pose."""
    return np.concatenate([obs["joint_position"], obs["gripper_width"]])


def make_bundle(env: ArmEnv, path: Path) -> tuple[PolicyBundle, int]:
    """Export an untrained policy whose actions stay near the home pose; also return its number of parameters."""
    spec = env.spec.select(NAMES)
    home = np.array([*ARM7.home, 0.06])
    stats = {name: stats_around(np.zeros(spec.obs[name].shape), 1.0) for name in NAMES}
    stats["action"] = stats_around(home, np.array([REACH_RAD] * (WIDTH - 1) + [0.01]))
    model = make_model(spec, stats)
    bundle = export_bundle(
        model, path, spec=spec, stats=stats, n_execute=N_EXECUTE, config={}, data_digest="", parity_rounds=1
    )
    return bundle, n_parameters(model)


def limits() -> SafetyLimits:
    """Return limits as for the real task."""
    return SafetyLimits(
        WIDTH, low=[-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0.0],
        high=[2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 0.08],
        velocity=[*ARM7.velocity_limit, 0.1], acceleration=[*ARM7.acceleration_limit, UNLIMITED], start_jump=0.5,
        obs_age_s=0.5, command_gap_s=2.0, slow_start_s=0.5, workspace=UNLIMITED,
    )  # fmt: skip


def measure(hz: float, runner: str, seconds: float) -> tuple[LoopReport, int]:
    """Drive the arm for a while at one rate."""
    env = ArmEnv(control_hz=hz, max_steps=10**9)
    with tempfile.TemporaryDirectory() as scratch:
        bundle, parameters = make_bundle(env, Path(scratch) / "bundle")
        policy = OnnxPolicy(bundle, threads=1, seed=0)
    policy.warm_up(20)
    safety = SafetyFilter(limits(), step_ns=env.spec.step_ns)
    loop = ControlLoop(env, policy, safety, rest_action=rest_action, obs_names=NAMES, make_runner=RUNNERS[runner])
    report = loop.run(seed=0, ticks=round(seconds * hz))
    env.close()
    if report.stopped is not None:
        raise RuntimeError(f"the run at {hz:g} Hz was stopped: {report.stopped}")
    return report, parameters


def rows_of(hz: float, runner: str, report: LoopReport, parameters: int) -> list[dict[str, Any]]:
    """Return result rows of one run."""
    where = f"{hz:g} Hz, inference {runner}, {parameters / 1e6:.1f} M parameters, 10 Euler steps"
    rows: list[dict[str, Any]] = []
    for name, words in LATENCIES.items():
        h = getattr(report, name)
        figures = {"p50": h.percentile_ns(50), "p99": h.percentile_ns(99), "max": h.max_ns}
        for label, value in figures.items():
            rows.append({"claim": f"{words}, {label}; {where}", "value": round(value / 1e6, 3), "unit": "ms"})
    counts = {
        "overruns": report.overruns, "skipped ticks": report.skipped_ticks, "ticks held for want of an action":
        report.held_ticks, "actions dropped as stale": report.chunks.stale_actions,
    }  # fmt: skip
    rows += [
        {"claim": f"{name}; {where}", "value": n, "unit": f"of {report.ticks} ticks"} for name, n in counts.items()
    ]
    load = os.getloadavg()[0]
    rows.append({"claim": f"load average of the machine at the end; {where}", "value": round(load, 2), "unit": "1"})
    return rows


def plot(reports: dict[tuple[float, str], LoopReport]) -> None:
    """Draw how often each latency is exceeded, one panel per run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(reports), figsize=(3.4 * len(reports), 3.4), layout="constrained", sharey=True)
    for axis, ((hz, runner), report) in zip(np.ravel(axes), reports.items(), strict=True):
        for name, words in LATENCIES.items():
            data = getattr(report, name).to_dict()
            above = 1.0 - np.cumsum(data["counts"]) / data["count"]
            axis.step(data["edges_ms"], np.maximum(above, 0.5 / data["count"]), where="post", label=words)
        axis.axvline(1e3 / hz, color="black", linestyle=":", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="milliseconds (dotted: control period)")
        axis.set_title(f"{hz:g} Hz, inference {runner}\n{report.overruns} overruns in {report.ticks} ticks", fontsize=9)
    np.ravel(axes)[0].set_ylabel("share of ticks above")
    figure.legend(*np.ravel(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOC_IMAGES / "loop_latency.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each run")
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 100.0])
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    reports = {}
    for hz in args.rates:
        for runner in RUNNERS:
            reports[hz, runner], parameters = measure(hz, runner, args.seconds)
            rows += rows_of(hz, runner, reports[hz, runner], parameters)
            print(f"{hz:g} Hz, inference {runner}:")
            for label, text in reports[hz, runner].rows():
                print(f"  {label}: {text}")
    write_results("loop_latency", rows)
    plot(reports)


if __name__ == "__main__":
    main()
