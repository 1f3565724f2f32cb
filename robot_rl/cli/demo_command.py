"""`robot-rl demo`: the whole line in one command, and one report. Every stage continues where it was interrupted."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli import (
    collect_command,
    evaluate_command,
    import_command,
    loop_command,
    package_command,
    train_command,
)
from robot_rl.cli.config import to_yaml
from robot_rl.data.store import EpisodeStore
from robot_rl.deploy.report import LoopReport
from robot_rl.evaluation.report import Facts, Section, write_report
from robot_rl.evaluation.report_sections import (
    configuration_section,
    data_section,
    evaluation_sections,
    latency_section,
    learning_section,
)
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.imitation.summary import TrainSummary


def _report(
    config: DictConfig,
    store: EpisodeStore,
    trained: TrainSummary,
    bundle: PolicyBundle,
    *,
    summary: EvaluationSummary,
    loop: LoopReport,
    seconds: dict[str, float],
) -> Path:
    """Write the one report of the whole line."""
    manifest = bundle.manifest
    data = {
        "episodes": len(store),
        "control steps": sum(entry.steps for entry in store.entries()),
        "digest": store.digest()[:16],
        "observations": ", ".join(manifest.robot.obs),
        "action": f"{manifest.robot.action.describe()} {manifest.robot.action.kind}",
        "control rate [Hz]": manifest.control_hz,
    }
    packaged = {
        "bundle": bundle.id,
        "model": f"{manifest.family}, {config.policy.denoiser._target_.rsplit('.', 1)[-1]}",
        "O, H, executed": f"{manifest.n_obs}, {manifest.horizon}, {manifest.n_execute}",
        "training steps": trained.step,
        "ONNX against torch, max |difference| in normalised actions": f"{manifest.parity.max_abs_normalised:.1e}",
        **{f"{stage} [s]": round(value, 1) for stage, value in seconds.items()},
    }
    sections = [
        *evaluation_sections(summary, folder=evaluate_command.results(config)),
        learning_section(Path(config.run) / "metrics.jsonl"),
        latency_section(loop.to_dict()),
        data_section(data),
        Section("Policy and times", [Facts(packaged)]),
        configuration_section(to_yaml(config), command=f"robot-rl demo task={config.task.name}"),
    ]
    title = f"{config.task.name}: from demonstrations to a control loop"
    return write_report(Path(config.out) / "report.html", title=title, subtitle=summary.headline(), sections=sections)


def run(config: DictConfig, console: Console) -> Path:
    """Collect (or import `source`), train, package, evaluate, loop; leave `out`/report.html."""
    seconds: dict[str, float] = {}

    def stage(name: str) -> None:
        seconds[name] = time.monotonic() - sum(seconds.values()) - begin
        console.rule(f"{name}: {seconds[name]:.0f} s", align="left")

    begin = time.monotonic()
    imported = config.source is not None or config.task.expert is None
    store = (import_command if imported else collect_command).run(config, console)
    stage("import" if imported else "collect")
    trained = train_command.run(config, console)
    stage("train")
    bundle = package_command.run(config, console)
    stage("package")
    summary = evaluate_command.run(config, console)
    stage("evaluate")
    loop = loop_command.run(config, console)
    stage("loop")
    path = _report(config, store, trained, bundle, summary=summary, loop=loop, seconds=seconds)
    console.print(f"[bold]{path}[/bold] holds the whole story: {summary.headline()}")
    return path
