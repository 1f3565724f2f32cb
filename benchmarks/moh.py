"""PushT: the mixture of horizons against its controls at equal training compute, fixed and consensus execution.

    python -m benchmarks.moh --calibrate            # on a quiet machine: what a training step of each arm costs
    python -m benchmarks.moh --train moh 0          # arms: those of ARMS; seeds: 0, 1, 2
    python -m benchmarks.moh --evaluate             # all of what is trained
    python -m benchmarks.moh --report

Each part continues where it stopped. Compute is one thread for `--minutes`, see `benchmarks._pusht_arms`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks._pusht_arms import (
    EVALUATION_SEEDS,
    STORE,
    Arm,
    calibrate,
    difference_interval,
    evaluate,
    mean_interval,
    read_results,
    run_folder,
    table,
    train,
    trained,
)
from benchmarks._results import DOC_IMAGES, write_results
from policies.horizons import MixtureOfHorizons
from policies.torch_policy import TorchBatchPolicy
from robot_rl.deploy.consensus import Consensus
from robot_rl.evaluation.lockstep import BatchChunks
from robot_rl.evaluation.statistics import Interval
from robot_rl.values import Obs

mpl.use("Agg")
ROOT = Path("outputs/benchmarks/moh")
MINUTES = 10.0
SEEDS = (0, 1, 2)
SIZE = (
    "+denoiser.width=96", "+denoiser.n_layers=3", "train.batch_size=128", "train.lr=0.001", "train.warmup_steps=300",
)  # fmt: skip
ARMS = {
    "plain": Arm("plain", ("denoiser=transformer", *SIZE)),
    "moh": Arm("moh", ("denoiser=moh", *SIZE)),
    "moh_uniform": Arm("moh_uniform", ("denoiser=moh", "denoiser.gate=uniform", *SIZE)),
    "reweighted": Arm("reweighted", ("denoiser=moh_reweighted", *SIZE)),
    "plain_few": Arm("plain_few", ("denoiser=transformer", *SIZE)),
}
EQUAL_STEPS = {"plain_few": "moh"}
"""Arms that make as many steps as another one can afford, which take them less time."""
RATIOS = (1.2, 2.0)
N_EXECUTE = 4
MIN_ACTIVE = 2


@dataclass(frozen=True)
class Trial:
    """One way to execute what an arm learned.

    Args:
        arm: The trained arm.
        name: Its name in files and results.
        n_execute: Actions executed of each chunk, or the least of them if `ratio` is given.
        fusion: How the mixture is fused.
        ratio: Of consensus execution; `None` executes `n_execute` always.
    """

    arm: str
    name: str
    n_execute: int = N_EXECUTE
    fusion: Literal["gate", "mean"] = "gate"
    ratio: float | None = None

    def path(self, seed: int) -> Path:
        """Return the file of its episodes."""
        return ROOT / "evaluations" / f"{self.name}_s{seed}.jsonl"


TRIALS = (*(Trial(name, name) for name in ARMS), Trial("moh", "moh_mean_fusion", fusion="mean"))
DYNAMIC = tuple(Trial("moh", f"moh_dynamic_{ratio:g}", ratio=ratio) for ratio in RATIOS)


def fixed(lengths: Sequence[int]) -> Iterator[Trial]:
    """Return the trials that execute a fixed number of actions: the mixture, and the plain transformer."""
    for n in sorted(set(lengths) - {N_EXECUTE}):
        yield Trial("moh", f"moh_fixed_{n}", n_execute=n)
        yield Trial("plain", f"plain_fixed_{n}", n_execute=n)


class _Counted:
    """A batch policy that writes down how many actions of each chunk it asks to execute."""

    def __init__(self, policy: TorchBatchPolicy, path: Path) -> None:
        self._policy, self._path = policy, path
        self.n_obs, self.n_execute, self.noise_shape = policy.n_obs, policy.n_execute, policy.noise_shape

    def act_batch(self, obs: Obs, noise: np.ndarray) -> BatchChunks:
        """Return the policy's own answer."""
        chunks = self._policy.act_batch(obs, noise)
        if chunks.n_execute is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(chunks.n_execute.tolist()) + "\n")
        return chunks


