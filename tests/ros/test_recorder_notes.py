"""The recorder as a real process writes which bundle drove, which trial it was, and a safety stop."""

import json
from pathlib import Path

from robot_rl_ros.qos import LATCHED
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot_rl.data.store import EpisodeStore
from robot_rl.evaluation.rungs import SupervisedLimits, judge_supervised, supervised_trials
from tests.ros.recorder_cell import Robot, parameters, write


def test_episodes_say_who_drove_which_trial_and_whether_motion_was_stopped(ros_graph, tmp_path: Path):
    robot = Robot(ros_graph)
    robot.source.publish(String(data="policy"))
    driving, safety = (ros_graph.publisher(String, name, LATCHED) for name in ("policy/driving", "safety/state"))
    safety.publish(String(data=json.dumps({"state": "running", "reason": ""})))
    ros_graph.start("recorder_node", config=write(tmp_path, parameters(tmp_path / "store")))
    robot.wait()
    ros_graph.wait_matched(driving)
    ros_graph.wait_matched(safety)
    for trial, stops in (("ab/0000.0", False), ("", True)):
        robot.play(0.3)
        answer = ros_graph.call(Trigger, "recorder/start")
        assert answer.success, answer.message
        driving.publish(String(data=json.dumps({"bundle": "b1", "trial": trial})))
        for state in ("stopped", "idle") if stops else ():
            safety.publish(String(data=json.dumps({"state": state, "reason": "e-stop pressed"})))
            robot.play(0.3)
        robot.play(0.4)
        answer = ros_graph.call(Trigger, "recorder/failure" if stops else "recorder/success")
        assert answer.success, answer.message
    store = EpisodeStore.open(tmp_path / "store")
    first, second = supervised_trials(store, "b1")
    assert (first.extra.get("trial"), "safety_stop" in first.extra) == ("ab/0000.0", False)
    assert ("trial" in second.extra, second.extra["safety_stop"]) == (False, True)
    assert "topics" in first.extra
    result = judge_supervised([first, second], SupervisedLimits(trials=2))
    assert "safety stops: 1 safety stops; at most 0 allowed" in result.reason
    assert result.figures["stops"] == 1
