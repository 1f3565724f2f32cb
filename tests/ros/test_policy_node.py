"""The policy node as a process of its own, driven through its topics and services."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.ros.graph_kit import wait_for

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

import onnxruntime
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.parameter import Parameter
from robot_rl_ros.bundle_source import BundleSource
from robot_rl_ros.conversions import msg_to_chunk, msg_to_command
from robot_rl_ros.graphs import Process
from robot_rl_ros.obs_sources import read_sources
from robot_rl_ros.policy_params import declare_providers
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED
from robot_rl_ros.stamps import now_ns, to_msg
from robot_rl_ros.up import Running
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_rl.deploy.providers import Providers
from robot_rl.errors import BundleError, ConfigError
from tests.ros.formula_bundle import HORIZON, formula_bundle
from tests.ros.formula_bundle import JOINTS as NAMES

SOURCES = Path(__file__).parents[2] / "ros_ws" / "src" / "robot_rl_ros" / "config" / "graph_observations.yaml"
HOME = np.array([0.1, 0.2, 0.3, -1.4, 0.5, 0.6, 0.7, 0.05])


class Arm:
    """Publishes joint states at 100 Hz and the episode's status."""

    def __init__(self, node) -> None:
        self.position = HOME.copy()
        self.silent = False
        self.index = -1
        self._node = node
        self._states = node.create_publisher(JointState, "joint_states", JOINTS)
        self._status = node.create_publisher(String, "episode/status", LATCHED)
        self._timer = node.create_timer(0.01, self._publish)

    def _publish(self) -> None:
        if not self.silent:
            msg = JointState(name=NAMES, position=self.position.tolist(), velocity=[0.0] * 8)
            msg.header.stamp = to_msg(now_ns(self._node))
            self._states.publish(msg)

    def start(self) -> None:
        self.index += 1
        self._say("running")

    def end(self) -> None:
        self._say("success")

    def _say(self, state: str) -> None:
        self._status.publish(String(data=json.dumps({"state": state, "index": self.index})))


def described(bundle: Path, **parameters) -> Process:
    given = {"bundle": str(bundle), "observations": str(SOURCES), "joint_names": NAMES, "seed": 0}
    return Process(name="policy", module="robot_rl_ros.policy_node", parameters={**given, **parameters})


