from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation import plots
from robot_rl.evaluation.statistics import Interval


def elements(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter(tag) if kind in e.get("class", "").split()]


def test_bars_are_as_high_as_their_counts():
    svg = plots.histogram([0, 1, 2, 3], [1, 0, 4], x_label="reward", marks={"mean": 1.5})
    bars = elements(svg, "rect", "bar")
    assert [bar.find("title").text for bar in bars] == ["0 to 1: 1", "2 to 3: 4"]
    assert float(bars[1].get("height")) == pytest.approx(4 * float(bars[0].get("height")), abs=0.05)
    mark = elements(svg, "line", "mark")[0]
    axis = elements(svg, "line", "axis")[0]
    assert float(mark.get("x1")) == pytest.approx((float(axis.get("x1")) + float(axis.get("x2"))) / 2)


def test_a_curve_goes_through_its_points_on_a_logarithmic_axis():
    svg = plots.lines({"loss": ([0, 1, 2], [1.0, 0.1, 0.01])}, x_label="step", y_label="loss", log_y=True)
    points = [tuple(map(float, p.split(","))) for p in elements(svg, "polyline", "line")[0].get("points").split()]
    assert np.diff(points, axis=0) == pytest.approx(np.array([[points[1][0] - points[0][0]] * 2, [79, 79]]).T, abs=0.02)


def test_points_that_cannot_be_drawn_are_left_out():
    svg = plots.lines({"a": ([0, 1, 2], [1.0, float("nan"), 3.0])}, x_label="x", y_label="y")
    assert len(elements(svg, "polyline", "line")[0].get("points").split()) == 2
    with pytest.raises(ConfigError, match=r"`loss`: no finite positive points to draw in \['a'\]"):
        plots.lines({"a": ([0], [0.0])}, x_label="x", y_label="loss", log_y=True)


def test_a_constant_can_be_drawn():
    assert "NaN" not in plots.lines({"a": ([5], [2.0])}, x_label="x", y_label="y")
    assert "nan" not in plots.histogram([2.0, 2.0], [3], x_label="x")


def test_an_interval_spans_its_ends():
    rows = {"ours": Interval(0.5, 0.25, 0.75, 0.95, "wilson"), "theirs": Interval(0.0, 0.0, 0.1, 0.95, "wilson")}
    svg = plots.intervals(rows, goals={"goal": 0.5})
    whiskers, points = elements(svg, "line", "whisker"), elements(svg, "circle", "point")
    assert whiskers[0].find("title").text == "50.0 %, 25.0 to 75.0 %"
    centre = (float(whiskers[0].get("x1")) + float(whiskers[0].get("x2"))) / 2
    assert float(points[0].get("cx")) == pytest.approx(centre)
    assert elements(svg, "line", "mark")[0].get("x1") == points[0].get("cx")
    assert float(whiskers[1].get("x1")) < float(whiskers[0].get("x1"))


def test_words_from_outside_are_escaped():
    svg = plots.histogram([0, 1], [1], x_label="<b>&", marks={"<i>": 0.5})
    assert not re.search("<b>|<i>", svg)
    assert "&lt;b&gt;&amp;" in svg


def test_edges_and_counts_must_fit():
    with pytest.raises(ConfigError, match="one edge more than counts, got 2 and 2"):
        plots.histogram([0, 1], [1, 1], x_label="x")
