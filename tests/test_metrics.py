"""Metric files: what is written is what is read, and a killed writer costs at most a line."""

import json
import subprocess
import sys

import pytest

from robot_rl.errors import ConfigError
from robot_rl.metrics import MetricWriter, read_metrics


def test_records_come_back_in_order(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(10, {"train/loss": 0.5, "train/lr": 1e-4})
        writer.write(20, {"train/loss": 0.25}, event="resumed")
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 10, "train/loss": 0.5, "train/lr": 1e-4},
        {"step": 20, "event": "resumed", "train/loss": 0.25},
    ]


def test_a_number_that_is_not_finite_is_null_and_the_line_stays_json(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"a": float("nan"), "b": float("inf"), "c": 2})
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1, "a": None, "b": None, "c": 2.0,
    }  # fmt: skip


def test_a_record_can_be_read_while_the_writer_is_open(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"a": 1.0})
        assert len(read_metrics(writer.path)) == 1


def test_resuming_drops_what_came_after_the_checkpoint_and_a_torn_line(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        for step in (10, 20, 30):
            writer.write(step, {"a": float(step)})
    with writer.path.open("a") as file:
        file.write('{"step": 40, "a"')
    with MetricWriter(tmp_path, tensorboard=False, resume_step=20) as writer:
        writer.write(25, {"a": 25.0})
    assert [r["step"] for r in read_metrics(writer.path)] == [10, 20, 25]


def test_a_new_run_starts_an_empty_file(tmp_path):
    for _ in range(2):
        with MetricWriter(tmp_path, tensorboard=False) as writer:
            writer.write(1, {"a": 1.0})
    assert len(read_metrics(writer.path)) == 1


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(ConfigError, match=r"metrics.jsonl, line 2: expected a JSON object, got 'nonsense"):
        read_metrics(path)


def test_tensorboard_shows_the_same_numbers_and_forgets_what_a_resume_dropped(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricWriter(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.write(step, {"train/loss": step / 8})
    with MetricWriter(tmp_path, resume_step=20) as writer:
        writer.write(30, {"train/loss": 99.0})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(e.step, e.value) for e in events] == [(10, 1.25), (20, 2.5), (30, 99.0)]
    begun = [path.name.split(".")[3] for path in (tmp_path / "tensorboard").iterdir()]
    assert len(set(begun)) == 2, "two event files of one second are read in either order"


def test_writing_needs_no_torch(tmp_path):
    code = (
        "import sys; from robot_rl.metrics import MetricWriter\n"
        f"with MetricWriter({str(tmp_path)!r}) as w: w.write(1, {{'a': 1.0}})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
