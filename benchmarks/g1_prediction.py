"""A real robot's demonstrations, imported and learned: the next 16 actions of unseen episodes of a Unitree G1.

Episodes 0 to 79 are imported from LeRobot v2.1 without their videos and trained on; of episodes 80 to 99 every window
of 16 actions is predicted from state and previous action. Baselines on the same windows: ridge regression from the
same two, and holding the last action. Training is short because the error on validation episodes, which are among the
80, rises from about step 1,000 on.

    python -m benchmarks.g1_prediction --source <lerobot_g1_v21>            # import, train, report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console

from benchmarks._results import DOC_IMAGES, write_results
from robot_rl.cli.config import load_config
from robot_rl.cli.model_card import trained_model
from robot_rl.cli.train_command import run as train
from robot_rl.data.foreign import Defect, ForeignDataset, import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.schema import StoreSchema
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.statistics import student_t
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Recording, Stream

mpl.use("Agg")
ROOT = Path("outputs/benchmarks/g1_prediction")
STATE, PREVIOUS = "observation.state", "previous_action"
HORIZON, N_OBS = 16, 4
TRAIN, HELD_OUT = range(80), range(80, 100)
MARK = 0.0161


class WithPreviousAction:
    """A data set whose observations also hold the action of the step before (at the start, of the first).

    Args:
        source: The data set.
        episodes: Which of its episodes.
    """

    def __init__(self, source: ForeignDataset, episodes: range) -> None:
        self._source, self._episodes = source, episodes
        known = source.schema.spec
        previous = ArraySpec(name=PREVIOUS, shape=known.action.shape, dtype=known.action.dtype, unit=known.action.unit)
        obs = {STATE: known.obs[STATE], PREVIOUS: previous}
        spec = RobotSpec(name=known.name, obs=obs, action=known.action, control_hz=known.control_hz)
        self.format, self.schema = source.format, StoreSchema(spec=spec)
        self.defects: Sequence[Defect] = [d for d in source.defects if set(d.episodes) & set(episodes)]
        self.lost: Mapping[str, str] = source.lost
        self.provenance: Mapping[str, Any] = source.provenance

    def __len__(self) -> int:
        return len(self._episodes)

    def episode_id(self, index: int) -> str:
        """Return the source's id."""
        return self._source.episode_id(self._episodes[index])

    def episode(self, index: int) -> Recording:
        """Return the source's episode with the previous action beside the state."""
        recording = self._source.episode(self._episodes[index])
        kept = {name: recording.streams[name] for name in (STATE, "action")}
        action = np.asarray(kept["action"].data[:])
        kept[PREVIOUS] = Stream(kept["action"].stamp_ns, np.concatenate([action[:1], action[:-1]]))
        return Recording(kept, recording.meta)


def open_part(source: Path, root: Path, name: str, episodes: range) -> EpisodeStore:
    """Import some episodes into a store of their own, or go on with it."""
    dataset = WithPreviousAction(open_dataset(source, videos=False), episodes)
    import_dataset(dataset, root / name, source=source)
    return EpisodeStore.open(root / name)


def windows(store: EpisodeStore) -> list[dict[str, np.ndarray]]:
    """Return for each episode its observations [N, O, ...] and next actions [N, 16, A], at every tick that has them."""
    found = []
    for id in store.ids():
        episode = store.episode(id)
        n = len(episode) - HORIZON + 1
        past = np.clip(np.arange(n)[:, None] + np.arange(1 - N_OBS, 1), 0, None)
        obs = {name: np.asarray(episode.obs[name][:])[past] for name in (STATE, PREVIOUS)}
        found.append({**obs, "action": episode.action[np.arange(n)[:, None] + np.arange(HORIZON)]})
    return found


