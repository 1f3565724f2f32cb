"""`robot-rl evaluate`: seeded rollouts of a bundle or a training run, with exact intervals, videos and a report."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import at_least, build, plain, simulation
from robot_rl.cli.latency import read_latency
from robot_rl.cli.model_card import ModelCard, torch_policy
from robot_rl.cli.progress import bar
from robot_rl.deploy.consensus import Consensus
from robot_rl.errors import ConfigError
from robot_rl.evaluation.delayed_env import DelayedEnv
from robot_rl.evaluation.parallel import evaluate
from robot_rl.evaluation.report import write_report
from robot_rl.evaluation.report_sections import evaluation_sections
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta, EvaluationSummary
from robot_rl.evaluation.validation import ValidationRecord
from robot_rl.interfaces import Env, Policy
from robot_rl.values import Tick


def make_onnx_policy(bundle: str, consensus: Consensus | None = None) -> Policy:
    """Build the robot-side policy of a bundle in a worker process: with its correction at every tick, if it has one."""
    from robot_rl.cli.residual_policy import bundle_policy

    return bundle_policy(PolicyBundle.open(bundle), consensus=consensus)


def make_late_env(env: Mapping[str, Any], latency: str, rest: Sequence[str]) -> Env:
    """Build a task's environment in a worker process, with the latencies of a measured cell."""

    def hold(tick: Tick) -> np.ndarray:
        return np.concatenate([np.ravel(tick.obs[name]) for name in rest])

    return DelayedEnv(build(env), read_latency(latency), hold=hold)


def environment(config: DictConfig, late: str | None) -> tuple[dict[str, Any], Callable[[], Env]]:
    """Return what identifies the task's environment, and how to build it.

    Args:
        config: The configuration.
        late: A file of `robot-rl calibrate latency`, which makes the simulated cell as late; `None` for no latency.

    Raises:
        ConfigError: The task has no simulation, or nothing that holds its arm still.
    """
    env = plain(simulation(config))
    if late is None:
        return env, partial(build, env)
    rest = plain(config.task.rest)
    if not rest:
        raise ConfigError(
            f"a simulated cell with latency needs `task.rest`, what holds the arm still; `{config.task.name}` has none"
        )
    digest = hashlib.sha256(Path(late).read_bytes()).hexdigest() if Path(late).is_file() else ""
    return {**env, "latency": digest}, partial(make_late_env, env, str(late), rest)


def _subject(config: DictConfig) -> tuple[str, Callable[[], Policy]]:
    """Return the name of what is evaluated and how to build it; a rule of execution is part of the name."""
    consensus: Consensus | None = None if config.evaluate.consensus is None else build(config.evaluate.consensus)
    rule = "" if consensus is None else f" by {consensus}"
    if config.evaluate.what == "bundle":
        bundle = PolicyBundle.open(config.bundle)
        return f"{bundle.id}{rule}", partial(make_onnx_policy, config.bundle, consensus)
    if config.evaluate.what == "run":
        name = f"run {ModelCard.load(config.run).data_digest[:12]}{rule}"
        return name, partial(torch_policy, config.run, consensus)
    raise ConfigError(f"`evaluate.what` must be bundle or run, got {config.evaluate.what!r}")


def check(config: DictConfig) -> None:
    """Raise on what every worker would fail with, before any is started.

    Raises:
        ConfigError: `evaluate.episodes` or `evaluate.workers` below 1, or the task has no simulation.
        BundleError: The bundle does not fit the task's robot; names each disagreement.
    """
    at_least(1, {f"evaluate.{name}": config.evaluate[name] for name in ("episodes", "workers")})
    if config.evaluate.what != "bundle":
        return
    bundle = PolicyBundle.open(config.bundle)
    env: Env = build(simulation(config))
    try:
        bundle.check_fits(env.spec)
    finally:
        env.close()


def results(config: DictConfig) -> Path:
    """Return the folder of an evaluation's results; that of a run lies in the run, where no other policy's are."""
    if config.evaluate.out is not None:
        return Path(config.evaluate.out)
    return Path(config.run) / "evaluation" if config.evaluate.what == "run" else Path(config.out) / "evaluate"


def summarise(config: DictConfig, console: Console) -> EvaluationSummary:
    """Run the rollouts, continuing an interrupted evaluation of the same policy.

    Raises:
        ConfigError: A setting of `evaluate` cannot be, or `evaluate.out` holds another evaluation.
        BundleError: The bundle does not fit the task's robot.
        EvaluationError: Seeds that could not be played.
    """
    check(config)
    name, policy_factory = _subject(config)
    env, env_factory = environment(config, config.evaluate.latency)
    command = shlex.join(["robot-rl", *sys.argv[1:]])
    meta = EvaluationMeta(task=config.task.name, policy_id=name, env=env, command=command)
    first, count = int(config.evaluate.first_seed), int(config.evaluate.episodes)
    with bar(console) as progress:
        task = progress.add_task(f"evaluating `{config.task.name}`", total=count)

        def show(result: EpisodeResult) -> None:
            progress.advance(task)

        summary = evaluate(
            env_factory,
            policy_factory,
            range(first, first + count),
            workers=config.evaluate.workers,
            on_result=show,
            out_dir=results(config),
            video_episodes=config.evaluate.video_episodes,
            meta=meta,
        )
    console.print(summary.headline())
    return summary


def attest(config: DictConfig, summary: EvaluationSummary) -> Path:
    """Write the validation record into the bundle's `attestations/`."""
    record = ValidationRecord.from_summary(summary, PolicyBundle.open(config.bundle).id)
    return record.write(config.bundle)


def run(config: DictConfig, console: Console) -> EvaluationSummary:
    """Evaluate, write report.html, and attest the bundle if it was evaluated as it executes by itself."""
    summary = summarise(config, console)
    out = results(config)
    if config.evaluate.what == "bundle" and config.evaluate.consensus is None:
        console.print(f"validation record: {attest(config, summary)}")
    title = f"Evaluation of {config.task.name}"
    sections = evaluation_sections(summary, folder=out)
    report = write_report(out / "report.html", title=title, subtitle=summary.headline(), sections=sections)
    console.print(f"report: {report}")
    return summary
