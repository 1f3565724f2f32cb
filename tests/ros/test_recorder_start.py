"""A recorder that starts in mid-episode. In a file of its own: two recorders of the same topics refuse each other."""

import json

from robot_rl_ros.qos import LATCHED
from robot_rl_ros.stamps import now_ns
from std_msgs.msg import String

from robot_rl.data.store import EpisodeStore
from tests.ros.recorder_cell import STREAMS, Robot, parameters, play_until, write


def test_an_episode_is_taken_whole_even_where_the_idle_before_it_was_missed_and_never_in_part(ros_graph, tmp_path):
    robot = Robot(ros_graph)
    status = ros_graph.collect(String, "recorder/status", LATCHED)
    supervisor = ros_graph.publisher(String, "episode/status", LATCHED)

    def tell(state: str, index: int, started_ns: int) -> None:
        supervisor.publish(String(data=json.dumps({"state": state, "index": index, "started_ns": started_ns})))

    def latest() -> dict:
        return json.loads(status.messages[-1].data) if status.messages else {}

    tell("running", 4, now_ns(ros_graph.node))  # before the recorder
    patient = {name: {**STREAMS[name], "stale_s": 5.0} for name in ("q", "front")}  # this machine may stall
    ros_graph.start("recorder_node", config=write(tmp_path, parameters(tmp_path / "store", **patient)))
    robot.wait()
    play_until(robot, lambda: "episode 4 began before this recorder" in latest().get("refused", ""))
    assert latest()["state"] == "idle"
    play_until(robot, lambda: not latest()["waits_for"])
    tell("running", 5, now_ns(ros_graph.node))  # nobody was idle in between
    play_until(robot, lambda: latest()["state"] == "recording")
    tell("resetting", 5, 0)
    play_until(robot, lambda: len(EpisodeStore.open(tmp_path / "store")) == 1)