def ridge(train: Sequence[Mapping[str, np.ndarray]], test: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """Return chunks predicted by ridge regression (penalty 1 on standardised inputs) from state and previous action."""

    def inputs(part: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([part[STATE][:, -1], part[PREVIOUS][:, -1]], axis=1).astype(np.float64)

    x, y = (np.concatenate([f(part) for part in train]) for f in (inputs, lambda part: part["action"].reshape(-1, 416)))
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    design = np.c_[(x - mean) / std, np.ones(len(x))]
    weights = np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ y)
    return [
        (np.c_[(inputs(part) - mean) / std, np.ones(len(part["action"]))] @ weights).reshape(part["action"].shape)
        for part in test
    ]


def learned(run: Path, test: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """Return chunks predicted by the trained policy."""
    _, model = trained_model(run)
    done = []
    for part in test:
        obs = {name: torch.as_tensor(part[name]) for name in (STATE, PREVIOUS)}
        with torch.no_grad():
            chunks = model.sample(obs, torch.zeros(len(part["action"]), *model.noise_shape))
        done.append(chunks.numpy())
    return done


def errors(chunks: Sequence[np.ndarray], test: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """Return the mean absolute error of each episode, by step of the chunk, [16]."""
    return [np.abs(c - part["action"]).mean(axis=(0, 2)) for c, part in zip(chunks, test, strict=True)]


def settings(root: Path, seed: int, minutes: float, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of `robot-rl train`."""
    return [
        "task=own", "policy=regression", "denoiser=mlp_small", f"store={root}/train", f"run={root}/run_s{seed}",
        f"seed={seed}", f"task.obs=[{STATE},{PREVIOUS}]", f"task.rest=[{PREVIOUS}]", f"task.n_obs={N_OBS}",
        "denoiser.width=128", "denoiser.n_blocks=2", "train.threads=1", "train.steps=1000", "train.warmup_steps=100",
        "train.weight_decay=0.1", f"train.max_minutes={minutes}", *overrides,
    ]  # fmt: skip


def report(root: Path, seeds: Sequence[int]) -> None:
    """Write result rows and the picture."""
    train_parts, test = windows(EpisodeStore.open(root / "train")), windows(EpisodeStore.open(root / "held_out"))
    hold = [np.repeat(part[PREVIOUS][:, -1:], HORIZON, axis=1) for part in test]
    by_arm = {
        "policy": [errors(learned(root / f"run_s{seed}", test), test) for seed in seeds],
        "ridge regression": [errors(ridge(train_parts, test), test)],
        "last action held": [errors(hold, test)],
    }
    weights = np.array([len(part["action"]) for part in test], dtype=np.float64)
    mean = {
        arm: np.average(np.mean(runs, axis=0), axis=0, weights=weights) for arm, runs in by_arm.items()
    }  # [16], over windows
    rows = []
    for arm, runs in by_arm.items():
        each = [float(np.average(np.mean(run, axis=1), weights=weights)) for run in runs]
        interval = student_t(each) if len(each) > 1 else None
        rows.append({
            "claim": f"G1, mean absolute error of the next 16 actions, episodes 80 to 99: {arm}",
            "value": round(float(np.mean(each)), 5), "unit": "action unit (rad; hands 0 to 1)",
            "interval": None if interval is None else [round(interval.low, 5), round(interval.high, 5)],
            "seeds": f"training seeds {list(seeds)}, {int(weights.sum())} windows" if arm == "policy" else None,
            "command": "python -m benchmarks.g1_prediction --source <lerobot_g1_v21>",
            "baseline": f"below {MARK}" if arm == "policy" else "baseline on the same windows",
        })  # fmt: skip
    write_results("g1_prediction", rows)
    (root / "raw.json").write_text(json.dumps({arm: value.tolist() for arm, value in mean.items()}) + "\n")
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    for arm, value in mean.items():
        axis.plot(np.arange(HORIZON) / 30, value, ".-", label=f"{arm}: {value.mean():.4f}")
    axis.set_xlabel("time ahead [s]")
    axis.set_ylabel("mean absolute error")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(DOC_IMAGES / "g1_prediction.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", type=Path, required=True, help="folder of the LeRobot v2.1 data set")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each seed at most")
    parser.add_argument("overrides", nargs="*", help="robot-rl train overrides, before any option")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, episodes in (("train", TRAIN), ("held_out", HELD_OUT)):
        open_part(args.source, args.root, name, episodes)
    for seed in args.seeds:
        train(load_config(settings(args.root, seed, args.minutes, args.overrides)), Console())
    report(args.root, args.seeds)


if __name__ == "__main__":
    main()
