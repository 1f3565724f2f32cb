"""Low-dimensional encoders, task ids and mixtures."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.encoders import CompositeEncoder, StateEncoder, TaskEmbedding
from policies.vision import ImageEncoder
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from tests.policies.helpers import SPEC, STATS, batch, field_stats

ACTION = ActionSpec(name="action", shape=(1,))


def robot(**obs) -> RobotSpec:
    arrays = {name: ArraySpec(name=name, shape=shape, dtype=dtype) for name, (shape, dtype) in obs.items()}
    return RobotSpec(name="rig", obs=arrays, action=ACTION, control_hz=10)


def test_features_stand_step_by_step_normalised_with_angles_as_sine_and_cosine():
    encoder = StateEncoder(SPEC, STATS, n_obs=2, angles={"block_pose": [2]})
    obs = {
        "agent_pos": torch.tensor([[[0.0, 512.0], [256.0, 128.0]]]),
        "block_pose": torch.tensor([[[100.0, 0.0, 0.0], [300.0, 256.0, torch.pi / 2]]]),
    }
    expected = [-1, 1, -1, -1, 0, 1, 0, -0.5, 1, 0, 1, 0]
    np.testing.assert_allclose(encoder(obs)[0].numpy(), expected, atol=1e-6)
    assert (encoder.out_dim, encoder.step_dim) == (12, 6)


def test_an_angle_in_the_middle_or_alone_is_found():
    spec, stats = robot(a=((3,), "float32"), yaw=((1,), "float32")), {"a": field_stats([0] * 3, [2] * 3)}
    stats["yaw"] = field_stats([-3], [3])
    encoder = StateEncoder(spec, stats, n_obs=1, angles={"a": [1], "yaw": [0]})
    out = encoder({"a": torch.tensor([[[0.0, 0.5, 2.0]]]), "yaw": torch.tensor([[[1.0]]])})
    np.testing.assert_allclose(
        out[0].numpy(), [-1, 1, *(f(a) for a in (0.5, 1.0) for f in (np.sin, np.cos))], atol=1e-6
    )


def test_names_choose_and_order():
    obs, _ = batch()
    whole = StateEncoder(SPEC, STATS, n_obs=2, names=["block_pose", "agent_pos"]).steps(obs)
    torch.testing.assert_close(whole[..., 3:], StateEncoder(SPEC, STATS, n_obs=2, names=["agent_pos"]).steps(obs))


def test_keypoints_are_flattened_and_each_coordinate_has_its_own_scale():
    low, high = np.zeros((9, 2)), np.arange(1.0, 19.0).reshape(9, 2)
    spec = robot(keypoint=((9, 2), "float32"))
    encoder = StateEncoder(spec, {"keypoint": field_stats(low, high)}, n_obs=1, names=["keypoint"])
    top = torch.as_tensor(high, dtype=torch.float32)[None, None]
    torch.testing.assert_close(encoder({"keypoint": top}), torch.ones(1, 18))
    assert encoder.out_dim == 18


def test_names_with_dots_and_constant_features_are_allowed():
    name = "observation.state"
    encoder = StateEncoder(robot(**{name: ((2,), "float64")}), {name: field_stats([0, 3], [1, 3])}, n_obs=1)
    out = encoder({name: torch.tensor([[[1.0, 3.0]]], dtype=torch.float64)})
    np.testing.assert_array_equal(out.numpy(), np.float32([[1, 0]]))


@settings(max_examples=20, deadline=None)
@given(turns=st.integers(-3, 3), angle=st.floats(-3, 3))
def test_whole_turns_of_an_angle_make_no_difference(turns, angle):
    encoder = StateEncoder(SPEC, STATS, n_obs=1, names=["block_pose"], angles={"block_pose": [2]})
    a, b = (encoder({"block_pose": torch.tensor([[[0.0, 0.0, angle + 2 * np.pi * n]]])}) for n in (0, turns))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_task_embedding_tells_tasks_apart_and_reads_every_step():
    encoder = TaskEmbedding(robot(task_id=((1,), "int64")), {}, n_obs=2, n_tasks=3, dim=4)
    out = encoder({"task_id": torch.tensor([[[0], [2]]])})
    torch.testing.assert_close(out[0], encoder.embedding.weight[[0, 2]].flatten())
    scalar = TaskEmbedding(robot(task_id=((), "int32")), {}, n_obs=2, n_tasks=3, dim=4)
    assert scalar({"task_id": torch.tensor([[0, 1]], dtype=torch.int32)}).shape == (1, 8)


def test_composite_concatenates_within_each_step():
    """T47's order and width: per step the state, then 64 per camera, then the rest; steps one after another."""
    spec = robot(
        state=((7,), "float32"), env=((3,), "float32"), left=((64, 64, 3), "uint8"), right=((64, 64, 3), "uint8")
    )
    stats = {"state": field_stats([0] * 7, [1] * 7), "env": field_stats([0] * 3, [1] * 3)}
    parts = [
        functools.partial(StateEncoder, names=["state"]),
        functools.partial(ImageEncoder, width=16),
        functools.partial(StateEncoder, names=["env"]),
    ]
    encoder = CompositeEncoder(spec, stats, n_obs=2, parts=parts)
    assert encoder.out_dim == 2 * (7 + 64 * 2 + 3)
    obs = {
        "state": torch.rand(1, 2, 7), "env": torch.rand(1, 2, 3),
        "left": torch.randint(0, 256, (1, 2, 64, 64, 3), dtype=torch.uint8),
        "right": torch.randint(0, 256, (1, 2, 64, 64, 3), dtype=torch.uint8),
    }  # fmt: skip
    out = encoder(obs)[0].detach()
    for step in (0, 1):
        row = out[step * 138 : (step + 1) * 138]
        torch.testing.assert_close(row[:7], obs["state"][0, step] * 2 - 1)
        torch.testing.assert_close(row[-3:], obs["env"][0, step] * 2 - 1)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: StateEncoder(SPEC, STATS, n_obs=1, names=["pose"]),
            r"needs the observation `pose`, robot `pusher` has",
        ),
        (lambda: StateEncoder(SPEC, {}, n_obs=1), r"no statistics for the observation `agent_pos`"),
        (lambda: StateEncoder(SPEC, STATS, n_obs=1, names=[]), "needs an observation"),
        (
            lambda: StateEncoder(SPEC, STATS, n_obs=1, angles={"block_pose": [3]}),
            r"distinct indices below 3, got \[3\]",
        ),
        (lambda: StateEncoder(SPEC, STATS, n_obs=1, angles={"pose": [0]}), r"`angles` names \['pose'\]"),
        (lambda: StateEncoder(robot(c=((8, 8, 3), "uint8")), {}, n_obs=1, names=["c"]), "give it to an ImageEncoder"),
        (lambda: TaskEmbedding(SPEC, {}, n_obs=1, n_tasks=2, name="agent_pos"), "must be one integer to be a task id"),
        (lambda: CompositeEncoder(SPEC, {}, n_obs=1, parts=[]), "at least one encoder"),
        (lambda: CompositeEncoder(SPEC, {}, n_obs=1, parts=[None]), r"`parts` \[0\] of a CompositeEncoder are null"),
    ],
)
def test_bad_settings_say_what_was_expected(build, text):
    with pytest.raises(ConfigError, match=text):
        build()
