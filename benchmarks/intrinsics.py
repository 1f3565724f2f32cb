"""Intrinsics and stereo: published picture sets matched, simulated cameras found again, bad views and drift noticed.

    python -m benchmarks.intrinsics --data <folder with opencv_stereo and handeye_doosan_charuco>

Each part is kept in outputs/benchmarks/intrinsics/<part>.json and not run again. About three minutes on one core.
Writes benchmarks/results/intrinsics.json and docs/img/intrinsics.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console

from benchmarks import _rig_scenes as scenes
from benchmarks._results import DOC_IMAGES, write_results
from calibration.camera_fit import fit_camera, rms_of
from calibration.captures import BoardSpec, BoardView, image_files, load_captures, pair_captures
from calibration.drift import check_view
from calibration.intrinsics import calibrate_intrinsics
from calibration.stereo import calibrate_stereo
from robot_rl.calibration_types import CameraIntrinsics, CameraModel
from robot_rl.cli.progress import bar
from robot_rl.evaluation.statistics import clopper_pearson
from sim.rig import Viewpoints

mpl.use("Agg")
OUT = Path("outputs/benchmarks/intrinsics")
OPENCV_BOARD = BoardSpec(kind="chessboard", columns=10, rows=7, square_m=0.025)
DOOSAN_BOARD = BoardSpec(kind="charuco", columns=7, rows=5, square_m=0.03, marker_m=0.022)
USUAL_WINDOW = 11
NOISE_PX = 0.3
SEEDS, SPOILT_SEEDS = 60, 30


def opencv_pair(data: Path) -> dict[str, Any]:
    """Return both cameras and the stereo pair, with OpenCV's usual corner window and with one fitted to the board."""
    found: dict[str, Any] = {}
    for name, window in (("usual", USUAL_WINDOW), ("fitted", None)):
        sides = [load_captures(image_files(data / "opencv_stereo", f"{side}[0-9]*.jpg"), OPENCV_BOARD, window=window)
                 for side in ("left", "right")]  # fmt: skip
        result = calibrate_intrinsics(sides[0].views, aspect="fixed")
        each = fit_camera(sides[0].views, model="pinhole", aspect="fixed")
        free = [fit_camera(side.views, model="pinhole", aspect="free").intrinsics for side in sides]
        stereo = calibrate_stereo(*pair_captures(*sides), *free)
        found[name] = {
            "fx": result.all_views.fx, "rms": result.rms_all_px, "kept_fx": result.intrinsics.fx,
            "kept_rms": result.rms_px, "heldout": result.heldout_rms_px, "deviation": result.deviation["fx"],
            "rejected": [view.image_id for view in result.rejected], "each": [rms_of(r) for r in each.residuals],
            "stereo_rms": stereo.rms_all_px, "baseline_m": stereo.baseline_m,
        }  # fmt: skip
    return found


def doosan(data: Path) -> dict[str, Any]:
    """Return how far the arm's camera is from the stored one, and what the picture with an overlay gives."""
    folder = data / "handeye_doosan_charuco" / "data"
    captures = load_captures(image_files(folder / "intrinsics_images"), DOOSAN_BOARD)
    result = calibrate_intrinsics(captures.views)
    stored = np.load(folder / "camera_intrinsics.npz")["cameraMatrix"]
    pairs = (("fx", stored[0, 0]), ("fy", stored[1, 1]), ("cx", stored[0, 2]), ("cy", stored[1, 2]))
    relative = {name: getattr(result.intrinsics, name) / value - 1 for name, value in pairs}
    return {"relative": relative, "rms": result.rms_px, "heldout": result.heldout_rms_px, "views": len(captures.views)}


