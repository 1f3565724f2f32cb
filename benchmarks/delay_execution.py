"""Does it matter how chunks are executed when inference is slow? Seven ways, four delays, the same episodes.

    python -m benchmarks.delay_execution --train      # 1000 demonstrations, three flow policies, one diffusion policy
    python -m benchmarks.delay_execution --evaluate   # every policy, strategy and delay on the same seeds
    python -m benchmarks.delay_execution --report     # rows, plot

The task is `intercept` (`sim.intercept`): a target that turns without warning, a pillar with two ways round it. Delays
are exact (`robot_rl.evaluation.delayed`), so that nothing here depends on this machine's speed. Each part continues
where it stopped; `--report` needs nothing but the JSON lines that `--evaluate` left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from rich.progress import Progress

from benchmarks._pusht_arms import mean_interval
from benchmarks._results import DOC_IMAGES, write_results
from policies.denoising import DenoisingModel
from policies.rtc import TorchSampler
from robot_rl.cli.main import main as robot_rl
from robot_rl.cli.model_card import trained_model
from robot_rl.deploy.bidirectional import Bidirectional
from robot_rl.deploy.ensembling import Aggregate, Combine, TemporalEnsemble
from robot_rl.deploy.promises import ChunkSampler
from robot_rl.deploy.realtime_chunking import RealtimeChunking
from robot_rl.evaluation.delayed import DelayedResult, DelaySetting, run_delayed
from robot_rl.evaluation.statistics import paired_mean
from sim.intercept import CONTROL_HZ, InterceptEnv

mpl.use("Agg")
import matplotlib.pyplot as plt

NAME = "delay_execution"
ROOT = Path("outputs/benchmarks") / NAME
DELAYS_MS = (0, 100, 200, 300)
DEMONSTRATIONS = 1000
N_EXECUTE = 6
FLOW_SEEDS = (0, 1, 2)
MODELS = (*(f"flow_s{seed}" for seed in FLOW_SEEDS), "diffusion_s0")
N_CANDIDATES = 16
FIRST_SEED = 300_000  # none of these was played while task and settings were chosen
BASELINE = "naive async"


@dataclass(frozen=True)
class Way:
    """One way to execute chunks."""

    jacobian: str = ""  # of real-time chunking; none: no guidance
    candidates: int = 0
    combine: Combine | None = None
    n_execute: int = N_EXECUTE
    pause: bool = False

    def sampler(self, model: DenoisingModel, spec: Any) -> ChunkSampler:
        """Return the policy that answers as this way asks."""
        plain = TorchSampler(model, spec, n_execute=self.n_execute, jacobian=self.jacobian or "vjp")
        if self.jacobian:
            return RealtimeChunking(plain, plain)
        return Bidirectional(plain, n_candidates=self.candidates) if self.candidates else plain

    def setting(self, delay_steps: int) -> DelaySetting:
        """Return what the robot does about a delay."""
        return DelaySetting(delay_steps=delay_steps, n_execute=self.n_execute, combine=self.combine, pause=self.pause)


WAYS: dict[str, Way] = {
    "synchronous (pause)": Way(pause=True),
    "naive async": Way(),
    "temporal ensembling": Way(combine=TemporalEnsemble(), n_execute=1),
    "async blend": Way(combine=Aggregate()),
    "RTC, vjp": Way(jacobian="vjp"),
    "RTC, identity": Way(jacobian="identity"),
    "BID": Way(candidates=N_CANDIDATES),
}


def train(steps: int, models: Sequence[str]) -> None:
    """Collect the demonstrations and train the models; continues where it stopped."""
    store = ROOT / "store"
    common = ["task=intercept", f"store={store}", f"collect.episodes={DEMONSTRATIONS}"]
    _run("collect", [*common, f"out={ROOT}"])
    for model in models:
        policy, seed = model.split("_s")
        _run("train", [
            *common, f"policy={policy}", f"out={ROOT / model}", f"run={ROOT / model}", f"seed={seed}",
            f"train.steps={steps}", "train.threads=1",
        ])  # fmt: skip


def _run(command: str, arguments: list[str]) -> None:
    if robot_rl([command, *arguments]) != 0:
        raise RuntimeError(f"robot-rl {command} {' '.join(arguments)} failed")


def evaluate(episodes: int, environments: int, models: Sequence[str]) -> None:
    """Play every model, way and delay; cells that are there already are left out."""
    torch.set_num_threads(1)
    cells = [(model, way, delay) for model in models for delay in DELAYS_MS for way in WAYS]
    with Progress() as progress:
        bar = progress.add_task("cells", total=len(cells))
        for model, way, delay_ms in cells:
            progress.update(bar, description=f"{model}, {way}, {delay_ms} ms")
            path = cell(model, way, delay_ms)
            if len(read(path)) != episodes:
                _play(model, way, delay_ms, path, episodes=episodes, environments=environments)
            progress.advance(bar)


def _play(model: str, way: str, delay_ms: int, path: Path, *, episodes: int, environments: int) -> None:
    card, network = trained_model(ROOT / model)
    if not isinstance(network, DenoisingModel):
        raise TypeError(f"{ROOT / model} holds a {type(network).__name__}, expected a model that denoises")
    results = run_delayed(
        [InterceptEnv() for _ in range(min(environments, episodes))],
        WAYS[way].sampler(network, card.spec),
        range(FIRST_SEED, FIRST_SEED + episodes),
        setting=WAYS[way].setting(round(delay_ms / 1000 * CONTROL_HZ)),
        rest=lambda obs: obs["agent_pos"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part")
    staged.write_text("".join(json.dumps(row(result)) + "\n" for result in results))
    staged.rename(path)


def row(result: DelayedResult) -> dict[str, Any]:
    """Return an episode in one flat line; `hit` is whether it ended at the pillar."""
    flat = result.to_dict()
    episode = flat.pop("episode")
    return {**episode, **flat, "hit": episode["terminated"] and not episode["success"]}


def cell(model: str, way: str, delay_ms: int) -> Path:
    """Return where a cell's episodes are kept."""
    return ROOT / "cells" / f"{model}__{way.replace(' ', '_').replace(',', '')}__{delay_ms}ms.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """Return a cell's episodes, none if it was not played."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(models: Sequence[str], way: str, delay_ms: int, what: str) -> np.ndarray:
    """Return one number of every episode, float64 [models, seeds]."""
    return np.array([[float(one[what]) for one in read(cell(model, way, delay_ms))] for model in models])


