"""Specs refuse what does not fit, and their messages say what was expected, what came and what to do."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.errors import SpecError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

JOINTS = ArraySpec(name="joint_position", shape=(7,), unit="rad", low=-1.0, high=tuple(range(1, 8)))
ACTION = ActionSpec(name="action", shape=(2,), kind="position", low=0, high=512, unit="px")
ROBOT = RobotSpec(name="toy", obs={"joint_position": JOINTS}, action=ACTION, control_hz=20)


def test_validate_returns_the_array_itself() -> None:
    value = np.arange(7, dtype=np.float32)
    assert JOINTS.validate(value) is value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(6, np.float32), r"`joint_position` must be float32\(7\) \[rad\], got float32\(6,\)"),
        (np.zeros(7), r"`joint_position` must be float32\(7\) \[rad\], got float64\(7,\)"),
        (np.zeros((2, 7), np.float32), r"got float32\(2, 7\)"),
        (np.array([0, 0, np.nan, 0, 0, 0, 0], np.float32), r"must be finite, got nan at index \[2\]"),
        (np.array([0, np.inf, 0, 0, 0, 0, 0], np.float32), r"must be finite, got inf at index \[1\]"),
    ],
)
def test_validate_names_field_expected_and_got(value: np.ndarray, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        JOINTS.validate(value)


def test_leading_axes_are_time_or_batch() -> None:
    assert JOINTS.validate(np.zeros((4, 2, 7), np.float32), leading=2).shape == (4, 2, 7)
    with pytest.raises(SpecError, match=r"must be float32\(\*, 7\)"):
        JOINTS.validate(np.zeros(7, np.float32), leading=1)


def test_bounds_name_the_element_and_zero_is_a_bound() -> None:
    with pytest.raises(SpecError, match=r"`joint_position`\[1\] must be <= 2 rad, got 3"):
        JOINTS.check_bounds(np.array([0, 3, 0, 0, 0, 0, 0], np.float32))
    table = ArraySpec(name="z", shape=(1,), low=0.0)
    with pytest.raises(SpecError, match=r"must be >= 0"):
        table.check_bounds(np.array([-0.1], np.float32))
    JOINTS.check_bounds(np.ones((3, 7), np.float32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shape": (0,)}, "every axis of shape must be positive"),
        ({"shape": (2,), "dtype": "floaty"}, "is not a numpy dtype"),
        ({"shape": (2,), "low": (1, 2, 3)}, "low must be one number or 2 numbers, got 3"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ArraySpec(name="x", **kwargs)


def test_action_spec_refuses_unknown_conventions() -> None:
    with pytest.raises(SpecError, match="kind must be one of"):
        ActionSpec(name="a", shape=(2,), kind="teleport")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="gripper must be one of"):
        ActionSpec(name="a", shape=(2,), gripper="claw")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="an action is a vector"):
        ActionSpec(name="a", shape=(2, 2))


def test_images_are_recognised_by_dtype_and_channels() -> None:
    assert ArraySpec(name="cam", shape=(4, 5, 3), dtype="uint8").is_image
    assert not ArraySpec(name="cam", shape=(4, 5, 3)).is_image
    assert not ArraySpec(name="cam", shape=(4, 5, 2), dtype="uint8").is_image


def test_robot_spec_round_trips_through_json() -> None:
    assert RobotSpec.from_dict(json.loads(json.dumps(ROBOT.to_dict()))) == ROBOT


@given(st.lists(st.integers(1, 9), max_size=3), st.sampled_from(["float32", "uint8", "int64", "bool"]))
def test_any_array_spec_round_trips_through_json(shape: list[int], dtype: str) -> None:
    spec = ArraySpec(name="x", shape=tuple(shape), dtype=dtype, low=-1, high=[2.0] * int(np.prod(shape)))
    assert ArraySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_robot_spec_errors() -> None:
    with pytest.raises(SpecError, match=r"observation lacks \['joint_position'\]; got \['camera'\]"):
        ROBOT.validate_obs({"camera": np.zeros(3)})
    with pytest.raises(SpecError, match="names must agree"):
        RobotSpec(name="toy", obs={"q": JOINTS}, action=ACTION, control_hz=20)
    with pytest.raises(SpecError, match="`control_hz` must be positive, got 0"):
        RobotSpec(name="toy", action=ACTION, control_hz=0)
    with pytest.raises(SpecError, match=r"has no observation \['wrench'\]; it has \['joint_position'\]"):
        ROBOT.select(["wrench"])
    with pytest.raises(SpecError, match="'action' is missing"):
        RobotSpec.from_dict({"name": "x", "obs": {}, "control_hz": 1})
    with pytest.raises(SpecError, match="unexpected keyword"):
        ArraySpec.from_dict({"name": "x", "shape": [1], "colour": "red"})


def test_step_is_the_control_period() -> None:
    assert ROBOT.step_ns == 50_000_000
