"""What the range sensors see is on the outlines, on the near side, and the same for the same seed."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("gym_pusht", reason="needs gym-pusht")

from robot_rl.errors import ConfigError
from robot_rl.values import Episode, RecordingMeta
from sim.pusht import PushTEnv
from sim.pusht_augment import hindsight_and_mirror as plain_augment
from sim.pusht_cloud import (
    BLOCK_HEIGHT_PX,
    OUTLINE,
    PUSHER_HEIGHT_PX,
    CloudScanner,
    PushTCloudEnv,
    hindsight_and_mirror,
    scan_rows,
)
from tests.contracts.env import check_env

FAR = np.array([500.0, 500.0])
BELOW = ((0.0, -1000.0),)


def to_outline(points, block_pose):
    """Return each point's distance to the T's outline [px]."""
    x, y, angle = block_pose
    c, s = np.cos(angle), np.sin(angle)
    local = (points - [x, y]) @ np.array([[c, -s], [s, c]])
    ends = np.roll(OUTLINE, -1, axis=0)
    distance = []
    for a, b in zip(OUTLINE, ends, strict=True):
        along = np.clip((local - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        distance.append(np.linalg.norm(local - (a + along[:, None] * (b - a)), axis=1))
    return np.min(distance, axis=0)


def test_the_outline_is_the_simulators():
    """Every corner of gym-pusht's two rectangles lies on our outline, and ours are all among theirs."""
    shapes = PushTEnv()._gym
    shapes.reset(seed=0)
    theirs = np.array([[v.x, v.y] for shape in shapes._block_shapes for v in shape.get_vertices()])
    assert to_outline(theirs, (0.0, 0.0, 0.0)).max() < 1e-9
    assert all(np.linalg.norm(theirs - corner, axis=1).min() < 1e-9 for corner in OUTLINE if abs(corner[0]) != 15)


@pytest.mark.parametrize("pose", [(256.0, 256.0, 0.0), (100.0, 300.0, 2.0), (300.0, 200.0, 5.5)])
def test_every_point_lies_on_the_block_or_the_pusher(pose):
    agent = np.array([150.0, 120.0])
    points, heights = CloudScanner().visible(agent, np.array(pose))
    block, pusher = points[heights == BLOCK_HEIGHT_PX], points[heights == PUSHER_HEIGHT_PX]
    assert len(block) > 20
    assert len(pusher) > 5
    assert to_outline(block, pose).max() < 0.51
    np.testing.assert_allclose(np.linalg.norm(pusher - agent, axis=1), 15.0)


def test_a_sensor_sees_the_near_side_alone():
    """From far below the upright T only its bar's lower edge; from far above the stem's end and the bar's shoulders."""
    pose = np.array([0.0, 0.0, 0.0])
    below, _ = CloudScanner(sensors=BELOW).visible(FAR, pose)
    assert np.abs(below[np.linalg.norm(below - FAR, axis=1) > 20][:, 1] + 0.5).max() < 1e-9
    above, _ = CloudScanner(sensors=((0.0, 1000.0),)).visible(-FAR, pose)
    block = above[np.linalg.norm(above + FAR, axis=1) > 20]
    assert set(np.round(block[:, 1], 1)) == {30.5, 120.5}
    shoulders = block[block[:, 1] < 100]
    assert np.abs(shoulders[:, 0]).min() > 15  # the stem hides what is behind it


def test_the_stem_hides_an_inner_corner_and_the_pusher_hides_the_block():
    pose = np.array([0.0, 0.0, 0.0])
    scanner = CloudScanner(sensors=((1000.0, 75.0),))
    block, heights = scanner.visible(-FAR, pose)
    assert block[heights == BLOCK_HEIGHT_PX][:, 0].min() > 0  # nothing of the left side
    shadowed, heights = CloudScanner(sensors=BELOW).visible(np.array([0.0, -20.0]), pose)
    bar = shadowed[heights == BLOCK_HEIGHT_PX]
    assert np.abs(bar[:, 0]).min() > 14  # the pusher's shadow is 30 px wide
    assert len(bar) > 10


