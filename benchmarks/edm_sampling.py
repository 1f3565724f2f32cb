"""Three-step EDM against 16-step DDIM and ten-step flow on PushT: success and latency at equal training compute.

    python -m benchmarks.edm_sampling --calibrate
    python -m benchmarks.edm_sampling --train edm 0        # each of edm, diffusion, flow with each seed
    python -m benchmarks.edm_sampling --evaluate --latency --report

Encoder, denoiser and data are those of configs/task/pusht.yaml. Every part continues where it stopped.
Writes benchmarks/results/edm_sampling.json and docs/img/edm_sampling.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from benchmarks import _edm_report
from benchmarks._edm_conditions import ARMS, Condition, every, headline
from benchmarks._pusht_arms import EVALUATION_SEEDS, STORE, calibrate, evaluate, run_folder, train
from policies.denoising import DenoisingModel
from policies.export import export_bundle
from policies.torch_policy import TorchBatchPolicy
from robot_rl.cli.model_card import ModelCard
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.imitation.checkpoint import load_model_weights
from robot_rl.values import PolicyInput

ROOT = Path("outputs/benchmarks/edm_sampling")
WARM_UP_CALLS = 20


@dataclass(frozen=True)
class Settings:
    """What the command line chose.

    Args:
        root: The benchmark's folder.
        seeds: Training seeds.
        sweep_seeds: Evaluation seeds of the conditions that are not in the headline.
        episodes: Evaluation seeds of those that are.
    """

    root: Path
    seeds: list[int]
    episodes: int
    sweep_seeds: int

    def n_episodes(self, condition: Condition) -> int:
        """Return how many evaluation seeds a condition is played on."""
        return self.episodes if condition in headline() else self.sweep_seeds

    def results(self, condition: Condition, seed: int) -> Path:
        """Return where the episodes of a condition and a training seed lie."""
        return self.root / "evaluations" / f"{condition.name}_s{seed}.jsonl"


def resampled(condition: Condition, seed: int, root: Path) -> tuple[ModelCard, DenoisingModel]:
    """Return a training's model with its averaged weights, sampled as the condition says."""
    run = run_folder(ARMS[condition.arm], seed, root)
    card = ModelCard.load(run)
    card = replace(card, policy={**card.policy, **condition.overrides})
    model = card.build_model()
    if not isinstance(model, DenoisingModel):
        raise TypeError(f"{run} holds a {type(model).__name__}, expected a model that denoises")
    load_model_weights(model, run / "checkpoints" / "last", ema=True)
    return card, model.eval()


def evaluate_all(settings: Settings) -> None:
    """Play every condition's episodes that are not there yet, headline first."""
    torch.set_num_threads(1)
    for condition in every():
        for seed in settings.seeds:
            card, model = resampled(condition, seed, settings.root)
            policy = TorchBatchPolicy(model, card.spec, n_execute=card.n_execute)
            seeds = EVALUATION_SEEDS[: settings.n_episodes(condition)]
            done = evaluate(policy, settings.results(condition, seed), seeds)
            rate = np.mean([result.success for result in done])
            print(f"{condition.name} s{seed}: success {rate:.3f} of {len(done)}")


def measure_latency(settings: Settings, rounds: int) -> None:
    """Time one call of every condition's bundle in ONNX Runtime on one thread, in turns, and save p50 and p99 [ms]."""
    conditions = every()
    with tempfile.TemporaryDirectory() as scratch:
        calls = [_call(condition, settings, Path(scratch)) for condition in track(conditions, "exporting")]
        times = np.empty((rounds, len(calls)))
        for number in range(-WARM_UP_CALLS, rounds):
            for i, (policy, asked) in enumerate(calls):
                began = time.perf_counter_ns()
                policy.act(asked)
                times[number, i] = (time.perf_counter_ns() - began) / 1e6  # warm-up rows are overwritten later
    p50, p99 = np.quantile(times, [0.5, 0.99], axis=0)
    saved = {
        condition.name: {"p50_ms": float(p50[i]), "p99_ms": float(p99[i]), "calls": rounds}
        for i, condition in enumerate(conditions)
    }
    (settings.root / "latency.json").write_text(json.dumps(saved, indent=1) + "\n")


def _call(condition: Condition, settings: Settings, scratch: Path) -> tuple[OnnxPolicy, PolicyInput]:
    """Return a condition's exported policy and what to ask it."""
    card, model = resampled(condition, settings.seeds[0], settings.root)
    bundle = export_bundle(
        model, scratch / condition.name, spec=card.spec, stats=card.stats, n_execute=card.n_execute,
        config={}, data_digest=card.data_digest, parity_rounds=1, tolerance=1e-3,
    )  # fmt: skip
    policy = OnnxPolicy(bundle, threads=1, providers=("CPUExecutionProvider",))
    rng = np.random.default_rng(0)
    obs = {
        name: rng.uniform(card.stats[name].min, card.stats[name].max, (policy.n_obs, *array.shape)).astype(np.float32)
        for name, array in card.spec.obs.items()
    }
    noise = rng.standard_normal(policy.noise_shape, dtype=np.float32)
    return policy, PolicyInput(obs=obs, stamp_ns=0, noise=noise)


def report(settings: Settings) -> None:
    """Write rows and picture from what lies in the folder."""
    latency = json.loads((settings.root / "latency.json").read_text())
    runs = _edm_report.collect(settings.results, every(), settings.seeds)
    rates = json.loads((settings.root / "calibration.json").read_text())
    _edm_report.write(runs, latency, rates, settings.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="measure each arm's training steps a second")
    parser.add_argument("--train", nargs=2, metavar=("ARM", "SEED"), help=f"train one of {sorted(ARMS)}")
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--store", type=Path, default=STORE, help="imported demonstrations")
    parser.add_argument("--seconds", type=float, default=20.0, help="calibration of each arm")
    parser.add_argument("--minutes", type=float, default=5.0, help="training budget of each run, one quiet thread")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="training seeds")
    parser.add_argument("--episodes", type=int, default=500, help="evaluation seeds of the headline")
    parser.add_argument("--sweep-seeds", type=int, default=200, help="evaluation seeds of the rest")
    parser.add_argument("--rounds", type=int, default=2000, help="timed calls")
    args = parser.parse_args()
    settings = Settings(args.root, args.seeds, args.episodes, args.sweep_seeds)
    if args.calibrate:
        print(calibrate(list(ARMS.values()), args.seconds, args.root, store=args.store))
    if args.train is not None:
        train(ARMS[args.train[0]], int(args.train[1]), args.root, args.minutes, store=args.store)
    if args.evaluate:
        evaluate_all(settings)
    if args.latency:
        measure_latency(settings, args.rounds)
    if args.report:
        report(settings)


if __name__ == "__main__":
    main()
