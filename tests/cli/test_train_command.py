"""`robot-rl train`: which episodes are imitated."""

import json
import os
import signal
import threading
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.config import load_config
from robot_rl.cli.main import main
from robot_rl.cli.train_command import imitated, run
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

SPEC = RobotSpec(
    name="arm", control_hz=10.0, obs={"q": ArraySpec(name="q", shape=(1,))},
    action=ActionSpec(name="action", shape=(1,), low=-1.0, high=1.0, kind="position"),
)  # fmt: skip
TINY = [
    "policy=regression", "denoiser=mlp_tiny", "train.steps=2", "train.batch_size=4", "train.threads=1",
    "policy.relative_to=[]", "train.warmup_steps=1", "train.precision=fp32", "train.val_fraction=0.3",
    "task.obs=[q]", "task.n_obs=1", "task.horizon=1", "task.n_execute=1",
]  # fmt: skip


def store_of(folder: Path, *outcomes: str) -> EpisodeStore:
    """A success does +0.5, a failure -0.5, an unlabelled episode 0."""
    store = EpisodeStore.create(folder / "store", SPEC)
    stamps = np.arange(10, dtype=np.int64) * SPEC.step_ns
    for outcome in outcomes:
        value = {"success": 0.5, "failure": -0.5, "unknown": 0.0}[outcome]
        streams = {name: Stream(stamps, np.full((10, 1), value, np.float32)) for name in ("q", "action")}
        store.append(Recording(streams, RecordingMeta(outcome=outcome, on_grid=True)))
    return store


def configured(folder: Path, *more: str) -> DictConfig:
    return load_config([f"out={folder}", *TINY, *more])


def test_failures_are_left_out_and_what_nobody_labelled_is_not(tmp_path: Path) -> None:
    store = store_of(tmp_path, "success", "failure", "unknown", "success", "failure")
    ids = store.ids()
    assert imitated(configured(tmp_path), store) == [ids[0], ids[2], ids[3]]
    assert imitated(configured(tmp_path, "train.leave_out=[]"), store) == ids
    assert imitated(configured(tmp_path, "train.leave_out=[failure,unknown]"), store) == [ids[0], ids[3]]


def test_neither_weights_nor_statistics_see_what_is_left_out(tmp_path: Path) -> None:
    store_of(tmp_path, "success", "failure", "success", "success", "failure")
    out = StringIO()
    assert run(configured(tmp_path), Console(file=out, width=200)).step == 2
    told = out.getvalue()
    assert "from 3 episodes" in told
    assert "2 labelled failure are left out (train.leave_out=[] imitates them too)" in told
    card = json.loads((tmp_path / "train" / "model.json").read_text())
    assert card["stats"]["action"]["min"] == pytest.approx([0.5])
    with pytest.raises(ConfigError, match="left_out"):  # another choice is another run
        run(configured(tmp_path, "train.leave_out=[]"), Console(quiet=True))


def test_a_store_of_failures_and_a_label_that_is_none_are_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path, "failure", "failure")
    with pytest.raises(StoreError, match=r"all 2 episodes of .* are labelled failure and left out of imitation; set"):
        run(configured(tmp_path), Console(quiet=True))
    with pytest.raises(ConfigError, match=r"`train\.leave_out` must name outcomes of .*, got \['fail'\]"):
        imitated(configured(tmp_path, "train.leave_out=[fail]"), store)


def test_a_training_that_is_told_to_stop_says_so_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(tmp_path, *["success"] * 4)
    given = ["train", f"out={tmp_path}", *TINY, "train.steps=200000"]

    def stop() -> None:
        while not (tmp_path / "train" / "model.json").exists():
            time.sleep(0.01)
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    assert main(given) == 130
    assert "of 200000 steps" in capsys.readouterr().out
    reached = json.loads((tmp_path / "train" / "checkpoints" / "last" / "state.json").read_text())["step"]
    assert reached > 0


def test_another_run_in_the_folder_is_refused_before_its_recipe_is_written_over(tmp_path: Path) -> None:
    store_of(tmp_path, *["success"] * 4)
    assert main(["train", f"out={tmp_path}", *TINY]) == 0
    before = (tmp_path / "train" / "model.json").read_text()
    assert main(["train", f"out={tmp_path}", *TINY, "task.n_execute=1", "train.lr=0.5"]) == 2
    assert main(["train", f"out={tmp_path}", *TINY, "denoiser=mlp_small"]) == 2
    assert (tmp_path / "train" / "model.json").read_text() == before
