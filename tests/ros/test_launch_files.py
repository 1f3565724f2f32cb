"""Every node a graph names exists, takes the parameters it is given, and starts; every launch file is one graph."""

import ast
import importlib
import time
from pathlib import Path

import pytest
import yaml
from rcl_interfaces.srv import ListParameters
from robot_rl_ros.arm_graphs import GRAPHS
from robot_rl_ros.graphs import Process
from robot_rl_ros.up import Running

from robot_rl.errors import ConfigError
from tests.ros.graph_kit import wait_for

PACKAGE = Path(__file__).resolve().parents[2] / "ros_ws" / "src" / "robot_rl_ros"
LAUNCH_FILES = sorted((PACKAGE / "launch").glob("*.launch.py"))
ARGUMENTS = {
    "calibrate": {"folder": "there", "camera_config": "camera_recorded.yaml", "camera_source": "clip.npy"},
    "sim": {},
    "collect": {"store": "there", "teleop": "scripted"},
    "deploy": {"bundle": "there", "store": "there", "teleop": "scripted"},
    "finetune": {"out": "there", "demonstrations": "there", "store": "there", "teleop": "scripted"},
}


def processes(graph: str, **arguments: str) -> dict[str, Process]:
    return {process.name: process for process in GRAPHS[graph].processes({**ARGUMENTS[graph], **arguments})}


def test_every_graph_has_its_launch_file_and_that_is_all_it_is():
    assert [file.name.removesuffix(".launch.py") for file in LAUNCH_FILES] == sorted(GRAPHS)
    for file in LAUNCH_FILES:
        (function,) = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
        returned = function.body[-1]
        assert function.name == "generate_launch_description"
        assert ast.unparse(returned) == f"return launch_description('{file.name.removesuffix('.launch.py')}')"


def test_a_launch_file_makes_the_nodes_of_its_graph():
    launch = pytest.importorskip("launch", reason="ROS 2 launch is not installed here (it is not on PyPI)")
    pytest.importorskip("launch_ros", reason="launch_ros is not installed here (it is not on PyPI)")
    from launch_ros.actions import Node
    from robot_rl_ros.launching import launch_description

    for name, arguments in ARGUMENTS.items():
        context = launch.LaunchContext()
        context.launch_configurations.update({a.name: a.default_text for a in GRAPHS[name].arguments} | arguments)
        description = launch_description(name)
        declared = {a.name for a, _ in description.get_launch_arguments_with_include_launch_description_actions()}
        assert declared == {a.name for a in GRAPHS[name].arguments}
        made = description.entities[-1].execute(context)
        nodes = [process for process in processes(name, **arguments).values() if not process.is_program]
        assert len(made) == len(processes(name, **arguments))
        assert [action.node_package for action in made if isinstance(action, Node)] == [None] * len(nodes)


@pytest.mark.parametrize("graph", sorted(GRAPHS))
def test_every_node_is_a_module_that_runs_and_an_executable_of_the_package(graph):
    executables = (PACKAGE / "setup.py").read_text()
    for process in processes(graph).values():
        module = importlib.import_module(process.module)
        assert callable(module.main)
        if process.is_program:
            assert not process.config
            continue
        assert f'"{process.module.removeprefix("robot_rl_ros.").removesuffix("_node")}"' in executables
        assert Path(process.config_path).is_file()


def test_what_the_arguments_decide():
    assert set(processes("sim")) == {"safety", "sim_robot", "camera_front", "camera_wrist"}
    assert set(processes("collect")) == {*processes("sim"), "supervisor", "teleop", "recorder"}
    assert set(processes("deploy", teleop="none", store="")) == {*processes("sim"), "supervisor", "policy"}
    assert processes("sim", cameras="front, side")["safety"].parameters == {
        "watch_cameras": ["front/color/camera_info", "side/color/camera_info"]
    }
    assert processes("sim", cameras="")["safety"].ros_parameters == {}
    assert processes("sim", cameras="none") == processes("sim", cameras="")
    assert processes("collect", namespace="left")["recorder"].namespace == "/left"
    assert processes("collect", teleop="keyboard")["teleop"].terminal
    assert not processes("deploy")["policy"].parameters["hardware"]
    assert processes("deploy")["policy"].parameters["latency_file"] == ""
    late = processes("deploy", latency_file="latency.yaml")["policy"].parameters["latency_file"]
    assert late == str(Path("latency.yaml").absolute())
    assert set(processes("calibrate")) == {"calibration", "camera_wrist"}
    assert set(processes("calibrate", camera_config="", camera="front")) == {"calibration"}
    assert "board.square_m" not in processes("calibrate")["calibration"].parameters
    assert processes("calibrate", square_m="0.03")["calibration"].parameters["board.square_m"] == 0.03
    real = processes("deploy", robot="external", camera_config="camera_realsense.yaml")
    assert "sim_robot" not in real
    assert real["policy"].parameters["hardware"]
    assert real["camera_front"].module == "robot_rl_ros.camera_node"
    assert "reset_service" not in real["supervisor"].parameters


