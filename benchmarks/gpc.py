"""Composing two policies of different eyes and families on PushT: flow on the pose, diffusion on a point cloud.

Parents of middling strength, which is where a composition has room: each is trained for minutes, not for its best. The
weights are chosen on search seeds and everything is told on report seeds, with the parents on the same ones.

    python -m benchmarks.gpc --calibrate            # store with clouds, cost of a training step
    python -m benchmarks.gpc --train 0 1 2          # both parents of each training seed
    python -m benchmarks.gpc --evaluate 0 1 2       # search and report; continues where it stopped
    python -m benchmarks.gpc --report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console

from benchmarks._pusht_arms import STORE as PUSHT_STORE
from benchmarks._pusht_arms import Arm, calibrate, mean_interval, run_folder, train
from benchmarks._results import DOC_IMAGES, write_results
from robot_rl.cli.compose_command import Composer, search_and_report
from robot_rl.cli.compose_parents import load_parents
from robot_rl.cli.config import load_config
from robot_rl.cli.progress import bar
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.statistics import Interval
from robot_rl.evaluation.weight_search import Report, Search, Trial
from robot_rl.specs import RobotSpec
from robot_rl.values import Recording, Stream
from sim.pusht_cloud import NAME, CloudScanner, scan_rows

ROOT = Path("outputs/benchmarks/gpc")
ENV = "task.env._target_=sim.pusht_cloud.PushTCloudEnv"
COMMON = (ENV, "task.augment._target_=sim.pusht_cloud.hindsight_and_mirror", "policy.action_norm=min_max")
STATE = Arm("flow_state", (*COMMON, "policy=flow"))
CLOUD = Arm(
    "diffusion_cloud",
    (
        *COMMON, "policy=diffusion", "encoder=cloud", f"task.obs=[agent_pos,{NAME}]", "+task.state=[agent_pos]",
        "~task.angles.block_pose",
        "+encoder.parts.1.channels=[32,64,128]", "+encoder.parts.1.box=[[0,0,0],[512,512,40]]",
    ),
)  # fmt: skip
ARMS = (STATE, CLOUD)
OPERATORS = ("convex", "and", "or")
SETTINGS = (
    "search.episodes=200", "search.first_seed=50000", "search.step=0.1", "report.episodes=500",
    "report.first_seed=100000", "report.oracle=true", "compose.min_strength=0.0",
)  # fmt: skip


def cloud_store(source: Path, target: Path) -> None:
    """Copy the demonstrations with a point cloud beside the poses; goes on where it stopped."""
    demonstrations = EpisodeStore.open(source)
    known, scanner = demonstrations.spec, CloudScanner()
    obs = {"agent_pos": known.obs["agent_pos"], "block_pose": known.obs["block_pose"], NAME: scanner.spec}
    spec = RobotSpec(name=known.name, obs=obs, action=known.action, control_hz=known.control_hz)
    store = EpisodeStore.open(target) if EpisodeStore.exists(target) else EpisodeStore.create(target, spec)
    for id in sorted(set(demonstrations.ids()) - set(store.ids())):
        recording = demonstrations.read(id)
        kept = {name: recording.streams[name] for name in ("agent_pos", "block_pose", "action")}
        agent, block = (np.asarray(kept[name].data[:]) for name in ("agent_pos", "block_pose"))
        kept[NAME] = Stream(kept["agent_pos"].stamp_ns, scan_rows(agent, block, scanner, id))
        store.append(Recording(kept, recording.meta), id=id)


def evaluate(seed: int, root: Path, overrides: Sequence[str]) -> None:
    """Search and report the compositions of one training seed, and keep every episode's outcome."""
    paths = [str(run_folder(arm, seed, root)) for arm in ARMS]
    for operator in OPERATORS:
        settings = ["task=pusht", ENV, f"operator={operator}", f"out={root}/s{seed}", *SETTINGS, *overrides]
        config = load_config(settings)
        with bar(Console()) as progress:
            composer = Composer(load_parents(paths), config, progress)
            try:
                search, report = search_and_report(composer, config)
            finally:
                composer.close()
        (root / f"s{seed}_{operator}.json").write_text(json.dumps(_raw(search, report)) + "\n")


def _raw(search: Search, report: Report) -> dict[str, Any]:
    trials = {f"{arm.name}, grid": trial for arm, trial in zip(ARMS, report.parents, strict=True)}
    own = zip(ARMS, report.others.values(), strict=True)  # in the order of the parents
    trials |= {f"{arm.name}, its own solver": trial for arm, trial in own}
    trials["composed"] = report.chosen
    if report.oracle is not None:
        trials["oracle"] = report.oracle
    return {
        "search": [_plain(trial) for trial in search.trials],
        "strongest": search.strongest,
        "too_weak_at_half": search.too_weak(0.5),
        "report": {name: _plain(trial) for name, trial in trials.items()},
    }


def _plain(trial: Trial) -> dict[str, Any]:
    return {
        "weights": list(trial.weights),
        "seeds": [result.seed for result in trial.results],
        "success": [result.success for result in trial.results],
        "max_reward": [result.max_reward for result in trial.results],
    }


Raw = Mapping[str, Sequence[Mapping[str, Any]]]
"""What `evaluate` wrote, by operator, one entry a training seed."""


