"""The description of a graph, and the plain processes made of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from robot_rl_ros.graphs import Argument, Graph, Process, config_file, parse_pairs
from robot_rl_ros.shared_memory import SHARED_MEMORY
from robot_rl_ros.up import Running, main

from robot_rl.errors import ConfigError
from tests.ros.graph_kit import wait_for

ARGUMENTS = (
    Argument(name="store", default=str, help="where episodes go"),
    Argument(name="rate_hz", default=20.0, help="control rate [Hz]", low=1.0, high=500.0),
    Argument(name="teleop", default="keyboard", help="device", choices=("keyboard", "none")),
    Argument(name="hardware", default=False, help="a real arm moves"),
    Argument(name="seed", default=0, help="seed", low=0),
)


def build(values) -> tuple[Process, ...]:
    node = Process(name="n", module="m", parameters={**values, "names": []}, remappings={"a": "b"})
    return (node, node) if values["seed"] == 99 else (node,)


GRAPH = Graph(name="toy", help="a toy", arguments=ARGUMENTS, build=build)


def values(**given: str) -> dict:
    (process,) = GRAPH.processes({"store": "there", **given})
    return process.ros_parameters


def test_arguments_are_typed_and_defaults_filled_in():
    assert values() == {"store": "there", "rate_hz": 20.0, "teleop": "keyboard", "hardware": False, "seed": 0}
    given = values(rate_hz="50", teleop="none", hardware="True", seed="7")
    assert given == {"store": "there", "rate_hz": 50.0, "teleop": "none", "hardware": True, "seed": 7}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate_hz": "0"}, r"`rate_hz` must be float from 1 to 500, got '0'; it is control rate \[Hz\]"),
        ({"rate_hz": "nan"}, "`rate_hz` must be float from 1 to 500, got 'nan'"),
        ({"rate_hz": "fast"}, "`rate_hz` must be float from 1 to 500, got 'fast'"),
        ({"teleop": "mouse"}, "`teleop` must be one of keyboard, none, got 'mouse'"),
        ({"hardware": "maybe"}, "`hardware` must be bool, got 'maybe'"),
        ({"seed": "-1"}, "`seed` must be int from 0 to inf, got '-1'"),
        ({"sead": "1"}, r"graph `toy` has no argument \['sead'\]; it has \['hardware', 'rate_hz', 'seed'"),
        ({"seed": "99"}, r"two nodes have one name: \['n', 'n'\]"),
    ],
)
def test_bad_arguments_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        values(**given)


def test_a_missing_argument_is_asked_for():
    with pytest.raises(ConfigError, match=r"graph `toy` needs store:=... \(where episodes go\)"):
        GRAPH.processes({})


def test_pairs():
    assert parse_pairs(["a:=1", "b:=x:=y", "c:="]) == {"a": "1", "b": "x:=y", "c": ""}
    with pytest.raises(ConfigError, match="given as name:=value, got 'a=1'"):
        parse_pairs(["a=1"])
    with pytest.raises(ConfigError, match="argument `a` is given twice: '1' and '2'"):
        parse_pairs(["a:=1", "a:=2"])


def test_the_command_line_of_a_process(tmp_path: Path):
    (process,) = GRAPH.processes({"store": "there"})
    mine = ["-r", "__ns:=/arm", "-r", "__node:=n", "-r", "a:=b", "--params-file", "own.yaml"]
    assert process.command("own.yaml") == [sys.executable, "-m", "m", "--ros-args", *mine]
    (tmp_path / "x.yaml").touch()
    configured = Process(name="n", module="m", config=str(tmp_path / "x.yaml"))
    assert configured.command("own.yaml")[-4:] == [
        "--params-file",
        str(tmp_path / "x.yaml"),
        "--params-file",
        "own.yaml",
    ]
    assert config_file("safety.yaml").is_file()
    with pytest.raises(ConfigError, match=r"there is no parameter file 'none.yaml'.*'safety.yaml'"):
        config_file("none.yaml")


def test_a_program_that_is_no_node_gets_its_own_arguments_and_no_others():
    program = Process(name="learner", module="m", arguments=("finetune", "a=1"), nice=5)
    assert program.is_program
    assert program.command("own.yaml") == ["nice", "-n", "5", sys.executable, "-m", "m", "finetune", "a=1"]
    assert Process(name="n", module="m", nice=1).command("own.yaml")[:4] == ["nice", "-n", "1", sys.executable]


def test_usage_names_every_argument():
    usage = GRAPH.usage()
    assert "  store:=   where episodes go (str; needed)" in usage
    assert "  rate_hz:=   control rate [Hz] (float from 1 to 500; default '20.0')" in usage
    assert "default 'false'" in usage


def dummy(name: str, *, respawn: bool = False, required: bool = False, **parameters) -> Process:
    module = "tests.ros.dummy_node"
    return Process(name=name, module=module, parameters={"who": name, **parameters}, respawn=respawn, required=required)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_logs_carry_the_nodes_name_and_nothing_outlives_the_graph(tmp_path: Path, capfd):
    with Running([dummy("one"), dummy("another", child=str(tmp_path / "pid"))]) as running:
        pid = running.pid("one")
        child = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the grandchild"))
        assert running.names == ["one", "another"]
        assert running.poll() is None
        time.sleep(0.3)  # what they say takes its way through a pipe and a thread
    assert not alive(pid)
    assert not alive(child)
    said = capfd.readouterr().out
    assert "[one    ] hello from one\n" in said
    assert "[another] hello from another\n" in said


@pytest.mark.slow
def test_what_killed_processes_left_in_shared_memory_goes_before_the_start_and_after_the_end():
    segment = SHARED_MEMORY / f"fastdds_test_{os.getpid()}"

    def leave() -> None:
        for path in (segment, segment.with_name(segment.name + "_el")):
            path.touch()
            os.utime(path, (0.0, 0.0))

    leave()
    with Running([dummy("one")]):
        assert not segment.exists()
        leave()
    assert not segment.exists()


def test_a_process_that_does_not_obey_is_killed(caplog):
    with Running([dummy("mule", stubborn=True)], patience_s=0.3) as running:
        pid = running.pid("mule")
        time.sleep(0.5)
        running.stop()
    assert not alive(pid)
    assert "mule did not end within 0.3 s and is killed" in caplog.text


def test_the_end_of_a_required_process_ends_the_graph(caplog):
    with Running([dummy("needed", required=True, lives_s=0.0, code=3), dummy("other", lives_s=0.0, code=3)]) as running:
        assert wait_for(running.poll, "the end") == 1
        assert "needed ended with exit code 3; the graph needs it and ends too" in caplog.text
    with Running([dummy("needed", required=True, lives_s=0.0, code=2)]) as running:
        assert wait_for(running.poll, "the end") == 2


@pytest.mark.slow
def test_a_killed_process_comes_back_where_it_is_told_to(caplog):
    with Running([dummy("phoenix", respawn=True), dummy("mortal")]) as running:
        pid = running.pid("phoenix")
        os.kill(pid, signal.SIGKILL)
        os.kill(running.pid("mortal"), signal.SIGKILL)
        wait_for(lambda: running.poll() is None and running.pid("phoenix") != pid, "the new process")
        assert "phoenix ended with SIGKILL; it is started again" in caplog.text
        assert "mortal ended with SIGKILL; the graph goes on without it" in caplog.text
        wait_for(lambda: running.names == ["phoenix"], "the new process alone")


LAUNCHER = """
import sys, time
from robot_rl_ros.up import Running
from tests.ros.test_graphs import dummy
with Running([dummy("one"), dummy("two")]) as running:
    print("pids", running.pid("one"), running.pid("two"), flush=True)
    time.sleep(60)
"""


def test_kill_9_of_the_launcher_leaves_no_node_behind():
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True)
    for line in iter(launcher.stdout.readline, ""):
        if line.startswith("pids"):
            pids = [int(word) for word in line.split()[1:]]
            break
    assert all(map(alive, pids))
    assert len(pids) == 2
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    wait_for(lambda: not any(map(alive, pids)), "the end of the nodes")


def test_the_command_refuses_what_it_does_not_know(caplog, capsys):
    assert main(["party"]) == 2
    assert "there is no graph 'party'; there are ['calibrate', 'collect', 'deploy', 'finetune', 'sim']" in caplog.text
    assert main(["collect", "stoer:=x"]) == 2
    assert "graph `collect` has no argument ['stoer']" in caplog.text
    assert main(["--help"]) == 0
    assert "deploy: " in capsys.readouterr().out
