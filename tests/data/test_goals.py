"""Goals in hindsight, on rows whose value is their own step."""

import numpy as np
import pytest

from robot_rl.data.goals import HindsightGoals, goal_spec
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Episode, RecordingMeta


def episode(n=20, name="a", invalid=()):
    steps = np.arange(n, dtype=np.float32)
    valid = np.ones(n, bool)
    valid[list(invalid)] = False
    picture = np.repeat(np.arange(n, dtype=np.uint8), 4 * 4 * 3).reshape(n, 4, 4, 3)
    return Episode(
        id=name, stamp_ns=np.arange(n, dtype=np.int64) * 10**8, obs={"pos": steps[:, None], "camera": picture},
        final_obs={"pos": np.array([n], np.float32), "camera": picture[-1]}, action=steps[:, None],
        action_executed=steps[:, None], reward=np.zeros(n, np.float32), by_human=np.zeros(n, bool), valid=valid,
        terminated=True, truncated=False, meta=RecordingMeta(),
    )  # fmt: skip


def goal_steps(made):
    return np.asarray(made.obs["goal_pos"][:])[:, 0].astype(int)


def test_the_last_valid_step_is_the_goal_of_every_step():
    (made,) = HindsightGoals(["pos"])(episode(invalid=(18, 19)))
    assert goal_steps(made).tolist() == [17] * 20
    assert float(made.final_obs["goal_pos"][0]) == 17
    assert made.id == "a+goal0"
    assert made.obs["pos"] is not made.obs["goal_pos"]
    assert made.obs["goal_pos"].shape == (20, 1)


def test_goals_ahead_are_uniform_within_the_range_and_end_with_the_episode():
    made = HindsightGoals(["pos"], ahead=(2, 5), copies=400)(episode())
    ahead = np.stack([goal_steps(one) for one in made]) - np.arange(20)
    counts = np.bincount(ahead[:, :15].ravel(), minlength=6)
    assert counts[:2].sum() == 0
    np.testing.assert_allclose(counts[2:] / counts.sum(), 0.25, atol=0.02)
    assert ahead[:, 16:].max() <= 3
    assert (ahead[:, 19] == 0).all()


def test_what_is_drawn_depends_on_seed_and_episode_alone():
    draw = HindsightGoals(["pos"], ahead=(1, 10), copies=2, seed=3)
    first, second = (goal_steps(one) for one in draw(episode()))
    draw(episode(name="b"))
    again = draw(episode())
    assert first.tolist() == goal_steps(again[0]).tolist()
    assert second.tolist() == goal_steps(again[1]).tolist()
    assert first.tolist() != second.tolist()
    assert first.tolist() != goal_steps(draw(episode(name="b"))[0]).tolist()
    assert first.tolist() != goal_steps(HindsightGoals(["pos"], ahead=(1, 10), seed=4)(episode())[0]).tolist()


def test_windows_serve_goals_and_pictures_of_one_future_step():
    made = HindsightGoals(["pos", "camera"], ahead=(3, 9))(episode())
    windows = WindowDataset(made, WindowSpec(n_obs=2, horizon=4), threads=1)
    batch = windows.gather(np.arange(len(windows)))
    newest = batch.obs["pos"][:, -1, 0].astype(int)
    goal = batch.obs["goal_pos"][:, -1, 0].astype(int)
    assert ((goal - newest >= np.minimum(3, 19 - newest)) & (goal - newest <= 9)).all()
    assert batch.obs["goal_camera"].dtype == np.uint8
    assert (batch.obs["goal_camera"][:, -1, 0, 0, 0] == goal).all()


def test_the_robot_gets_goals_of_the_same_kind():
    spec = RobotSpec(
        name="arm", obs={"pos": ArraySpec(name="pos", shape=(3,), unit="m", low=0.0, high=1.0)},
        action=ActionSpec(name="action", shape=(1,)), control_hz=10,
    )  # fmt: skip
    more = goal_spec(spec, ["pos"])
    assert list(more.obs) == ["pos", "goal_pos"]
    assert (more.obs["goal_pos"].name, more.obs["goal_pos"].unit, more.obs["goal_pos"].shape) == ("goal_pos", "m", (3,))
    with pytest.raises(SpecError, match=r"no observation \['vel'\]"):
        goal_spec(spec, ["vel"])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: HindsightGoals([]), "need `names` of observations"),
        (lambda: HindsightGoals(["pos"], copies=0), "at least 1 of `copies`"),
        (lambda: HindsightGoals(["pos"], ahead=(5, 2)), "0 <= least <= most, got"),
        (lambda: HindsightGoals(["vel"])(episode()), r"has no observation \['vel'\]; it has \['camera', 'pos'\]"),
        (lambda: HindsightGoals(["pos"])(episode(invalid=range(20))), "has no valid step"),
    ],
)
def test_bad_settings_say_what_was_expected(call, text):
    with pytest.raises(ConfigError, match=text):
        call()
