"""What a killed process leaves in shared memory is found and removed; what a living one holds is not touched."""

import fcntl
import os
import re
from pathlib import Path

from robot_rl_ros.qos import JOINTS
from robot_rl_ros.shared_memory import SHARED_MEMORY, is_orphan, remove_orphans
from sensor_msgs.msg import JointState


def segment(folder: Path, name: str, *, age_s: float = 60.0) -> Path:
    path = folder / f"fastdds_{name}"
    path.write_bytes(bytes(1000))
    lock = path.with_name(path.name + "_el")
    lock.touch()
    os.utime(lock, (lock.stat().st_atime, lock.stat().st_mtime - age_s))
    return path


def test_only_old_segments_without_an_owner_go(tmp_path):
    orphan, young, alive = segment(tmp_path, "a"), segment(tmp_path, "b", age_s=0.0), segment(tmp_path, "c")
    port = segment(tmp_path, "port7411")
    with alive.with_name(alive.name + "_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_orphans(tmp_path) == 1000
    assert not orphan.exists()
    assert all(path.exists() for path in (young, alive, port))
    assert sorted(path.name for path in tmp_path.glob("fastdds_a*")) == []


def test_a_real_node_holds_its_segment_until_it_is_killed(ros_graph):
    joints = ros_graph.collect(JointState, "joint_states", JOINTS)
    process = ros_graph.start("sim_robot_node", config="sim_robot.yaml")
    joints.wait(timeout_s=20)
    maps = Path(f"/proc/{process.popen.pid}/maps").read_text()
    own = [lock for name in set(re.findall(r"/dev/shm/(fastdds_[0-9a-f]{16})\b", maps))
           if (lock := SHARED_MEMORY / f"{name}_el").exists()]  # fmt: skip
    assert own
    assert not any(is_orphan(lock, older_than_s=0.0) for lock in own)
    process.kill()
    assert any(is_orphan(lock, older_than_s=0.0) for lock in own)
