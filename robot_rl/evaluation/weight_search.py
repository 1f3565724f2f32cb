"""Choosing the weights of a composed policy on some seeds and reporting it on others.

The best of several arms looks better on the seeds it was chosen on than it is: by 5.5 points for the best of 11 equal
arms at 60 % success and 200 episodes. So weights are chosen on the search seeds, and the chosen weights, every parent
and, as the yardstick of what a perfect search could have found, every other weight are run again on the report seeds;
all comparisons are of the same seeds.

A parent is too weak to help (`too_weak`) when, on the search seeds, the upper end of the interval of its success is
below `min_strength` of the lower end of the strongest parent's, and no mixture beats the strongest parent alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.statistics import (
    Interval,
    PairedSuccess,
    bootstrap_mean,
    clopper_pearson,
    paired_mean,
    paired_success,
)

Weights = tuple[float, ...]
Evaluate = Callable[[Weights, Sequence[int]], Sequence[EpisodeResult]]
"""Plays one episode a seed with the policy of the given weights; results in the order of the seeds."""


def weight_grid(n_parents: int, step: float) -> list[Weights]:
    """Return every weighting of `n_parents` in multiples of `step`, the parents alone among them.

    Raises:
        ConfigError: Fewer than two parents, or a step that does not divide 1.
    """
    n = round(1.0 / step) if step > 0 else 0
    if n_parents < 2 or n < 1 or not math.isclose(n * step, 1.0, rel_tol=1e-6):
        raise ConfigError(f"need at least 2 parents and a `step` that divides 1, got {n_parents} and {step}")
    # Whole numbers divided once: 0.3 and 1 - 0.7 are then the same weight.
    return [tuple(i / n for i in shares) for shares in product(range(n, -1, -1), repeat=n_parents) if sum(shares) == n]


def parent_weights(n_parents: int, index: int) -> Weights:
    """Return the weights of one parent alone."""
    return tuple(1.0 if i == index else 0.0 for i in range(n_parents))


@dataclass(frozen=True)
class Trial:
    """One policy and how it did.

    Args:
        weights: Of the parents; empty for a composition that has none (AND, OR).
        results: One a seed.
    """

    weights: Weights
    results: tuple[EpisodeResult, ...]

    @property
    def successes(self) -> int:
        """How many episodes succeeded."""
        return sum(result.success for result in self.results)

    @property
    def rate(self) -> float:
        """Share of the episodes that succeeded."""
        return self.successes / len(self.results)

    @property
    def max_reward(self) -> float:
        """Mean of the largest reward of an episode."""
        return sum(result.max_reward for result in self.results) / len(self.results)

    def exact(self) -> Interval:
        """Return the success rate with its exact binomial interval."""
        return clopper_pearson(self.successes, len(self.results))

    def success(self) -> Interval:
        """Return the success rate with its bootstrap interval over seeds."""
        return bootstrap_mean([float(result.success) for result in self.results])


@dataclass(frozen=True)
class Comparison:
    """Two trials on the same seeds: the difference of their success rates, and who alone succeeded where."""

    difference: Interval
    paired: PairedSuccess


def compare(first: Trial, second: Trial) -> Comparison:
    """Return how much more often the first succeeds than the second, seed by seed.

    Raises:
        ConfigError: They were not run on the same seeds in the same order.
    """
    seeds = [[result.seed for result in trial.results] for trial in (first, second)]
    if seeds[0] != seeds[1]:
        raise ConfigError("paired trials need the same seeds in the same order; evaluate both on one set")
    a, b = ([result.success for result in trial.results] for trial in (first, second))
    return Comparison(paired_mean([float(x) for x in a], [float(x) for x in b]), paired_success(a, b))


@dataclass(frozen=True)
class Search:
    """What a weight search found.

    Args:
        trials: Every weighting tried, parents first.
        n_parents: How many of them are parents alone.
    """

    trials: tuple[Trial, ...]
    n_parents: int

    @property
    def parents(self) -> tuple[Trial, ...]:
        """The parents alone."""
        return self.trials[: self.n_parents]

    @property
    def mixed(self) -> tuple[Trial, ...]:
        """The weightings that are no parent alone."""
        return self.trials[self.n_parents :]

    @property
    def strongest(self) -> int:
        """Index of the parent that did best."""
        return max(range(self.n_parents), key=lambda i: _merit(self.parents[i]))

    @property
    def best(self) -> Trial:
        """The weighting with most successes; among equals that of the highest mean reward, then the first."""
        return max(self.trials, key=_merit)

    def too_weak(self, min_strength: float) -> int | None:
        """Return the parent that is too weak to help, if there is one (rule in the module docstring).

        Raises:
            ConfigError: `min_strength` is not in [0, 1].
        """
        if not 0.0 <= min_strength <= 1.0:
            raise ConfigError(f"`min_strength` must lie in [0, 1], got {min_strength}")
        strong = self.parents[self.strongest]
        if any(trial.successes > strong.successes for trial in self.mixed):
            return None
        weak = min(range(self.n_parents), key=lambda i: _merit(self.parents[i]))
        hopeless = self.parents[weak].exact().high < min_strength * strong.exact().low
        return weak if hopeless and weak != self.strongest else None


def search_weights(evaluate: Evaluate, grid: Sequence[Weights], seeds: Sequence[int]) -> Search:
    """Run every weighting of the grid on the search seeds; the parents alone are run whether the grid has them or not.

    Raises:
        ConfigError: An empty grid, or weightings of different numbers of parents.
    """
    if len({len(weights) for weights in grid}) != 1:
        raise ConfigError(f"`grid` must hold weightings of the same parents, got {list(grid)}")
    n = len(grid[0])
    alone = [parent_weights(n, i) for i in range(n)]
    order = [*alone, *(weights for weights in dict.fromkeys(grid) if weights not in alone)]
    return Search(tuple(Trial(weights, tuple(evaluate(weights, seeds))) for weights in order), n)


@dataclass(frozen=True)
class Report:
    """The chosen policy and its parents on seeds that nothing was chosen on.

    Args:
        chosen: The chosen policy.
        parents: The parents alone.
        others: Other policies by name, on the same seeds.
        oracle: The weighting that is best on these very seeds; `None` if the others were not run. It was chosen on
            what it is measured on, so it is an upper end of what any search could find and no result.
    """

    chosen: Trial
    parents: tuple[Trial, ...]
    others: Mapping[str, Trial] = field(default_factory=dict)
    oracle: Trial | None = None

    @property
    def strongest(self) -> int:
        """Index of the parent that did best on the report seeds, the one that a composition must beat."""
        return max(range(len(self.parents)), key=lambda i: _merit(self.parents[i]))

    def gain(self) -> Comparison:
        """Return the chosen policy against the strongest parent."""
        return compare(self.chosen, self.parents[self.strongest])


def report_on(
    evaluate: Evaluate,
    search: Search,
    seeds: Sequence[int],
    *,
    oracle: bool = False,
    others: Mapping[str, Callable[[Sequence[int]], Sequence[EpisodeResult]]] | None = None,
    chosen: Weights | None = None,
) -> Report:
    """Run the chosen policy and the parents on the report seeds.

    Args:
        evaluate: As for the search.
        search: What the search found.
        seeds: Seeds of which the search has seen none.
        oracle: Run all other weightings too, and name the best of them.
        others: Other policies to run on the same seeds, by name.
        chosen: The policy to report; `None` for the best that the search found.

    Raises:
        ConfigError: Seeds that the search has seen.
    """
    chosen = search.best.weights if chosen is None else chosen
    seen = {result.seed for result in search.trials[0].results}
    if both := sorted(seen & set(seeds)):
        raise ConfigError(f"the report must be on seeds that the search has not seen, both hold {both[:3]}")
    wanted = [trial.weights for trial in search.trials] if oracle else [trial.weights for trial in search.parents]
    tried = {weights: Trial(weights, tuple(evaluate(weights, seeds))) for weights in (*wanted, chosen)}
    return Report(
        chosen=tried[chosen],
        parents=tuple(tried[trial.weights] for trial in search.parents),
        others={name: Trial((), tuple(play(seeds))) for name, play in (others or {}).items()},
        oracle=max(tried.values(), key=_merit) if oracle else None,
    )


def _merit(trial: Trial) -> tuple[int, float]:
    return trial.successes, trial.max_reward


def trial_row(name: str, trial: Trial, against: Trial | None = None) -> dict[str, Any]:
    """Return a trial as plain values: rate and interval, mean largest reward, and the difference from another."""
    interval = trial.success()
    row: dict[str, Any] = {
        "name": name, "weights": list(trial.weights), "successes": trial.successes, "episodes": len(trial.results),
        "success": interval.to_dict(), "max_reward": trial.max_reward,
    }  # fmt: skip
    if against is not None:
        comparison = compare(trial, against)
        row["difference"] = comparison.difference.to_dict()
        row["p_value"] = comparison.paired.p_value
    return row
