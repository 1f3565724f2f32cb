"""The offline gate on `lift`, from data of mixed quality: closed, wide and off, and with the advantage turned.

Demonstrators of three qualities (`sim.misjudging`) leave successes and failures; a base imitates all of them; then
RL-100's offline stage runs from the same store in six arms. In three the critic pulls the right way, in three the
wrong way, which a gate must hold at imitation. True success is played on the same unseen seeds for all, with the
sampler that the gate judged. Last, the score is held against the true success of all policies: may it select, or only
protect?
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import Progress

from benchmarks._results import DOC_IMAGES, write_results
from benchmarks._success import of_summaries, success_interval
from benchmarks.residual import QUICK, command
from robot_rl.cli.config import build, load_config
from robot_rl.cli.finetune_offline import OfflineStage
from robot_rl.cli.finetune_offline_policies import members_of
from robot_rl.cli.model_card import trained_model
from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.evaluation.statistics import paired_success
from robot_rl.evaluation.summary import EvaluationSummary
from robot_rl.rl.offline.evidence import validity
from robot_rl.rl.offline.gate import LOG, read_log
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.values import RecordingMeta
from sim.misjudging import MisjudgingExpert

mpl.use("Agg")
QUALITIES = (0.9, 0.5, 0.2)
ARMS: dict[str, list[str]] = {
    "gated": ["algo.gate.rule=margin"],
    "ungated": ["algo.gate.rule=off"],
    "flipped_gated": ["algo.gate.rule=margin", "+algo.improve.advantage_sign=-1"],
    "flipped_ungated": ["algo.gate.rule=off", "+algo.improve.advantage_sign=-1"],
    "wide": ["algo.evaluation.kl=200", "algo.improve.gate_every=100"],
    "flipped_wide": ["algo.evaluation.kl=200", "algo.improve.gate_every=100", "+algo.improve.advantage_sign=-1"],
}
"""`wide` is gated, too, by everything but the divergence, which it lets be what updates that matter need."""
COLOURS = dict(zip(ARMS, ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown"), strict=True))
BASE_STEPS = 4000
"""Of imitation, from data in which half of the frames lead nowhere."""
BASE = ["task=lift", "encoder=state_relative", f"train.steps={BASE_STEPS}", "train.leave_out=[]", *QUICK]
"""A base that imitates failures too, so that there is something to improve; critics see the cube from the hand, as it
does: from absolute poses, 150 episodes do not tell a good grasp from a bad one."""
STAGE = ["algo.improve.lr=0.00003", "algo.improve.updates=600", "algo.evaluation.kl=0.5"]
"""Updates large enough to matter, where true success tells right from wrong."""
GIVES_UP = {"lift": 80, "insert": 50}
"""Steps after which a demonstrator leaves off; one who misjudges would miss until the end, and be imitated in that."""
VALIDITY = "validity.json"
MODELS = ("critic_actor", "critic_gate", "dynamics")


def collect(
    out: Path, episodes: int, settings: Sequence[str], *, task: str = "lift", qualities: Sequence[float] = QUALITIES
) -> None:
    """Record so many episodes by demonstrators of all qualities in turn; goes on where it stopped."""
    config = load_config([f"out={out}", *settings])
    env = build(config.task.env)
    store = (
        EpisodeStore.open(config.store) if EpisodeStore.exists(config.store)
        else EpisodeStore.create(config.store, env.spec)
    )  # fmt: skip
    with Progress() as progress:
        shown = progress.add_task("recording demonstrators", total=episodes, completed=len(store))
        for seed in range(len(store), episodes):
            quality = qualities[seed % len(qualities)]
            expert = MisjudgingExpert(build(config.task.expert), task=task, quality=quality, seed=seed % 3)
            meta = RecordingMeta(task=config.task.description, source="scripted", extra={"quality": quality})
            recording, _ = run_episode(env, expert, seed, meta=meta, max_steps=GIVES_UP[task])
            assert recording is not None
            store.append(recording)
            progress.advance(shown)
    env.close()


def play(run: Path, settings: Sequence[str]) -> EvaluationSummary:
    """Return the success of a run's policy on the unseen seeds, played once."""
    folder = run / "true"
    if not (folder / "summary.json").exists():
        command("evaluate", f"run={run}", f"evaluate.out={folder}", "evaluate.what=run", "evaluate.video_episodes=0",
                *settings)  # fmt: skip
    return EvaluationSummary.read(folder / "summary.json")


