"""`robot-rl compose`: one policy from several, its weights chosen on some seeds and its success told on others."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.compose_parents import LoadedParent, load_parents, weights_digest
from robot_rl.cli.config import build, plain, simulation
from robot_rl.cli.progress import bar
from robot_rl.errors import BundleError, ConfigError
from robot_rl.evaluation.ledger import Ledger
from robot_rl.evaluation.lockstep import run_lockstep
from robot_rl.evaluation.report import write_report
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta
from robot_rl.evaluation.weight_search import (
    Report,
    Search,
    Trial,
    Weights,
    report_on,
    search_weights,
    trial_row,
    weight_grid,
)
from robot_rl.evaluation.weight_sections import composition_sections, weights_name
from robot_rl.interfaces import Env
from robot_rl.specs import RobotSpec

if TYPE_CHECKING:
    from policies.agreement import Parent
    from policies.chunk_network import ChunkNetwork
    from policies.compose import Composition

OPERATORS = ("convex", "and", "or")


class Composer:
    """Builds, plays and packages compositions of the same parents.

    Args:
        loaded: The parents.
        config: The command's configuration.
        progress: Where to show what is being played.
    """

    def __init__(self, loaded: Sequence[LoadedParent], config: DictConfig, progress: Progress) -> None:
        self.loaded, self.config, self._progress = loaded, config, progress
        self.parents = [one.parent for one in loaded]
        self.n_execute = config.compose.n_execute or min(one.n_execute for one in loaded)
        self._envs: list[Env] = []

    def model(self, weights: Weights) -> Composition:
        """Return the convex combination of the given weights, or AND or OR for no weights."""
        from policies.compose import ComposedModel
        from policies.superposition import SuperposedModel

        settings = self.config.compose
        if weights:
            return ComposedModel(self.parents, weights, n_steps=settings.n_steps)
        operator, temperature = self.config.operator, settings.temperature
        return SuperposedModel(self.parents, operator, temperature=temperature, n_steps=settings.n_steps)

    def play(self, weights: Weights, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Play one episode a seed with a composition; those already played with it are read from disk."""
        from policies.compose import joined_spec

        name = weights_name(weights) or self.config.operator
        model = self.model(weights)
        settings = [weights_digest(model), model.levels, model.clip, model.noise_scale]
        if not weights:
            settings.append(float(self.config.compose.temperature))
        return self._play(name, model, joined_spec(self.kept(weights)), settings, seeds)

    def play_own(self, index: int, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Play one episode a seed with a parent and its own solver."""
        parent = self.parents[index]
        settings = [weights_digest(parent.model), list(map(float, parent.model.times))]
        return self._play(f"{parent.name} alone", parent.model, parent.spec, settings, seeds)

    def kept(self, weights: Weights) -> list[Parent]:
        """Return the parents that take part."""
        return [p for p, w in zip(self.parents, weights or [1.0] * len(self.parents), strict=True) if w > 0]

    def _play(
        self, name: str, model: ChunkNetwork, spec: RobotSpec, settings: Sequence[Any], seeds: Sequence[int]
    ) -> list[EpisodeResult]:
        from policies.torch_policy import TorchBatchPolicy

        policy = TorchBatchPolicy(model, spec, n_execute=self.n_execute)
        ledger = self._ledger(name, [*settings, self.n_execute])
        if waiting := [seed for seed in seeds if seed not in ledger.results]:
            shown = self._progress.add_task(name, total=len(waiting))

            def keep(result: EpisodeResult) -> None:
                ledger.add(result)
                self._progress.advance(shown)

            run_lockstep(self._environments(len(waiting)), policy, waiting, on_done=keep)
        return [ledger.results[seed] for seed in seeds]

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _ledger(self, name: str, settings: Sequence[Any]) -> Ledger:
        """Return the results of one policy, in a file named by what it is; other settings never share one."""
        id = hashlib.sha256(json.dumps([name, *settings]).encode()).hexdigest()[:32]
        meta = EvaluationMeta(task=self.config.task.name, policy_id=id, env=plain(self.config.task.env))
        stem = "".join(letter if letter.isalnum() or letter == "." else "_" for letter in name)
        return Ledger(Path(self.config.compose.out) / "episodes" / f"{stem}_{id[:8]}.jsonl", meta)

    def _environments(self, wanted: int) -> list[Env]:
        for _ in range(len(self._envs), min(wanted, self.config.compose.lanes)):
            self._envs.append(build(simulation(self.config)))
        return self._envs[:wanted]


def run(config: DictConfig, console: Console) -> dict[str, Any]:
    """Search, report and package; returns what <operator>.json holds."""
    if config.operator not in OPERATORS:
        raise ConfigError(f"`operator` must be one of {OPERATORS}, got {config.operator!r}")
    loaded = load_parents(plain(config.parents))
    with bar(console) as progress:
        composer = Composer(loaded, config, progress)
        try:
            search, report = search_and_report(composer, config)
        finally:
            composer.close()
    names = [one.parent.name for one in loaded]
    summary = summarise(search, report, names, operator=config.operator)
    out = Path(config.compose.out)
    (out / f"{config.operator}.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    _print(summary, console)
    title, command = f"Composition for {config.task.name}", shlex.join(["robot-rl", *sys.argv[1:]])
    sections = composition_sections(search, report, names, operator=config.operator, command=command)
    console.print(f"report: {write_report(out / f'{config.operator}.html', title=title, sections=sections)}")
    if max(report.chosen.weights, default=0.0) == 1.0:
        console.print("no mixture did better than a parent alone on the search seeds; nothing to package")
    else:
        bundle = package(composer, report.chosen.weights)
        console.print(f"bundle {bundle.id} in {config.compose.bundle}")
    return summary


def search_and_report(composer: Composer, config: DictConfig) -> tuple[Search, Report]:
    """Return what the search found and how it does on the report seeds.

    Raises:
        ConfigError: Parents that do not agree, seeds that overlap, or a parent too weak to help.
    """
    composer.model(() if config.operator != "convex" else _equal(len(composer.parents)))  # refused before any episode
    seeds = {
        key: range(config[key].first_seed, config[key].first_seed + config[key].episodes)
        for key in ("search", "report")
    }
    if set(seeds["search"]) & set(seeds["report"]):
        raise ConfigError(
            f"`search` and `report` must use different seeds, got {seeds['search']} and {seeds['report']}"
        )
    n = len(composer.parents)
    grid = weight_grid(n, config.search.step) if config.operator == "convex" else [(1.0, *[0.0] * (n - 1))]
    search = search_weights(composer.play, grid, seeds["search"])
    if config.operator != "convex":
        search = Search((*search.trials, Trial((), tuple(composer.play((), seeds["search"])))), n)
    _refuse_weak(search, [parent.name for parent in composer.parents], config.compose.min_strength)
    others = {
        f"{parent.name}, its own solver": partial(composer.play_own, i) for i, parent in enumerate(composer.parents)
    }
    return search, report_on(
        composer.play, search, seeds["report"], oracle=config.report.oracle and config.operator == "convex",
        others=others, chosen=None if config.operator == "convex" else (),
    )  # fmt: skip


def _equal(n: int) -> Weights:
    return tuple(1.0 / n for _ in range(n))


def _refuse_weak(search: Search, names: Sequence[str], min_strength: float) -> None:
    weak = search.too_weak(min_strength)
    if weak is None:
        return
    low, high = search.parents[weak].exact(), search.parents[search.strongest].exact()
    raise ConfigError(
        f"`{names[weak]}` is too weak to help: {100 * low.value:.1f} % on the search seeds (at most "
        f"{100 * low.high:.1f} %), below {min_strength:g} of the {100 * high.low:.1f} % that "
        f"`{names[search.strongest]}` reaches at least, and no mixture did better than that one alone; leave it out or "
        "train it further"
    )


def summarise(search: Search, report: Report, names: Sequence[str], *, operator: str) -> dict[str, Any]:
    """Return search and report as plain values."""
    strong = report.parents[report.strongest]
    rows = [trial_row(name, trial, strong) for name, trial in zip(names, report.parents, strict=True)]
    rows.append(trial_row("composed", report.chosen, strong))
    rows += [trial_row(name, trial, strong) for name, trial in report.others.items()]
    if report.oracle is not None:
        rows.append(trial_row("best on the report seeds (oracle)", report.oracle, strong))
    return {
        "operator": operator,
        "parents": list(names),
        "weights": list(report.chosen.weights),
        "search": [trial_row(weights_name(trial.weights) or operator, trial) for trial in search.trials],
        "report": rows,
    }


def _print(summary: Mapping[str, Any], console: Console) -> None:
    table = Table(title="on the report seeds", title_justify="left")
    for column in ("policy", "weights", "success", "95 % interval", "difference from the best parent"):
        table.add_column(column)
    for row in summary["report"]:
        rate, gap = row["success"], row["difference"]
        table.add_row(
            row["name"], weights_name(row["weights"]), f"{100 * rate['value']:.1f} %", _percent(rate),
            f"{100 * gap['value']:+.1f} ({_percent(gap)})",
        )  # fmt: skip
    console.print(table)


def _percent(interval: Mapping[str, Any]) -> str:
    low, high = (interval[end] for end in ("low", "high"))
    return "none" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"


def package(composer: Composer, weights: Weights) -> PolicyBundle:
    """Return the bundle of a composition at `compose.bundle`; the same one again if it is there already.

    Raises:
        BundleError: Another bundle is there, or the graph differs from torch.
    """
    from policies.compose import joined_spec
    from policies.export import export_bundle

    settings, model = composer.config.compose, composer.model(weights)
    kept = [one for one in composer.loaded if one.parent in composer.kept(weights)]
    described = {
        "operator": composer.config.operator,
        "weights": list(weights),
        "parents": {one.parent.name: one.id for one in composer.loaded},
        "levels": model.levels,
        "temperature": settings.temperature,
    }
    if Path(settings.bundle).exists():
        found = PolicyBundle.open(settings.bundle)
        if json.loads(found.content("config.yaml")) == json.loads(json.dumps(described)):
            return found
        raise BundleError(
            f"{settings.bundle} holds another composition; a bundle is immutable, choose `compose.bundle`"
        )
    return export_bundle(
        model,
        settings.bundle,
        spec=joined_spec([one.parent for one in kept]),
        stats={name: field for one in reversed(kept) for name, field in one.parent.stats.items()},
        n_execute=composer.n_execute,
        config=described,
        data_digest=",".join(dict.fromkeys(one.data_digest for one in kept)),
        parent=",".join(one.id for one in kept),
    )
