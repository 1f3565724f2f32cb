"""`robot-rl validate`: a bundle climbs the promotion ladder, rung by rung, and is attested if it reaches the top."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl import __version__
from robot_rl.bundle import PolicyBundle, base_of
from robot_rl.bundle.accepted import find_bundle
from robot_rl.cli.config import build, plain
from robot_rl.cli.latency import aligned_episode, stream_latencies
from robot_rl.cli.progress import bar
from robot_rl.cli.validate_report import ladder_sections
from robot_rl.cli.validate_sim import Cell, conditions
from robot_rl.data.files import replace_file
from robot_rl.data.store import EpisodeStore
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.residual import step_policy
from robot_rl.errors import ConfigError
from robot_rl.evaluation.paired import PairedProgress, PairedTest
from robot_rl.evaluation.replay import ReplayLimits, judge_replay, replay
from robot_rl.evaluation.report import write_report
from robot_rl.evaluation.rollback import promote
from robot_rl.evaluation.rungs import RungResult, judge_supervised, supervised_trials
from robot_rl.evaluation.sequential import Progress
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.trial_log import TrialLog
from robot_rl.evaluation.trials import paired_rung, play_until, rate_rung, succeeded
from robot_rl.evaluation.validation import ValidationRecord

FAILED = 3
"""Exit status of a bundle that fell from a rung."""


@dataclass
class Ladder:
    """One climb: what is asked, and what was found so far."""

    config: DictConfig
    console: Console
    bundle: PolicyBundle
    incumbent: PolicyBundle | None
    out: Path
    rungs: list[RungResult]
    seeds: tuple[int, ...] = ()
    outcomes: tuple[bool, ...] = ()
    identity: Mapping[str, Any] | None = None

    def climb(self) -> None:
        """Take the rungs in order until one does not hold."""
        for rung in (self._replay, self._simulation, self._incumbent, self._supervised):
            result = rung()
            if result is None:
                continue
            self.rungs.append(result)
            mark = "[green]holds[/green]" if result.ok else "[red]does not hold[/red]"
            self.console.print(f"{result.rung}: {mark}")
            for check in result.checks:
                self.console.print(f"  {'ok  ' if check.ok else 'FAIL'} {check.name}: {check.said}", markup=False)
            if not result.ok:
                return

    def _replay(self) -> RungResult:
        """Recorded observations; a result of the same question is taken from the disk."""
        store, limits = EpisodeStore.open(self.config.store), build(self.config.validate.replay)
        asked = self._asked_of_replay(store, limits)
        path = self.out / "replay.json"
        if path.is_file() and (kept := json.loads(path.read_text()))["asked"] == asked:
            return RungResult.from_dict(kept["result"])
        result = self._replayed(store, limits)
        replace_file(path, json.dumps({"asked": asked, "result": result.to_dict()}, indent=1).encode())
        return result

    def _asked_of_replay(self, store: EpisodeStore, limits: ReplayLimits) -> dict[str, Any]:
        """Return all that a replay's result depends on, the machine among it: its times are of this one."""
        config = self.config
        asked = {
            "bundle": self.bundle.id, "incumbent": "" if self.incumbent is None else self.incumbent.id,
            "store": store.digest(), "limits": vars(limits), "episodes": int(config.validate.episodes),
            "threads": int(config.validate.threads), "latency": stream_latencies(config.latency, store),
            "velocity": np.asarray(build(config.task.safety).velocity).tolist(),
            "switches": plain(config.task.switches), "code_version": __version__, "machine": platform.node(),
        }  # fmt: skip
        plainly: dict[str, Any] = json.loads(json.dumps(asked))
        return plainly

    def _replayed(self, store: EpisodeStore, limits: ReplayLimits) -> RungResult:
        config, threads = self.config, int(self.config.validate.threads)
        self.bundle.check_fits(store.spec)
        late, ids = stream_latencies(config.latency, store), store.ids()
        chosen = [ids[i] for i in np.unique(np.linspace(0, max(len(ids) - 1, 0), config.validate.episodes).astype(int))]
        episodes = [aligned_episode(store, id, latency_ns=late) for id in (chosen if ids else [])]
        policy = OnnxPolicy(base_of(self.bundle), threads=threads)
        policy.warm_up()
        other = None if self.incumbent is None else OnnxPolicy(base_of(self.incumbent), threads=threads)
        with bar(self.console) as progress:
            task = progress.add_task("replaying recorded ticks", total=limits.ticks)
            found = replay(
                policy, episodes, ticks=limits.ticks, incumbent=other, on_tick=lambda: progress.advance(task),
                step=step_policy(self.bundle, threads=threads),
                incumbent_step=None if self.incumbent is None else step_policy(self.incumbent, threads=threads),
            )  # fmt: skip
        velocity, switches = build(config.task.safety).velocity, plain(config.task.switches)
        return judge_replay(found, store.spec, limits, velocity=velocity, switches=switches)

    def _simulation(self) -> RungResult:
        config, test = self.config, build(self.config.validate.test)
        figures = self.rungs[0].figures
        given = conditions(config, p99_ms=float(figures["inference_p99_ms"]), control_hz=float(figures["control_hz"]))
        self._cell = Cell(config, given)
        self.identity = {"bundle": self.bundle.id, "task": config.task.name, **self._cell.identity()}
        log = TrialLog(self.out / "trials.jsonl", self.identity)
        progress = self._until(
            log, self._cell.player(self.bundle), lambda rows: test.judge(succeeded(rows)), test.max_trials, "validating"
        )
        counted = log.rows[: progress.trials]
        self.seeds, self.outcomes = tuple(int(row["seed"]) for row in counted), tuple(succeeded(counted))
        return rate_rung(progress, test)

    def _incumbent(self) -> RungResult | None:
        if self.incumbent is None:
            return None
        test: PairedTest = build(self.config.validate.paired)
        mine, theirs = self._cell.player(self.bundle), self._cell.player(self.incumbent)
        log = TrialLog(self.out / "pairs.jsonl", {**(self.identity or {}), "incumbent": self.incumbent.id})

        def play(seeds: Sequence[int]) -> list[dict[str, Any]]:
            known = dict(zip(self.seeds, self.outcomes, strict=True))
            new = [seed for seed in seeds if seed not in known]
            known |= {row["seed"]: row["success"] for row in (mine(new) if new else [])}
            return [{"seed": r["seed"], "success": known[r["seed"]], "incumbent": r["success"]} for r in theirs(seeds)]

        def judge(rows: Sequence[Mapping[str, Any]]) -> PairedProgress:
            return test.judge(succeeded(rows), [bool(row["incumbent"]) for row in rows])

        standing = self._until(log, play, judge, test.max_pairs, "against the incumbent")
        return paired_rung(standing, test, self.incumbent.id)

    def _supervised(self) -> RungResult | None:
        given = self.config.validate.supervised
        if given.store is None:
            return None
        return judge_supervised(supervised_trials(EpisodeStore.open(given.store), self.bundle.id), build(given.limits))

    def _until(self, log: TrialLog, play: Any, judge: Any, most: int, title: str) -> Any:
        """Play until the test decides, with a bar of at most so many trials."""
        v = self.config.validate
        with bar(self.console) as progress:
            task = progress.add_task(title, total=most)

            def show(standing: Progress | PairedProgress) -> None:
                progress.update(task, completed=len(log), description=f"{title}: {standing.verdict}")

            return play_until(
                log, play, judge, first_seed=int(v.first_seed), max_trials=most, block=int(v.lanes), on_trial=show
            )

    def close(self) -> None:
        """Release the simulated cell."""
        if hasattr(self, "_cell"):
            self._cell.close()

    def record(self) -> ValidationRecord:
        """Return what is attested."""
        won = tuple(seed for seed, success in zip(self.seeds, self.outcomes, strict=True) if success)
        return ValidationRecord(
            bundle_id=self.bundle.id, task=self.config.task.name, seeds=self.seeds, succeeded=won,
            success=clopper_pearson(len(won), len(self.seeds)),
            date=datetime.now(UTC).isoformat(timespec="seconds"), env=dict(self.identity or {}),
            code_version=__version__, ladder={rung.rung: rung.to_dict() for rung in self.rungs},
        )  # fmt: skip


