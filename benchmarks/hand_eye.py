"""Hand-eye calibration: a real arm's board scatter, and errors on a simulated rig where the truth is known.

    python -m benchmarks.hand_eye --seeds 20

The real arm's poses are looked for in $ROBOT_RL_DATA/handeye_doosan_charuco, else in ../shared/data.
Raw figures of each seed go to outputs/benchmarks/hand_eye/, one file a case, and are kept when the command is repeated.
Writes benchmarks/results/hand_eye.json and docs/img/hand_eye.png.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks._calibration_rig import RIG, Raw, errors, evidence, pictures, played, shaken, sway
from benchmarks._results import DOC_IMAGES, write_results
from calibration.board_scatter import BoardScatter, board_scatter
from calibration.clock_offset import calibrate_moving
from calibration.hand_eye import HandEyeOptions, calibrate_hand_eye
from calibration.hand_eye_starts import linear_starts
from calibration.motion import stack
from calibration.pose_files import read_poses
from robot_rl.calibration_types import Pose
from robot_rl.evaluation.statistics import bootstrap_mean
from sim.rig import with_outliers

RAW = Path("outputs/benchmarks/hand_eye")
N_VIEWS = 20
OFFSET_S = 0.03
EXACT = HandEyeOptions(arm_noise="exact", folds=2)


def clean(seed: int) -> Raw:
    """20 views, 0.3 px."""
    shots = RIG.shots(N_VIEWS, seed=seed)
    arm, seen = [shot.T_base_tool for shot in shots], evidence(shots)
    starts = linear_starts(stack(arm), seen.T_camera_board)
    return {
        **_named(calibrate_hand_eye(arm, seen, HandEyeOptions(folds=2)).camera),
        **{f"{name}_mm": errors(Pose.from_matrix(start.X))[0] for name, start in starts.items()},
        **{f"{name}_deg": errors(Pose.from_matrix(start.X))[1] for name, start in starts.items()},
    }


def outliers(seed: int) -> Raw:
    """The same with a fifth of the arm poses wrong."""
    shots, wrong = with_outliers(RIG.shots(N_VIEWS, seed=seed), 0.2, seed=seed)
    arm, seen = [shot.T_base_tool for shot in shots], evidence(shots)
    found = calibrate_hand_eye(arm, seen, HandEyeOptions(folds=2))
    park = linear_starts(stack(arm), seen.T_camera_board)["park"]
    return {
        **_named(found.camera), "exactly": float(list(found.rejected) == wrong),
        "park_mm": errors(Pose.from_matrix(park.X))[0], "park_deg": errors(Pose.from_matrix(park.X))[1],
    }  # fmt: skip


def arm_noise(seed: int) -> Raw:
    """The same with an arm that is off by 0.5 mm and 0.05 deg."""
    shots = RIG.shots(N_VIEWS, seed=seed)
    arm, seen = shaken([shot.T_base_tool for shot in shots], mm=0.5, deg=0.05, seed=seed), evidence(shots)
    weighed, believed = calibrate_hand_eye(arm, seen, HandEyeOptions(folds=2)), calibrate_hand_eye(arm, seen, EXACT)
    mm, deg = errors(believed.camera)
    return {**_named(weighed.camera), "believed_mm": mm, "believed_deg": deg}


def clock(seed: int) -> Raw:
    """20 pictures of a moving arm whose stamps are 30 ms early."""
    trajectory, rng = sway(seed)
    true_s = np.linspace(1.0, 12.5, N_VIEWS) + rng.uniform(-0.05, 0.05, N_VIEWS)
    seen = pictures(trajectory, rng, true_s)
    stamps = np.round(1e9 * (true_s - OFFSET_S)).astype(np.int64)
    found, offset = calibrate_moving(trajectory, stamps, seen, EXACT)
    ignored = calibrate_hand_eye([Pose.from_matrix(T) for T in trajectory.at(stamps)], seen, EXACT)
    mm, deg = errors(ignored.camera)
    return {
        **_named(found.camera), "offset_ms": abs(1e3 * (offset.offset_s - OFFSET_S)),
        "ignored_mm": mm, "ignored_deg": deg,
    }  # fmt: skip


CASES: Mapping[str, tuple[Callable[[int], Raw], str]] = {
    "clean": (clean, "20 views, 0.3 px noise"),
    "outliers": (outliers, "20 views, 0.3 px noise, 20 % of the arm poses wrong"),
    "arm_noise": (arm_noise, "20 views, 0.3 px noise, arm poses off by 0.5 mm and 0.05 deg"),
    "clock": (clock, "20 pictures of a moving arm, stamps 30 ms off"),
}


def _named(camera: Pose) -> dict[str, float]:
    mm, deg = errors(camera)
    return {"mm": mm, "deg": deg}


def real_arm(folder: Path) -> tuple[list[dict[str, Any]], Mapping[str, BoardScatter]]:
    """Return rows, and the scatter by method, for the 31 views of a Doosan A0509."""
    arm = list(read_poses(folder, unit="mm", pattern="pose_*.txt").poses)
    boards = list(read_poses(folder, pattern="boardpose_*.npz").poses)
    found = calibrate_hand_eye(arm, boards, HandEyeOptions(folds=len(arm)))
    A, B = stack(arm), stack(boards)
    scatters = {name: board_scatter(A, B, start.X) for name, start in linear_starts(A, B).items()}
    ours = board_scatter(A, B, found.camera.matrix)
    park = scatters["park"]
    what = f"real arm (Doosan A0509, RealSense, {len(arm)} views, board poses as stored)"
    rows = []
    axes = zip("xyz", ours.position_std_m, park.position_std_m, (0.6, 0.8, 1.3), strict=True)
    for axis, value, other, mark in axes:
        rows.append({
            "claim": f"board scatter over all views, {axis}, 1 sigma; {what}", "value": round(1e3 * value, 3),
            "unit": "mm", "baseline": f"mark {mark} mm; closed form (park) {1e3 * other:.3f} mm",
        })  # fmt: skip
    held_out = "/".join(f"{1e3 * value:.2f}" for value in found.held_out.position_std_m)
    rows += [
        {"claim": f"board scatter over all views, mean angle; {what}", "value": _deg(ours.angle_mean_rad),
         "unit": "deg", "baseline": f"mark 0.36 deg; park {_deg(park.angle_mean_rad)} deg"},
        {"claim": f"board scatter, each view held out, x/y/z; {what}", "value": held_out, "unit": "mm"},
        {"claim": f"board scatter, each view held out, mean angle; {what}",
         "value": _deg(found.held_out.angle_mean_rad), "unit": "deg"},
        {"claim": f"views left out; {what}", "value": len(found.rejected), "unit": f"of {len(arm)}"},
    ]  # fmt: skip
    return rows, {**scatters, "refined": ours}


def rows_of(name: str, raw: Sequence[Raw]) -> list[dict[str, Any]]:
    """Return the rows of a simulated case."""
    marks = {"clean": "0.5 mm, 0.05 deg", "outliers": "1 mm, 0.1 deg", "clock": "2 ms"}
    others = {
        "clean": ("park", "park, closed form"),
        "outliers": ("park", "park with all views"),
        "arm_noise": ("believed", "arm poses taken as exact"),
        "clock": ("ignored", "offset not estimated"),
    }
    key, label = others[name]
    rows = []
    for unit in ("mm", "deg"):
        values = [item[unit] for item in raw]
        mean = bootstrap_mean(values)
        rows.append({
            "claim": f"error of the camera, mean; {CASES[name][1]}", "value": round(mean.value, 4), "unit": unit,
            "interval": [round(mean.low, 4), round(mean.high, 4)], "seeds": len(raw),
            "baseline": f"{label}: {np.mean([item[f'{key}_{unit}'] for item in raw]):.3f} {unit}",
        })  # fmt: skip
        rows.append({
            "claim": f"error of the camera, largest; {CASES[name][1]}", "value": round(max(values), 4), "unit": unit,
            "seeds": len(raw), "baseline": f"mark {marks[name]}" if name in ("clean", "outliers") else None,
        })  # fmt: skip
    if name == "clock":
        offsets = [item["offset_ms"] for item in raw]
        rows.append({"claim": f"error of the clock offset, largest; {CASES[name][1]}", "value": round(max(offsets), 3),
                     "unit": "ms", "seeds": len(raw), "baseline": f"mark {marks[name]}"})  # fmt: skip
    if name == "outliers":
        exact = int(sum(item["exactly"] for item in raw))
        rows.append({"claim": f"sets of which exactly the wrong poses were left out; {CASES[name][1]}", "value": exact,
                     "unit": f"of {len(raw)}", "seeds": len(raw)})  # fmt: skip
    return rows


def draw(raw: Mapping[str, Sequence[Raw]], scatters: Mapping[str, BoardScatter]) -> None:
    """Draw the scatter by method on the real arm, and the errors of each simulated case."""
    mpl.use("Agg")
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    if scatters:
        for i, axis in enumerate("xyz"):
            left.bar(np.arange(len(scatters)) + 0.27 * (i - 1), [1e3 * s.position_std_m[i] for s in scatters.values()],
                     0.26, label=axis)  # fmt: skip
        left.set_xticks(range(len(scatters)), list(scatters), rotation=30)
        left.set(ylabel="board scatter, 1 sigma [mm]", title="real arm, 31 views")
        left.legend()
    right.boxplot([[item["mm"] for item in items] for items in raw.values()], tick_labels=list(raw))
    right.set(ylabel="error of the camera [mm]", title="simulated rig, 20 views, 0.3 px", yscale="log")
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "hand_eye.png", dpi=100)
    plt.close(fig)


def _deg(radians: float) -> float:
    return round(float(np.degrees(radians)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    folder = Path(os.environ.get("ROBOT_RL_DATA", "../shared/data")) / "handeye_doosan_charuco/data/poses"
    rows, scatters = real_arm(folder) if folder.is_dir() else ([], {})
    if not rows:
        print(f"no real arm: nothing at {folder}")
    raw = {name: played(RAW / f"{name}.json", CASES[name][0], args.seeds) for name in args.cases}
    for name, items in raw.items():
        rows += rows_of(name, items)
    write_results("hand_eye", rows)
    draw(raw, scatters)
    for row in rows:
        print(f"{row['claim']}: {row['value']} {row['unit']}  ({row.get('baseline')})")


if __name__ == "__main__":
    main()