@pytest.fixture(scope="module")
def graph(shared_graph, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The node with a folder of one bundle, fed with joint states."""
    bundles = tmp_path_factory.mktemp("bundles")
    first = formula_bundle(bundles / "first", per_step=0.01, created="2026-01-01T00:00:00+00:00")
    with Running([described(bundles)]) as running:
        it = SimpleNamespace(
            ros=shared_graph, arm=Arm(shared_graph.node), running=running, bundles=bundles, first=first
        )
        it.commands = shared_graph.collect(JointTrajectory, "policy/command", COMMAND)
        it.chunks = shared_graph.collect(JointTrajectory, "policy/chunk", COMMAND)
        it.diagnostics = shared_graph.collect(DiagnosticArray, "/diagnostics", 10)
        wait_for(lambda: it.diagnostics, "the node's diagnostics")
        yield it


def start(graph: SimpleNamespace) -> None:
    graph.arm.start()
    n = len(graph.commands)
    wait_for(lambda: len(graph.commands) > n + 3, "commands of the policy")


def status(graph: SimpleNamespace) -> DiagnosticStatus:
    return graph.diagnostics.messages[-1].status[0]


def test_nothing_is_commanded_before_an_episode(graph):
    time.sleep(0.3)
    assert graph.commands.messages == []
    assert (status(graph).level, status(graph).message) == (DiagnosticStatus.OK, "no episode is running")
    assert status(graph).name == "/arm/policy"


def test_commands_and_chunks_are_the_bundles(graph):
    start(graph)
    time.sleep(1.0)
    stamps, values = zip(*(msg_to_command(msg, NAMES) for msg in graph.commands.messages), strict=True)
    assert {msg.header.frame_id for msg in graph.commands.messages} == {"policy"}
    steps = np.array(values) - HOME
    np.testing.assert_allclose(steps[:, 1:], 0, atol=1e-6)
    # It never sees its own motion (the arm stands still), so rows 1, 2, ... of each chunk come again and again.
    assert set(np.round(steps[:, 0] / 0.01, 3)) <= set(range(HORIZON))
    assert np.median(np.diff(stamps)) == pytest.approx(50e6, rel=0.1)
    start_ns, times, rows = msg_to_chunk(graph.chunks.messages[-1], NAMES)
    np.testing.assert_array_equal(times, 50_000_000 * np.arange(HORIZON))
    np.testing.assert_allclose(rows[:, 0], HOME[0] + 0.01 * np.arange(HORIZON), atol=1e-6)
    assert abs(start_ns - now_ns(graph.ros.node)) < 2e9
    assert status(graph).message == "driving"


def test_a_stale_observation_stops_commands_and_is_named(graph):
    start(graph)
    graph.arm.silent = True
    silent_s = time.monotonic()
    told = graph.diagnostics.wait(match=lambda msg: msg.status[0].level == DiagnosticStatus.ERROR)
    assert "`joint_position` is stale" in told.status[0].message
    time.sleep(0.2)
    last_s = graph.commands.received_ns[-1] / 1e9
    assert last_s - silent_s < 0.1 + 0.05 + 0.05  # bound, one period, and the way here
    graph.arm.silent = False
    n = len(graph.commands)
    wait_for(lambda: len(graph.commands) > n, "commands after the gap")
    wait_for(lambda: status(graph).level == DiagnosticStatus.OK, "a clean bill of health")


def test_reset_starts_from_what_is_seen_now(graph):
    start(graph)
    graph.arm.position = HOME + np.eye(8)[1]
    assert graph.ros.call(Trigger, "policy/reset").success
    n = len(graph.commands)
    wait_for(lambda: len(graph.commands) > n + 2, "commands after the reset")
    _, value = msg_to_command(graph.commands.messages[-1], NAMES)
    assert value[1] == pytest.approx(HOME[1] + 1.0)
    graph.arm.position = HOME.copy()


def test_a_newer_bundle_takes_over_between_episodes_only(graph):
    start(graph)
    newer = formula_bundle(graph.bundles / "newer", per_step=-0.02, created="2026-02-01T00:00:00+00:00")
    answer = graph.ros.call(Trigger, "policy/reload")
    assert (answer.success, answer.message) == (False, "an episode is running; a bundle is changed between episodes")
    graph.arm.end()
    answer = graph.ros.call(Trigger, "policy/reload")
    assert (answer.success, answer.message) == (True, f"now {newer.id}")
    graph.commands.clear()
    start(graph)
    values = [msg_to_command(msg, NAMES)[1][0] - HOME[0] for msg in graph.commands.messages]
    assert min(values) < -0.01
    assert max(values) < 1e-6
    graph.arm.end()
    wait_for(lambda: status(graph).message == "no episode is running", "the end of the episode")
    assert graph.ros.call(Trigger, "policy/reload").message == f"still {newer.id}"


def refusal(process: Process, tmp_path: Path) -> str:
    """Start a node that must refuse, and return what it says."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(json.dumps({"/**": {"ros__parameters": process.ros_parameters}}))
    done = subprocess.run(process.command(str(parameters)), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_hardware_is_refused_to_an_unvalidated_bundle(graph, tmp_path):
    said = refusal(described(graph.bundles / "first", hardware=True), tmp_path)
    assert f"bundle {graph.first.id} has no validation record, so it must not move hardware" in said
    with pytest.raises(BundleError, match="the override names bundle 'another'"):
        source(graph.bundles / "first", hardware=True, override="another").first()
    assert source(graph.bundles / "first", hardware=True, override=graph.first.id).first().id == graph.first.id
    with pytest.raises(BundleError, match="holds no bundle that may drive this robot"):
        source(graph.bundles, hardware=True).first()


def source(path: Path, *, n_joints: int = 8, hardware: bool = False, override: str = "") -> BundleSource:
    return BundleSource(path, n_joints=n_joints, hardware=hardware, override=override, min_success=0.5)


def test_a_bundle_of_another_robot_is_refused(graph):
    with pytest.raises(BundleError, match=r"commands joint_position \(8,\), this robot takes joint_position \(7,\)"):
        source(graph.bundles / "first", n_joints=7).first()


def test_where_to_compute_is_a_parameter_and_refused_where_it_is_not_to_be_had(graph, tmp_path):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU here")
    cuda = described(graph.bundles / "first", **{"providers.names": ["cuda"], "providers.cuda_graph": True})
    said = refusal(cuda, tmp_path)
    assert "none of the providers ['CUDAExecutionProvider'] is available here" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"providers.names": ["gpu"]}, "`providers.names` of node .* must be one of"),
        ({"providers.names": ["cpu"], "providers.fp16": True}, "`providers.fp16` needs tensorrt among the names"),
    ],
)
def test_settings_of_providers_are_checked(ros_context, given, said):
    node = Node("providers", parameter_overrides=[Parameter(name, value=value) for name, value in given.items()])
    with pytest.raises(ConfigError, match=said):
        declare_providers(node)
    node.destroy_node()


def test_providers_default_to_the_fastest_there_is(ros_context):
    node = Node("providers")
    assert declare_providers(node) == Providers()
    node.destroy_node()


def test_a_missing_parameter_is_named(graph, tmp_path):
    process = Process(name="policy", module="robot_rl_ros.policy_node", parameters={"bundle": str(graph.bundles)})
    assert "parameter `observations` of node `policy` is missing" in refusal(process, tmp_path)


def test_observation_sources_are_checked(tmp_path):
    assert read_sources(SOURCES)["gripper_width"].names == ("gripper",)
    with pytest.raises(ConfigError, match="observation sources cannot be read"):
        read_sources(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("front: {topic: x, type: y}")
    with pytest.raises(ConfigError, match="observation `front`: needs topic, type, max_age_s"):
        read_sources(tmp_path / "bad.yaml")
