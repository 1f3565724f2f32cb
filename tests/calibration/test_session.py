"""The live session, fed with rendered pictures of a board."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation

from calibration.boards import BoardSpec
from calibration.capture_rules import CaptureRules, Verdict
from calibration.coverage import HAND_EYE_BINS, INTRINSICS_BINS, Coverage, board_bins, turn_bins
from calibration.files import save_calibration, today
from calibration.pose_files import read_numbers, read_poses
from calibration.session import CaptureSession
from calibration.session_command import CalibrationJob, describe
from calibration.sharpness import edge_width
from robot_rl.calibration_types import CalibrationFile, Pose
from robot_rl.cli.calibrate_command import run
from robot_rl.errors import CalibrationError, ConfigError
from sim.board_pictures import BoardPictures
from tests.calibration.board_views import BOARD, CAMERA, held, pictures_of

MS = 1_000_000
RULES = CaptureRules(n_views=3, still_s=0.2)


@pytest.fixture(scope="module")
def camera() -> Iterator[BoardPictures]:
    pictures = pictures_of()
    yield pictures
    pictures.close()


@pytest.fixture
def session(tmp_path: Path) -> CaptureSession:
    return CaptureSession(BOARD, tmp_path / "captures", rules=RULES)


class Watch:
    """Shows a session pictures at 10 Hz."""

    def __init__(self, session: CaptureSession) -> None:
        self.session, self.now_ns = session, 0

    def show(self, picture: np.ndarray, times: int = 4) -> Verdict:
        for _ in range(times):
            self.now_ns += 100 * MS
            verdict = self.session.look(picture, self.now_ns)
        return verdict


def test_a_view_is_good_once_the_board_was_still_for_long_enough(camera, session):
    watch, picture = Watch(session), camera.render(held())
    assert watch.show(picture, 2).advice == ("hold still for 0.2 s",)
    verdict = watch.show(picture, 1)
    assert verdict.is_good
    assert verdict.sentence == "good view"
    assert verdict.share == 1.0
    assert verdict.moved_px == pytest.approx(0.0)


def test_a_board_that_moves_is_told_to_hold_still(camera, session):
    watch = Watch(session)
    for step in range(5):
        verdict = watch.show(camera.render(held(x=0.004 * step)), 1)
    assert verdict.moved_px == pytest.approx(2 * 0.004 / 0.4 * CAMERA.fx, rel=0.1)
    assert verdict.sentence.startswith("hold still: corners moved by 6.")


def test_a_slow_camera_does_not_hide_that_the_board_moved(camera, session):
    for second in range(1, 4):
        verdict = session.look(camera.render(held(x=0.02 * second)), second * 1000 * MS)
    assert verdict.sentence.startswith("hold still: corners moved by 15")
    assert session.look(camera.render(held(x=0.06)), 4000 * MS).is_good


def test_blurred_pictures_are_refused(camera, session):
    watch = Watch(session)
    assert watch.show(camera.render(held(z=0.27), blur_px=2.0)).sentence.startswith("not sharp: edges are ")
    assert watch.show(camera.render(held())).is_good


def test_the_edge_width_is_that_of_the_blur_in_its_worse_direction(camera):
    sharp = cv2.cvtColor(camera.render(held(z=0.3, roll=10), blur_px=0.5), cv2.COLOR_RGB2GRAY)
    kernel = np.full((1, 9), 1 / 9, np.float32)  # the camera moved by 9 px sideways
    moved = cv2.filter2D(sharp, -1, kernel)
    widths = [edge_width(image, BOARD.detect(sharp), BOARD.square_m) for image in (sharp, moved)]
    assert 2.0 < widths[0] < 3.0
    assert 7.0 < widths[1] < 11.0
    turned = edge_width(cv2.filter2D(sharp, -1, kernel.T), BOARD.detect(sharp), BOARD.square_m)
    assert 7.0 < turned < 11.0


def test_a_board_that_is_mostly_outside_must_be_shown(camera, session):
    verdict = Watch(session).show(camera.render(held(x=0.15, z=0.3)))
    assert 0 < verdict.share < 0.5
    assert verdict.sentence.startswith("show more of the board: ")
    assert verdict.sentence.endswith(" of 20 corners are seen")


def test_without_the_board_it_is_asked_for_and_now_and_then_told_what_is_seen_instead(camera, tmp_path):
    other = BoardSpec(kind="charuco", columns=5, rows=6, square_m=0.04, marker_m=0.03)
    watch = Watch(CaptureSession(other, tmp_path / "captures", rules=RULES))
    picture = camera.render(held(z=0.3))
    first, later = watch.show(picture, 1), watch.show(picture, 24)
    assert first.advice == ("show the board",)
    assert not first.found
    assert "it fits with columns=6, rows=5" in later.sentence


def test_the_same_view_is_not_taken_twice(camera, session):
    watch = Watch(session)
    watch.show(camera.render(held(lower=25)))
    session.take(watch.now_ns)
    assert watch.show(camera.render(held(lower=25))).sentence.startswith("much like view 0: move the board to the ")
    assert watch.show(camera.render(held(lower=-25, x=0.05))).is_good


def test_what_is_taken_lies_in_the_folder_without_loss_and_can_be_discarded(camera, session):
    watch, stamps = Watch(session), []
    pictures = [camera.render(held(x=x), noise=3.0, seed=i) for i, x in enumerate((-0.05, 0.05))]
    for picture in pictures:
        watch.show(picture)
        session.take(watch.now_ns)
        stamps.append(watch.now_ns)
    folder = session.folder.path
    for name, picture in zip(("view_000.png", "view_001.png"), pictures, strict=True):
        stored = cv2.imread(str(folder / "pictures" / name))
        np.testing.assert_array_equal(stored[..., ::-1], picture)
    table = (folder / "stamps.csv").read_text().splitlines()
    assert table == ["image,stamp_ns", f"view_000.png,{stamps[0]}", f"view_001.png,{stamps[1]}"]
    counts = session.status()["bins"]
    assert session.discard_last() == "view_001.png"
    assert not (folder / "pictures" / "view_001.png").exists()
    assert sum(session.status()["bins"].values()) < sum(counts.values())
    assert session.discard_last() == "view_000.png"
    assert not (folder / "stamps.csv").exists()
    assert set(session.status()["bins"].values()) == {0}
    with pytest.raises(CalibrationError, match="no view was taken yet"):
        session.discard_last()


def test_taking_needs_a_new_good_and_fresh_picture(camera, session):
    with pytest.raises(CalibrationError, match="no new picture since the last view"):
        session.take(0)
    watch, picture = Watch(session), camera.render(held())
    watch.show(picture, 1)
    with pytest.raises(CalibrationError, match=r"the newest picture is not taken: hold still for 0.2 s"):
        session.take(watch.now_ns)
    watch.show(picture)
    with pytest.raises(CalibrationError, match="does the camera send any"):
        session.take(watch.now_ns + 2000 * MS)
    session.take(watch.now_ns)
    with pytest.raises(CalibrationError, match="no new picture since the last view"):
        session.take(watch.now_ns)


@pytest.mark.parametrize(
    ("pose", "bins"),
    [
        (held(), {"tilt: facing", "region: middle"}),
        (held(right=30), {"tilt: right"}),
        (held(right=-30), {"tilt: left"}),
        (held(lower=30), {"tilt: lower"}),
        (held(lower=-30), {"tilt: upper"}),
        (held(z=0.28), {"distance: near"}),
        (held(z=0.6), {"distance: far"}),
        (held(x=-0.25, y=-0.2, z=0.7), {"region: upper left"}),
        (held(x=0.25, y=0.2, z=0.7), {"region: lower right"}),
    ],
)
def test_a_view_fills_the_bins_of_where_the_board_is(camera, pose, bins):
    view = BOARD.detect(camera.render(pose))
    filled = board_bins(view, BOARD, pose)
    assert bins <= filled <= set(INTRINSICS_BINS)
    tilts = [name for name in filled if name.startswith("tilt: ")]
    assert len(tilts) == 1
    outline = pose.apply(np.array([[0, 0.1, 0], [0.24, 0.1, 0], [0.12, 0, 0], [0.12, 0.2, 0]]))[:, 2]
    nearest = ("left", "right", "upper", "lower")[int(outline.argmin())]
    assert tilts[0] == f"tilt: {nearest if np.ptp(outline) > 0.01 else 'facing'}"


def test_an_automatic_session_takes_what_is_still_of_use(camera, tmp_path):
    session = CaptureSession(BOARD, tmp_path / "captures", rules=RULES, is_automatic=True)
    watch = Watch(session)
    for x in (-0.06, 0.0, 0.06):
        watch.show(camera.render(held(x=x)))
    assert session.n_views == 3
    assert not session.is_complete  # no tilted view
    watch.show(camera.render(held(y=0.04)))
    assert session.n_views == 3, "enough views, and this one fills no empty bin"
    watch.show(camera.render(held(right=30)))
    assert session.n_views == 4
    assert any("bring the left side" in text for text in session.suggestions())


def tool(angle_deg: float, axis: str = "x", x: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    return np.array([x, 0.0, 0.5]), Rotation.from_euler(axis, angle_deg, degrees=True).as_quat()


def test_hand_eye_views_need_an_arm_that_stands_still_and_has_moved(camera, tmp_path):
    session = CaptureSession(BOARD, tmp_path / "c", purpose="hand-eye", rules=RULES, intrinsics=CAMERA)
    watch, picture = Watch(session), camera.render(held())
    assert watch.show(picture).sentence.startswith("there is no tool pose at the time of the picture")
    for i in range(8):
        session.add_pose(watch.now_ns + 100 * MS, *tool(0, x=0.4 + 0.001 * i))
        moving = watch.show(picture, 1)
    assert moving.sentence.startswith("let the arm stand still: it moved by ")

    def stand(angle_deg: float) -> Verdict:
        for _ in range(5):
            session.add_pose(watch.now_ns + 100 * MS, *tool(angle_deg))
            session.add_joints(watch.now_ns + 100 * MS, np.array([0.1, angle_deg]))
            verdict = watch.show(picture, 1)
        return verdict

    assert stand(0).is_good
    session.take(watch.now_ns)
    assert stand(5).sentence.startswith("much like view 0: turn the tool by 15 deg or more about its x axis")
    assert stand(20).is_good
    session.take(watch.now_ns)
    assert session.status()["bins"]["turn: +x"] == 1
    table = read_poses(session.folder.path / "poses.csv")
    assert table.names == ["view_000.png", "view_001.png"]
    assert np.degrees(table.poses[1].angle) == pytest.approx(20.0)
    joints, _, names = read_numbers(session.folder.path / "joints.csv")
    assert (names, joints.tolist()) == (["view_000.png", "view_001.png"], [[0.1, 0.0], [0.1, 20.0]])


def test_turns_are_counted_both_ways_about_each_axis():
    first = Pose.from_rotation_vector([0.3, -1.0, 0.5], [0.4, 0.0, 0.5])
    for axis, vector in zip("xyz", np.eye(3), strict=True):
        for sign, name in ((1, f"turn: +{axis}"), (-1, f"turn: -{axis}")):
            turned = first @ Pose.from_rotation_vector(sign * np.radians(20) * vector, np.zeros(3))
            assert turn_bins(first, turned) == {name} <= set(HAND_EYE_BINS)
    assert turn_bins(first, first) == set()


def test_the_folder_of_a_session_is_calibrated_by_its_own_command(camera, tmp_path):
    truth = Pose.from_rotation_vector([0.1, -0.2, 1.5], [0.03, -0.05, 0.06])
    T_base_board = Pose.from_rotation_vector([np.pi, 0.0, 0.2], [0.5, 0.1, 0.0])
    rules = CaptureRules(n_views=10, still_s=0.1)
    session = CaptureSession(BOARD, tmp_path / "it's", purpose="hand-eye", rules=rules, is_automatic=True)
    watch = Watch(session)
    for i in range(12):
        angles = {"right": 25 * np.cos(2.1 * i), "lower": 25 * np.sin(2.1 * i), "roll": 40 * np.sin(1.3 * i)}
        seen = held(x=0.03 * np.cos(i), y=0.02 * np.sin(i), z=0.33 + 0.01 * i, **angles)
        arm = T_base_board @ seen.inverse() @ truth.inverse()
        picture = camera.render(seen)
        for _ in range(3):
            session.add_pose(watch.now_ns + 100 * MS, arm.translation, arm.quaternion)
            watch.show(picture, 1)
    assert session.n_views >= 10
    known = CalibrationFile(kind="intrinsics", values={"camera": CAMERA}, frames={}, date=today(), device_serial="7",
                            method="given", residuals={}, image_digest="")  # fmt: skip
    job = CalibrationJob(
        purpose="hand-eye", board=BOARD, captures=session.folder.path, out=tmp_path / "it's" / "result", frame="eye",
        serial="7", intrinsics=str(save_calibration(known, tmp_path / "camera.yaml")),
    )  # fmt: skip
    run(job.arguments()[1:], Console(quiet=True))
    summary = job.summary()
    found = Pose.from_quaternion(*reversed(list(summary["values"]["T_tool_camera"].values())))
    error = truth.inverse() @ found
    assert np.linalg.norm(error.translation) < 1e-3
    assert np.degrees(error.angle) < 0.1
    assert Path(summary["report"]).is_file()
    assert describe(summary).endswith(f"report: {summary['report']}")


def test_pictures_of_another_size_and_used_folders_are_refused(camera, session, tmp_path):
    picture = camera.render(held())
    Watch(session).show(picture)
    with pytest.raises(
        CalibrationError, match=r"pictures are 160 x 120, .* are 320 x 240; a calibration holds for one"
    ):
        session.look(picture[::2, ::2], 10**12)
    Watch(session).show(picture)
    session.take(400 * MS)
    with pytest.raises(CalibrationError, match="holds pictures already; give a folder of its own to each session"):
        CaptureSession(BOARD, session.folder.path)
    with pytest.raises(ConfigError, match="`purpose` of a capture session must be one of"):
        CaptureSession(BOARD, tmp_path / "other", purpose="latency")  # type: ignore[arg-type]


def test_suggestions_end_when_every_bin_is_filled():
    coverage = Coverage(INTRINSICS_BINS, per_bin=2)
    coverage.add(INTRINSICS_BINS)
    coverage.add([name for name in INTRINSICS_BINS if name != "tilt: left"])
    assert coverage.missing == ["tilt: left"]
    assert coverage.suggestions() == ["tilt more: bring the left side of the board 15 to 45 deg nearer"]
    coverage.add(["tilt: left"])
    assert coverage.suggestions() == []
    coverage.remove(["tilt: left", "distance: far"])
    assert coverage.missing == ["tilt: left", "distance: far"]


@pytest.mark.parametrize("given", [{"n_views": 0}, {"still_s": 0.0}, {"min_share": 1.5}, {"max_edge_px": np.nan}])
def test_rules_without_sense_are_refused(given):
    with pytest.raises(ConfigError, match=f"`{next(iter(given))}` of the capture rules"):
        CaptureRules(**given)