def test_noise_and_choice_come_from_the_generator_alone():
    scanner, pose = CloudScanner(n_points=32, noise_px=2.0), np.array([256.0, 256.0, 1.0])
    one, again, other = (scanner.scan(FAR, pose, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.dtype == np.float32
    assert one.shape == (32, 3)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    many = CloudScanner(n_points=4000, noise_px=2.0).scan(FAR, pose, np.random.default_rng(0))
    distance = to_outline(many[many[:, 2] == BLOCK_HEIGHT_PX, :2].astype(float), pose)
    assert np.sqrt((distance**2).mean()) == pytest.approx(2.0, rel=0.15)


def test_the_environment_meets_the_contract():
    check_env(PushTCloudEnv)


def test_the_environment_is_pusht_with_one_more_observation():
    env, plain = PushTCloudEnv(n_points=16), PushTEnv()
    assert env.spec.obs["point_cloud"].shape == (16, 3)
    action = np.array([200.0, 300.0], dtype=np.float32)
    for mine, theirs in ((env.reset(7), plain.reset(7)), (env.step(action), plain.step(action))):
        assert mine.obs["point_cloud"].shape == (16, 3)
        for name in plain.spec.obs:
            np.testing.assert_array_equal(mine.obs[name], theirs.obs[name])
        assert mine.reward == theirs.reward
    first = env.reset(3).obs["point_cloud"]
    env.step(action)
    assert np.array_equal(env.reset(3).obs["point_cloud"], first)


def episode(n=6) -> Episode:
    rng = np.random.default_rng(0)
    agent, block = rng.uniform(100, 400, (n, 2)), np.column_stack([rng.uniform(150, 350, (n, 2)), rng.uniform(0, 6, n)])
    obs = {"agent_pos": agent.astype("f4"), "block_pose": block.astype("f4")}
    obs["point_cloud"] = scan_rows(agent, block, CloudScanner(n_points=24), "a")
    action = rng.uniform(100, 400, (n, 2)).astype("f4")
    return Episode(
        id="a", stamp_ns=np.arange(n) * 10**8, obs=obs, final_obs={name: value[-1] for name, value in obs.items()},
        action=action, action_executed=action, reward=np.zeros(n), by_human=np.zeros(n, bool), valid=np.ones(n, bool),
        terminated=False, truncated=True, meta=RecordingMeta(),
    )  # fmt: skip


def test_a_moved_demonstration_is_scanned_where_it_lies_now():
    for moved, plain in zip(hindsight_and_mirror(episode()), plain_augment(episode()), strict=True):
        np.testing.assert_array_equal(moved.obs["block_pose"], plain.obs["block_pose"])
        assert moved.obs["point_cloud"].shape == (6, 24, 3)
        assert moved.final_obs["point_cloud"].shape == (24, 3)
        for cloud, pose in zip(moved.obs["point_cloud"], np.asarray(moved.obs["block_pose"], float), strict=True):
            block = cloud[cloud[:, 2] == BLOCK_HEIGHT_PX, :2].astype(float)
            assert np.median(to_outline(block, pose)) < 4.0
    again = hindsight_and_mirror(episode())[0]
    np.testing.assert_array_equal(again.obs["point_cloud"], hindsight_and_mirror(episode())[0].obs["point_cloud"])


def test_bad_settings_say_what_was_expected():
    for settings, text in (
        ({"n_points": 0}, "need `n_points` >= 1 and `noise_px` >= 0, got 0"),
        ({"noise_px": -1.0}, "got 48 and -1"),
        ({"sensors": ()}, "`sensors` must hold an x, y for each sensor"),
        ({"sensors": ((1.0,),)}, "`sensors` must hold an x, y for each sensor"),
    ):
        with pytest.raises(ConfigError, match=text):
            CloudScanner(**settings)
    without = dataclasses.replace(episode(), obs={"agent_pos": episode().obs["agent_pos"]})
    with pytest.raises(ConfigError, match=r"needs the observation `point_cloud`, the episode has \['agent_pos'\]"):
        hindsight_and_mirror(without)
