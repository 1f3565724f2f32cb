"""The report of a composition: success on the report seeds, and what the search saw."""

from __future__ import annotations

from collections.abc import Sequence

from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Block, Code, Plot, Section, Table, Text, Tile, Tiles
from robot_rl.evaluation.statistics import Interval
from robot_rl.evaluation.weight_search import Report, Search, Trial, compare


def weights_name(weights: Sequence[float]) -> str:
    """Return weights as people write them, empty for none."""
    return " ".join(f"{w:.3g}" for w in weights)


def composition_sections(
    search: Search, report: Report, names: Sequence[str], *, operator: str, command: str = ""
) -> list[Section]:
    """Return the sections of a composition's report.

    Args:
        search: What was tried on the search seeds.
        report: How the chosen one and its parents did on the report seeds.
        names: The parents' names.
        operator: `convex`, `and` or `or`.
        command: Command line that does it again.
    """
    chosen = f"composed ({weights_name(report.chosen.weights) or operator})"
    trials = {**dict(zip(names, report.parents, strict=True)), chosen: report.chosen, **report.others}
    oracle = [] if report.oracle is None else [_oracle_text(report.oracle)]
    blocks: list[Block] = [
        Tiles(_tiles(report, names)),
        Plot(
            plots.intervals({name: trial.success() for name, trial in trials.items()}),
            "Success on the report seeds, which chose nothing, with bootstrap 95 % intervals.",
            wide=True,
        ),
        *oracle,
        _table(trials, report.parents[report.strongest]),
    ]
    sections = [Section("On the report seeds", blocks), Section("The search", _search_blocks(search, names, operator))]
    if command:
        sections.append(Section("Run it again", [Code(command)]))
    return sections


def _tiles(report: Report, names: Sequence[str]) -> list[Tile]:
    gain = report.gain()
    tiles = [Tile(name, _rate(t.success()), _range(t.success())) for name, t in zip(names, report.parents, strict=True)]
    best = names[report.strongest]
    return [
        *tiles,
        Tile("Composed", _rate(report.chosen.success()), _range(report.chosen.success())),
        Tile(
            f"Against {best}",
            f"{100 * gain.difference.value:+.1f} points",
            f"{_range(gain.difference)}; alone in {gain.paired.only_first} against {gain.paired.only_second} episodes, "
            f"p = {gain.paired.p_value:.2g}",
        ),
    ]


def _rate(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} %"


def _range(interval: Interval) -> str:
    return f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _oracle_text(oracle: Trial) -> Text:
    return Text(
        f"The weights that are best on these very seeds, {weights_name(oracle.weights)}, succeed in "
        f"{100 * oracle.rate:.1f} %. They were chosen on what they are measured on: what a perfect search could have "
        "found, and no result."
    )


def _table(trials: dict[str, Trial], strong: Trial) -> Table:
    rows = []
    for name, trial in trials.items():
        rate, gap = trial.success(), compare(trial, strong)
        rows.append((
            name, _rate(rate), _range(rate), trial.max_reward, f"{100 * gap.difference.value:+.1f}",
            _range(gap.difference), gap.paired.p_value,
        ))  # fmt: skip
    header = ("policy", "success", "interval", "mean max reward", "difference", "interval", "p")
    return Table(header, rows, caption="Differences are from the better parent, over the same seeds")


def _search_blocks(search: Search, names: Sequence[str], operator: str) -> list[Block]:
    episodes = len(search.trials[0].results)
    rows = [
        (weights_name(t.weights) or operator, t.successes, f"{100 * t.rate:.1f} %", t.max_reward) for t in search.trials
    ]
    table = Table(
        ("weights", "successes", "success", "mean max reward"), rows, caption=f"Of {episodes} episodes on search seeds"
    )
    blocks: list[Block] = [
        Text("Weights are chosen here, so the best of these figures is too good; the report seeds above say how good.")
    ]
    weighted = sorted((t.weights[0], t.rate) for t in search.trials if len(t.weights) == 2)
    if len(weighted) > 2:
        x, y = ([point[i] for point in weighted] for i in (0, 1))
        svg = plots.lines({"success": (x, y)}, x_label=f"weight of {names[0]}", y_label="success on the search seeds")
        blocks.append(Plot(svg))
    return [*blocks, table]