def overrides(process: Process) -> dict:
    """Return the configuration that a role of `robot-rl finetune` would run with."""
    from robot_rl.cli.config import load_config, plain

    assert process.arguments[0] == "finetune"
    return plain(load_config(process.arguments[1:]))


def test_actor_and_learner_are_roles_of_one_run_on_the_arm_behind_topics():
    made = processes(
        "finetune", base="b", demonstrations="it's here", settings="algo.batch_size=8 seed=3", teleop="none"
    )
    assert set(made) == {*processes("sim"), "supervisor", "recorder", "actor", "learner"}
    actor, learner = overrides(made["actor"]), overrides(made["learner"])
    assert (actor["finetune"].pop("role"), learner["finetune"].pop("role")) == ("actor", "learner")
    assert actor == learner
    assert actor["task"]["env"] == {
        "_target_": "robot_rl_ros.ros_env.RosEnv", "plan": str(PACKAGE / "config" / "recorder_lift.yaml"),
        "namespace": "arm", "seed_node": "sim_robot", "max_age_s": 0.2, "timeout_s": 60.0,
        "succeeded": {
            "_target_": "robot_rl.teleop.scripted.RaisedBy", "obs_name": "cube_pose", "height_m": 0.11,
        },
    }  # fmt: skip
    assert actor["store"] == str(Path("it's here").absolute())
    assert (actor["base"], actor["algo"]["batch_size"], actor["seed"]) == (str(Path("b").absolute()), 8, 3)
    assert actor["task"]["description"] == "lift the cube"
    assert not actor["finetune"]["hardware"]
    assert made["learner"].respawn
    assert made["actor"].respawn
    assert made["learner"].command("")[:3] == ["nice", "-n", "10"]


def test_a_real_arm_learns_at_part_of_its_speed_and_is_reset_by_a_person():
    made = processes(
        "finetune", robot="external", camera_config="camera_realsense.yaml", speed="0.3", override_base="b7"
    )
    assert made["safety"].parameters["speed_share"] == 0.3
    assert "speed_share" not in processes("finetune")["safety"].parameters
    assert "reset_service" not in made["supervisor"].parameters
    config = overrides(made["actor"])
    assert config["finetune"]["hardware"]
    assert config["finetune"]["override"] == "b7"
    assert config["task"]["env"]["seed_node"] == ""
    assert "succeeded" not in config["task"]["env"]


def test_arguments_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="a real arm has real cameras"):
        processes("deploy", robot="external")
    with pytest.raises(ConfigError, match=r"`cameras` must be names with commas between them, got \['a b'\]"):
        processes("sim", cameras="front,a b")
    with pytest.raises(ConfigError, match="`camera` must be a name, got 'a b'"):
        processes("calibrate", camera="a b")
    with pytest.raises(ConfigError, match=r"graph `deploy` needs bundle:=... \(policy bundle"):
        GRAPHS["deploy"].processes({})


def given_parameters(process: Process) -> set[str]:
    """Return the names of all parameters a process is given, by its file and by its graph."""
    names = set(process.ros_parameters)
    for section in yaml.safe_load(Path(process.config_path).read_text()).values():
        pending = [("", section["ros__parameters"])]
        while pending:
            prefix, values = pending.pop()
            for key, value in values.items():
                if isinstance(value, dict):
                    pending.append((f"{prefix}{key}.", value))
                else:
                    names.add(prefix + key)
    return names


@pytest.mark.slow
def test_every_node_starts_and_takes_each_parameter_it_is_given(shared_graph, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")
    from tests.ros.formula_bundle import formula_bundle

    bundle = formula_bundle(tmp_path / "bundle", per_step=0.0)
    made = processes("deploy", bundle=str(bundle.path), store=str(tmp_path / "store"))
    with Running(list(made.values())) as running:
        for process in made.values():
            request = ListParameters.Request(depth=ListParameters.Request.DEPTH_RECURSIVE)
            answer = shared_graph.call(
                ListParameters, f"{process.namespace}/{process.name}/list_parameters", request, timeout_s=30.0
            )
            assert given_parameters(process) <= set(answer.result.names), process.name
        time.sleep(0.5)
        assert running.poll() is None
        wait_for(lambda: set(running.names) == set(made), "all nodes")
