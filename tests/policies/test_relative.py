"""Poses seen from the tool: what a rotation of everything cannot change, and what millimetres do."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from policies.relative import RelativePoseEncoder
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

SPEC = RobotSpec(
    name="arm",
    obs={
        **{name: ArraySpec(name=name, shape=(9,), unit="m, rot6d") for name in ("tcp", "cube", "hole")},
        "q": ArraySpec(name="q", shape=(7,)),
    },
    action=ActionSpec(name="action", shape=(7,), kind="position"),
    control_hz=20.0,
)


def encoder(objects=("cube", "hole"), scales=(0.01, 0.1), frame="tcp"):
    return RelativePoseEncoder(SPEC, {}, n_obs=1, frame=frame, objects=objects, scales_m=scales)


def pose(position, rotation):
    matrix = rotation.as_matrix()
    return np.concatenate([position, matrix[:, 0], matrix[:, 1]])


def rows(**poses):
    return {name: torch.tensor(np.asarray(value)[None, None], dtype=torch.float32) for name, value in poses.items()}


def test_features_are_the_position_at_each_scale_and_the_rotation_in_the_tools_frame():
    down = Rotation.from_euler("x", 180, degrees=True)
    seen = encoder(("cube",))(rows(tcp=pose([0.5, 0.0, 0.2], down), cube=pose([0.51, 0.02, 0.1], Rotation.identity())))
    in_tool = np.array([0.01, -0.02, 0.1])
    expected = np.concatenate([np.tanh(in_tool / 0.01), np.tanh(in_tool / 0.1), [1, 0, 0], [0, -1, 0]])
    assert seen[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_moving_and_turning_the_whole_scene_changes_nothing():
    rng = np.random.default_rng(0)
    poses = {name: (rng.uniform(-0.2, 0.2, 3), Rotation.random(random_state=i))
             for i, name in enumerate(("tcp", "cube", "hole"))}  # fmt: skip
    turn, shift = Rotation.random(random_state=9), np.array([0.3, -0.2, 0.1])
    moved = {name: pose(turn.apply(p) + shift, turn * r) for name, (p, r) in poses.items()}
    before = encoder()(rows(**{name: pose(*given) for name, given in poses.items()}))
    assert torch.allclose(before, encoder()(rows(**moved)), atol=1e-5)
    assert before.shape == (1, encoder().out_dim) == (1, 24)


def test_a_fine_scale_tells_a_millimetre_where_a_coarse_one_hardly_does():
    here, there = (
        encoder(("cube",), scales=(0.002, 0.2))(
            rows(tcp=pose([0, 0, 0], Rotation.identity()), cube=pose([x, 0, 0], Rotation.identity()))
        )
        for x in (0.0, 0.001)
    )
    fine, coarse = (there - here)[0, [0, 3]].tolist()
    assert fine > 0.4 > 0.01 > coarse


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"objects": ()}, "need `objects`"),
        ({"scales": (0.0,)}, "positive `scales_m`"),
        ({"objects": ("q",)}, r"`q` must be a pose of position and rot6d, \(9,\); it is \(7,\)"),
        ({"objects": ("lid",)}, "RelativePoseEncoder needs the observation `lid`"),
    ],
)
def test_what_is_no_pose_is_refused_by_name(given, told):
    with pytest.raises(ConfigError, match=told):
        encoder(**given)
