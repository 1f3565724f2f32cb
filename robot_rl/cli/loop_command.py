"""`robot-rl loop`: drive the simulated arm from a bundle in real time, and measure."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from robot_rl.bundle import PolicyBundle, base_of
from robot_rl.cli.config import build, plain, simulation
from robot_rl.cli.latency import read_latency
from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.clock import Clock, MonotonicClock
from robot_rl.deploy.execution import Execution, open_policy
from robot_rl.deploy.loop import ControlLoop
from robot_rl.deploy.policy_grid import Retimed
from robot_rl.deploy.process_policy import ProcessPolicy
from robot_rl.deploy.report import LoopReport
from robot_rl.deploy.residual import step_policy
from robot_rl.deploy.runners import ProcessRunner, Runner, SyncRunner, ThreadRunner
from robot_rl.deploy.safety import SafetyFilter
from robot_rl.deploy.timing import Timing, split_cores
from robot_rl.errors import ConfigError, SafetyStop
from robot_rl.evaluation.report import write_report
from robot_rl.evaluation.report_sections import latency_section
from robot_rl.interfaces import Env, Policy
from robot_rl.values import Obs

RUNNERS: dict[str, Callable[[Policy, ChunkExecutor, Clock], Runner]] = {
    "thread": ThreadRunner,
    "process": ProcessRunner,
    "loop": SyncRunner,
}


def arm_at(env: Env, rate: float) -> Env:
    """Return the arm with the loop's rate.

    Raises:
        ConfigError: It can be stepped at its own only.
    """
    if rate == env.spec.control_hz:
        return env
    if not isinstance(env, Retimed):
        raise ConfigError(
            f"`loop.control_hz` must be null or {env.spec.control_hz:g}, got {rate:g}; `{type(env).__name__}` has no "
            "other rate"
        )
    return env.at_rate(rate)


@contextmanager
def inference(
    config: DictConfig, bundle: PolicyBundle, execution: Execution, *, cores: Sequence[int] | None
) -> Iterator[Policy]:
    """Open and warm up the policy where `loop.inference` says; its process, if it has one, ends with the block."""
    make = partial(
        open_policy, str(bundle.path), execution, threads=config.loop.threads, seed=config.seed,
        providers=build(config.loop.providers),
    )  # fmt: skip
    if config.loop.inference == "process":
        spec = base_of(bundle).manifest.robot
        with ProcessPolicy(make, spec, silence_s=config.loop.silence_s, cores=cores) as process:
            yield process
    else:
        policy = make()
        policy.warm_up()
        yield policy


def _loop(config: DictConfig, env: Env, *, policy: Policy, execution: Execution, timing: Timing) -> ControlLoop:
    """Put the loop together."""
    bundle = PolicyBundle.open(config.bundle)
    rest: list[str] = plain(config.task.rest)

    def rest_action(obs: Obs) -> np.ndarray:
        return np.concatenate([np.ravel(obs[name]) for name in rest])

    return ControlLoop(
        env, policy, SafetyFilter(build(config.task.safety), step_ns=env.spec.step_ns), rest_action=rest_action,
        obs_names=list(bundle.manifest.robot.obs), policy_hz=bundle.manifest.control_hz,
        interpolate=config.loop.interpolate, executor=execution.executor(bundle),
        make_runner=RUNNERS[config.loop.inference], clock=MonotonicClock(spin_ns=1000 * config.loop.spin_us),
        step=step_policy(bundle, threads=config.loop.threads), timing=timing,
    )  # fmt: skip


def _drive(config: DictConfig, env: Env, bundle: PolicyBundle, console: Console) -> LoopReport:
    """Play episodes until the time is used up and return their joint report."""
    configured: Execution = build(config.execution)
    execution = replace(configured, lead_ns=read_latency(config.latency).lead_ns)
    timing: Timing = build(config.loop.timing)
    apart = split_cores() if config.loop.inference == "process" and config.loop.apart else None
    if apart is not None and timing.cores is None:
        timing = replace(timing, cores=apart[0])
    with inference(config, bundle, execution, cores=None if apart is None else apart[1]) as policy:
        loop = _loop(config, env, policy=policy, execution=execution, timing=timing)
        return _play(config, loop, console)


@contextmanager
def ended_by_ctrl_c() -> Iterator[threading.Event]:
    """Let the first Ctrl-C only set the event, so that motion ends between two ticks; a second one interrupts.

    Signals can be caught in the main thread alone; elsewhere this does nothing.
    """
    ended = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield ended
        return
    before = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGINT, before)


def _play(config: DictConfig, loop: ControlLoop, console: Console) -> LoopReport:
    """Play episodes with a loop until the time is used up or Ctrl-C ends it."""
    rate = loop.control_hz
    left, seed = max(1, round(config.loop.seconds * rate)), int(config.loop.first_seed)
    total = LoopReport(control_hz=rate)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    # A refreshing thread would be in the way.
    with Progress(*columns, console=console, auto_refresh=False) as progress, ended_by_ctrl_c() as ended:
        bar_id = progress.add_task(f"control loop at {rate:g} Hz", total=left)
        while left > 0 and not ended.is_set():
            report = loop.run(seed=seed, ticks=left, stop=ended.is_set)
            total.add(report)
            progress.advance(bar_id, report.ticks)
            progress.refresh()
            left, seed = left - report.ticks, seed + 1
            if report.stopped is not None:
                break
    if ended.is_set():
        took = f"{total.ticks / rate:.1f} of {config.loop.seconds:g} s"
        console.print(f"ended by Ctrl-C after {took}: nothing more is commanded, the arm holds what it was told last")
    return total


def run(config: DictConfig, console: Console) -> LoopReport:
    """Drive for `loop.seconds`, print latencies and counts, and keep them in `loop.out`; Ctrl-C ends it sooner.

    Raises:
        ConfigError: A setting of `loop` is not among the choices, or arm, policy and rate do not go together.
        SafetyStop: The safety filter stopped motion; the figures up to then are kept.
    """
    if config.loop.inference not in RUNNERS:
        raise ConfigError(f"`loop.inference` must be one of {list(RUNNERS)}, got {config.loop.inference!r}")
    if not 0 < config.loop.seconds < math.inf:
        raise ConfigError(f"`loop.seconds` must be above 0 and finite, got {config.loop.seconds:g}; Ctrl-C ends it")
    env: Env = build(simulation(config))
    try:
        bundle = PolicyBundle.open(config.bundle)
        bundle.check_fits(env.spec)
        env = arm_at(env, bundle.manifest.control_hz if config.loop.control_hz is None else config.loop.control_hz)
        report = _drive(config, env, bundle, console)
    finally:
        env.close()
    table = Table(show_header=False, title=f"control loop on `{config.task.name}`", title_justify="left")
    for label, value in report.rows():
        table.add_row(escape(label), escape(value))  # a unit in brackets is no markup
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
