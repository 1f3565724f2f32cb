from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robot_rl.data.plan import RecordingPlan
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, SpecError

ROBOT = {"name": "arm", "control_hz": 20}
JOINTS: dict[str, Any] = {
    "topic": "joint_states", "type": "sensor_msgs/msg/JointState", "qos": "joints", "shape": [2], "unit": "rad",
    "field": "position", "names": ["a", "b"], "rate_hz": 500, "low": [-1.0, -2.0], "high": 3,
}  # fmt: skip
ACTION = {
    "topic": "selected/command", "type": "trajectory_msgs/msg/JointTrajectory", "qos": "command", "shape": [2],
    "kind": "joint_position", "gripper": "width_m",
}  # fmt: skip
STREAMS: dict[str, dict[str, Any]] = {
    "q": JOINTS,
    "front": {"topic": "f", "type": "sensor_msgs/msg/Image", "shape": [4, 6, 3], "dtype": "uint8", "codec": "png"},
    "wrench": {"topic": "w", "type": "geometry_msgs/msg/WrenchStamped", "shape": [6], "role": "extra"},
    "action": ACTION,
    "action_executed": {"topic": "command", "type": "trajectory_msgs/msg/JointTrajectory"},
    "by_human": {"topic": "control_source", "type": "std_msgs/msg/String", "qos": "latched", "true_when": "human"},
    "reward": {"topic": "episode/reward", "type": "std_msgs/msg/Float32"},
}


def changed(stream: str, **values: Any) -> dict[str, dict[str, Any]]:
    return {**STREAMS, stream: {**STREAMS[stream], **values}}


def test_a_plan_says_what_the_store_holds_and_what_to_expect():
    plan = RecordingPlan.from_dict(ROBOT, STREAMS)
    spec = plan.schema.spec
    assert (spec.name, spec.control_hz, list(spec.obs)) == ("arm", 20.0, ["q", "front"])
    assert (spec.obs["q"].low, spec.obs["q"].high, spec.obs["q"].unit) == ((-1.0, -2.0), 3.0, "rad")
    assert (spec.action.kind, spec.action.gripper) == ("joint_position", "width_m")
    assert list(plan.schema.extra) == ["wrench"]
    assert plan.schema.stream("front").codec == "png"
    q, by_human = plan.streams["q"], plan.streams["by_human"]
    assert (q.topic, q.qos, q.names, q.expected.rate_hz, q.expected.required) == (
        "joint_states", "joints", ("a", "b"), 500.0, True,
    )  # fmt: skip
    assert (by_human.true_when, by_human.spec.dtype, by_human.spec.shape) == ("human", "bool", ())
    required = {name for name, stream in plan.streams.items() if stream.expected.required}
    assert required == {"q", "front"}
    assert plan.streams["action_executed"].spec.shape == (2,)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        (changed("q", hz=3), r"stream `q`: unknown keys \['hz'\]; there are \['codec'"),
        (changed("q", topic=""), "stream `q`: `topic` is missing"),
        (changed("q", rate_hz="fast"), "stream `q`: `rate_hz` must be a float, got 'fast'"),
        (changed("q", rate_hz=True), "stream `q`: `rate_hz` must be a float, got True"),
        (changed("q", rate_hz=0), "stream `q`: `rate_hz` must be positive, got 0"),
        (changed("q", qos="best"), "stream `q`: `qos` must be one of .*, got 'best'"),
        (changed("q", role="main"), "stream `q`: `role` must be obs or extra, got 'main'"),
        (changed("q", true_when="x"), "stream `q`: `true_when` makes a bool, but the stream is float32"),
        ({k: v for k, v in STREAMS.items() if k != "action"}, "streams: `action` is missing"),
        ({**STREAMS, "q": {k: v for k, v in JOINTS.items() if k != "shape"}}, "stream `q`: `shape` is missing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(streams: dict[str, dict[str, Any]], message: str):
    with pytest.raises(ConfigError, match=message):
        RecordingPlan.from_dict(ROBOT, streams)


def test_specs_are_checked_too():
    with pytest.raises(SpecError, match="codec 'jpeg' is for uint8 images"):
        RecordingPlan.from_dict(ROBOT, changed("q", codec="jpeg"))
    with pytest.raises(SpecError, match="stream `by_human` is always bool"):
        RecordingPlan.from_dict(ROBOT, changed("by_human", dtype="float32"))
    with pytest.raises(ConfigError, match="robot: `control_hz` is missing"):
        RecordingPlan.from_dict({"name": "arm"}, STREAMS)
    with pytest.raises(ConfigError, match=r"robot: unknown keys \['hz'\]"):
        RecordingPlan.from_dict({**ROBOT, "hz": 3}, STREAMS)


def test_a_store_made_for_other_data_is_refused(tmp_path: Path):
    plan = RecordingPlan.from_dict(ROBOT, STREAMS)
    plan.open_store(tmp_path / "store")
    assert len(plan.open_store(tmp_path / "store")) == 0
    other = RecordingPlan.from_dict({**ROBOT, "control_hz": 10}, changed("q", unit="deg"))
    with pytest.raises(ConfigError, match=r"was made for other data: \['control_hz', 'obs.q'\] differ"):
        other.open_store(tmp_path / "store")
    assert EpisodeStore.open(tmp_path / "store").spec == plan.schema.spec


def test_a_file_without_a_recorder_is_refused(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("/**:\n  ros__parameters:\n    store: x\n")
    with pytest.raises(ConfigError, match="no node in it has `ros__parameters` with `streams`"):
        RecordingPlan.from_yaml(path)


@pytest.mark.parametrize("name", ["recorder_lift", "recorder_three_cameras"])
def test_every_recorder_file_is_a_plan(name: str):
    root = Path(__file__).resolve().parents[2]
    plan = RecordingPlan.from_yaml(root / "ros_ws/src/robot_rl_ros/config" / f"{name}.yaml")
    assert {"action", "action_executed", "joint_position"} <= set(plan.streams)
    assert plan.streams["joint_position"].expected.rate_hz == 500.0
