"""`robot-rl calibrate intrinsics`: a camera from pictures of a board, or two as a stereo pair, with a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from calibration.captures import BoardSpec, Captures, image_files, load_captures, pair_captures
from calibration.files import save_calibration, today
from calibration.intrinsics import IntrinsicsResult, calibrate_intrinsics
from calibration.report import intrinsics_sections, stereo_section
from calibration.ros_files import write_camera_info, write_static_transforms
from calibration.stereo import StereoResult, calibrate_stereo
from robot_rl.calibration_types import CalibrationFile
from robot_rl.cli.config import plain
from robot_rl.cli.progress import bar
from robot_rl.errors import CalibrationError, ConfigError
from robot_rl.evaluation.report import Section, write_report

USUAL_WINDOW = 11


def run(config: DictConfig, console: Console) -> IntrinsicsResult:
    """Calibrate `calibrate.intrinsics.images`, and `right_images` against it if given; write files and report.html."""
    settings, out = config.calibrate.intrinsics, Path(config.calibrate.out)
    board = BoardSpec.from_mapping(plain(config.board))
    left = _load(settings.images, settings.pattern, board, config, console)
    result = _calibrate(left, config, settings.frame, config.calibrate.serial, out, console)
    sections = intrinsics_sections(result, left, out / "rejected")
    if settings.right_images is not None:
        right = _load(settings.right_images, settings.right_pattern, board, config, console)
        other = _calibrate(right, config, settings.right_frame, config.calibrate.right_serial, out, console)
        stereo = _stereo(left, right, result, other, config, console)
        sections += [*_named(settings.right_frame, intrinsics_sections(other, right, out / "rejected_right")),
                     stereo_section(stereo)]  # fmt: skip
    subtitle = (
        f"{left.board.describe()}; residual {result.rms_px:.3f} px, {result.heldout_rms_px:.3f} px on held-out views"
    )
    report = write_report(out / "report.html", title="Camera calibration", subtitle=subtitle, sections=sections)
    console.print(f"report: {report}")
    return result


def _load(folder: str | None, pattern: str, board: BoardSpec, config: DictConfig, console: Console) -> Captures:
    if folder is None:
        raise ConfigError("`calibrate.intrinsics.images` is missing; give the folder with pictures of the board")
    files = image_files(folder, pattern)
    with bar(console) as progress:
        task = progress.add_task(f"looking for the board in {Path(folder).name}", total=len(files))

        def show(name: str, found: bool) -> None:
            progress.advance(task)

        captures = load_captures(files, board, window=config.calibrate.intrinsics.window, on_image=show)
    for name, reason in captures.missed.items():
        console.print(f"{name}: no board; {reason}" if reason else f"{name}: no board", markup=False)
    return captures


def _calibrate(
    captures: Captures, config: DictConfig, frame: str, serial: str, out: Path, console: Console
) -> IntrinsicsResult:
    """Fit one camera, print it, and write its calibration and camera_info files."""
    settings = config.calibrate.intrinsics
    result = calibrate_intrinsics(captures.views, model=settings.model, aspect=settings.aspect)
    _print(result, frame, console)
    if captures.board.kind == "chessboard" and settings.window is None:
        _print_usual(captures, settings, console)
    residuals = {
        "rms_px": result.rms_px, "heldout_rms_px": result.heldout_rms_px, "all_views_rms_px": result.rms_all_px,
        **{f"{name}_deviation_px": value for name, value in result.deviation.items()},
    }  # fmt: skip
    calibration = CalibrationFile(
        kind="intrinsics", values={"camera": result.intrinsics}, frames={"camera": frame}, date=today(),
        device_serial=str(serial), residuals=residuals, image_digest=captures.digest,
        method=f"Zhang (2000) with OpenCV, {settings.model}, {settings.aspect} aspect, {captures.board.describe()}, "
        f"{len(result.views) - len(result.rejected)} of {len(result.views)} views",
    )  # fmt: skip
    console.print(f"calibration: {save_calibration(calibration, out / f'{frame}.yaml')}")
    console.print(f"camera_info: {write_camera_info(result.intrinsics, out / f'{frame}_info.yaml', name=frame)}")
    return result


def _print(result: IntrinsicsResult, frame: str, console: Console) -> None:
    camera, loose = result.intrinsics, result.deviation
    table = Table(title=f"{frame}: {camera.model}, {camera.width} x {camera.height}", show_header=False)
    for name in ("fx", "fy", "cx", "cy"):
        table.add_row(name, f"{getattr(camera, name):.2f} px", f"standard deviation {loose[name]:.2f}")
    table.add_row("residual", f"{result.rms_px:.3f} px", f"on held-out views {result.heldout_rms_px:.3f}")
    table.add_row("all views", f"{result.rms_all_px:.3f} px", f"with fx {result.all_views.fx:.2f} px")
    for view in result.rejected:
        table.add_row("rejected", view.image_id, f"{view.rms_px:.2f} px")
    console.print(table)
    for note in result.notes:
        console.print(f"note: {note}", markup=False)


def _print_usual(captures: Captures, settings: DictConfig, console: Console) -> None:
    """Print what OpenCV's usual corner window gives, for comparison with figures published for the same pictures."""
    files = [captures.files[view.image_id] for view in captures.views]
    try:
        views = load_captures(files, captures.board, window=USUAL_WINDOW).views
        usual = calibrate_intrinsics(views, model=settings.model, aspect=settings.aspect)
    except CalibrationError as error:
        console.print(f"with OpenCV's usual {USUAL_WINDOW} px window there is no result: {error}", markup=False)
        return
    flagged = ", ".join(f"{view.image_id} {view.rms_px:.2f} px" for view in usual.rejected)
    console.print(
        f"for comparison, corners refined with OpenCV's usual {USUAL_WINDOW} px window: all views fx "
        f"{usual.all_views.fx:.2f} px, residual {usual.rms_all_px:.3f} px; flagged: {flagged if flagged else 'none'}",
        markup=False,
    )  # fmt: skip


