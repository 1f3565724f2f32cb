"""Resuming continues bit for bit, after a stop and after a kill."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.imitation.checkpoint import EMA_FILE, MODEL_FILE, OPTIMIZER_FILE, read_state
from robot_rl.metrics import read_metrics
from tests.imitation.resume_run import make_trainer

ROOT = Path(__file__).resolve().parents[2]
TIMES = {"train/seconds", "train/steps_per_s", "val/seconds"}


def assert_same_checkpoint(left: Path, right: Path) -> None:
    for name in (MODEL_FILE, EMA_FILE, OPTIMIZER_FILE):
        a, b = load_file(left / name), load_file(right / name)
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == [], name
    a, b = read_state(left), read_state(right)
    for key in ("step", "ema_updates", "rng", "loader", "best", "config"):
        assert a[key] == b[key], key


def without_times(run_dir: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(run_dir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight")
    assert make_trainer(run_dir).fit().status == "finished"
    return run_dir


def kill_when_ready(run_dir: Path) -> None:
    command = [sys.executable, "-m", "tests.imitation.resume_run", str(run_dir)]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (run_dir / "ready").exists():
            assert child.poll() is None, f"the training process ended early with {child.returncode}"
            assert time.monotonic() < deadline, "the training process did not get past its checkpoint"
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_killed_at_27_and_resumed_from_20_equals_40_straight_bit_for_bit(straight, tmp_path):
    kill_when_ready(tmp_path)
    assert without_times(tmp_path)[-1]["step"] > 20  # it was past the checkpoint
    summary = make_trainer(tmp_path).fit()
    assert (summary.status, summary.step) == ("finished", 40)
    assert_same_checkpoint(straight / "checkpoints" / "last", tmp_path / "checkpoints" / "last")
    assert_same_checkpoint(straight / "checkpoints" / "best", tmp_path / "checkpoints" / "best")
    assert [r for r in without_times(tmp_path) if r["step"] > 20] == [
        r for r in without_times(straight) if r["step"] > 20
    ]
    assert [r["step"] for r in without_times(tmp_path)] == [r["step"] for r in without_times(straight)]


def test_training_does_move_and_depends_on_the_seed(straight, tmp_path):
    make_trainer(tmp_path, seed=6).fit()
    a, b = (load_file(d / "checkpoints" / "last" / MODEL_FILE) for d in (straight, tmp_path))
    assert not torch.equal(a["net.1.weight"], b["net.1.weight"])


def test_a_finished_run_is_not_trained_further(straight):
    before = (straight / "metrics.jsonl").read_text()
    summary = make_trainer(straight).fit()
    assert (summary.status, summary.step) == ("finished", 40)
    assert summary.metrics["train/loss"] == read_metrics(straight / "metrics.jsonl")[-1]["train/loss"]
    assert (straight / "metrics.jsonl").read_text() == before


def test_a_changed_setting_is_refused_by_name(straight):
    with pytest.raises(ConfigError, match=r"cannot resume from .*step-00000040: `lr` was 0.01 and is now 0.02"):
        make_trainer(straight, lr=0.02).fit()
    with pytest.raises(ConfigError, match=r"`config.width` was '\(absent\)' and is now 3"):
        make_trainer(straight, config={"width": 3}).fit()


def test_settings_that_do_not_change_the_weights_may_change(straight):
    assert make_trainer(straight, log_every=3, max_minutes=9.0, checkpoint_every=7).fit().status == "finished"


def test_a_run_folder_with_checkpoints_is_not_started_anew(straight):
    with pytest.raises(ConfigError, match=r"already holds step-00000040; pass resume='auto' or another run_dir"):
        make_trainer(straight).fit(resume="never")


def test_a_damaged_checkpoint_stops_and_falls_back_only_when_told(straight, tmp_path):
    make_trainer(tmp_path).fit()
    damaged = tmp_path / "checkpoints" / "last" / MODEL_FILE
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model.safetensors was truncated or altered.*resume='previous'"):
        make_trainer(tmp_path).fit()
    summary = make_trainer(tmp_path).fit(resume="previous")
    assert (summary.status, summary.step) == ("finished", 40)
    assert_same_checkpoint(straight / "checkpoints" / "last", summary.last)
    assert make_trainer(tmp_path).fit().status == "finished"


def test_previous_without_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no previous checkpoint to resume from; pass resume='auto'"):
        make_trainer(tmp_path).fit(resume="previous")
    with pytest.raises(ConfigError, match="`resume` must be 'auto', 'previous' or 'never', got 'last'"):
        make_trainer(tmp_path).fit(resume="last")
