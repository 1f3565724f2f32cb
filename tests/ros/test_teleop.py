"""The teleop node as a process: a leader arm played by the test, and the lift expert on the simulated arm."""

import json
import threading
import time

import numpy as np
import pytest
from robot_rl_ros.conversions import command_to_msg, msg_to_command
from robot_rl_ros.qos import COMMAND, JOINTS, LATCHED
from robot_rl_ros.stamps import now_ns, to_msg
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

NAMES = [*(f"joint{i}" for i in range(1, 8)), "gripper"]
POSE = np.array([0.0, -0.30975, 0.0, -2.56455, 0.0, 2.2548, 0.7853981633974483, 0.03])


def joint_state(node, names, position) -> JointState:
    msg = JointState(name=names, position=[float(x) for x in position])
    msg.header.stamp = to_msg(now_ns(node))
    return msg


def test_a_leader_moves_the_arm_from_where_it_stands_and_its_silence_lets_go(ros_graph):
    joints = ros_graph.publisher(JointState, "joint_states", JOINTS)
    leader = ros_graph.publisher(JointState, "leader/joint_states", JOINTS)
    executed = ros_graph.publisher(JointTrajectory, "command", COMMAND)
    commands = ros_graph.collect(JointTrajectory, "teleop/command", COMMAND)
    intervening = ros_graph.collect(Bool, "teleop/intervening", COMMAND)
    names = [f"lead{i}" for i in range(7)]
    ros_graph.start(
        "teleop_node",
        config="teleop.yaml",
        params={"source": "leader", "leader.joint_names": names, "leader.clutch": "none", "leader.scale": [2.0]},
    )
    for publisher in (joints, leader, executed):
        ros_graph.wait_matched(publisher)
    offset, leading, stop = 0.0, threading.Event(), threading.Event()
    leading.set()

    def feed() -> None:
        while not stop.wait(0.01):
            joints.publish(joint_state(ros_graph.node, NAMES, POSE))
            executed.publish(command_to_msg(now_ns(ros_graph.node), NAMES, np.append(POSE[:7], 0.0)))
            if leading.is_set():
                leader.publish(joint_state(ros_graph.node, names, np.full(7, 0.5 + offset)))

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        commands.wait(5)
        values = [msg_to_command(msg, NAMES)[1] for msg in commands.messages]
        np.testing.assert_allclose(values[0], np.append(POSE[:7], 0.0), atol=1e-12)  # the commanded gripper width
        assert commands.messages[0].header.frame_id == "human"
        offset = 0.05
        moved = np.append(POSE[:7] + 0.1, 0.0)
        commands.wait(match=lambda msg: np.allclose(msg_to_command(msg, NAMES)[1], moved, atol=1e-9))
        leading.clear()
        time.sleep(0.4)  # the leader's time-out is 0.1 s
        commands.clear()
        intervening.clear()
        intervening.wait(10)  # still tells that it is alive
        assert not any(msg.data for msg in intervening.messages)
        assert len(commands) == 0
        leading.set()
        commands.wait()
        ros_graph.call(SetBool, "teleop/enable", SetBool.Request(data=False))
        commands.clear()
        time.sleep(0.1)
        assert len(commands) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.realtime
def test_the_lift_expert_lifts_over_topics_and_the_next_episode_begins(ros_graph):
    status = ros_graph.collect(String, "episode/status", LATCHED)
    source = ros_graph.collect(String, "control_source", LATCHED)
    ros_graph.start("sim_robot_node", config="sim_robot.yaml")
    ros_graph.start("safety_node", config="safety.yaml")
    supervisor = {"auto_reset": True, "reset_first": True, "reset_service": "sim_robot/reset", "max_episode_s": 30.0}
    ros_graph.start("supervisor_node", config="supervisor.yaml", params=supervisor)
    teleop = ros_graph.start("teleop_node", config="teleop_scripted.yaml")

    def says(**fields):
        return lambda msg: fields.items() <= json.loads(msg.data).items()

    # The simulated arm starts with seed 0; the reset before the first episode takes the next.
    status.wait(match=says(state="running", index=0, seed=1), timeout_s=40)  # four processes start
    status.wait(match=says(index=0, outcome="success"), timeout_s=30)
    status.wait(match=says(state="running", index=1, seed=2), timeout_s=15)
    assert {msg.data for msg in source.messages} == {"none", "human"}
    assert teleop.interrupt() == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"source": "keyboard"}, "the keyboard source needs a terminal, and its input is none"),
        ({"source": "mouse"}, "must be one of"),
        (
            {"source": "scripted", "target": "sim.expert.NoExpert"},
            "parameter `target`: 'sim.expert.NoExpert' cannot be made",
        ),
        ({"source": "gamepad"}, "there is no gamepad 0; SDL sees 0"),
    ],
)
def test_wrong_parameters_are_refused(ros_graph, params, message):
    process = ros_graph.start("teleop_node", config="teleop.yaml", params=params)
    assert process.wait() == 2
    assert message in process.log
