"""Which of the online stage's settings make it work: `insert` from the same policies, one thing changed at a time.

    python -m benchmarks.rl100_stages --tasks insert                # makes the policies that the arms begin with
    python -m benchmarks.online_settings                            # all arms; goes on where it stopped
    python -m benchmarks.online_settings --arms limits --seeds 0    # one run
    python -m benchmarks.online_settings --report                   # rows and picture from what is there

Every arm begins with the policy that the online stage of `rl100_stages` began with and plays as many environment steps
on the same scenes; its last policy plays the same unseen seeds, sampled as the one it began with. Nothing is judged.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from omegaconf import OmegaConf
from rich.console import Console

from benchmarks import rl100_stages
from benchmarks._online_control import evaluated, online_began_with
from benchmarks._results import DOC_IMAGES, write_results
from benchmarks._rl100_report import running_mean
from benchmarks._runs import keep, kept
from benchmarks._success import of_facts, success_interval
from robot_rl.cli import finetune_ppo
from robot_rl.cli.config import load_config, plain
from robot_rl.cli.finetune_flywheel import begin
from robot_rl.cli.finetune_flywheel_stages import Work
from robot_rl.cli.finetune_head import HEAD
from robot_rl.metrics import read_metrics
from robot_rl.rl.rounds.collection import SEEDS_OF_A_ROUND

mpl.use("Agg")
NAME, TASK = "online_settings", "insert"
REFERENCE = "rl100_online"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "limits": ("divergence 0.02 in place of 0.3 to 0.5", {"ppo": {"kl_target": 0.02, "kl_stop": 0.02}}),
    "few": ("20 episodes an iteration in place of 50", {"episodes": 20}),
    "head": ("with a one-step head that follows (head_lr 0.0003)", {"head_lr": 0.0003}),
    "dppo": ("algo=dppo, all four steps", {"chain": {"n_tuned": None}}),
}
"""What differs from the online stage, in words and as `algo` settings; `dppo` starts from its own, where 5 steps are
tuned: the policies have four."""
COLOURS = dict(zip((REFERENCE, *ARMS), ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:red"), strict=True))
BEFORE = "before"
HEAD_LEFT = "its head"
_EPISODES = 250
"""That a point of the curves is the mean of."""


def settings_of(arm: str, work: Work) -> dict[str, Any]:
    """Return the `algo` node of an arm, with as many environments side by side as the stage has."""
    stage = work.algo["online"]
    own = plain(load_config(["algo=dppo"]).algo) | {"lanes": stage["lanes"]} if arm == "dppo" else stage
    merged: dict[str, Any] = plain(OmegaConf.merge(own, ARMS[arm][1]))
    return merged


def train(root: Path, arm: str, seed: int, options: argparse.Namespace) -> None:
    """Play and learn as the online stage did, with an arm's settings, and keep what came out; nothing is done twice.

    Raises:
        SystemExit: The run that it begins with is missing.
    """
    if kept(NAME, f"{arm}_{seed}") is not None:
        return
    if not (rl100_stages.run_dir(options.stages, TASK, seed) / "rl100" / "summary.json").is_file():
        raise SystemExit(
            f"no finished run of seed {seed} in {options.stages}; python -m benchmarks.rl100_stages --tasks {TASK}"
        )
    work = begin(load_config(rl100_stages.overrides(options.stages, TASK, seed, options, [])), Console())
    first = int(work.config.finetune.first_seed) + int(work.algo["rounds"]["n"]) * SEEDS_OF_A_ROUND
    config = work.stage_config(root / f"{arm}_{seed}", algo=settings_of(arm, work), first_seed=first)
    config.base = config.run = str(online_began_with(work))
    finetune_ppo.train(config, work.console)
    found = evaluated(work, f"{NAME}, {arm}", root / f"{arm}_{seed}")
    if config.algo.head_lr is not None:
        found[HEAD] = evaluated(work, f"{NAME}, {arm}, its head", root / f"{arm}_{seed}" / HEAD)
    facts = {**found, "iteration": int(config.algo.episodes), "curve": curve(root / f"{arm}_{seed}")}
    keep(NAME, f"{arm}_{seed}", facts)


def curve(run: Path) -> list[list[float]]:
    """Return success and divergence of every update: environment steps, success, nats a denoising step or 0."""
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "online/success" in line]
    return [[line["online/steps"], line["online/success"], line.get("ppo/kl", 0.0)] for line in lines]


def finished(seeds: Sequence[int]) -> dict[str, dict[int, dict[str, Any]]]:
    """Return by arm what its seeds found, the policy before and the stage itself among them."""
    stage = {seed: found for seed in seeds if (found := kept(rl100_stages.NAME, f"{TASK}_{seed}")) is not None}
    done: dict[str, dict[int, dict[str, Any]]] = {BEFORE: {}, REFERENCE: {}}
    for seed, found in stage.items():
        done[BEFORE][seed] = found["evaluation"][stood_before(found)]
        done[REFERENCE][seed] = {**found["evaluation"]["online"], "curve": found["curve"]}
    for arm in ARMS:
        done[arm] = {seed: found for seed in seeds if (found := kept(NAME, f"{arm}_{seed}")) is not None}
    return {arm: runs for arm, runs in done.items() if runs}


def stood_before(found: Mapping[str, Any]) -> str:
    """Return under which name a run of `rl100_stages` evaluated the policy that its online stage began with."""
    accepted = [s["name"] for s in found["stages"] if s["accepted"] and s["name"] != "online"]
    return accepted[-1].replace("round_", "round ").replace("/", ", ") if accepted else "base with noise"


def rows(done: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of the results page."""
    words = {BEFORE: "the policies that all arms begin with, sampled with noise", REFERENCE: f"{REFERENCE} as it is"}
    words |= {arm: told for arm, (told, _) in ARMS.items()} | {HEAD_LEFT: "that head as it was left, nothing distilled"}
    heads = {HEAD_LEFT: {seed: found[HEAD] for seed, found in done.get(HEAD, {}).items()}} if HEAD in done else {}
    made = []
    for arm, runs in {**done, **heads}.items():
        each = ", ".join(f"{found['successes']}/{found['episodes']}" for found in runs.values())
        rate = success_interval(of_facts(runs.values()))
        made.append({"claim": f"{TASK}, {words[arm]} ({each})", "value": rate.value, "unit": "success",
                     "interval": [rate.low, rate.high], "seeds": f"training seeds {list(runs)}"})  # fmt: skip
    return made


