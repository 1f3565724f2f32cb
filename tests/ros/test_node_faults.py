"""A node of a driving graph is killed with -9: the arm stops where it must, and what was recorded stays whole.

How fast is measured by benchmarks/node_faults.py, on a machine with nothing else to do; here time-outs are longer.
"""

import time
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

from benchmarks._fault_cell import STANDS_RAD_S, fault_cell, faulty_streams, wait
from robot_rl.data.store import EpisodeStore
from tests.ros.lift_cell import CALM

pytestmark = pytest.mark.realtime

STOPS = {
    "camera_front": "`front/color/camera_info` is",
    "policy": "",  # the supervisor sends nothing, which is no fault of the safety node's stream until it is silent
    "supervisor": "`selected/command` is",
}


def kill_in_motion(folder: Path, name: str, domain: int) -> tuple[bool, str]:
    """Kill a node while the arm moves; return whether the arm came to rest, and what the safety node says."""
    with fault_cell(folder, CALM, domain=domain) as cell:
        assert cell.start(), "the arm did not move undisturbed"
        cell.kill(name)
        still = name != "recorder"
        if still:
            wait(lambda: cell.speed() < STANDS_RAD_S, "an arm at rest")
            if name in STOPS:  # the arm may rest before the time-out is over
                wait(lambda: STOPS[name] in str(cell.log.texts["safety/state"].get("reason", "")), STOPS[name])
            time.sleep(0.5)
        rests = cell.speed() < STANDS_RAD_S
        said = str(cell.log.texts["safety/state"].get("reason", ""))
        if name != "supervisor" and cell.log.state("episode/status") == "running":
            cell.call("supervisor/failure")
        time.sleep(0.5)
    return rests, said


@pytest.mark.parametrize("name", ["camera_front", "policy", "supervisor", "safety"])
def test_the_arm_stops_when_a_node_dies_and_the_episode_is_saved(ros_domain, tmp_path, name):
    rests, said = kill_in_motion(tmp_path, name, ros_domain)
    assert rests
    assert STOPS.get(name, "") in said
    store = EpisodeStore.open(tmp_path / "store")
    assert store.found == ()
    assert len(store.episode(store.ids()[-1])) > 5
    if name == "camera_front":
        assert "front" in faulty_streams(store)


def test_a_killed_recorder_leaves_a_whole_store_and_what_it_had(ros_domain, tmp_path):
    rests, _ = kill_in_motion(tmp_path, "recorder", ros_domain)
    assert not rests  # nothing that drives depends on the recorder
    store = EpisodeStore.open(tmp_path / "store")
    assert len(store.found) == 1
    newest = store.ids()[-1]  # opening the store saved what had reached the disk
    assert len(store.read(newest).streams["joint_position"]) > 5