def run(config: DictConfig, console: Console) -> int:
    """Climb, report, and attest; return 0, or 3 when a rung did not hold.

    Raises:
        ConfigError: What is asked cannot be done here.
        BundleError: The bundle or its incumbent is damaged or does not fit.
    """
    out = Path(config.validate.out)
    out.mkdir(parents=True, exist_ok=True)
    other = config.validate.incumbent
    bundle, incumbent = PolicyBundle.open(config.bundle), None if other is None else PolicyBundle.open(other)
    _check(config, bundle, incumbent)
    ladder = Ladder(config, console, bundle, incumbent, out, [])
    try:
        ladder.climb()
    finally:
        ladder.close()
    ok = all(rung.ok for rung in ladder.rungs)
    last = ladder.rungs[-1]
    subtitle = "every rung holds" if ok else f"{last.rung} does not hold: {last.reason}"
    replace_file(out / "ladder.json", json.dumps([rung.to_dict() for rung in ladder.rungs], indent=1).encode())
    sections = ladder_sections(ladder.rungs, ladder.outcomes, build(config.validate.test), command=_command())
    report = write_report(out / "report.html", title=f"Validation of {bundle.id}", subtitle=subtitle, sections=sections)
    console.print(f"report: {report}")
    if not ok:
        console.print(f"[bold red]not validated[/bold red]: {subtitle}", highlight=False)
        return FAILED
    console.print(f"validation record: {ladder.record().write(config.bundle)}")
    if config.validate.accept is not None and incumbent is not None:
        pairs = ladder.rungs[2].figures["counts"]
        _accept(config, bundle, incumbent, pairs, console)
    return 0


def _check(config: DictConfig, bundle: PolicyBundle, incumbent: PolicyBundle | None) -> None:
    """Refuse before anything long begins."""
    if config.validate.accept is None:
        return
    if incumbent is None or incumbent.id == bundle.id:
        raise ConfigError(
            "`validate.accept` needs `validate.incumbent`, another bundle to go back to; write accepted.json by "
            "`robot_rl.bundle.accepted` for a first bundle"
        )
    for one in (bundle, incumbent):
        find_bundle(config.validate.accept, one.id)


def _accept(
    config: DictConfig, bundle: PolicyBundle, incumbent: PolicyBundle, pairs: Mapping[str, int], console: Console
) -> None:
    """Let the bundle drive, with the incumbent's rate in these trials as the bound of the way back."""
    log = (Path(config.validate.out) / "pairs.jsonl").read_text().splitlines()[1:]
    trials = sum(pairs.values())
    won = sum(json.loads(line)["incumbent"] for line in log[:trials])
    accepted = promote(
        config.validate.accept, bundle.id, incumbent=incumbent.id, successes=won, trials=trials,
        reason=f"validated against {incumbent.id} in {trials} pairs",
    )  # fmt: skip
    console.print(f"accepted: {bundle.id}; back to {incumbent.id} below {100 * accepted.bound:.1f} %")


def _command() -> str:
    return shlex.join(["robot-rl", *sys.argv[1:]])