def simulated(data: Path) -> dict[str, Any]:
    """Return the error of fx [px] and its size in standard deviations, for each lens model and seed."""
    found: dict[str, Any] = {}
    cameras: dict[CameraModel, CameraIntrinsics] = {
        "pinhole": scenes.PINHOLE,
        "rational": scenes.RATIONAL,
        "fisheye": scenes.FISHEYE,
    }
    for model, camera in cameras.items():
        near = Viewpoints(distance_m=(0.14, 0.3) if model == "fisheye" else (0.3, 0.5), aim_m=0.07)
        rig, errors, sizes = scenes.rig(camera, scenes.CHARUCO, near), [], []
        for seed in range(SEEDS):
            shots = rig.shots(15, seed=seed, noise_px=NOISE_PX, margin_px=2.0)
            views = scenes.as_views(shots, scenes.CHARUCO, camera)
            fit = fit_camera(views, model=model, aspect="free")
            errors.append(fit.intrinsics.fx - camera.fx)
            sizes.append(errors[-1] / fit.deviation["fx"])
        found[model] = {"error_px": errors, "in_deviations": sizes}
    return found


def rejection(data: Path) -> dict[str, Any]:
    """Return error of fx [px] with and without rejection when 3 of 18 views are spoilt, and which were rejected."""
    camera, board = scenes.PINHOLE, scenes.CHARUCO
    rig = scenes.rig(camera, board, Viewpoints(distance_m=(0.3, 0.5), aim_m=0.07))
    found: dict[str, Any] = {"with": [], "without": [], "caught": 0, "missed": 0, "wrongly": 0}
    for seed in range(SPOILT_SEEDS):
        rng = np.random.default_rng(seed)
        views = scenes.as_views(rig.shots(18, seed=seed, noise_px=NOISE_PX, margin_px=2.0), board, camera)
        bad = set(rng.choice(18, size=3, replace=False).tolist())
        result = calibrate_intrinsics([scenes.spoil(v, rng) if i in bad else v for i, v in enumerate(views)])
        out = {i for i, view in enumerate(result.views) if view.rejected}
        found["with"].append(result.intrinsics.fx - camera.fx)
        found["without"].append(result.all_views.fx - camera.fx)
        found["caught"] += len(out & bad)
        found["missed"] += len(bad - out)
        found["wrongly"] += len(out - bad)
    return found


def rendered(data: Path) -> dict[str, Any]:
    """Return rms corner error [px per axis] of each kind of board in rendered pictures, and by tilt for chessboards."""
    camera = scenes.PINHOLE
    found: dict[str, Any] = {"boards": {}, "tilts": []}
    for board in (scenes.CHARUCO, scenes.CHESSBOARD, scenes.APRILTAG):
        shots = scenes.rig(camera, board, Viewpoints(distance_m=(0.4, 0.7))).shots(12, seed=0, noise_px=0.0)
        found["boards"][board.kind] = _corner_error(board, shots, None)
    for tilt in (0.0, 0.3, 0.6, 0.9, 1.1):
        views = Viewpoints(distance_m=(0.45, 0.6), tilt_rad=(tilt, tilt + 0.05), aim_m=0.02)
        shots = scenes.rig(camera, scenes.CHESSBOARD, views).shots(8, seed=1, noise_px=0.0)
        pair = {name: _corner_error(scenes.CHESSBOARD, shots, window)
                for name, window in (("usual", USUAL_WINDOW), ("fitted", None))}  # fmt: skip
        found["tilts"].append({"tilt_deg": float(np.degrees(tilt)), **pair})
    return found


def _corner_error(board: BoardSpec, shots: Sequence[Any], window: int | None) -> dict[str, float]:
    errors, found = [], 0
    for picture, shot in zip(scenes.render(board, scenes.PINHOLE, shots), shots, strict=True):
        view = board.detect(picture, window=window)
        if view is not None:
            found += 1
            errors.append(view.corners - shot.corners[np.searchsorted(shot.ids, view.ids)])
    every = np.concatenate(errors)
    return {"rms": float(np.sqrt((every**2).mean())), "worst": float(np.abs(every).max()), "found": found / len(shots)}


