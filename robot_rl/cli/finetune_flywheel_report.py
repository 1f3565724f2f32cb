"""What a run of rounds tells: each round's data and decisions, and all policies on the same unseen seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from robot_rl.cli.config import to_yaml
from robot_rl.cli.finetune_base import identify
from robot_rl.cli.finetune_flywheel_judge import Ring
from robot_rl.cli.finetune_flywheel_stages import CONTROL, HEAD, OFFLINE, ONLINE, Work
from robot_rl.cli.finetune_offline import IMITATION
from robot_rl.cli.model_card import FILE as CARD
from robot_rl.evaluation import plots
from robot_rl.evaluation.gate_sections import gate_section
from robot_rl.evaluation.report import Block, Code, Plot, Section, Table, Text, write_report
from robot_rl.evaluation.statistics import clopper_pearson, paired_success
from robot_rl.evaluation.summary import EvaluationSummary, summarise
from robot_rl.imitation.summary import write_json
from robot_rl.rl.offline.gate import LOG, read_log

PUBLISHED = "published"
ALONE = "imitation alone, equal data"


def subjects(work: Work) -> dict[str, Path]:
    """Return the folders of the policies to compare, by name; those that were not made are left out."""
    first, n = work.out / f"round_0/{OFFLINE}" / IMITATION, int(work.algo["rounds"]["n"])
    found = {"base": Path(work.config.base), "base with noise": first}
    for number in range(n):
        for stage in (OFFLINE, IMITATION):
            found[f"round {number}, {stage}"] = work.out / f"round_{number}" / stage
    found |= {ALONE: work.out / CONTROL, ONLINE: work.out / ONLINE, HEAD: work.out / HEAD, PUBLISHED: work.standing}
    return {name: folder for name, folder in found.items() if (folder / CARD).is_file()}


def published_from(work: Work) -> str:
    """Return the stage that the policy that stands is of, `base` where nothing was accepted."""
    taken = [stage.name for stage in work.state.done if stage.accepted]
    return taken[-1] if taken else "base"


def evaluate(work: Work) -> dict[str, EvaluationSummary]:
    """Return the success of all policies on the evaluation seeds; none without a simulation or without episodes."""
    first, count = int(work.config.evaluate.first_seed), int(work.config.evaluate.episodes)
    if not work.playable or count == 0:
        return {}
    ring = Ring(work.config, work.out / "evaluate", int(work.algo["judge"]["lanes"]), work.console)
    summaries = {}
    try:
        for name, folder in subjects(work).items():
            results = ring.play(name, folder, range(first, first + count))
            summaries[name] = summarise(results, ring.meta(folder), wall_s=sum(r.seconds for r in results))
            work.console.print(f"{name}: {summaries[name].headline()}")
    finally:
        ring.close()
    return summaries


def outcome(found: EvaluationSummary) -> dict[str, Any]:
    """Return what a run's summary says of a policy: success, and the seeds that failed of the consecutive ones."""
    failed = [result.seed for result in found.results if not result.success]
    return {"success": found.success.to_dict(), "successes": found.successes, "episodes": len(found.results),
            "first_seed": found.results[0].seed, "failed": failed}  # fmt: skip


def rounds(work: Work) -> list[dict[str, Any]]:
    """Return what happened in each round that was begun, as plain JSON values."""
    found = []
    for number in range(int(work.algo["rounds"]["n"])):
        improved = work.state.find(f"round_{number}/{OFFLINE}")
        if improved is None:
            break
        played, retrained = (work.state.find(f"round_{number}/{name}") for name in ("play", IMITATION))
        found.append({
            "data": improved.facts["data"],
            "gate": {name: improved.facts[name] for name in ("accepted", "rejected", "updates")},
            "played": None if played is None else _with_interval(played.facts["data"]),
            "imitation": None if retrained is None else {"accepted": retrained.accepted, "why": retrained.why},
        })  # fmt: skip
    return found


def _with_interval(made: Mapping[str, int]) -> dict[str, Any]:
    return {**made, "success": clopper_pearson(made["successes"], made["episodes"]).to_dict()}


def write(work: Work, summaries: Mapping[str, EvaluationSummary], *, finished: bool) -> Path:
    """Write summary.json and report.html and return the report's path."""
    stages = [{**asdict(s), "facts": {k: v for k, v in s.facts.items() if k != "ids"}} for s in work.state.done]
    evaluated = {name: outcome(s) for name, s in summaries.items()}
    write_json(work.out / "summary.json", {
        "finished": finished, "base": identify(work.config.base), "rounds": rounds(work), "stages": stages,
        "published": {"from": published_from(work), "id": identify(work.standing)},
        "evaluation": evaluated,
    })  # fmt: skip
    subtitle = summaries[PUBLISHED].headline() if summaries else "not evaluated"
    report = write_report(
        work.out / "report.html", title=f"{work.config.task.name}: rounds of {work.config.algo.name}",
        subtitle=subtitle if finished else "waiting for episodes", sections=_sections(work, summaries),
    )  # fmt: skip
    work.console.print(f"report: {report}")
    return report


def _sections(work: Work, summaries: Mapping[str, EvaluationSummary]) -> list[Section]:
    gates = [
        replace(gate_section(read_log(work.out / f"round_{n}/{OFFLINE}" / LOG)), title=f"Gate, round {n}")
        for n in range(len(rounds(work)))
    ]
    done = [(s.name, s.accepted, s.why, s.policy) for s in work.state.done]
    stages = Table(("stage", "accepted", "why", "gone on with"), done)
    return [
        Section("Success", _success(summaries)),
        Section("Rounds", [Table(_COLUMNS, [_round_row(n, row) for n, row in enumerate(rounds(work))])]),
        Section("Stages", [stages]),
        *gates,
        Section("Configuration", [Code(to_yaml(work.config), "As it ran", folded=True)]),
    ]


_COLUMNS = (
    "round", "episodes before it", "of them successes", "gate accepted", "updates", "played", "succeeded", "low",
    "high", "retraining",
)  # fmt: skip


def _round_row(number: int, row: Mapping[str, Any]) -> Sequence[Any]:
    data, gate, played = row["data"], row["gate"], row["played"]
    share = data["successes"] / data["episodes"]
    tried = f"{gate['accepted']} of {gate['accepted'] + gate['rejected']}"
    rate: list[Any] = [None] * 4
    if played is not None:
        rate = [played["episodes"], *(played["success"][key] for key in ("value", "low", "high"))]
    return [number, data["episodes"], share, tried, gate["updates"], *rate, (row["imitation"] or {}).get("why")]


def _success(summaries: Mapping[str, EvaluationSummary]) -> list[Block]:
    if not summaries:
        return []
    last = [r.success for r in summaries[PUBLISHED].results]
    rows = []
    for name, found in summaries.items():
        pair = paired_success(last, [r.success for r in found.results])
        won = f"{found.successes}/{len(last)}"
        rows.append((name, won, pair.difference, pair.only_first, pair.only_second, pair.p_value))
    drawn = plots.intervals({name: s.success for name, s in summaries.items()})
    return [
        Plot(drawn, "Success with exact intervals.", wide=True),
        Table(("policy", "successes", "published minus it", "only published", "only it", "p (McNemar, exact)"), rows,
              caption="The same unseen seeds for all, which decided nothing before"),
        Text("`base with noise` is the base sampled as all later policies are. `imitation alone, equal data` is the "
             "base trained on by imitation, on the data of all rounds and for as many updates as offline improvement "
             "and imitation made in them; what online fine-tuning played is not in it."),
    ]  # fmt: skip
