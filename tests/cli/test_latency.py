"""A cell's latency file in `train` and `loop`: one aligns by it, the other sends ahead by it."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from rich.console import Console

from calibration.files import save_calibration
from robot_rl.cli.config import build, load_config, plain
from robot_rl.cli.evaluate_command import environment
from robot_rl.cli.finetune_roles import make_env as make_actors_env
from robot_rl.cli.latency import aligned_episode, read_latency, stream_latencies
from robot_rl.cli.loop_command import run as run_loop
from robot_rl.cli.train_command import datasets
from robot_rl.cli.train_command import run as run_train
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import CalibrationError, ConfigError
from robot_rl.latency_calibration import LatencyCalibration, LatencySamples
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.cli.still_arm import PRESENT, still
from tests.ros.formula_bundle import HORIZON, formula_bundle

MS = 1_000_000
Q_LATE, LEAD = 30 * MS, 100 * MS
SPEC = RobotSpec(
    name="r", obs={"q": ArraySpec(name="q", shape=(1,))}, action=ActionSpec(name="action", shape=(1,)), control_hz=20
)


def latency_file(folder: Path, *, days_old: float = 0.0, lead_ns: int = LEAD, stream: str = "q") -> Path:
    cell = LatencyCalibration(
        observation={stream: LatencySamples(np.array([Q_LATE]))}, action=LatencySamples(np.array([lead_ns]))
    )
    date = (datetime.now(UTC) - timedelta(days=days_old)).isoformat()
    return save_calibration(cell.to_file(date=date, method="test"), folder / "latency.yaml")


def recording(*, on_grid: bool = False) -> Recording:
    """Every sample is the time [s] at which it was captured, or commanded."""
    captured, commands = np.arange(0, 2_000 * MS, 10 * MS), np.arange(0, 1_900 * MS, 50 * MS)
    if on_grid:
        captured = commands
    command = (commands / 1e9).astype(np.float32)[:, None]
    streams = {
        "q": Stream(captured + (0 if on_grid else Q_LATE), (captured / 1e9).astype(np.float32)[:, None]),
        "action": Stream(commands, command),
        "action_executed": Stream(commands, command),
    }
    return Recording(streams, RecordingMeta(on_grid=on_grid))


def store_of(folder: Path, *, on_grid: bool = False) -> EpisodeStore:
    store = EpisodeStore.create(folder / "store", SPEC)
    for id in ("one", "two"):
        store.append(recording(on_grid=on_grid), id=id)
    return store


def configured(*overrides: str) -> DictConfig:
    return load_config(["task.obs=[q]", "task.n_obs=1", "task.horizon=1", "train.val_fraction=0.5", *overrides])


def test_train_sees_what_was_captured_and_done_at_each_tick(tmp_path: Path) -> None:
    store, file = store_of(tmp_path), latency_file(tmp_path, days_old=400)
    plain, aligned = (datasets(configured(f"latency={given}"), store)[0] for given in ("null", file))
    shift = {}
    for name, train in (("plain", plain), ("aligned", aligned)):
        batch = train.gather(np.arange(8, 20))
        shift[name] = batch.action[:, 0, 0] - batch.obs["q"][:, 0, 0]
    # By stamps alone a command goes with what was captured 30 ms before it; the arm does it 100 ms after it was sent.
    assert ((shift["plain"] >= 0.03 - 1e-6) & (shift["plain"] <= 0.08 + 1e-6)).all()
    assert ((shift["aligned"] >= -0.1 - 1e-6) & (shift["aligned"] <= -0.05 + 1e-6)).all()


def test_a_training_run_goes_on_with_the_latency_it_began_with_only(tmp_path: Path) -> None:
    store_of(tmp_path)
    tiny = [
        f"out={tmp_path}", "policy=regression", "denoiser=mlp_tiny", "train.steps=2", "train.batch_size=8",
        "train.threads=1", "policy.relative_to=[]", "train.warmup_steps=1", "train.precision=fp32", "task.n_execute=1",
    ]  # fmt: skip
    latency = f"latency={latency_file(tmp_path)}"
    assert run_train(configured(latency, *tiny), Console(quiet=True)).step == 2
    with pytest.raises(ConfigError, match="latency_ns"):
        run_train(configured(*tiny), Console(quiet=True))
    assert run_train(configured(latency, *tiny), Console(quiet=True)).step == 2


def test_what_is_stamped_with_a_command_moves_with_it(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    late = stream_latencies(str(latency_file(tmp_path)), store)
    assert late == {"q": Q_LATE, "action": -LEAD, "action_executed": -LEAD, "by_human": -LEAD}
    episode = aligned_episode(store, "one", latency_ns=late)
    sent_before = episode.stamp_ns[8:] / 1e9 - episode.action_executed[8:, 0]
    assert ((sent_before > 0.05 - 1e-6) & (sent_before < 0.1 + 1e-6)).all()
    np.testing.assert_array_equal(episode.action, episode.action_executed)


def test_a_latency_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    grid = store_of(tmp_path, on_grid=True)
    with pytest.raises(ConfigError, match=r"recorded on the control grid \(a simulation\), where nothing is late"):
        datasets(configured(f"latency={latency_file(tmp_path)}"), grid)
    other = latency_file(tmp_path, stream="front")
    with pytest.raises(ConfigError, match=r"names streams \['front'\] that the store lacks; it has \[.*'q'"):
        stream_latencies(str(other), grid)
    with pytest.raises(CalibrationError, match="it was made 400 days ago"):
        read_latency(str(latency_file(tmp_path, days_old=400)))
    assert read_latency(None).lead_ns == 0


def test_the_loop_sends_actions_ahead_by_the_lead(tmp_path: Path) -> None:
    bundle, per_step = formula_bundle(tmp_path / "bundle", per_step=1e-3), 1e-3
    file, lead_steps = latency_file(tmp_path, lead_ns=250 * MS), 5
    rows = {}
    for given in ("null", file):
        run_loop(load_config(still(bundle.path, tmp_path, f"latency={given}", "loop.seconds=1.5")), Console(quiet=True))
        rows[given] = np.rint((np.load(tmp_path / "told.npy")[:, 0] - PRESENT[0]) / per_step).astype(int)
    usual, ahead = rows["null"], rows[file]
    assert ahead.max() < HORIZON
    assert usual[usual > 0].min() < lead_steps
    moving = ahead[ahead > 0]  # before the first chunk it holds
    assert len(moving) > 10
    assert moving.min() >= lead_steps


@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_evaluation_and_fine_tuning_can_be_as_late_as_the_cell(tmp_path, command):
    file = latency_file(tmp_path, stream="joint_position")
    config = load_config(["task=lift", f"{command}.latency={file}"])
    described, make_env = environment(config, config[command].latency)
    if command == "finetune":
        make_env = partial(make_actors_env, config)
    assert described["latency"] != ""
    env, plain_env = make_env(), build(plain(config.task.env))
    try:
        start = env.reset(7).obs["joint_position"]
        np.testing.assert_array_equal(plain_env.reset(7).obs["joint_position"], start)
        goal = np.concatenate([start + 0.1, [0.04]]).astype(np.float32)
        late = [env.step(goal).obs["joint_position"] for _ in range(4)]
        prompt = plain_env.step(goal).obs["joint_position"]
    finally:
        env.close()
        plain_env.close()
    assert np.abs(prompt - start).max() > 1e-3
    np.testing.assert_allclose(late[0], start, atol=1e-3)  # a command of 100 ms lead is two ticks of 20 Hz away
    np.testing.assert_allclose(late[1], start, atol=1e-3)
    assert np.abs(late[3] - start).max() > 1e-3
    assert environment(load_config(["task=lift"]), None)[0] == plain(config.task.env)
