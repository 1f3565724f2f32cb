from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from robot_rl.deploy.latency import LatencyHistogram
from robot_rl.deploy.report import LoopReport
from robot_rl.errors import ConfigError
from robot_rl.evaluation.report import Facts, Plot, Table, Text, Tiles, Videos, write_report
from robot_rl.evaluation.report_sections import (
    configuration_section,
    data_section,
    evaluation_sections,
    latency_section,
    learning_section,
)
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta, EvaluationSummary, summarise
from robot_rl.evaluation.video import write_mp4
from robot_rl.metrics import MetricWriter


def make_summary(count: int, videos: tuple[str, ...] = ()) -> EvaluationSummary:
    """Every second episode succeeds; return_ is the seed."""
    results = [
        EpisodeResult(
            seed=i, success=i % 2 == 0, return_=float(i), max_reward=i / 10, steps=5, terminated=True, truncated=False,
            seconds=0.5, inference_p50_ms=1.0,
        )
        for i in range(count)
    ]  # fmt: skip
    return summarise(results, EvaluationMeta(task="reach"), wall_s=1.0, videos=videos)


def test_an_evaluation_shows_figures_videos_and_seeds(tmp_path):
    write_mp4([np.zeros((32, 32, 3), np.uint8)], tmp_path / "videos" / "seed_000001.mp4", 10)
    sections = evaluation_sections(make_summary(4, ("videos/seed_000001.mp4",)), folder=tmp_path, goals={"goal": 0.9})
    assert [section.title for section in sections] == ["Success", "What it looks like", "Episodes"]
    tiles = sections[0].blocks[0]
    assert isinstance(tiles, Tiles)
    assert (tiles.tiles[0].value, tiles.tiles[0].note) == ("50.0 %", "2/4, 95 %: 6.8 to 93.2 %")
    assert (tiles.tiles[2].value, tiles.tiles[3].value) == ("1.5", "4")
    videos = sections[1].blocks[0]
    assert isinstance(videos, Videos)
    assert (videos.videos[0].caption, videos.videos[0].good) == ("seed 1, 5 steps", False)
    table = sections[2].blocks[0]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [0, 1, 2, 3]
    write_report(tmp_path / "r.html", title="t", sections=sections)


def test_one_episode_has_no_interval_of_its_mean():
    tiles = evaluation_sections(make_summary(1))[0].blocks[0]
    assert isinstance(tiles, Tiles)
    assert tiles.tiles[1].note == "one episode: no interval"


def test_a_learning_curve_shows_what_the_run_has(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as metrics:
        for step in range(5):
            metrics.write(step, {"train/loss": 1.0 / (step + 1)})
    blocks = learning_section(tmp_path / "metrics.jsonl").blocks
    assert len(blocks) == 1
    assert isinstance(blocks[0], Plot)
    assert "val/loss" not in blocks[0].svg
    none = learning_section(tmp_path / "metrics.jsonl", curves={"x": ("other",)}).blocks[0]
    assert none == Text("metrics.jsonl holds none of ['other'].")


def test_a_loop_report_becomes_plots_rows_and_facts():
    report = LoopReport(control_hz=20.0, ticks=7)
    for value in (1_000_000, 2_000_000, 2_010_000, 4_000_000):
        report.inference.record(value)
    blocks = latency_section(report.to_dict()).blocks
    assert [type(block) for block in blocks] == [Plot, Table, Facts]
    assert blocks[1].rows[0][:3] == ("inference", 4, pytest.approx(2.2525))
    assert blocks[2].facts["ticks"] == 7
    assert blocks[2].facts["chunks: stale actions"] == 0
    titles = re.findall(r"<title>[^<]*: (\d+)</title>", blocks[0].svg)
    assert sum(map(int, titles)) == 4


def test_a_single_duration_can_be_drawn():
    histogram = LatencyHistogram()
    histogram.record(1_500_000)
    svg = latency_section({"latency": {"inference": histogram.to_dict()}}).blocks[0].svg
    assert len(re.findall("<rect", svg)) == 1


def test_a_dict_that_is_no_loop_report_is_refused():
    with pytest.raises(ConfigError, match=r"a loop report holds `latency`, got \['ticks'\]; pass LoopReport.to_dict"):
        latency_section({"ticks": 3})


def test_data_and_configuration(tmp_path):
    data = data_section({"episodes": 206}, note="Human.")
    assert data.blocks == [Text("Human."), Facts({"episodes": 206})]
    config = configuration_section({"a": {"b": 1}}, command="make demo")
    html = write_report(tmp_path / "r.html", title="t", sections=[data, config]).read_text()
    assert "make demo" in html
    assert "&#34;b&#34;: 1" in html


def test_only_what_varies_is_plotted():
    def labels(summary: EvaluationSummary) -> list[str]:
        plots = [
            block for block in evaluation_sections(summary)[0].blocks if isinstance(block, Plot) and not block.wide
        ]
        return [re.search('aria-label="histogram of ([^"]+)"', plot.svg).group(1) for plot in plots]

    assert labels(make_summary(4)) == ["largest reward of an episode", "return (sum of rewards)"]
    results = [replace(r, max_reward=1.0, return_=1.0, steps=40 + r.seed) for r in make_summary(4).results]
    assert labels(summarise(results, EvaluationMeta(), wall_s=1.0)) == ["steps of an episode"]
