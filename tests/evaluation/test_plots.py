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


def labels(svg: str, anchor: str) -> list[str]:
    """Return the tick labels of the x axis (`middle`) or of the y axis (`end`)."""
    return [e.text for e in elements(svg, "text", "tick") if e.get("text-anchor") == anchor]


@pytest.mark.parametrize("x", [[400], [0, 100, 200]])
def test_a_share_that_is_always_zero_is_drawn_from_zero_to_one(x):
    svg = plots.lines({"success": (x, [0.0] * len(x))}, x_label="environment steps", y_label="share")
    assert labels(svg, "end") == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    axis = float(elements(svg, "line", "axis")[0].get("y1"))
    assert {float(dot.get("cy")) for dot in elements(svg, "circle", "dot")} == {axis}


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [(1.0, 0, 1), (0.9, 0, 1), (0.25, 0, 0.5), (3e-4, 0, 6e-4), (400.0, 0, 800), (-3.0, -6, 0)],
)
def test_a_constant_is_drawn_on_an_axis_that_begins_at_zero(value, first, last):
    found = labels(plots.lines({"a": ([1, 2], [value] * 2)}, x_label="updates", y_label="y"), "end")
    assert (float(found[0]), float(found[-1])) == (first, last)


@pytest.mark.parametrize(
    ("x", "ticks"),
    [
        ([400], ["400"]), ([1, 2], ["1", "2"]), ([1, 2, 3], ["1", "2", "3"]), ([100_001], ["100,001"]),
        ([0, 13], ["0", "2", "4", "6", "8", "10", "12"]), ([1200, 1202], ["1,200", "1,201", "1,202"]),
        ([0, 160_000], ["0", "25,000", "50,000", "75,000", "100,000", "125,000", "150,000"]),
        ([0.5, 1, 1.5], ["0.6", "0.8", "1", "1.2", "1.4"]),
    ],
)  # fmt: skip
def test_what_is_counted_has_its_ticks_at_whole_numbers(x, ticks):
    assert labels(plots.lines({"a": (x, x)}, x_label="x", y_label="y"), "middle") == ticks


def test_a_histogram_of_steps_has_its_ticks_at_whole_numbers():
    edges = np.linspace(24, 26, 25).tolist()
    assert labels(plots.histogram(edges, [1] * 24, x_label="steps of an episode"), "middle") == ["24", "25", "26"]
    assert labels(plots.histogram(edges, [1] * 24, x_label="return"), "middle")[:2] == ["24", "24.5"]
    assert labels(plots.histogram([0, 1], [0], x_label="return"), "end") == ["0", "1"]


@pytest.mark.parametrize("y", [[0.30301, 0.30308], [1e6, 1e6 + 1], [1000.5, 1001.5], [0.0, 0.0152], [1e-9, 3e-9]])
def test_no_two_ticks_have_the_same_label_and_each_tells_its_place(y):
    svg = plots.lines({"a": ([1, 2], y)}, x_label="updates", y_label="y")
    values = [float(text.replace(",", "")) for text in labels(svg, "end")]
    assert np.allclose(np.diff(values), np.diff(values)[0], rtol=1e-3)
    assert len(set(values)) == len(values) >= 4
    longest = max(len(text) for text in labels(svg, "end"))
    assert float(elements(svg, "line", "axis")[0].get("x1")) >= 8 + 8 * longest


def test_a_logarithmic_axis_within_a_decade_has_ticks():
    svg = plots.lines({"loss": ([0, 1], [0.31, 0.39])}, x_label="step", y_label="loss", log_y=True)
    assert labels(svg, "end") == ["0.32", "0.34", "0.36", "0.38"]


def test_names_that_have_no_room_beside_one_another_go_on_in_further_rows():
    names = ["kl_divergence", "action_distance", "critic_spread", "model_disagreement"]
    svg = plots.lines({name: ([1, 2], [0, 1]) for name in names}, x_label="updates", y_label="share of the limit")
    keys = elements(svg, "text", "key")
    assert {key.text: key.get("class") for key in keys} == {name: f"key s{i}" for i, name in enumerate(names)}
    rows = {y: [key for key in keys if key.get("y") == y] for y in {key.get("y") for key in keys}}
    assert [len(rows[y]) for y in sorted(rows)] == [2, 2]
    for row in rows.values():
        ends = {float(key.get("x")): len(key.text) for key in row}
        assert max(ends) - min(ends) > 8 * ends[max(ends)]
    few = plots.lines({"a": ([1, 2], [0, 1])}, x_label="updates", y_label="y")
    heights = [float(ElementTree.fromstring(s).get("viewBox").split()[-1]) for s in (svg, few)]
    assert heights[0] - heights[1] == float(max(rows)) - float(min(rows))


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