def _stereo(
    left: Captures, right: Captures, first: IntrinsicsResult, second: IntrinsicsResult, config: DictConfig,
    console: Console,
) -> StereoResult:  # fmt: skip
    """Fit the pose between two cameras and write it as calibration and static transform."""
    settings, out = config.calibrate.intrinsics, Path(config.calibrate.out)
    a, b = pair_captures(left, right)
    stereo = calibrate_stereo(a, b, first.intrinsics, second.intrinsics)
    frames = (settings.frame, settings.right_frame)
    calibration = CalibrationFile(
        kind="stereo",
        values={"T_left_right": stereo.T_left_right, "left": first.intrinsics, "right": second.intrinsics},
        frames={"left": frames[0], "right": frames[1], "T_left_right": f"{frames[1]} -> {frames[0]}"},
        date=today(), device_serial=f"{config.calibrate.serial} {config.calibrate.right_serial}".strip(),
        method="reprojection over both cameras and all board poses, intrinsics held",
        residuals={"rms_px": stereo.rms_px, "epipolar_px": stereo.epipolar_px}, image_digest=left.digest + right.digest,
    )  # fmt: skip
    console.print(
        f"stereo: baseline {1000 * stereo.baseline_m:.2f} mm, residual {stereo.rms_px:.3f} px over {len(a)} pairs, "
        f"epipolar {stereo.epipolar_px:.3f} px"
    )
    console.print(f"calibration: {save_calibration(calibration, out / 'stereo.yaml')}")
    write_static_transforms({frames: stereo.T_left_right}, out / "stereo_tf.yaml")
    return stereo


def _named(name: str, sections: Sequence[Section]) -> list[Section]:
    return [Section(f"{section.title} ({name})", section.blocks) for section in sections]