def lengths_file(trial: Trial, seed: int) -> Path:
    """Return the file of the numbers of actions that consensus execution chose."""
    return trial.path(seed).with_suffix(".lengths")


def play(trial: Trial, seed: int) -> None:
    """Evaluate one trial of one training seed, or go on with it."""
    card, model = trained(ARMS[trial.arm], seed, ROOT)
    if isinstance(model.denoiser, MixtureOfHorizons):
        model.denoiser.fusion = trial.fusion
    rule = None if trial.ratio is None else Consensus(n_min=N_EXECUTE, min_active=MIN_ACTIVE, ratio=trial.ratio)
    policy = TorchBatchPolicy(model, card.spec, n_execute=trial.n_execute, consensus=rule)
    trial.path(seed).parent.mkdir(parents=True, exist_ok=True)
    evaluate(_Counted(policy, lengths_file(trial, seed)), trial.path(seed))


def mean_length(trial: Trial, seeds: Sequence[int]) -> float:
    """Return the mean number of actions executed of a chunk."""
    if trial.ratio is None:
        return float(trial.n_execute)
    lines = [line for seed in seeds for line in lengths_file(trial, seed).read_text().splitlines()]
    return float(np.mean([n for line in lines for n in json.loads(line)]))


def give_equal_steps() -> None:
    """Write for the arms of `EQUAL_STEPS` the rate that buys them the other one's steps."""
    path = ROOT / "calibration.json"
    rates = json.loads(path.read_text())
    path.write_text(json.dumps(rates | {arm: rates[like] for arm, like in EQUAL_STEPS.items()}, indent=1) + "\n")


def trained_seeds(arm: str) -> list[int]:
    """Return the seeds whose training is finished."""
    folders = {seed: run_folder(ARMS[arm], seed, ROOT) / "summary.json" for seed in SEEDS}
    return [s for s, path in folders.items() if path.exists() and json.loads(path.read_text())["status"] == "finished"]


def play_all() -> None:
    """Evaluate everything that is trained; the fixed lengths follow from what consensus execution chose."""
    torch.set_num_threads(1)
    for trial in (*TRIALS, *DYNAMIC):
        for seed in trained_seeds(trial.arm):
            play(trial, seed)
    seeds = trained_seeds("moh")
    for trial in fixed([round(mean_length(trial, seeds)) for trial in DYNAMIC]) if seeds else ():
        for seed in trained_seeds(trial.arm):
            play(trial, seed)


class Results:
    """Tables of all finished trials."""

    def __init__(self) -> None:
        lengths = range(1, 17)
        known = {trial.name: trial for trial in (*TRIALS, *DYNAMIC, *fixed(lengths))}
        self.trials = {name: trial for name, trial in known.items() if self.seeds(trial)}

    @staticmethod
    def seeds(trial: Trial) -> list[int]:
        """Return the training seeds whose evaluation is complete."""
        return [seed for seed in SEEDS if len(read_results(trial.path(seed))) == len(EVALUATION_SEEDS)]

    def table(self, name: str, what: str) -> np.ndarray:
        """Return `success` or `max_reward`, [training seeds, evaluation seeds]."""
        trial = self.trials[name]
        runs = [sorted(read_results(trial.path(seed)), key=lambda r: r.seed) for seed in self.seeds(trial)]
        return table(runs, what)

    def difference(self, first: str, second: str, what: str) -> Interval:
        """Return the mean of `first - second`; of two ways to execute the same trainings, paired by training too."""
        one, other = self.table(first, what), self.table(second, what)
        same = self.trials[first].arm == self.trials[second].arm and one.shape == other.shape
        return mean_interval(one - other) if same else difference_interval(one, other)

    def length(self, name: str) -> float:
        """Return the mean number of actions executed of a chunk."""
        return mean_length(self.trials[name], self.seeds(self.trials[name]))


WHAT = {"success": "success", "max_reward": "mean largest reward of an episode"}