def load(root: Path) -> tuple[list[int], Raw]:
    """Return the training seeds that are evaluated with every operator, and their raw results.

    Raises:
        FileNotFoundError: There is none.
    """
    seeds = [seed for seed in range(100) if all((root / f"s{seed}_{op}.json").exists() for op in OPERATORS)]
    if not seeds:
        raise FileNotFoundError(f"{root} holds no evaluation; run with --train and --evaluate first")
    return seeds, {op: [json.loads((root / f"s{seed}_{op}.json").read_text()) for seed in seeds] for op in OPERATORS}


def policies(raw: Raw) -> dict[str, np.ndarray]:
    """Return success of each policy on the report seeds, float64 [training seeds, report seeds]."""
    convex = raw["convex"]
    alone = [name for name in convex[0]["report"] if name not in ("composed", "oracle")]
    found = {name: _successes(convex, name) for name in alone}
    found["searched weight"] = _successes(convex, "composed")
    found["best weight on the report seeds (oracle)"] = _successes(convex, "oracle")
    return found | {op.upper(): _successes(raw[op], "composed") for op in ("and", "or")}


def _successes(runs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([run["report"][name]["success"] for run in runs], dtype=np.float64)


def strongest(raw: Raw) -> np.ndarray:
    """Return the success of the parent that was stronger on the search seeds, [training seeds, report seeds]."""
    rows = [run["report"][f"{ARMS[run['strongest']].name}, grid"]["success"] for run in raw["convex"]]
    return np.array(rows, dtype=np.float64)


def rows(root: Path) -> list[dict[str, Any]]:
    """Return the result rows made from the raw files."""
    seeds, raw = load(root)
    n, best = len(raw["convex"][0]["report"]["composed"]["seeds"]), strongest(raw)
    weights = ", ".join("/".join(f"{w:g}" for w in run["report"]["composed"]["weights"]) for run in raw["convex"])
    told = f"training seeds {seeds}, {n} report seeds each"
    done = []
    for name, table in policies(raw).items():
        done.append(_row(f"PushT, {name}: success", mean_interval(table), "share", told, "none: absolute strength"))
        if ", grid" not in name:
            # Both are compositions of the same training run, so training seeds are drawn together.
            gap = mean_interval(table - best)
            done.append(_row(f"PushT, {name}: success above the stronger parent", gap, "share", told, "above 0"))
    searched = [max(np.mean(trial["success"]) for trial in run["search"]) for run in raw["convex"]]
    shown = np.mean(searched) - policies(raw)["searched weight"].mean()
    done.append({
        "claim": "PushT, chosen weights: success on the search seeds above that on the report seeds",
        "value": round(float(shown), 4), "unit": "share", "seeds": told,
        "baseline": f"selection inflation; weights {weights}",
    })  # fmt: skip
    return done


def _row(claim: str, interval: Interval, unit: str, seeds: str, baseline: str) -> dict[str, Any]:
    return {
        "claim": claim, "value": round(interval.value, 4), "unit": unit, "seeds": seeds, "baseline": baseline,
        "interval": [round(interval.low, 4), round(interval.high, 4)],
    }  # fmt: skip


def plot(root: Path) -> None:
    """Draw success of every policy, and success over the weight on both sets of seeds."""
    seeds, raw = load(root)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(1.2, 1))
    for i, table in enumerate(reversed(policies(raw).values())):
        interval = mean_interval(table)
        left.plot([interval.low, interval.high], [i, i], color="tab:blue", lw=2)
        left.plot(table.mean(axis=1), [i] * len(table), ".", color="0.6")
        left.plot(interval.value, i, "o", color="tab:blue")
    left.set_yticks(range(len(policies(raw))), list(reversed(policies(raw))))
    left.set_xlabel("success on the report seeds (grey: each training seed)")
    for i, (seed, run) in enumerate(zip(seeds, raw["convex"], strict=True)):
        points = sorted((trial["weights"][0], np.mean(trial["success"])) for trial in run["search"])
        right.plot(*zip(*points, strict=True), ".-", color=f"C{i}", label=f"training seed {seed}, search seeds")
        chosen = run["report"]["composed"]
        right.plot(chosen["weights"][0], np.mean(chosen["success"]), "*", color=f"C{i}", ms=12)
    right.set_xlabel(f"weight of {STATE.name}; star: chosen, on the report seeds")
    right.set_ylabel("success")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOC_IMAGES / "gpc.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Do the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--train", type=int, nargs="*", default=[], metavar="SEED")
    parser.add_argument("--evaluate", type=int, nargs="*", default=[], metavar="SEED")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--minutes", type=float, nargs=2, default=(4.0, 6.0), help="training time of state and cloud")
    parser.add_argument("--calibrate-seconds", type=float, default=60.0)
    parser.add_argument("overrides", nargs="*", help="robot-rl compose overrides for --evaluate, before any option")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.root / "store"
    if args.calibrate:
        cloud_store(PUSHT_STORE, store)
        calibrate(ARMS, args.calibrate_seconds, args.root, store=store)
    for seed in args.train:
        for arm, minutes in zip(ARMS, args.minutes, strict=True):
            train(arm, seed, args.root, minutes, store=store)
    for seed in args.evaluate:
        evaluate(seed, args.root, args.overrides)
    if args.report:
        write_results("gpc", rows(args.root))
        plot(args.root)


if __name__ == "__main__":
    main()
