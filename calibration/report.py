"""The sections of a camera calibration's report: the camera, coverage, residuals, and the views left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from calibration import plots
from calibration.captures import Captures
from calibration.intrinsics import IntrinsicsResult
from calibration.stereo import StereoResult
from robot_rl.calibration_types import CameraIntrinsics
from robot_rl.evaluation.report import Block, Facts, Picture, Plot, Section, Table, Text, Tile, Tiles

_MAX_PICTURES = 6


def intrinsics_sections(result: IntrinsicsResult, captures: Captures, folder: str | Path) -> list[Section]:
    """Return the report of one camera.

    Args:
        result: The calibration.
        captures: The pictures it was made from.
        folder: Where pictures of rejected views are written.
    """
    found = len(result.views)
    sections = [
        Section("Camera", [Tiles(_tiles(result)), *[Text(f"Note: {note}.") for note in result.notes],
                           Facts(_facts(result.intrinsics, captures))]),
        Section("Coverage and residuals", [
            Plot(plots.coverage_map(result.views, result.coverage, captures.size),
                 f"Corners seen; {100 * result.covered:.0f} % of the cells hold some. Orange: rejected views."),
            Plot(plots.residual_cloud(result.views),
                 "Seen minus projected of every kept corner; circles of one, two and three times the rms."),
            Plot(plots.view_bars([v.image_id for v in result.views], [v.rms_px for v in result.views],
                                 [v.rejected for v in result.views]), f"rms residual of the {found} views."),
        ]),
    ]  # fmt: skip
    return [*sections, _left_out(result, captures, Path(folder))]


def _tiles(result: IntrinsicsResult) -> list[Tile]:
    camera, loose = result.intrinsics, result.deviation
    return [
        Tile("Focal length", f"{camera.fx:.1f}, {camera.fy:.1f} px", f"standard deviation {loose['fx']:.2f} px"),
        Tile("Principal point", f"{camera.cx:.1f}, {camera.cy:.1f} px", f"standard deviation {loose['cx']:.2f} px"),
        Tile("Residual", f"{result.rms_px:.3f} px", f"before rejection {result.rms_all_px:.3f} px"),
        Tile("On held-out views", f"{result.heldout_rms_px:.3f} px", "five-fold, pose fitted to each view"),
        Tile("Views", f"{len(result.views) - len(result.rejected)}/{len(result.views)}", "kept"),
    ]


def _facts(camera: CameraIntrinsics, captures: Captures) -> Mapping[str, object]:
    return {
        "board": captures.board.describe(),
        "model": camera.model,
        "size": f"{camera.width} x {camera.height} px",
        "distortion": ", ".join(f"{k:.5g}" for k in camera.distortion),
        "pictures": f"{len(captures.files)}, the board found in {len(captures.views)}",
        "SHA-256 of the pictures": captures.digest,
    }


def _left_out(result: IntrinsicsResult, captures: Captures, folder: Path) -> Section:
    """Return the rejected views with their residuals drawn on them, and the pictures without a board."""
    blocks: list[Block] = []
    for view in result.rejected[:_MAX_PICTURES]:
        shown = plots.draw_residuals(captures.files[view.image_id], view, folder / f"{Path(view.image_id).stem}.png")
        caption = (
            f"{view.image_id}: rms {view.rms_px:.2f} px, largest {view.max_px:.2f} px; residuals 20 times as long."
        )
        blocks.append(Picture(shown, caption))
    if captures.missed:
        rows = [(name, reason if reason else "no board found") for name, reason in captures.missed.items()]
        blocks.append(Table(("picture", "why"), rows, caption="Pictures without the board", folded=len(rows) > 8))
    return Section("Left out", blocks if blocks else [Text("No view was left out.")])


def stereo_section(result: StereoResult) -> Section:
    """Return the pose between two cameras and every pair's residual."""
    x, y, z = (1000 * result.T_left_right.translation).tolist()
    tiles = [
        Tile("Baseline", f"{1000 * result.baseline_m:.2f} mm", f"right camera at {x:.1f}, {y:.1f}, {z:.1f} mm"),
        Tile("Turn", f"{np.degrees(result.T_left_right.angle):.3f}°", "between the cameras"),
        Tile("Residual", f"{result.rms_px:.3f} px", f"before rejection {result.rms_all_px:.3f} px"),
        Tile("Epipolar", f"{result.epipolar_px:.3f} px", "mean distance from the line"),
    ]
    pairs = result.pairs
    bars = plots.view_bars([p.left_id for p in pairs], [p.rms_px for p in pairs], [p.rejected for p in pairs])
    return Section("Stereo", [Tiles(tiles), Plot(bars, "rms residual of each pair, both pictures together.")])
