"""`robot-rl loop`: drive the simulated arm from a bundle in real time, and measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import build, plain, simulation
from robot_rl.cli.latency import read_latency
from robot_rl.deploy.execution import Execution
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.report import LoopReport
from robot_rl.deploy.safety import SafetyFilter
from robot_rl.errors import SafetyStop
from robot_rl.evaluation.report import write_report
from robot_rl.evaluation.report_sections import latency_section
from robot_rl.interfaces import Env
from robot_rl.values import Obs


def _drive(config: DictConfig, env: Env, console: Console) -> LoopReport:
    """Play episodes until the time is used up and return their joint report."""
    bundle = PolicyBundle.open(config.bundle)
    bundle.check_fits(env.spec)
    configured: Execution = build(config.execution)
    execution = replace(configured, lead_ns=read_latency(config.latency).lead_ns)
    policy = execution.policy(bundle, threads=config.loop.threads, seed=config.seed)
    policy.warm_up()
    rate = bundle.manifest.control_hz if config.loop.control_hz is None else float(config.loop.control_hz)
    rest: list[str] = plain(config.task.rest)

    def rest_action(obs: Obs) -> np.ndarray:
        return np.concatenate([np.ravel(obs[name]) for name in rest])

    safety = SafetyFilter(build(config.task.safety), step_ns=round(1e9 / rate))
    names = list(bundle.manifest.robot.obs)
    loop = ControlLoop(
        env, policy, safety, rest_action=rest_action, obs_names=names, control_hz=rate,
        executor=execution.executor(bundle),
    )  # fmt: skip
    left, seed = round(config.loop.seconds * rate), int(config.loop.first_seed)
    total = LoopReport(control_hz=rate)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar_id = progress.add_task(f"control loop at {rate:g} Hz", total=left)
        while left > 0:
            report = loop.run(seed=seed, ticks=left)
            total.add(report)
            progress.advance(bar_id, report.ticks)
            left, seed = left - report.ticks, seed + 1
            if report.stopped is not None:
                break
    return total


def run(config: DictConfig, console: Console) -> LoopReport:
    """Drive for `loop.seconds`, print latencies and counts, and keep them in `loop.out`.

    Raises:
        SafetyStop: The safety filter stopped motion; the figures up to then are kept.
    """
    env: Env = build(simulation(config))
    try:
        report = _drive(config, env, console)
    finally:
        env.close()
    table = Table(show_header=False, title=f"control loop on `{config.task.name}`", title_justify="left")
    for label, value in report.rows():
        table.add_row(label, value)
    console.print(table)
    out = Path(config.loop.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "loop.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    write_report(
        out / "report.html", title=f"Control loop: {config.task.name}", sections=[latency_section(report.to_dict())]
    )
    if report.stopped is not None:
        raise SafetyStop(f"the control loop stopped: {report.stopped}")
    return report
