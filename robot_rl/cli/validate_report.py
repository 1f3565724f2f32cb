"""The report of a validation: every check of every rung, and how the evidence grew."""

from __future__ import annotations

from collections.abc import Sequence

from robot_rl.evaluation import plots
from robot_rl.evaluation.report import Block, Code, Facts, Plot, Section, Table, Text
from robot_rl.evaluation.rungs import RungResult
from robot_rl.evaluation.sequential import RateTest
from robot_rl.evaluation.statistics import Interval

TITLES = {
    "replay": "Recorded observations",
    "simulation": "Simulation with other dynamics, delays and losses",
    "incumbent": "Against the incumbent, on the same seeds",
    "supervised": "Supervised trials on the robot",
}


def ladder_sections(
    rungs: Sequence[RungResult], outcomes: Sequence[bool], test: RateTest, *, command: str = ""
) -> list[Section]:
    """Return one section a rung.

    Args:
        rungs: What was found.
        outcomes: Trials of the simulation that counted, in order.
        test: The test they were judged by.
        command: Command line that does it again.
    """
    sections = [Section(TITLES[rung.rung], [_checks(rung), *_plots(rung, outcomes, test)]) for rung in rungs]
    return [*sections, Section("Run it again", [Code(command)])] if command else sections


def _checks(rung: RungResult) -> Table:
    return Table(("check", "holds", "figure"), [(c.name, c.ok, c.said) for c in rung.checks])


def _plots(rung: RungResult, outcomes: Sequence[bool], test: RateTest) -> list[Block]:
    if rung.rung == "simulation" and outcomes:
        return [_evidence(outcomes, test), _rates(rung, test), Text(_error_rates(test))]
    if rung.rung == "incumbent":
        difference = Interval.from_dict(rung.figures["difference"])
        return [
            Text(
                f"Success of the candidate less the incumbent's: {100 * difference.value:+.1f} points, "
                f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f} whenever one stops."
            )
        ]
    return [Facts({k.replace("_", " "): v for k, v in rung.figures.items() if not isinstance(v, list | dict)})]


def _evidence(outcomes: Sequence[bool], test: RateTest) -> Plot:
    trials = list(range(len(outcomes) + 1))
    ratio = [test.judge(outcomes[:n]).log_ratio for n in trials]
    ends, (low, high) = [0.0, float(len(outcomes))], test.bounds
    series = {
        "log-likelihood ratio": ([float(n) for n in trials], ratio),
        "accept": (ends, [high, high]),
        "reject": (ends, [low, low]),
    }
    return Plot(plots.lines(series, x_label="trial", y_label="evidence"), "The test ends where a bound is crossed.")


def _rates(rung: RungResult, test: RateTest) -> Plot:
    goals = {"refuse": test.p0, "pass": test.p1}
    interval = Interval.from_dict(rung.figures["interval"])
    return Plot(plots.intervals({"success": interval}, goals=goals), "Holds whenever one stops.", wide=True)


def _error_rates(test: RateTest) -> str:
    at_p0, at_p1 = test.rates(test.p0), test.rates(test.p1)
    return (
        f"Exactly: a bundle that succeeds at {100 * test.p0:g} % is accepted with probability "
        f"{100 * at_p0.accept:.1f} %, one at {100 * test.p1:g} % is rejected with {100 * at_p1.reject:.1f} % and "
        f"accepted with {100 * at_p1.accept:.1f} %; the latter takes {at_p1.trials:.0f} trials on average."
    )
