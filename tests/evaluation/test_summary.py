from __future__ import annotations

import json
import math

import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.statistics import bootstrap_mean, clopper_pearson
from robot_rl.evaluation.summary import EvaluationMeta, EvaluationSummary, summarise

META = EvaluationMeta(task="lift", policy_id="b1", env={"max_steps": 3}, command="robot-rl evaluate", code_version="9")


def result(seed: int, **changes) -> EpisodeResult:
    values = {
        "seed": seed, "success": seed < 9, "return_": float(seed), "max_reward": seed / 10, "steps": 4,
        "terminated": True, "truncated": False, "seconds": 0.5, "inference_p50_ms": 1.0,
    }  # fmt: skip
    return EpisodeResult(**{**values, **changes})


def test_figures_have_their_intervals():
    summary = summarise([result(i) for i in range(10)], META, wall_s=2.0, workers=2)
    assert summary.success == clopper_pearson(9, 10)
    assert summary.return_ == bootstrap_mean([float(i) for i in range(10)])
    assert summary.max_reward.value == pytest.approx(0.45)
    assert summary.steps_per_s == pytest.approx(8.0)
    assert summary.headline() == "9/10 succeeded: 90.0 % (95 % interval 55.5 to 99.7 %)"


def test_a_summary_comes_back_from_its_file_with_times(tmp_path):
    summary = summarise([result(1, seconds=0.25)], META, wall_s=2.0, videos=["videos/seed_000001.mp4"])
    back = EvaluationSummary.read(summary.write(tmp_path / "summary.json"))
    assert back == summary
    assert back.results[0].seconds == 0.25
    assert back.return_.high == math.inf
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_the_file_is_plain_json_with_the_promised_keys(tmp_path):
    data = json.loads(summarise([result(1), result(20)], META, wall_s=2.0).write(tmp_path / "s.json").read_text())
    assert (data["successes"], data["episodes"]) == (1, 2)
    assert data["success"]["method"] == "clopper_pearson"
    assert data["meta"] == {
        "task": "lift", "policy_id": "b1", "env": {"max_steps": 3}, "command": "robot-rl evaluate", "code_version": "9",
    }  # fmt: skip
    assert [row["seed"] for row in data["results"]] == [1, 20]


def test_another_format_version_is_refused(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"format_version": 7}')
    with pytest.raises(ConfigError, match=r"s.json: `format_version` must be 1, got 7; evaluate again"):
        EvaluationSummary.read(path)


def test_an_empty_evaluation_is_refused():
    with pytest.raises(ConfigError, match="an evaluation needs at least one episode, got none"):
        summarise([], META, wall_s=0.0)
