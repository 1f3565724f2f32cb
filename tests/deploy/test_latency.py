import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.errors import ConfigError


@given(st.lists(st.integers(1_000, 10**11), min_size=1, max_size=200), st.sampled_from([0, 1, 50, 90, 99, 100]))
def test_percentile_is_within_a_bucket_of_the_exact_one(values, percent):
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(1, int(np.ceil(len(values) * percent / 100))) - 1]
    assert exact * (1 - 1e-9) <= histogram.percentile_ns(percent) <= exact * 1.0234
    assert histogram.max_ns == max(values)
    assert histogram.min_ns == min(values)
    assert histogram.mean_ns == pytest.approx(np.mean(values))


def test_ends_of_the_range():
    histogram = LatencyHistogram()
    for value in (-5, 0, 3 * 10**11):
        histogram.record(value)
    assert histogram.count == 3
    assert histogram.percentile_ns(100) == 3 * 10**11
    assert histogram.percentile_ns(1) == 1_000
    assert histogram.min_ns == 0


def test_summary_is_json_and_counts_add_up():
    histogram = LatencyHistogram()
    for value in (1_000_000, 1_000_000, 20_000_000):
        histogram.record(value)
    data = json.loads(json.dumps(histogram.to_dict()))
    assert data["counts"] == [2, 1]
    assert data["edges_ms"] == pytest.approx([1.0, 20.0], rel=0.0234)
    assert data["max_ms"] == 20.0
    assert data["mean_ms"] == pytest.approx(22 / 3)
    empty = LatencyHistogram().to_dict()
    assert empty["count"] == 0
    assert empty["p99_ms"] is None
    assert empty["counts"] == []


def test_memory_does_not_grow():
    histogram = LatencyHistogram()
    for value in range(1_000, 500_000, 7):
        histogram.record(value)
    assert len(histogram.to_dict()["counts"]) <= 801


def test_bad_percentile():
    with pytest.raises(ConfigError, match=r"`percent` must be in 0..100, got 101"):
        LatencyHistogram().percentile_ns(101)


def test_add_joins_two_histograms():
    both, first, second = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    for value in (5_000, 7_000_000):
        first.record(value)
        both.record(value)
    second.record(2_000)
    both.record(2_000)
    first.add(second)
    first.add(LatencyHistogram())
    assert first.to_dict() == both.to_dict()
    assert first.min_ns == 2_000
    empty = LatencyHistogram()
    empty.add(first)
    assert empty.min_ns == 2_000
