"""Measures what a head's certificate says, on this machine, and packages the head only if its limits are kept."""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.certificate import Certificate, Latency, Limits, PairedRates, read_certificates
from robot_rl.cli.config import build
from robot_rl.cli.distill_command import like_the_teacher
from robot_rl.cli.distill_play import Arena, OnnxBatch, paired_difference
from robot_rl.cli.distill_report import DRAW_SEED, held_out, in_turns
from robot_rl.cli.distill_teacher import Teacher, check_data, teacher_of
from robot_rl.cli.model_card import trained_model
from robot_rl.cli.threads import numeric_threads
from robot_rl.cli.train_command import datasets
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from policies.chunk_network import ChunkNetwork

PARTS = {"encode": "encode", "denoise": "", "end_to_end": "sample"}
"""What is timed apart, and which of the bundle graphs it is; denoising alone has none there."""

_BLOCK = 10
"""Calls of a graph in a row."""


def package_head(
    config: DictConfig, console: Console, teacher: Teacher, export: Callable[[str, str], PolicyBundle]
) -> PolicyBundle:
    """Return the certified bundle of the head in `run` at `bundle`.

    Args:
        config: The command's configuration.
        console: Where to print.
        teacher: The head's teacher.
        export: Exports a run to a path.

    Raises:
        BundleError: A limit is not kept, in which case nothing is left at `bundle`, or another bundle is there, or this
            one with figures that do not keep the limits.
    """
    target = Path(config.bundle)
    if target.exists():
        bundle = export(config.run, config.bundle)
        if not (found := read_certificates(bundle)):
            raise BundleError(f"{target} holds this head without a certificate; choose another `bundle`")
        if faults := replace(found[-1], limits=limits_of(config)).failures():
            raise BundleError(
                f"{target} holds this head as measured on {found[-1].date}, which does not keep the limits asked for "
                f"now: {_list(faults)}; choose another `bundle` to measure it again"
            )
        return bundle
    candidate = target.with_name(f".candidate-{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        bundle = export(config.run, str(candidate))
        certificate = certify(config, bundle, teacher, console)
        show(certificate, console)
        if faults := certificate.failures():
            raise BundleError(
                f"the head in {config.run} does not keep its limits, nothing was packaged: {_list(faults)}"
            )
        certificate.attest(bundle)
        os.rename(candidate, target)
    finally:
        shutil.rmtree(candidate, ignore_errors=True)
    return PolicyBundle.open(target)


def teacher_of_head(config: DictConfig) -> Teacher:
    """Return the teacher of the head in `run`."""
    return teacher_of(config.run, config.distill.teacher)


def limits_of(config: DictConfig) -> Limits:
    """Return the limits that are asked for.

    Raises:
        ConfigError: They are none.
    """
    limits = build(config.distill.limits)
    if not isinstance(limits, Limits):
        raise ConfigError(f"`distill.limits._target_` must be Limits, got {type(limits).__name__}")
    return limits


def _list(faults: list[str]) -> str:
    return "; ".join(f"({i}) {fault}" for i, fault in enumerate(faults, 1))


def certify(config: DictConfig, bundle: PolicyBundle, teacher: Teacher, console: Console) -> Certificate:
    """Measure a head's exported bundle beside its teacher."""
    store = EpisodeStore.open(config.store)
    check_data(store.spec, teacher.card)
    config = like_the_teacher(config, teacher)
    limits = limits_of(config)
    _, head = trained_model(config.run)
    obs = held_out(datasets(config, store)[1], config.distill.observations)
    with numeric_threads(1):
        apart = distances(head, teacher.model, obs, draws=config.distill.draws)
        times = onnx_times(bundle, head, teacher, obs, calls=config.distill.calls)
    return Certificate(
        bundle_id=bundle.id,
        teacher=teacher.id,
        teacher_steps=teacher.n_steps,
        parity=bundle.manifest.parity.max_abs_normalised,
        latency=times["head"],
        teacher_latency=times["teacher"],
        calls=config.distill.calls,
        distance=apart.distance,
        own_distance=apart.own,
        paired_error=apart.paired,
        observations=apart.observations,
        draws=config.distill.draws,
        success=success(config, bundle, teacher, console),
        simulation=config.task.env is not None,
        date=datetime.now(UTC).isoformat(timespec="microseconds"),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        limits=limits,
    )


@dataclass(frozen=True)
class Distances:
    """See `Certificate`: `distance`, `own_distance`, `paired_error` and `observations`."""

    distance: float
    own: float
    paired: float
    observations: int


def distances(head: ChunkNetwork, teacher: ChunkNetwork, obs: Mapping[str, Tensor], *, draws: int) -> Distances:
    """Return how far a head's chunks are from its teacher's, as distributions and from the same noise.

    Raises:
        ConfigError: Fewer than two draws, which have no distance among themselves.
    """
    import torch

    from policies.one_step_compare import draw_chunks, energy_distance

    if draws < 2:
        raise ConfigError(f"`distill.draws` must be at least 2, got {draws}")
    generator = torch.Generator().manual_seed(DRAW_SEED + 1)
    n = len(next(iter(obs.values())))
    first, second = (torch.randn(n, draws, head.horizon, head.action_dim, generator=generator) for _ in range(2))
    mine, theirs, again = (
        draw_chunks(head, obs, first),
        draw_chunks(teacher, obs, first),
        draw_chunks(teacher, obs, second),
    )
    return Distances(
        distance=float(energy_distance(mine, again).mean()),
        own=float(energy_distance(theirs, again).mean()),
        paired=float((mine - theirs).square().mean().sqrt()),
        observations=n,
    )


def onnx_times(
    bundle: PolicyBundle, head: ChunkNetwork, teacher: Teacher, obs: Mapping[str, Tensor], *, calls: int
) -> dict[str, dict[str, Latency]]:
    """Return the times of one sample of `head` and `teacher` in ONNX Runtime on one thread, by `PARTS`.

    The whole of the head is the bundle's own graph. All graphs are called in turns, so that each sees the same machine,
    and several times in a row, as a loop calls one policy and no other.
    """
    from policies.onnx_graphs import describe
    from robot_rl.deploy.onnx_policy import load_graph, open_session

    runs: dict[str, Callable[[], object]] = {}
    for who, model in (("head", head), ("teacher", teacher.model)):
        for part in PARTS:
            if (who, part) == ("teacher", "encode") and not teacher.model.is_guided:
                runs["teacher/encode"] = runs["head/encode"]  # the same encoder
                continue
            content, feed = _graph(model, part, teacher, obs, exported=(who, part) == ("head", "end_to_end"))
            session = load_graph(content, describe(part, content)) if content else open_session(bundle, "sample")
            runs[f"{who}/{part}"] = partial(session.run, None, feed)
    times = in_turns(runs, calls, warm_up=20, block=_BLOCK)

    def latency(key: str) -> Latency:
        taken = np.array(times[key])
        return Latency(float(np.median(taken)), float(np.quantile(taken, 0.99)), float(np.median(taken[::_BLOCK])))

    return {who: {part: latency(f"{who}/{part}") for part in PARTS} for who in ("head", "teacher")}


def _graph(
    model: ChunkNetwork, part: str, teacher: Teacher, obs: Mapping[str, Tensor], *, exported: bool
) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a part of a model as ONNX, nothing where that is `exported` already, and what to feed it at batch 1."""
    import torch

    from policies.onnx_graphs import PARTS as GRAPHS
    from policies.onnx_graphs import Part, Solve, flatten, to_onnx
    from policies.parity import RandomInputs

    draw = RandomInputs(teacher.card.spec, teacher.card.stats, model=model, seed=0)
    one: dict[str, Any] = {"obs": {name: value[:1] for name, value in obs.items()}, "noise": draw("sample", 1)["noise"]}
    two = draw("sample", 2)
    graph: Part = Solve(model) if part == "denoise" else GRAPHS[PARTS[part]](model)
    if part == "denoise":
        example, feed = (_solve_inputs(model, sample) for sample in (two, one))
    else:
        example, feed = ({"obs": s["obs"]} if part == "encode" else s for s in (two, one))
    with torch.no_grad():
        content = b"" if exported else to_onnx(graph, example)
    return content, {name: value.numpy() for name, value in flatten(feed).items()}


def _solve_inputs(model: ChunkNetwork, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of `Solve` for those of the sampling graph."""
    import torch

    with torch.no_grad():
        return {"cond": model.encode(sample["obs"]), "noise": sample["noise"][:, : model.horizon]}


def success(config: DictConfig, bundle: PolicyBundle, teacher: Teacher, console: Console) -> PairedRates | None:
    """Return success of the exported head and of its teacher on the same seeds; nothing where none can be played."""
    from policies.torch_policy import TorchBatchPolicy
    from robot_rl.deploy.onnx_policy import OnnxPolicy

    arena = Arena(config, Path(config.distill.played), console)
    if not arena.is_open:
        return None
    batched = TorchBatchPolicy(teacher.model, teacher.card.spec, n_execute=teacher.card.n_execute)
    manifest = bundle.manifest
    played = ["onnx", manifest.files[manifest.graphs["sample"].file]]  # the graph itself, not only its weights
    try:
        mine = arena.play("head, in ONNX Runtime", OnnxBatch(OnnxPolicy(bundle)), played)
        theirs = arena.play_model(f"teacher, {teacher.n_steps} steps", teacher.model, lambda: batched)
    finally:
        arena.close()
    won, base = ([result.success for result in results] for results in (mine, theirs))
    gap = paired_difference(won, base)
    return PairedRates(
        head=sum(won), teacher=sum(base), episodes=len(won), difference=gap.value, low=gap.low, high=gap.high,
        level=gap.level, first_seed=arena.seeds[0],
    )  # fmt: skip


def show(certificate: Certificate, console: Console) -> None:
    """Print what was measured."""
    mine, theirs, got = certificate.latency, certificate.teacher_latency, certificate.success
    for part in PARTS:
        console.print(
            f"{part.replace('_', ' ')}: p50 {mine[part].p50_ms:.3g} ms, p99 {mine[part].p99_ms:.3g} ms; teacher "
            f"{theirs[part].p50_ms:.3g} and {theirs[part].p99_ms:.3g} ms"
        )
    console.print(
        f"energy distance to the teacher {certificate.distance:.4f}, of the teacher to itself "
        f"{certificate.own_distance:.4f}; from the same noise {certificate.paired_error:.4f} apart"
    )
    if got is not None:
        console.print(
            f"success {got.head} of {got.episodes}, teacher {got.teacher}: difference {100 * got.difference:+.1f} % "
            f"({100 * got.low:+.1f} to {100 * got.high:+.1f})"
        )