def plot(done: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
    """Draw the success of the episodes played, a line a training seed, and that of the last policies."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", width_ratios=(3, 2))
    for arm, runs in done.items():
        for number, found in enumerate(runs.values()):
            if arm not in (BEFORE, HEAD):  # with a head beside it the policy learns the same, bit by bit
                steps, success = running_mean(found["curve"], round(_EPISODES / found.get("iteration", 50)))
                left.plot(steps / 1000, success, color=COLOURS[arm], alpha=0.8, label=arm if number == 0 else None)
    left.set(xlabel="thousand environment steps", ylabel=f"success, last {_EPISODES} episodes", ylim=(0.6, 1.01))
    left.legend(fontsize=8, loc="lower right")
    for place, (arm, runs) in enumerate(done.items()):
        each = [found["success"]["value"] for found in runs.values()]
        right.bar(place, sum(each) / len(each), 0.6, color=COLOURS.get(arm, "grey"))
        right.plot([place] * len(each), each, "k.", markersize=4)
    right.set_xticks(range(len(done)), list(done), fontsize=8)
    right.set(ylabel="success on unseen seeds", ylim=(0.6, 1.01), title="dots: training seeds")
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / f"{NAME}.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Run what is not done, and make rows and picture from what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("outputs/benchmarks") / NAME)
    parser.add_argument("--stages", type=Path, default=Path("outputs/benchmarks") / rl100_stages.NAME)
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=160_000, help="environment steps")
    parser.add_argument("--evaluate", type=int, default=200, help="unseen seeds")
    parser.add_argument("--report", action="store_true", help="only rows and picture")
    options = parser.parse_args()
    if not options.report:
        for seed in options.seeds:
            for arm in options.arms:
                train(options.root, arm, seed, options)
    done = finished(options.seeds)
    write_results(NAME, [{**row, "command": f"python -m benchmarks.{NAME}"} for row in rows(done)])
    plot(done)


if __name__ == "__main__":
    main()
