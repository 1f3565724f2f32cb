"""RLIF against HG-DAgger on `insert`: operators of 90, 50 and 20 % quality, equal numbers of interventions.

Every arm starts from the same weak imitation base and has the same simulated operator beside it, who takes over when
the task comes no nearer. RLIF (a residual on the base) learns from who drove alone, for 15,000 environment steps; then
HG-DAgger plays until the operator has taken over as often, or for as many steps. Three training seeds at 50 %, one
elsewhere. Success is that of the policies alone on unseen seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks._hg_dagger import ROUNDS, counts, hg_dagger, takeover_curve
from benchmarks._results import DOC_IMAGES, write_results
from benchmarks.residual import BASES, FIRST_SEED, command, final, make_base
from robot_rl.evaluation.statistics import Interval, clopper_pearson
from robot_rl.evaluation.summary import EvaluationSummary

mpl.use("Agg")
TASK = "insert"
QUALITIES = (90, 50, 20)
SEEDS = {90: (0,), 50: (0, 1, 2), 20: (0,)}
ARMS = ("rlif", "hg_dagger")
NAMES = {"rlif": "RLIF", "hg_dagger": "HG-DAgger"}
RESULT = "result.json"


PATIENCE_STEPS, HELD_STEPS = 10, 40
"""The operator takes over after so many steps without progress, and keeps the arm for two seconds: a peg stuck at the
rim is lifted, led anew and put in."""
BLAME = [f"algo.rlif.reaction_lag_steps={PATIENCE_STEPS - 1}"]
"""The steps that the operator waited through share the blame."""


def operator(quality: int) -> list[str]:
    """Return the overrides that put an operator of a quality in percent beside the policy."""
    return [
        "intervener=expert", f"intervener.script.quality={quality / 100}", f"intervener.n_steps={HELD_STEPS}",
        f"intervener.rule.patience_steps={PATIENCE_STEPS}",
    ]  # fmt: skip


def train(out: Path, arm: str, quality: int, seed: int, *, steps: int, settings: Sequence[str], rounds: int) -> None:
    """Run one arm to its end and save its figures; nothing is done twice.

    Raises:
        FileNotFoundError: HG-DAgger before the RLIF run whose interventions it is to have.
    """
    folder = out / f"{arm}_{quality}_{seed}"
    if (folder / RESULT).exists():
        return
    mine = [*settings, *operator(quality)]
    if arm == "rlif":
        command(
            "finetune", f"out={out}", "algo=rlif", f"seed={seed}", f"finetune.out={folder}", "finetune.workers=0",
            f"finetune.steps={steps}", f"finetune.first_seed={FIRST_SEED * (seed + 1)}", "finetune.eval_every=null",
            "evaluate.video_episodes=0", *mine, *BLAME,
        )  # fmt: skip
        summary, played = final(out, f"{arm}_{quality}", seed), folder / "store"
    else:
        wanted = _read(out, "rlif", quality, seed)["takeovers"]
        hg_dagger(out, folder, seed=seed, steps=steps, wanted=wanted, settings=mine, rounds=rounds)
        summary, played = EvaluationSummary.read(folder / "evaluate" / "summary.json"), folder / "played"
    takeover_curve(played, folder / "curve.json")
    result = {**counts(played), "successes": summary.successes, "trials": len(summary.results)}
    (folder / RESULT).write_text(json.dumps(result))


def _read(out: Path, arm: str, quality: int, seed: int) -> dict[str, int]:
    path = out / f"{arm}_{quality}_{seed}" / RESULT
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; run `--train --arms {arm} --qualities {quality}` first")
    found: dict[str, int] = json.loads(path.read_text())
    return found


def _there(out: Path, arm: str, quality: int) -> dict[int, dict[str, int]]:
    """Return the figures of the seeds that are done."""
    seeds = [seed for seed in range(10) if (out / f"{arm}_{quality}_{seed}" / RESULT).exists()]
    return {seed: _read(out, arm, quality, seed) for seed in seeds}


def _pooled(found: dict[int, dict[str, int]]) -> Interval:
    return clopper_pearson(sum(r["successes"] for r in found.values()), sum(r["trials"] for r in found.values()))


def rows(out: Path) -> list[dict[str, Any]]:
    """Return result rows: the base, then success and interventions of each arm and quality, losses as gains."""
    base = EvaluationSummary.read(out / "evaluate" / "summary.json").success
    found: list[dict[str, Any]] = [
        {"claim": f"{TASK}, the imitation base of both", "value": base.value, "unit": "success",
         "interval": [base.low, base.high]}
    ]  # fmt: skip
    for quality in QUALITIES:
        for arm in ARMS:
            if not (there := _there(out, arm, quality)):
                continue
            success, other = _pooled(there), _there(out, "hg_dagger", quality) if arm == "rlif" else {}
            takeovers = [r["takeovers"] for r in there.values()]
            each = ", ".join(f"{r['successes']}/{r['trials']}" for r in there.values())
            against = f"{NAMES['hg_dagger']}: {_pooled(other).value:.2f}" if other else f"base: {base.value:.2f}"
            found.append(
                {"claim": f"{TASK}, {NAMES[arm]}, operator of {quality} % ({each}), {takeovers} takeovers in "
                          f"{[r['steps'] for r in there.values()]} steps", "value": success.value, "unit": "success",
                 "interval": [success.low, success.high], "seeds": f"training seeds {sorted(there)}",
                 "baseline": against}
            )  # fmt: skip
    return found


def plot(out: Path) -> None:
    """Draw success by the operator's quality, and how often RLIF's policies are taken over as they learn."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for arm, colour, shift in zip(ARMS, ("tab:blue", "tab:green"), (-0.17, 0.17), strict=True):
        for place, quality in enumerate(QUALITIES):
            if not (there := _there(out, arm, quality)):
                continue
            success = _pooled(there)
            error = [[success.value - success.low], [success.high - success.value]]
            label = NAMES[arm] if place == 0 else None
            left.bar(place + shift, success.value, 0.3, yerr=error, capsize=3, color=colour, label=label)
            points = [r["successes"] / r["trials"] for r in there.values()]
            left.plot([place + shift] * len(points), points, "k.", markersize=4)
    base = EvaluationSummary.read(out / "evaluate" / "summary.json").success.value
    left.axhline(base, color="grey", linestyle=":", label="base")
    left.set(xlabel="operator's success alone [%]", ylabel="success without operator", ylim=(0, 1), title=TASK)
    left.set_xticks(range(len(QUALITIES)), [str(quality) for quality in QUALITIES])
    left.legend()
    for quality, colour in zip(QUALITIES, ("tab:purple", "tab:orange", "tab:red"), strict=True):
        for number, seed in enumerate(_there(out, "rlif", quality)):
            curve = json.loads((out / f"rlif_{quality}_{seed}" / "curve.json").read_text())
            right.plot(
                [p["step"] for p in curve], [p["takeovers_per_100"] for p in curve], color=colour, alpha=0.8,
                label=f"operator of {quality} %" if number == 0 else None,
            )  # fmt: skip
    right.set(xlabel="environment steps", ylabel="takeovers per 100 steps of the policy", title="RLIF", ylim=(0, None))
    if right.lines:
        right.legend()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "rlif.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Train what is missing, then write benchmarks/results/rlif.json and its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/rlif"))
    parser.add_argument("--train", action="store_true", help="play and learn; continues where it stopped")
    parser.add_argument("--report", action="store_true", help="write rows and picture from what is there")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--qualities", type=int, nargs="*", default=list(QUALITIES), choices=QUALITIES)
    parser.add_argument("--seeds", type=int, nargs="*", help="three at 50 %% and one elsewhere by default")
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of HG-DAgger")
    parser.add_argument("--overrides", nargs="*", default=[], help="robot-rl overrides for every stage")
    args = parser.parse_args()
    settings = [*BASES[TASK], *args.overrides]
    if args.train:
        make_base(args.out, settings)
        for quality in args.qualities:
            for seed in SEEDS[quality] if args.seeds is None else args.seeds:
                for arm in (arm for arm in ARMS if arm in args.arms):
                    train(args.out, arm, quality, seed, steps=args.steps, settings=settings, rounds=args.rounds)
    if args.report:
        write_results("rlif", rows(args.out))
        plot(args.out)


if __name__ == "__main__":
    main()