def drift(data: Path) -> dict[str, int]:
    """Return alarms of the drift check: each real view against its own camera fitted to the others, or to another."""
    sets = {side: load_captures(image_files(data / "opencv_stereo", f"{side}[0-9]*.jpg"), OPENCV_BOARD).views
            for side in ("left", "right")}  # fmt: skip
    folder = data / "handeye_doosan_charuco" / "data" / "intrinsics_images"
    sets["doosan"] = load_captures(image_files(folder), DOOSAN_BOARD).views
    found = {"false": 0, "own": 0, "noticed": 0, "other": 0}
    for views in sets.values():
        for i, view in enumerate(views):
            found["own"] += 1
            found["false"] += not _agrees([v for j, v in enumerate(views) if j != i], view)
    for a, b in (("left", "right"), ("right", "left")):
        for view in sets[b]:
            found["other"] += 1
            found["noticed"] += not _agrees(sets[a], view)
    return found


def _agrees(views: Sequence[BoardView], fresh: BoardView) -> bool:
    fit = fit_camera(views, model="pinhole", aspect="free")
    return check_view(fit.intrinsics, fresh, expected_px=rms_of(np.concatenate(fit.residuals))).ok


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "opencv_pair": opencv_pair, "doosan": doosan, "simulated": simulated, "rejection": rejection, "rendered": rendered,
    "drift": drift,
}  # fmt: skip


