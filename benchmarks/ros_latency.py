"""How late a 200 Hz control node ticks beside the traffic of three cameras, joint states, commands and the recorder.

    python -m benchmarks.ros_latency [--seconds 30]

The traffic is that of benchmarks/record_load.py: three 640x480 RGB streams at 30 Hz, joint states at 500 Hz, two
command topics at 100 Hz, all recorded. The control node is a process of its own with a thread on absolute deadlines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from robot_rl_ros.environment import environment

from benchmarks._results import write_results
from benchmarks.record_load import CAMERAS, CONFIG, Operator, processes, source
from benchmarks.store_codecs import scene

DOMAIN = 100
SETTLE_S = 3.0


def traffic(folder: Path) -> list[list[str]]:
    """Return the command lines of the recorder and of everything it records; the recorder comes first."""
    frames = folder / "frames.npy"
    np.save(frames, scene(30))
    options = ["-r", "__ns:=/arm", "--params-file", str(CONFIG), "-p", f"store:={folder / 'store'}"]
    recorder = [sys.executable, "-m", "robot_rl_ros.recorder_node", "--ros-args", *options]
    cameras = [source("camera", name, frames, folder / f"{name}.npy") for name in CAMERAS]
    joints = source("joints", folder / "joints.npy")
    return [recorder, *cameras, joints, source("commands", folder / "selected.npy", folder / "executed.npy")]


def measure(seconds: float, *, beside_traffic: bool) -> dict[str, Any]:
    """Return what the control node counted."""
    env = {**os.environ, **environment(), "ROS_DOMAIN_ID": str(DOMAIN)}
    os.environ.update({key: env[key] for key in (*environment(), "ROS_DOMAIN_ID")})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "control.json"
        control = [sys.executable, "-m", "benchmarks._control_node", str(out)]
        if not beside_traffic:
            with processes([control], env, folder):
                time.sleep(seconds + SETTLE_S)
        else:
            with processes(traffic(folder), env, folder):
                operator = Operator()
                try:
                    operator.start()
                    with processes([control], env, folder):
                        time.sleep(seconds + SETTLE_S)
                finally:
                    operator.close()
        return dict(json.loads(out.read_text()))


def rows(found: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return result rows of one setting."""
    lateness = found["lateness"]
    times = [
        {"claim": f"lateness of a 200 Hz control node, {name}; {where}", "value": round(lateness[f"{name}_ms"], 3),
         "unit": "ms"}
        for name in ("p50", "p99", "max")
    ]  # fmt: skip
    skipped = {"claim": f"ticks skipped at 200 Hz; {where}", "value": found["skipped"], "unit": f"of {found['ticks']}"}
    return [*times, skipped]


def main() -> None:
    """Measure alone and beside the traffic, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    result = rows(measure(seconds, beside_traffic=False), "alone")
    busy = "beside three 640x480 cameras at 30 Hz, joints at 500 Hz, two command topics at 100 Hz and the recorder"
    result += rows(measure(seconds, beside_traffic=True), busy)
    for row in result:
        print(row["claim"], row["value"], row["unit"])
    write_results("ros_latency", result)


if __name__ == "__main__":
    main()