def overrides(out: Path, arm: str, seed: int, settings: Sequence[str]) -> list[str]:
    """Return the overrides of an arm's run."""
    return [
        f"out={out}", "algo=rl100_offline", f"seed={seed}", f"finetune.out={out}/{arm}_{seed}", "evaluate.episodes=0",
        *settings, *ARMS[arm],
    ]  # fmt: skip


def share_models(first: Path, arm: Path) -> None:
    """Give an arm the critics and dynamics of the first one of its seed: the same data and seed would fit the same."""
    for name in MODELS:
        if (first / name).is_dir() and not (arm / name).exists():
            part = arm / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(first / name, part, symlinks=True)
            part.rename(arm / name)


def train(out: Path, seeds: Sequence[int], *, base: Sequence[str], stage: Sequence[str]) -> None:
    """Make the base and run every arm of every seed, and play what came out; nothing is done twice."""
    command("train", f"out={out}", *base)
    play(out / "train", base)
    for seed in seeds:
        for arm in ARMS:
            share_models(out / f"{next(iter(ARMS))}_{seed}", out / f"{arm}_{seed}")
            command("finetune", *overrides(out, arm, seed, [*(s for s in base if "evaluate" not in s), *stage]))
            play(out / f"{arm}_{seed}", base)
        play(out / f"gated_{seed}" / "imitation", base)


def score_all(out: Path, seeds: Sequence[int], *, base: Sequence[str], stage: Sequence[str]) -> None:
    """Score every policy there is by the gate's rollouts of the first seed, beside its true success."""
    settings = [*(s for s in base if "evaluate" not in s), *stage]
    config = load_config(overrides(out, "gated", seeds[0], settings))
    made = OfflineStage(config, Console())
    first = members_of(made.card, config.base, None, seed=seeds[0])[0]
    rollouts = made.rollouts(made.learn(first))
    runs = [
        out / f"gated_{seeds[0]}" / "imitation",
        *(out / f"{arm}_{seed}" for arm in ARMS for seed in played(out, arm, seeds)),
    ]
    found = []
    for run in runs:
        card, model = trained_model(run)
        scores = rollouts.score(OfflinePolicy(model, card.n_execute))  # type: ignore[arg-type]  # a chain, by its card
        found.append({"run": run.name, "success": play(run, base).success.value,
                      **{name: float(scores.of(name).mean()) for name in ("value", "am_q")}})  # fmt: skip
    (out / VALIDITY).write_text(json.dumps(found, indent=1))


def played(out: Path, arm: str, seeds: Sequence[int]) -> list[int]:
    """Return the seeds of an arm that were played to the end."""
    return [s for s in seeds if (out / f"{arm}_{s}" / "true" / "summary.json").is_file()]


