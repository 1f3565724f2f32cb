"""The sections of a hand-eye calibration's report: the pose, held-out scatter, each view, and what the methods say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration import plots
from calibration.board_scatter import BoardScatter
from calibration.clock_offset import ClockOffset
from calibration.hand_eye_result import HandEye
from robot_rl.evaluation.report import Block, Facts, Plot, Section, Table, Text, Tile, Tiles


def hand_eye_sections(result: HandEye, names: Sequence[str], clock: ClockOffset | None = None) -> list[Section]:
    """Return the report of one calibration.

    Args:
        result: The calibration.
        names: Name of each view.
        clock: The clock offset, where it was estimated.
    """
    scatter = [("fitted", *_row(result.scatter)), ("held out", *_row(result.held_out))]
    blocks: list[Block] = [
        Tiles(_tiles(result, clock)),
        Facts(_facts(result)),
        Table(("board over views", "x mm", "y mm", "z mm", "mean deg", "max mm", "max deg"), scatter,
              caption="How far the calibration puts the board that did not move; 1 sigma per axis."),
    ]  # fmt: skip
    bars = plots.view_bars(list(names), (1e3 * result.board_error_m).tolist(), (~result.kept).tolist(), unit="mm")
    views: list[Block] = [Plot(bars, "How far each view puts the board from where it is [mm]; orange: rejected.")]
    if result.rejected:
        views.append(
            Table(("view", "why"), [(names[i], why) for i, why in result.rejected.items()], caption="Left out")
        )
    agreement = result.agreement
    methods = [
        (name, f"{1e3 * agreement.position_m[name]:.2f}", f"{np.degrees(agreement.angle_rad[name]):.3f}")
        for name in agreement.position_m
    ]
    table = Table(("method", "mm from the middle", "deg from the middle"), methods)
    text = Text("Closed-form solutions before the joint refinement. Far apart means too little rotation, or bad views.")
    return [Section("Hand-eye", blocks), Section("Views", views), Section("Agreement of methods", [text, table])]


def _tiles(result: HandEye, clock: ClockOffset | None) -> list[Tile]:
    camera, _ = result.names
    x, y, z = 1e3 * result.camera.translation
    tiles = [
        Tile(camera, f"{x:.2f}, {y:.2f}, {z:.2f} mm", f"one sigma {1e3 * result.sigma_position_m:.2f} mm"),
        Tile(
            "Turn", f"{np.degrees(result.camera.angle):.2f}°", f"one sigma {np.degrees(result.sigma_rotation_rad):.3f}°"
        ),
        Tile("Views", f"{int(result.kept.sum())}/{len(result.kept)}", "kept"),
    ]
    if result.rms_px is not None:
        tiles.append(Tile("Held-out residual", f"{result.held_out_rms_px:.2f} px", f"fitted {result.rms_px:.2f} px"))
    if clock is not None:
        tiles.append(Tile("Clock offset", f"{1e3 * clock.offset_s:.1f} ms", f"one sigma {1e3 * clock.sigma_s:.2f} ms"))
    return tiles


def _facts(result: HandEye) -> dict[str, object]:
    camera, board = result.names
    noise = result.arm_noise
    return {
        "mount": result.mount,
        f"{camera}, quaternion xyzw": ", ".join(f"{value:.6f}" for value in result.camera.quaternion),
        f"{board} [mm]": ", ".join(f"{1e3 * value:.2f}" for value in result.board.translation),
        "arm noise": f"{1e3 * noise.position_m:.2f} mm, {np.degrees(noise.rotation_rad):.3f} deg "
        "(zero: exact, or not told apart)",
    }


def _row(scatter: BoardScatter) -> list[str]:
    x, y, z = (f"{1e3 * value:.2f}" for value in scatter.position_std_m)
    return [
        x, y, z, f"{np.degrees(scatter.angle_mean_rad):.3f}", f"{1e3 * scatter.position_max_m:.2f}",
        f"{np.degrees(scatter.angle_max_rad):.2f}",
    ]  # fmt: skip