def rows() -> list[dict[str, Any]]:
    """Return what the saved episodes say.

    Both ways run the same trained models on the same seeds, so a difference is paired over the episodes; its interval
    resamples episodes (the mean over trainings of each) and not trainings.
    """
    flow, diffusion = MODELS[: len(FLOW_SEEDS)], MODELS[len(FLOW_SEEDS) :]
    out: list[dict[str, Any]] = []
    for family, models in (("flow", flow), ("diffusion", diffusion)):
        for delay in DELAYS_MS:
            base = table(models, BASELINE, delay, "success")
            for way in WAYS:
                out += _cell_rows(family, models, way, delay, base)
    return out


def _cell_rows(family: str, models: Sequence[str], way: str, delay: int, base: np.ndarray) -> list[dict[str, Any]]:
    success = table(models, way, delay, "success")
    common = {"seeds": f"{len(models)} trainings x {success.shape[1]} episodes"}
    where = f"{family}, {way}, {delay} ms delay"
    overall = mean_interval(success)
    found = [
        {
            "claim": f"success; {where}", "value": overall.value, "unit": "",
            "interval": [overall.low, overall.high], **common,
        }
    ]  # fmt: skip
    if way != BASELINE:
        gain = paired_mean(success.mean(axis=0), base.mean(axis=0))
        found.append({
            "claim": f"success beyond {BASELINE}; {where}", "value": gain.value, "unit": "",
            "interval": [gain.low, gain.high], "baseline": f"{BASELINE}: {base.mean():.3f}", **common,
        })  # fmt: skip
    for what, unit in (("hit", ""), ("jerk", "m/s^3"), ("boundary_kink", "m")):
        found.append({
            "claim": f"{LABELS[what]}; {where}", "value": float(table(models, way, delay, what).mean()), "unit": unit,
            **common,
        })  # fmt: skip
    return found


LABELS = {
    "hit": "share of episodes that end at the pillar",
    "jerk": "jerk of the commanded position, root mean square",
    "boundary_kink": "second difference of the command where a chunk takes over, mean length",
}


def plot(found: Sequence[Mapping[str, Any]]) -> Path:
    """Draw success and smoothness over the delay."""
    known = {one["claim"]: one for one in found}
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    panels = (("success", "flow", "success, flow, 3 trainings"), ("success", "diffusion", "success, diffusion"),
              (LABELS["jerk"], "flow", "jerk of the command, flow [m/s$^3$]"))  # fmt: skip
    for ax, (claim, family, title) in zip(axes, panels, strict=True):
        for i, way in enumerate(WAYS):
            picked = [known[f"{claim}; {family}, {way}, {delay} ms delay"] for delay in DELAYS_MS]
            values = np.array([one["value"] for one in picked])
            x = np.array(DELAYS_MS) + 4.0 * (i - 3)
            error = None
            if claim == "success":
                ends = np.array([one["interval"] for one in picked])
                error = np.maximum(0.0, np.stack([values - ends[:, 0], ends[:, 1] - values]))
            ax.errorbar(x, values, yerr=error, marker="o", markersize=3, capsize=2, linewidth=1.2, label=way)
        ax.set(xlabel="inference delay [ms]", title=title, xticks=DELAYS_MS)
        ax.set_ylim(bottom=0.0)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    path = DOC_IMAGES / f"{NAME}.png"
    fig.savefig(path, dpi=100)
    plt.close(fig)
    return path


def main() -> None:
    """Do the parts that are asked for, all if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="collect and train")
    parser.add_argument("--evaluate", action="store_true", help="play the episodes")
    parser.add_argument("--report", action="store_true", help="rows and plot")
    parser.add_argument("--steps", type=int, default=12000, help="training steps of each policy")
    parser.add_argument("--episodes", type=int, default=300, help="episodes of a cell")
    parser.add_argument("--environments", type=int, default=100, help="episodes side by side")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="which policies")
    given = parser.parse_args()
    every = not (given.train or given.evaluate or given.report)
    if given.train or every:
        train(given.steps, given.models)
    if given.evaluate or every:
        evaluate(given.episodes, given.environments, given.models)
    if given.report or every:
        found = rows()
        write_results(NAME, found)
        plot(found)


if __name__ == "__main__":
    main()
