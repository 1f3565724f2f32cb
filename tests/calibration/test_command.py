"""`robot-rl calibrate board|intrinsics|check` from the command line, on rendered pictures."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from calibration.boards import BoardSpec
from calibration.files import load_calibration
from calibration.intrinsics import calibrate_intrinsics
from calibration.plots import view_bars
from calibration.printing import draw_board
from calibration.ros_files import read_camera_info, read_static_transforms
from robot_rl.calibration_types import Pose
from robot_rl.cli.calibrate_command import SUBCOMMANDS, run
from robot_rl.cli.config import CONFIG_DIR, load_config, plain
from robot_rl.cli.main import main
from robot_rl.errors import CalibrationError, ConfigError
from sim.board_pictures import BoardPictures
from sim.rig import Viewpoints
from tests.calibration.rig_data import CHARUCO, PINHOLE, as_views, make_rig

BOARD = ["board=charuco", "board.columns=8", "board.rows=5", "board.square_m=0.04", "board.marker_m=0.03"]
T_LEFT_RIGHT = Pose.from_rotation_vector([0.0, 0.02, 0.0], [0.06, 0.0, 0.0])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a board by two cameras beside each other; one of the left ones shows no board."""
    folder = tmp_path_factory.mktemp("captures")
    drawn = draw_board(CHARUCO, pixels_per_square=80)
    camera = BoardPictures(drawn.pixels, drawn.size_m, drawn.origin_m, PINHOLE, oversampling=2)
    shots = make_rig(PINHOLE, viewpoints=Viewpoints(distance_m=(0.4, 0.6))).shots(6, seed=1, margin_px=60.0)
    for i, shot in enumerate(shots):
        for side, pose in (("left", shot.T_camera_board), ("right", T_LEFT_RIGHT.inverse() @ shot.T_camera_board)):
            cv2.imwrite(str(folder / f"{side}{i:02d}.png"), camera.render(pose, noise=1.0, seed=i))
    camera.close()
    cv2.imwrite(str(folder / "left99.png"), np.full((480, 640), 90, np.uint8))
    return folder


def _run(*arguments: str) -> str:
    written = io.StringIO()
    run(arguments, Console(width=200, file=written))
    return written.getvalue()


def test_two_cameras_are_calibrated_checked_and_reported(pictures: Path, tmp_path: Path):
    out = tmp_path / "out"
    text = _run(
        "intrinsics", *BOARD, f"calibrate.out={out}", f"calibrate.intrinsics.images={pictures}",
        "calibrate.intrinsics.pattern=left*", f"calibrate.intrinsics.right_images={pictures}",
        "calibrate.intrinsics.right_pattern=right*", "calibrate.serial=A1", "calibrate.right_serial=B2",
    )  # fmt: skip
    assert "left99.png: no board; no marker of DICT_4X4_50" in text
    file = load_calibration(out / "camera.yaml", kind="intrinsics", serial="A1", size=(640, 480))
    assert file.values["camera"].fx == pytest.approx(PINHOLE.fx, abs=6)
    assert set(file.residuals) >= {"rms_px", "heldout_rms_px", "fx_deviation_px"}
    assert read_camera_info(out / "camera_info.yaml") == file.values["camera"]
    stereo = load_calibration(out / "stereo.yaml", kind="stereo").values["T_left_right"]
    np.testing.assert_allclose(stereo.translation, T_LEFT_RIGHT.translation, atol=0.002)
    transforms = read_static_transforms(out / "stereo_tf.yaml")
    np.testing.assert_allclose(transforms["camera", "camera_right"].matrix, stereo.matrix, atol=1e-9)
    report = (out / "report.html").read_text()
    for words in ("Camera (camera_right)", "Stereo", "left99.png", "no marker of DICT_4X4_50", "left03.png"):
        assert words in report
    check = ["check", *BOARD, f"calibrate.check.file={out / 'camera.yaml'}"]
    assert "holds: residual" in _run(*check, f"calibrate.check.image={pictures / 'left02.png'}")
    with pytest.raises(CalibrationError, match="made for A1, the device in use is X9"):
        _run(*check, f"calibrate.check.image={pictures / 'left02.png'}", "calibrate.serial=X9")
    squeezed = cv2.resize(cv2.imread(str(pictures / "left02.png")), (640, 440))
    cv2.imwrite(str(tmp_path / "changed.png"), cv2.copyMakeBorder(squeezed, 20, 20, 0, 0, cv2.BORDER_REPLICATE))
    with pytest.raises(CalibrationError, match="no longer holds: corners miss the camera model"):
        _run(*check, f"calibrate.check.image={tmp_path / 'changed.png'}")


def test_a_rejected_view_is_shown_in_the_report(pictures: Path, tmp_path: Path):
    folder = tmp_path / "bent"
    folder.mkdir()
    for path in pictures.glob("left0*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    image = cv2.imread(str(folder / "left04.png"))
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    cv2.imwrite(str(folder / "left04.png"), cv2.remap(image, columns + 4 * np.sin(rows / 40), rows, cv2.INTER_LINEAR))
    text = _run("intrinsics", *BOARD, f"calibrate.out={tmp_path}", f"calibrate.intrinsics.images={folder}")
    assert "rejected" in text
    assert (tmp_path / "rejected" / "left04.png").is_file()
    report = (tmp_path / "report.html").read_text()
    assert "left04.png: rms" in report
    assert "data:image/png;base64," in report


def test_a_board_is_printed(tmp_path: Path):
    text = _run("board", "board=apriltag", f"calibrate.board.file={tmp_path / 'b.pdf'}")
    assert "grid 6 x 4" in text
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs one of: board .*; got nothing"),
        (("wheels",), "got `wheels`"),
        (("intrinsics",), r"`calibrate\.intrinsics\.images` is missing"),
        (("check",), r"`calibrate\.check\.file` is missing"),
        (("intrinsics", "calibrate.intrinsics.image=x"), "did you mean calibrate.intrinsics.image"),
    ],
)
def test_requests_that_cannot_be_met_say_what_is_missing(arguments: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        _run(*arguments)


def test_every_board_file_makes_a_board_and_every_subcommand_has_a_module():
    for path in (CONFIG_DIR / "board").glob("*.yaml"):
        board = BoardSpec.from_mapping(plain(load_config([f"board={path.stem}"]).board))
        view = board.detect(cv2.GaussianBlur(draw_board(board).pixels, (0, 0), 1.0))
        assert view is not None
        assert len(view.ids) == len(board.object_points)
    for module, _ in SUBCOMMANDS.values():
        assert hasattr(__import__(module, fromlist=["run"]), "run")


def test_main_knows_the_command(capsys: pytest.CaptureFixture[str]):
    assert main(["calibrate", "wheels"]) == 2
    assert "robot-rl calibrate needs one of" in capsys.readouterr().out
    assert main(["calibrate", "intrinsics", "--cfg", "board=chessboard"]) == 0
    assert "kind: chessboard" in capsys.readouterr().out


def test_bars_need_as_many_names_as_values():
    with pytest.raises(ConfigError, match="bars need a name, a value and a verdict each"):
        view_bars(["a"], [1.0, 2.0], [False])
    views = as_views(make_rig(PINHOLE).shots(4, seed=0), CHARUCO, PINHOLE)
    result = calibrate_intrinsics(views)
    svg = view_bars([v.image_id for v in result.views], [v.rms_px for v in result.views], [False, True, False, False])
    assert svg.count("rejected") == 1
    assert "view01.png" in svg
