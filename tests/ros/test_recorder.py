"""The recorder as a real process: what topics carried is what the store holds, and what is wrong is refused by name."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from robot_rl_ros.qos import LATCHED
from robot_rl_ros.stamps import now_ns
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Float32, String
from std_srvs.srv import Trigger

from robot_rl.data.store import EpisodeStore
from tests.ros.recorder_cell import STREAMS, Robot, parameters, write


@pytest.fixture(scope="module")
def rig(shared_graph, tmp_path_factory):
    """One recorder for most tests, with its robot, store and status."""
    folder = tmp_path_factory.mktemp("rig")
    robot = Robot(shared_graph)
    robot.source.publish(String(data="human"))
    status = shared_graph.collect(String, "recorder/status", LATCHED)
    process = shared_graph.start("recorder_node", config=write(folder, parameters(folder / "store")))
    robot.wait()
    status.wait(timeout_s=10)
    return robot, folder, status, process


def ask(graph, name: str) -> Trigger.Response:
    return graph.call(Trigger, f"recorder/{name}")


def read_last(folder: Path):
    store = EpisodeStore.open(folder / "store")
    return store.read(store.ids()[-1])


def test_a_start_without_the_required_streams_is_refused(shared_graph, rig):
    answer = ask(shared_graph, "start")
    assert not answer.success
    assert answer.message.startswith("required streams are not there: `front` (topic front/color/image_raw): nothing")
    assert "`q` (topic joint_states): nothing was received yet" in answer.message
    assert not ask(shared_graph, "stop").success


def test_the_store_holds_what_the_topics_carried_with_the_source_stamps(shared_graph, rig):
    robot, folder, _, _ = rig
    robot.play(0.3)
    answer = ask(shared_graph, "start")
    assert answer.success, answer.message
    first = {name: len(stamps) for name, stamps in robot.stamps.items()}
    robot.play(1.0)
    robot.reward.publish(Float32(data=1.0))
    time.sleep(0.1)
    answer = ask(shared_graph, "success")
    assert answer.success, answer.message
    recording = read_last(folder)
    for name, stamps in robot.stamps.items():
        np.testing.assert_array_equal(recording.streams[name].stamp_ns, stamps[first[name] :], err_msg=name)
    count = np.arange(len(robot.stamps["q"]))[first["q"] :] + 1
    np.testing.assert_array_equal(recording.streams["q"].data[:, 0], count)
    np.testing.assert_array_equal(recording.streams["q"].data[:, 1], np.float32(0.5))
    for name in ("front", "side"):
        pixels = [int(frame[60, 80, 0]) for frame in recording.streams[name].data[:]]
        assert pixels == [i % 250 for i in range(first[name], len(robot.stamps[name]))]
    commands = recording.streams["action"].data[:, 0]
    np.testing.assert_array_equal(recording.streams["action_executed"].data[:, 0], commands / 2)
    assert recording.streams["by_human"].data[:].tolist() == [True]
    assert recording.streams["reward"].data[:].tolist() == [1.0]
    meta = recording.meta
    assert (meta.task, meta.source, meta.outcome, meta.terminated) == ("lift", "human", "success", True)
    streams = meta.extra["quality"]["streams"]
    assert sum(s["lost"] for s in streams.values()) == 0
    assert [s["dropped"] for s in streams.values()] == [{}] * 7
    assert "stamped on receipt" in streams["reward"]["reasons"][0]
    assert meta.extra["topics"]["q"]["topic"] == "/arm/joint_states"


def test_a_stalled_camera_is_on_diagnostics_at_once_and_in_the_episode(shared_graph, rig):
    robot, folder, _, _ = rig
    seen = shared_graph.collect(DiagnosticArray, "/diagnostics", 50)
    robot.play(0.4)
    assert ask(shared_graph, "start").success
    robot.play(0.4)
    robot.play(0.7, front=False)
    robot.play(0.3)
    name = "/arm/recorder: front"
    levels = [s.level for m in seen.messages for s in m.status if s.name == name]
    words = [s.message for m in seen.messages for s in m.status if s.name == name]
    assert DiagnosticStatus.ERROR in levels
    assert any("silent for 0." in text for text in words)
    answer = ask(shared_graph, "stop")
    assert answer.success
    assert "1 gap, the longest 0.7" in str(read_last(folder).meta.extra["quality"]["streams"]["front"]["reasons"])
    assert ask(shared_graph, "failure").message.startswith("labelled episode")
    assert read_last(folder).meta.outcome == "failure"


def test_messages_that_cannot_be_read_are_counted_and_harm_nothing(shared_graph, rig):
    robot, folder, status, process = rig
    supervisor = shared_graph.publisher(String, "episode/status", LATCHED)
    shared_graph.wait_matched(supervisor)
    robot.play(0.2)
    assert ask(shared_graph, "start").success
    robot.play(0.2)
    robot.joints.publish(JointState(name=["elbow"], position=[1.0]))
    robot.side.publish(CompressedImage(format="png", data=b"x"))
    robot.play(0.2)
    status.clear()
    supervisor.publish(String(data="no JSON"))
    told = status.wait(match=lambda msg: "episode/status must be JSON" in json.loads(msg.data)["refused"])
    assert json.loads(told.data)["state"] == "recording"
    assert ask(shared_graph, "stop").success
    quality = read_last(folder).meta.extra["quality"]
    assert quality["streams"]["q"]["dropped"] == {"refused by its spec": 1}
    assert quality["refused"] == {
        "q": "stream `q`: the message lacks ['joint1', 'gripper']; its joints are ['elbow']",
        "side": "stream `side`: a compressed image must be JPEG or PNG, got format 'png'",
    }
    assert process.popen.poll() is None


def test_it_follows_the_supervisor(shared_graph, rig):
    robot, folder, status, _ = rig
    supervisor = shared_graph.publisher(String, "episode/status", LATCHED)
    shared_graph.wait_matched(supervisor)

    def tell(state: str, index: int, outcome: str | None = None) -> None:
        about = {"state": state, "index": index, "task": f"task {index}", "outcome": outcome, "seed": 7}
        about["started_ns"] = now_ns(shared_graph.node)
        supervisor.publish(String(data=json.dumps(about)))

    def until(state: str) -> dict:
        status.clear()
        return json.loads(status.wait(match=lambda msg: json.loads(msg.data)["state"] == state).data)

    before = len(EpisodeStore.open(folder / "store"))
    tell("idle", -1)
    for index, outcome in enumerate(["success", "discard", "timeout"]):
        robot.play(0.2)
        tell("running", index)
        robot.play(0.3)
        assert until("recording")["id"]
        tell("resetting", index, outcome)
        until("idle")
    store = EpisodeStore.open(folder / "store")
    metas = [store.read(id).meta for id in store.ids()[before:]]
    assert [(m.task, m.outcome, m.truncated, m.seed) for m in metas] == [
        ("task 0", "success", False, 7), ("task 2", "failure", True, 7),
    ]  # fmt: skip


def test_a_second_recorder_is_refused(shared_graph, rig):
    _, folder, _, _ = rig
    patient = {**parameters(folder / "other"), "look_for_others_s": 8.0}  # it returns as soon as it hears the other
    same_topics = shared_graph.start("recorder_node", config=write(folder, patient))
    same_store = shared_graph.start(
        "recorder_node", config=write(folder, parameters(folder / "store")), args=["-r", "recorder/status:=elsewhere"]
    )
    assert same_topics.wait(25) == 2
    assert "another recorder, /arm/recorder, is recording these topics already" in same_topics.log
    assert same_store.wait(25) == 2
    assert "robot `arm` is already being recorded into" in same_store.log


def test_wrong_parameters_are_refused_by_name(shared_graph, rig, tmp_path):
    full = parameters(tmp_path / "s", q={**STREAMS["q"], "type": "sensor_msgs/msg/Sonar"})
    cases = {
        "no reader for message type 'sensor_msgs/msg/Sonar'": full,
        "parameter `store` of node `recorder` is missing": {k: v for k, v in full.items() if k != "store"},
        "`rate_hz` must be positive, got -5.0": parameters(tmp_path / "t", q={**STREAMS["q"], "rate_hz": -5.0}),
    }
    started = {
        words: shared_graph.start(
            "recorder_node", config=write(tmp_path, {**values, "look_for_others_s": 0.0}), args=["-r", "__ns:=/x"]
        )
        for words, values in cases.items()
    }
    for words, process in started.items():
        assert process.wait(25) == 2, process.log
        assert words in process.log


def test_an_interrupt_saves_the_episode_and_kill_leaves_it_to_be_salvaged(shared_graph, rig):
    robot, folder, status, process = rig
    before = len(EpisodeStore.open(folder / "store"))
    robot.play(0.2)
    assert ask(shared_graph, "start").success
    robot.play(0.3)
    assert process.interrupt() == 0
    assert read_last(folder).meta.truncated
    again = shared_graph.start("recorder_node", config=write(folder, parameters(folder / "store")))
    status.clear()
    status.wait(timeout_s=10)
    robot.play(0.5)
    assert ask(shared_graph, "start").success
    robot.play(0.5)
    again.kill()
    store = EpisodeStore.open(folder / "store")
    assert [found.state for found in store.found] == ["salvaged"]
    assert len(store) == before + 2