def rows(out: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return result rows: success of base, imitation and arms, decisions, validity of the scores."""
    store = EpisodeStore.open(out / "store")
    won = sum(store.read(id).meta.outcome == "success" for id in store.ids())
    found: list[dict[str, Any]] = [
        _row(
            f"lift, base that imitates {len(store)} episodes ({won} successes)",
            [EvaluationSummary.read(out / "train" / "true" / "summary.json")],
            None,
        )
    ]
    imitation = {s: EvaluationSummary.read(out / f"gated_{s}" / "imitation" / "true" / "summary.json") for s in seeds}
    found.append(_row("lift, the base sampled as the gate judges", list(imitation.values()), seeds))
    for arm in ARMS:
        there = played(out, arm, seeds)
        if not there:
            continue
        summaries = {s: EvaluationSummary.read(out / f"{arm}_{s}" / "true" / "summary.json") for s in there}
        pairs = [
            paired_success([r.success for r in summaries[s].results], [r.success for r in imitation[s].results])
            for s in there
        ]
        logs = [read_log(out / f"{arm}_{s}" / LOG) for s in there]
        taken = [f"{sum(d['accepted'] for d in log)}/{len(log)}" for log in logs]
        change = sum(p.difference for p in pairs) / len(pairs)
        row = _row(f"lift, {arm}: candidates accepted {', '.join(taken)}; against imitation {change:+.3f} "
                   f"(p {', '.join(f'{p.p_value:.2g}' for p in pairs)})", list(summaries.values()), there)  # fmt: skip
        found.append(row)
    return [*found, *_validity_rows(out)]


def _row(claim: str, summaries: Sequence[EvaluationSummary], seeds: Sequence[int] | None) -> dict[str, Any]:
    pooled = success_interval(of_summaries(summaries))
    each = ", ".join(f"{s.successes}/{len(s.results)}" for s in summaries)
    told = None if seeds is None else f"training seeds {list(seeds)}"
    return {"claim": f"{claim} ({each})", "value": pooled.value, "unit": "success",
            "interval": [pooled.low, pooled.high], "seeds": told}  # fmt: skip


def _validity_rows(out: Path) -> list[dict[str, Any]]:
    every = json.loads((out / VALIDITY).read_text())
    found = list({(f["value"], f["am_q"]): f for f in every}.values())  # who accepted nothing is imitation again
    success = [f["success"] for f in found]
    verdicts = {name: validity([f[name] for f in found], success) for name in ("value", "am_q")}
    return [
        {"claim": f"lift, what the score `{name}` is good for: {v.sentence()}",
         "value": v.rank_correlation if v.rank_correlation == v.rank_correlation else None, "unit": "Spearman"}
        for name, v in verdicts.items()
    ]  # fmt: skip


def plot(out: Path, seeds: Sequence[int]) -> None:
    """Draw true success, what the gate saw, and the score against the truth."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    names = ["imitation", *(arm for arm in ARMS if played(out, arm, seeds))]
    for place, name in enumerate(names):
        there = seeds if name == "imitation" else played(out, name, seeds)
        runs = [out / f"gated_{s}" / "imitation" if name == "imitation" else out / f"{name}_{s}" for s in there]
        summaries = [EvaluationSummary.read(run / "true" / "summary.json") for run in runs]
        pooled = success_interval(of_summaries(summaries))
        error = [[pooled.value - pooled.low], [pooled.high - pooled.value]]
        left.bar(place, pooled.value, 0.6, yerr=error, capsize=3, color=COLOURS.get(name, "grey"))
        left.plot([place] * len(runs), [s.success.value for s in summaries], "k.", markersize=4)
    left.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
    left.set(ylabel="true success", ylim=(0, 1), title="lift")
    for arm in ARMS:
        for number, seed in enumerate(played(out, arm, seeds)):
            log = read_log(out / f"{arm}_{seed}" / LOG)
            gain = {d["update"]: d["j_new"] / log[0]["j_old"] - 1 for d in log}
            middle.plot(list(gain), list(gain.values()), color=COLOURS[arm], alpha=0.8,
                        label=arm if number == 0 else None)  # fmt: skip
            taken = [d["update"] for d in log if d["accepted"] and d["rule"] == "margin"]
            middle.plot(taken, [gain[n] for n in taken], "o", color=COLOURS[arm])
    middle.set(xlabel="updates", ylabel="score against the base's, share", title="gate log (dots: accepted)")
    fig.legend(*middle.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=len(ARMS))
    for found in json.loads((out / VALIDITY).read_text()):
        arm = found["run"].rsplit("_", 1)[0]
        right.plot(found["am_q"], found["success"], "o", color=COLOURS.get(arm, "grey"))
    right.set(xlabel="score `am_q`, first seed's", ylabel="true success", ylim=(0, 1), title="is the score right?")
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "gate.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Record, train, play and report; `--report` makes figures and plot again from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/gate"))
    parser.add_argument("--episodes", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base", nargs="*", default=[], help="more overrides of base and evaluation")
    parser.add_argument("--stage", nargs="*", default=STAGE)
    parser.add_argument("--report", action="store_true", help="only rows and plot, from what is there")
    arguments = parser.parse_args()
    base = [*BASE, *arguments.base]
    if not arguments.report:
        collect(arguments.out, arguments.episodes, base)
        train(arguments.out, arguments.seeds, base=base, stage=arguments.stage)
        score_all(arguments.out, arguments.seeds, base=base, stage=arguments.stage)
    plot(arguments.out, arguments.seeds)
    found = rows(arguments.out, arguments.seeds)
    write_results("gate", [{**row, "command": "python -m benchmarks.gate"} for row in found])


if __name__ == "__main__":
    main()
