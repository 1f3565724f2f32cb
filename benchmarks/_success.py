"""Success of several training seeds on the same scenes, with an interval that both may blame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._pusht_arms import mean_interval
from robot_rl.evaluation.statistics import Interval, clopper_pearson
from robot_rl.evaluation.summary import EvaluationSummary

Table = NDArray[np.float64]
"""1 where an episode succeeded: [training seeds, scenes]."""


def success_interval(table: Table) -> Interval:
    """Return the mean success with the wider one of two intervals.

    Policies of several training seeds that play the same scenes are no independent trials: what is hard about a scene
    is so for all, and what a training seed lacks it lacks everywhere. A crossed bootstrap resamples both; where nearly
    all succeed it has nothing to resample, and the exact interval of as many trials as there are scenes is wider.
    """
    drawn, n = mean_interval(table), table.shape[1]
    exact = clopper_pearson(round(drawn.value * n), n)
    low, high = min(drawn.low, exact.low), max(drawn.high, exact.high)
    return Interval(drawn.value, low, high, 0.95, drawn.method)


def of_summaries(summaries: Iterable[EvaluationSummary]) -> Table:
    """Return the table of evaluations of the same scenes."""
    return np.array([[result.success for result in summary.results] for summary in summaries], dtype=np.float64)


def of_facts(found: Iterable[Mapping[str, Any]]) -> Table:
    """Return the table of what runs keep: `first_seed`, `episodes` and the seeds that `failed`."""
    rows = []
    for one in found:
        row = np.ones(one["episodes"])
        row[np.array(one["failed"], dtype=np.int64) - one["first_seed"]] = 0.0
        rows.append(row)
    return np.array(rows)
