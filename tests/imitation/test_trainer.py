"""The loop: it learns, it stops when told, it says what went wrong."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robot_rl.errors import ConfigError, TrainingError
from robot_rl.imitation.checkpoint import load_model_weights
from robot_rl.imitation.metrics import HeldOut, action_unit
from robot_rl.imitation.run import HELD_OUT_SEED
from robot_rl.imitation.trainer import Trainer
from robot_rl.metrics import read_metrics
from tests.imitation.linear_flow import WINDOW, LinearFlow, make_windows
from tests.imitation.resume_run import make_trainer

TINY = {"steps": 30, "batch_size": 8, "warmup_steps": 2, "tensorboard": False}


def test_it_overfits_a_few_windows_and_the_averaged_weights_are_what_is_delivered(tmp_path):
    windows, model = make_windows([8]), LinearFlow(hidden=64)
    data = HeldOut(windows, action_unit(windows), n_windows=8, batch_size=8, seed=HELD_OUT_SEED)
    cpu = torch.device("cpu")
    before = data.evaluate(model.eval(), device=cpu)["val/action_error_normalised"]
    summary = Trainer(
        model, windows, windows, run_dir=tmp_path, steps=1000, batch_size=8, lr=1e-2, warmup_steps=10,
        weight_decay=0.0, ema_decay=0.99, eval_every=500, tensorboard=False,
    ).fit()  # fmt: skip
    assert before > 0.8
    assert summary.best_metrics["val/action_error_normalised"] < 0.2
    best = LinearFlow(hidden=64, seed=3).eval()
    load_model_weights(best, summary.best)
    assert data.evaluate(best, device=cpu) == summary.best_metrics


def test_the_run_folder_holds_what_the_page_says(tmp_path):
    summary = make_trainer(tmp_path, tensorboard=True, config={"policy": "linear"}).fit()
    names = {"config.json", "metrics.jsonl", "tensorboard", "checkpoints", "learning_curve.png", "summary.json"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert (tmp_path / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["lr"], config["config"], config["data"]["train"]["windows"]) == (0.01, {"policy": "linear"}, 75)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["status"], written["step"], written["best_step"]) == ("finished", 40, summary.best_step)


def test_metrics_have_the_documented_keys_at_the_documented_steps(tmp_path):
    make_trainer(tmp_path, log_every=5).fit()
    records = read_metrics(tmp_path / "metrics.jsonl")
    train = [r for r in records if "train/loss" in r]
    val = [r for r in records if "val/loss" in r]
    assert [r["step"] for r in train] == list(range(5, 41, 5))
    assert [r["step"] for r in val] == [10, 20, 30, 40]
    assert set(train[0]) == {
        "step", "train/loss", "train/grad_norm", "train/lr", "train/ema_decay", "train/epoch", "train/steps_per_s",
        "train/seconds",
    }  # fmt: skip
    assert set(val[0]) == {
        "step", "val/loss", "val/action_error_normalised", "val/action_error/0", "val/action_error/1",
        "val/action_error_normalised/0", "val/action_error_normalised/1", "val/seconds",
    }  # fmt: skip
    assert train[0]["train/lr"] == pytest.approx(0.01)  # the peak, right after 5 steps of warm-up
    assert train[0]["train/ema_decay"] == pytest.approx(1 - 6**-0.75)
    assert [r["train/epoch"] for r in train] == [s * 16 // (75 - 75 % 16) for s in range(5, 41, 5)]


def test_best_is_the_evaluation_with_the_smallest_loss(tmp_path):
    summary = make_trainer(tmp_path).fit()
    losses = {r["step"]: r["val/loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if "val/loss" in r}
    assert summary.best_step == min(losses, key=losses.__getitem__)
    assert summary.best.resolve().name == f"step-{summary.best_step:08d}"


def test_without_held_out_data_there_is_no_best(tmp_path):
    summary = Trainer(LinearFlow(), make_windows([20]), run_dir=tmp_path, **TINY).fit()
    assert (summary.best, summary.best_step, summary.last.resolve().name) == (None, None, "step-00000030")
    assert not any(name.startswith("val/") for name in summary.metrics)


def test_the_time_budget_stops_with_evaluation_and_checkpoint_and_counts_over_resumes(tmp_path):
    ticks = iter(range(10**6))
    trainer = make_trainer(tmp_path, clock=lambda: next(ticks) * 10.0, max_minutes=5.0, log_every=100)
    summary = trainer.fit()
    assert summary.status == "budget"
    assert 5 < summary.step < 40
    assert "val/loss" in summary.metrics
    assert summary.last.resolve().name == f"step-{summary.step:08d}"
    again = make_trainer(tmp_path, max_minutes=5.0).fit()
    assert (again.status, again.step) == ("budget", summary.step + 1)
    assert make_trainer(tmp_path).fit().status == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_returns_and_handlers_are_put_back(tmp_path, number):
    before = signal.getsignal(number)
    calls = iter(range(10**6))

    def clock() -> float:
        n = next(calls)
        if n == 20:
            os.kill(os.getpid(), number)
        return float(n)

    summary = make_trainer(tmp_path, clock=clock).fit()
    assert summary.status == "interrupted"
    assert 0 < summary.step < 40
    assert summary.last.resolve().name == f"step-{summary.step:08d}"
    assert signal.getsignal(number) is before
    assert make_trainer(tmp_path).fit().step == 40


def test_a_batch_with_nan_stops_the_run_and_is_dumped(tmp_path):
    windows = make_windows([40])
    windows.table._columns["pos"][17] = np.nan
    trainer = Trainer(LinearFlow(), windows, run_dir=tmp_path, checkpoint_every=1, **TINY)
    message = r"step \d+: loss or gradient is not finite; the batch holds NaN or infinity in \['obs.pos'\]"
    with pytest.raises(TrainingError, match=message):
        trainer.fit()
    (dump,) = tmp_path.glob("bad_batch_step_*.safetensors")
    fields = load_file(dump)
    assert set(fields) == {"obs.pos", "action", "mask", "noise", "u"}
    assert torch.isnan(fields["obs.pos"]).any()
    step = int(dump.stem.rsplit("_", 1)[1])
    if step > 1:
        last = load_file(tmp_path / "checkpoints" / "last" / "model.safetensors")
        assert all(torch.isfinite(value).all() for value in last.values())
        assert (tmp_path / "checkpoints" / "last").resolve().name == f"step-{step - 1:08d}"


def test_divergence_on_finite_data_says_so(tmp_path):
    settings = TINY | {"lr": 1e38, "warmup_steps": 0, "grad_clip": None}
    trainer = Trainer(LinearFlow(), make_windows([20]), run_dir=tmp_path, **settings)
    with pytest.raises(TrainingError, match="the batch is finite, so lower lr or grad_clip"):
        trainer.fit()


def test_the_callers_generator_and_threads_are_left_alone(tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    Trainer(LinearFlow(dropout=0.5), make_windows([20]), run_dir=tmp_path, threads=2, **TINY).fit()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_bf16_trains_with_fp32_weights(tmp_path):
    model = LinearFlow(hidden=16)
    summary = Trainer(model, make_windows([40]), run_dir=tmp_path, precision="bf16", **(TINY | {"lr": 1e-2})).fit()
    fp32 = Trainer(LinearFlow(hidden=16), make_windows([40]), run_dir=tmp_path / "b", **(TINY | {"lr": 1e-2})).fit()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert summary.metrics["train/loss"] != fp32.metrics["train/loss"]
    assert summary.metrics["train/loss"] == pytest.approx(fp32.metrics["train/loss"], rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"log_every": 0}, "`log_every` must be at least 1, got 0"),
        ({"ema_decay": 1.5}, r"`ema_decay` must lie within \[0, 1.0\], got 1.5"),
        ({"warmup_steps": 30}, r"`warmup_steps` must lie within \[0, steps=30\), got 30"),
        ({"precision": "fp16"}, r"`precision` must be one of \('fp32', 'bf16'\), got 'fp16'"),
        ({"best_by": "loss"}, "`best_by` must be one of"),
        ({"batch_size": 999}, r"`batch_size` must lie within \[1, 20\] \(windows there are\), got 999"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        Trainer(LinearFlow(), make_windows([20]), run_dir=tmp_path, **(TINY | changes)).fit()


def test_windows_that_do_not_fit_the_model_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"`train` has WindowSpec\(n_obs=2, horizon=4.*model needs .*horizon=8"):
        Trainer(LinearFlow(horizon=8), make_windows([20]), run_dir=tmp_path, **TINY)
    assert WINDOW.horizon == 4


def test_what_is_not_a_chunk_model_is_refused(tmp_path):
    model = torch.nn.Linear(1, 1)
    model.n_obs, model.horizon, model.action_offset = 2, 4, 0
    with pytest.raises(ConfigError, match=r"`model` must be an nn.Module with ChunkModel's methods, got Linear"):
        Trainer(model, make_windows([20]), run_dir=tmp_path, **TINY).fit()