def rows(results: Results) -> list[dict[str, Any]]:
    """Return the rows of the results page: every trial, then the comparisons that answer a question."""
    done = []
    for name in results.trials:
        for what, words in WHAT.items():
            interval = mean_interval(results.table(name, what))
            seeds = f"{len(results.seeds(results.trials[name]))} trainings x {len(EVALUATION_SEEDS)} episodes"
            done.append(
                {"claim": f"{name}, {results.length(name):.1f} actions a chunk: {words}", "value": interval.value,
                 "unit": "", "interval": [interval.low, interval.high], "seeds": seeds}
            )  # fmt: skip
    for first, second in comparisons(results):
        for what, words in WHAT.items():
            apart = results.difference(first, second, what)
            done.append(
                {"claim": f"{first} minus {second}: {words}", "value": apart.value, "unit": "",
                 "interval": [apart.low, apart.high], "seeds": "paired by evaluation seed", "baseline": 0}
            )  # fmt: skip
    return done


def comparisons(results: Results) -> list[tuple[str, str]]:
    """Return the pairs to compare, of those that there are."""
    pairs = [("moh", other) for other in ("plain", "plain_few", "moh_uniform", "reweighted", "moh_mean_fusion")]
    pairs += [("reweighted", "plain"), ("plain_few", "plain")]
    for trial in DYNAMIC:
        if trial.name in results.trials:
            n = round(results.length(trial.name))
            moh, plain = ("moh", "plain") if n == N_EXECUTE else (f"moh_fixed_{n}", f"plain_fixed_{n}")
            pairs += [(trial.name, moh), (trial.name, plain), (moh, plain)]
    return [pair for pair in dict.fromkeys(pairs) if set(pair) <= set(results.trials)]


def plot(results: Results) -> None:
    """Draw success of the arms, and success against actions executed of a chunk."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    names = [trial.name for trial in TRIALS if trial.name in results.trials]
    for y, name in enumerate(names):
        interval = mean_interval(results.table(name, "success"))
        left.barh(y, interval.value, color="C0" if name.startswith("moh") else "lightgrey")
        left.plot([interval.low, interval.high], [y, y], color="black")
    left.set(yticks=range(len(names)), yticklabels=names, xlabel="success", title=f"{N_EXECUTE} actions of each chunk")
    left.invert_yaxis()
    groups = {
        "mixture, consensus": [trial.name for trial in DYNAMIC],
        "mixture, fixed": ["moh", *(name for name in results.trials if name.startswith("moh_fixed"))],
        "plain, fixed": ["plain", *(name for name in results.trials if name.startswith("plain_fixed"))],
    }
    for label, members in groups.items():
        points = sorted((results.length(n), n) for n in members if n in results.trials)
        intervals = [mean_interval(results.table(n, "success")) for _, n in points]
        if points:
            spans = np.array([[i.value - i.low, i.high - i.value] for i in intervals]).T
            right.errorbar([x for x, _ in points], [i.value for i in intervals], spans, marker="o", label=label)
    right.set(xlabel="actions executed of a chunk, mean", ylabel="success")
    right.legend()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "moh.png", dpi=110)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="measure training steps per second, 20 s an arm")
    parser.add_argument("--train", nargs=2, metavar=("ARM", "SEED"))
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--report", action="store_true", help="rows and picture from what is evaluated")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="training budget, one thread")
    parser.add_argument("--store", type=Path, default=STORE)
    args = parser.parse_args()
    if args.calibrate:
        print(calibrate([arm for name, arm in ARMS.items() if name not in EQUAL_STEPS], 20.0, ROOT, store=args.store))
    if args.train:
        give_equal_steps()
        train(ARMS[args.train[0]], int(args.train[1]), ROOT, args.minutes, store=args.store)
    if args.evaluate:
        play_all()
    if args.report:
        results = Results()
        write_results("moh", [{**row, "command": "python -m benchmarks.moh --report"} for row in rows(results)])
        plot(results)


if __name__ == "__main__":
    main()