def rows(raw: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the result rows of all parts."""
    usual, fitted, arm = raw["opencv_pair"]["usual"], raw["opencv_pair"]["fitted"], raw["doosan"]
    mark = "published with the same pictures: fx 535.9 px, rms 0.393 px, view 2 at 1.18 px"
    largest = max(arm["relative"].items(), key=lambda item: abs(item[1]))
    span = [fitted["fx"] + sign * 1.96 * fitted["deviation"] for sign in (-1, 1)]
    left, pair = "opencv_stereo left, all views", "opencv_stereo pair"
    flagged = f"{left}, 11 px window: views flagged ({', '.join(usual['rejected'])})"
    own = "fitted window (default)"
    table = [
        {"claim": f"{left}, OpenCV's 11 px corner window: fx", "value": usual["fx"], "unit": "px", "baseline": mark},
        {"claim": f"{left}, 11 px window: rms residual", "value": usual["rms"], "unit": "px", "baseline": "mark: 0.41"},
        {"claim": flagged, "value": len(usual["rejected"]), "unit": "", "baseline": "mark: view 2"},
        {"claim": f"{left}, {own}: fx", "value": fitted["fx"], "unit": "px", "interval": span,
         "baseline": "535.9 published; view 2's corners are misplaced there"},
        {"claim": f"{left}, {own}: rms residual", "value": fitted["rms"], "unit": "px", "baseline": "0.393 published"},
        {"claim": f"{left}, {own}: on held-out views (five-fold)", "value": fitted["heldout"], "unit": "px"},
        {"claim": f"{pair}, 11 px window: rms residual", "value": usual["stereo_rms"], "unit": "px",
         "baseline": "mark: 0.45"},
        {"claim": f"{pair}, {own}: rms residual", "value": fitted["stereo_rms"], "unit": "px"},
        {"claim": f"{pair}, {own}: baseline", "value": 1000 * fitted["baseline_m"], "unit": "mm"},
        {"claim": f"Doosan camera, {arm['views']} pictures: largest difference from the stored camera ({largest[0]})",
         "value": 100 * abs(largest[1]), "unit": "%", "baseline": "mark: 0.2 %"},
        {"claim": "Doosan camera: rms residual on held-out views", "value": arm["heldout"], "unit": "px"},
    ]  # fmt: skip
    return [*table, *_simulated_rows(raw), *_rate_rows(raw)]


def _simulated_rows(raw: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for model, got in raw["simulated"].items():
        errors, sizes = np.abs(got["error_px"]), np.asarray(got["in_deviations"])
        table += [
            {"claim": f"simulated {model} camera, 15 views, {NOISE_PX} px noise: median |error of fx|",
             "value": float(np.median(errors)), "unit": "px", "seeds": len(errors)},
            {"claim": f"simulated {model}: rms error of fx in reported standard deviations",
             "value": float(np.sqrt((sizes**2).mean())), "unit": "", "seeds": len(errors), "baseline": "1 is honest"},
        ]  # fmt: skip
    for kind, got in raw["rendered"]["boards"].items():
        table.append(
            {"claim": f"rendered pictures, {kind}: rms corner error per axis", "value": got["rms"], "unit": "px"}
        )
    for tilt in raw["rendered"]["tilts"]:
        table.append(
            {"claim": f"rendered chessboard at {tilt['tilt_deg']:.0f} deg: rms corner error per axis, fitted window",
             "value": tilt["fitted"]["rms"], "unit": "px", "baseline": f"11 px window: {tilt['usual']['rms']:.3g} px"}
        )  # fmt: skip
    return table


def _rate_rows(raw: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    spoilt, seen = raw["rejection"], raw["drift"]
    bad = spoilt["caught"] + spoilt["missed"]
    good = SPOILT_SEEDS * 18 - bad
    before, after = (float(np.median(np.abs(spoilt[key]))) for key in ("without", "with"))
    table = [
        {"claim": "3 of 18 views spoilt: median |error of fx|", "value": after, "unit": "px", "seeds": SPOILT_SEEDS,
         "baseline": f"without rejection: {before:.3g} px"},
    ]  # fmt: skip
    for claim, count, of in (
        ("spoilt views rejected", spoilt["caught"], bad),
        ("good views rejected", spoilt["wrongly"], good),
        ("drift check: real views of another camera noticed from one picture", seen["noticed"], seen["other"]),
        ("drift check: false alarms on real views left out of the fit", seen["false"], seen["own"]),
    ):
        rate = clopper_pearson(count, of)
        interval = [100 * rate.low, 100 * rate.high]
        table.append({"claim": f"{claim} ({count}/{of})", "value": 100 * count / of, "unit": "%", "interval": interval})
    return table


def draw(raw: dict[str, dict[str, Any]]) -> Path:
    """Draw residuals of the published set, corner error by tilt, and what rejection does."""
    usual, fitted = raw["opencv_pair"]["usual"], raw["opencv_pair"]["fitted"]
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    at = np.arange(len(usual["each"]))
    left.bar(at - 0.2, usual["each"], 0.4, label=f"11 px window: fx {usual['fx']:.1f}", color="lightgrey")
    left.bar(at + 0.2, fitted["each"], 0.4, label=f"fitted window: fx {fitted['fx']:.1f}")
    left.set(xlabel="picture of opencv_stereo, left", ylabel="rms residual [px]", xticks=at, xticklabels=at + 1)
    left.legend()
    tilts = raw["rendered"]["tilts"]
    angle = [tilt["tilt_deg"] for tilt in tilts]
    middle.plot(angle, [t["usual"]["rms"] for t in tilts], "o-", color="grey", label="11 px window")
    middle.plot(angle, [t["fitted"]["rms"] for t in tilts], "o-", label="fitted window")
    middle.set(xlabel="tilt of a rendered chessboard [deg]", ylabel="rms corner error [px]", yscale="log")
    middle.legend()
    spoilt = raw["rejection"]
    edge = max(np.abs([*spoilt["with"], *spoilt["without"]]))
    bins = np.linspace(-edge, edge, 25)
    right.hist(spoilt["without"], bins=bins, color="lightgrey", label="all views")
    right.hist(spoilt["with"], bins=bins, alpha=0.8, label="bad views rejected")
    right.set(xlabel="error of fx [px], 3 of 18 views spoilt", ylabel="calibrations")
    right.legend()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "intrinsics.png", dpi=100)
    plt.close(fig)
    return DOC_IMAGES / "intrinsics.png"


def main() -> None:
    """Run what is not there yet, write rows and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    raw: dict[str, dict[str, Any]] = {}
    with bar(Console()) as progress:
        task = progress.add_task("intrinsics", total=len(PARTS))
        for name, part in PARTS.items():
            path = arguments.out / f"{name}.json"
            if not path.exists():
                path.write_text(json.dumps(part(arguments.data)))
            raw[name] = json.loads(path.read_text())
            progress.advance(task)
    print(f"{write_results('intrinsics', rows(raw))}\n{draw(raw)}")


if __name__ == "__main__":
    main()
