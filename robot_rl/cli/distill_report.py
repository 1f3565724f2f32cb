"""A head beside its teacher at few and at all steps: error to the K-step action, time of denoising, success."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.cli.config import at_least, plain
from robot_rl.cli.distill_play import Arena, paired_difference
from robot_rl.cli.distill_teacher import Teacher
from robot_rl.cli.model_card import trained_model
from robot_rl.cli.threads import numeric_threads
from robot_rl.data.windows import WindowDataset
from robot_rl.evaluation.statistics import clopper_pearson

if TYPE_CHECKING:
    from torch import Tensor

    from policies.chunk_network import ChunkNetwork

REPORT = "report.json"
DRAW_SEED = 4242


def held_out(val: WindowDataset, n: int) -> dict[str, Tensor]:
    """Return the observations of `n` held-out windows {name: [n, O, ...]}, spread evenly."""
    import torch

    index = np.linspace(0, len(val) - 1, min(n, len(val))).round().astype(np.int64)
    return {name: torch.from_numpy(value) for name, value in val.gather(index).obs.items()}


def check_counts(settings: DictConfig) -> None:
    """Raise where the settings `distill` leave nothing to measure.

    Raises:
        ConfigError: Names the setting.
    """
    at_least(1, {f"distill.{name}": settings[name] for name in ("calls", "observations")})


def variants(teacher: Teacher, head: ChunkNetwork, few: list[int]) -> dict[str, ChunkNetwork]:
    """Return the teacher at K and at fewer steps, and the head, by name."""
    named: dict[str, ChunkNetwork] = {f"teacher, {teacher.n_steps} steps": teacher.model}
    for n in sorted({n for n in few if n < teacher.n_steps}, reverse=True):
        named[f"teacher, {n} step{'s' if n > 1 else ''}"] = teacher.at_steps(n)
    return {**named, "head": head}


def compare(config: DictConfig, teacher: Teacher, val: WindowDataset, console: Console) -> dict[str, Any]:
    """Measure the head in `distill.out` beside its teacher, write `report.json` there and return what it holds.

    Raises:
        ConfigError: `distill.calls` or `distill.observations` is below 1.
    """
    import torch

    settings = config.distill
    check_counts(settings)
    _, head = trained_model(settings.out)
    models = variants(teacher, head, plain(settings.teacher_steps))
    obs = held_out(val, settings.observations)
    generator = torch.Generator().manual_seed(DRAW_SEED)
    rows = len(next(iter(obs.values())))
    noise = torch.randn(rows, head.horizon, head.action_dim, generator=generator)
    with numeric_threads(1):
        chunks = {name: _chunk(model, obs, noise) for name, model in models.items()}
        timed = denoising_ms(models, obs, noise, calls=settings.calls)
    reference = chunks[next(iter(chunks))]
    table: dict[str, dict[str, Any]] = {
        name: {"error": float((chunk - reference).square().mean().sqrt()), "p50_ms": float(np.median(timed[name])),
               "p99_ms": float(np.quantile(timed[name], 0.99))}
        for name, chunk in chunks.items()
    }  # fmt: skip
    _add_success(table, models, teacher, config, console)
    report = {"head": type(head).__name__, "teacher": teacher.id, "observations": rows, "variants": table}
    (Path(settings.out) / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def _chunk(model: ChunkNetwork, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
    """Return normalised chunks [B, H, A] for the same noise."""
    import torch

    from policies.one_step import chunk_from

    with torch.no_grad():
        return chunk_from(model, model.encode(obs), noise)


def denoising_ms(
    models: Mapping[str, ChunkNetwork], obs: Mapping[str, Tensor], noise: Tensor, *, calls: int
) -> dict[str, list[float]]:
    """Return the times of `calls` denoisings of one sample by each model in torch, taken in turns."""
    import torch

    from policies.one_step import chunk_from

    one = {name: value[:1] for name, value in obs.items()}
    runs: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        for name, model in models.items():
            cond = model.encode(one)
            runs[name] = lambda model=model, cond=cond: chunk_from(model, cond, noise[:1])
        return in_turns(runs, calls)


def in_turns(
    runs: Mapping[str, Callable[[], object]], calls: int, *, warm_up: int = 3, block: int = 1
) -> dict[str, list[float]]:
    """Return the milliseconds that each of several functions took, called in turns so that all see the same machine.

    Args:
        runs: What is called, by name.
        calls: Calls of each that count; rounded up to whole blocks.
        warm_up: Turns before those that count.
        block: Calls of a turn. From the second on a network finds its weights in the processor's caches.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warm_up + -(-calls // block)):
        for name, call in runs.items():
            for _ in range(block):
                began = time.perf_counter()
                call()
                if i >= warm_up:
                    times[name].append(1e3 * (time.perf_counter() - began))
    return times


def _add_success(
    table: dict[str, dict[str, Any]],
    models: Mapping[str, ChunkNetwork],
    teacher: Teacher,
    config: DictConfig,
    console: Console,
) -> None:
    """Add success on the same seeds, and its difference from the teacher's, where there is a simulation."""
    from policies.torch_policy import TorchBatchPolicy

    arena = Arena(config, Path(config.distill.played), console)
    if not arena.is_open:
        return
    n_execute, spec = teacher.card.n_execute, teacher.card.spec
    reference: list[bool] | None = None
    try:
        for name, model in models.items():
            results = arena.play_model(
                name,
                model,
                lambda model=model: TorchBatchPolicy(model, spec, n_execute=n_execute),
            )
            won = [result.success for result in results]
            reference = won if reference is None else reference
            table[name]["success"] = clopper_pearson(sum(won), len(won)).to_dict()
            table[name]["difference"] = paired_difference(won, reference).to_dict()
    finally:
        arena.close()


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a report as a table."""
    table = Table(title=f"{report['head']} on {report['observations']} held-out windows", title_justify="left")
    for column in ("", "error to the K-step chunk", "denoising p50", "p99", "success", "difference (95 %)"):
        table.add_column(column)
    for name, row in report["variants"].items():
        cells = [name, f"{row['error']:.4f}", f"{row['p50_ms']:.2f} ms", f"{row['p99_ms']:.2f} ms"]
        if "success" in row:
            gap = row["difference"]
            cells += [
                f"{100 * row['success']['value']:.1f} %",
                f"{100 * gap['value']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})",
            ]
        table.add_row(*cells)
    console.print(table)
