"""Latency calibration: known delays found again, on the simulated arm and on a simulated camera.

    python -m benchmarks.latency_calibration --seeds 20

Raw figures go to outputs/benchmarks/latency_calibration/. Writes benchmarks/results/latency_calibration.json and
docs/img/latency_calibration.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import mujoco
import numpy as np

from benchmarks._calibration_rig import Raw, pictures, played, sway
from benchmarks._results import DOC_IMAGES, write_results
from calibration.latency import Signal, chirp, lag_between, lag_samples
from calibration.motion_signals import turning_speed
from robot_rl.calibration_types import Pose
from robot_rl.evaluation.statistics import bootstrap_mean
from sim.robots import ARM7

RAW = Path("outputs/benchmarks/latency_calibration")
MS = 1_000_000
SECONDS = 12.0
MOVED = (1, 3, 5)  # joints that swing


def swing(delay_ms: float, *, command_hz: float = 20.0) -> tuple[Signal, Signal]:
    """Return commands, and joint angles at 500 Hz, of the simulated arm that gets each command `delay_ms` late."""
    model = ARM7.spec().compile()
    model.opt.timestep = 0.002
    data = mujoco.MjData(model)
    joints = model.jnt_qposadr[[model.joint(ARM7.joints[i]).id for i in MOVED]]
    motors = [model.actuator(ARM7.actuators[i]).id for i in MOVED]
    for joint, motor, angle in zip(ARM7.joints, ARM7.actuators, ARM7.home, strict=True):
        data.qpos[model.joint(joint).qposadr] = data.ctrl[model.actuator(motor).id] = angle
    rest = np.array(ARM7.home)[list(MOVED)]
    targets = rest + 0.15 * chirp(SECONDS, rate_hz=command_hz)[:, None]
    sent_s = np.arange(len(targets)) / command_hz
    angles, times = [], np.arange(round(SECONDS / 0.002)) * 0.002
    for t in times:
        row = int(np.searchsorted(sent_s, t - 1e-3 * delay_ms + 1e-9, side="right")) - 1
        data.ctrl[motors] = targets[row] if row >= 0 else rest
        mujoco.mj_step(model, data)
        angles.append(data.qpos[joints].copy())
    commands = Signal(stamp_ns=np.round(1e9 * sent_s).astype(np.int64), value=targets, held=True)
    return commands, Signal(stamp_ns=np.round(1e9 * (times + 0.002)).astype(np.int64), value=np.array(angles))


def action(seed: int) -> Raw:
    """A command's latency on the simulated arm: the servo's own, and a known delay before it."""
    rng = np.random.default_rng(seed)
    delay = float(rng.uniform(10, 150))
    noise = 1e-3 * rng.standard_normal((round(SECONDS / 0.002), len(MOVED)))
    commands, own = swing(0.0)
    _, late = swing(delay)
    servo = 1e3 * lag_between(commands, Signal(stamp_ns=own.stamp_ns, value=own.value + noise)).lag_s
    whole = 1e3 * lag_between(commands, Signal(stamp_ns=late.stamp_ns, value=late.value + noise)).lag_s
    return {"true_ms": delay, "found_ms": whole - servo, "servo_ms": servo}


def proprioception(seed: int) -> Raw:
    """Joint angles stamped late, against the same angles stamped by the arm itself; 100 Hz, jitter of +-2 ms."""
    rng = np.random.default_rng(seed)
    late = float(rng.uniform(1, 60))
    _, own = swing(0.0)
    rows = np.arange(0, len(own.stamp_ns), 5)
    stamps = np.sort(own.stamp_ns[rows] + np.round(MS * (late + rng.uniform(-2, 2, len(rows)))).astype(np.int64))
    received = Signal(stamp_ns=stamps, value=own.value[rows] + 1e-3 * rng.standard_normal((len(rows), len(MOVED))))
    return {"true_ms": late, "found_ms": lag_samples(own, received, window_s=4.0).median_ns / MS}


def camera(seed: int) -> Raw:
    """A camera on the moving arm, 30 Hz, 0.3 px, jitter of +-3 ms: turning speed of board against that of the tool."""
    trajectory, rng = sway(seed)
    late = float(rng.uniform(20, 120))
    true_s = np.arange(1.0, 13.0, 1 / 30)
    seen = pictures(trajectory, rng, true_s)
    stamps = np.sort(np.round(1e9 * true_s + MS * (late + rng.uniform(-3, 3, len(true_s)))).astype(np.int64))
    arm_ns = np.arange(0, 14_000 * MS, 4 * MS)
    tool = turning_speed(arm_ns, [Pose.from_matrix(T) for T in trajectory.at(arm_ns)])
    board = turning_speed(stamps, [Pose.from_matrix(T) for T in seen.T_camera_board])
    found = 1e3 * lag_between(tool, board, max_lag_s=0.3).lag_s
    now = trajectory.at(stamps)[:, :3, 3]  # where alignment by the stamp alone puts the tool
    compensated = trajectory.at(stamps, -1e-3 * found)[:, :3, 3]
    true = trajectory.at(np.round(1e9 * true_s).astype(np.int64))[:, :3, 3]
    return {
        "true_ms": late, "found_ms": found,
        "stamped_mm": 1e3 * float(np.linalg.norm(now - true, axis=1).mean()),
        "aligned_mm": 1e3 * float(np.linalg.norm(compensated - true, axis=1).mean()),
    }  # fmt: skip


CASES: Mapping[str, tuple[Callable[[int], Raw], str]] = {
    "action": (action, "command to motion, simulated arm, commands at 20 Hz, delay 10 to 150 ms"),
    "proprioception": (proprioception, "joint angles at 100 Hz, 1 to 60 ms late, jitter 2 ms"),
    "camera": (camera, "camera at 30 Hz on the arm, 20 to 120 ms late, jitter 3 ms, 0.3 px"),
}


def rows_of(name: str, raw: Sequence[Raw]) -> list[dict[str, Any]]:
    """Return the rows of a case."""
    off = np.array([item["found_ms"] - item["true_ms"] for item in raw])
    mean = bootstrap_mean(off)
    what = CASES[name][1]
    rows: list[dict[str, Any]] = [
        {"claim": f"error of the latency, mean; {what}", "value": round(mean.value, 3), "unit": "ms",
         "interval": [round(mean.low, 3), round(mean.high, 3)], "seeds": len(raw)},
        {"claim": f"error of the latency, largest; {what}", "value": round(float(np.abs(off).max()), 3), "unit": "ms",
         "seeds": len(raw)},
    ]  # fmt: skip
    if name == "action":
        servo = float(np.mean([item["servo_ms"] for item in raw]))
        rows.append({"claim": f"the servo's own latency; {what}", "value": round(servo, 2), "unit": "ms"})
    if name == "camera":
        aligned, stamped = (float(np.mean([item[key] for item in raw])) for key in ("aligned_mm", "stamped_mm"))
        rows.append({
            "claim": f"distance of the tool's pose paired with a picture from the true one, mean; {what}",
            "value": round(aligned, 3), "unit": "mm", "seeds": len(raw),
            "baseline": f"paired by the stamps alone: {stamped:.2f} mm",
        })  # fmt: skip
    return rows


def draw(raw: Mapping[str, Sequence[Raw]]) -> None:
    """Draw what was found against the truth."""
    mpl.use("Agg")
    fig, axes = plt.subplots(1, len(raw), figsize=(4 * len(raw), 3.4), layout="constrained", squeeze=False)
    for axis, (name, items) in zip(axes[0], raw.items(), strict=True):
        true, found = (np.array([item[key] for item in items]) for key in ("true_ms", "found_ms"))
        axis.scatter(true, found - true, s=12)
        axis.axhline(0.0, color="black", linewidth=0.5)
        axis.set(title=name, xlabel="true latency [ms]", ylabel="found - true [ms]")
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "latency_calibration.png", dpi=100)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    raw = {name: played(RAW / f"{name}.json", CASES[name][0], args.seeds) for name in args.cases}
    rows = [row for name, items in raw.items() for row in rows_of(name, items)]
    write_results("latency_calibration", rows)
    draw(raw)
    for row in rows:
        print(f"{row['claim']}: {row['value']} {row['unit']}  ({row.get('baseline')})")


if __name__ == "__main__":
    main()
