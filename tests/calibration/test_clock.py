import numpy as np
import pytest

from calibration.clock_offset import ArmTrajectory, calibrate_moving, coarse_offset
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError
from tests.calibration.hand_eye_rig import T_MOUNT_CAMERA, errors, moving


@pytest.mark.parametrize(("offset_s", "seed"), [(0.03, 0), (0.03, 1), (-0.08, 2)])
def test_the_clock_offset_is_found_within_two_milliseconds(offset_s: float, seed: int) -> None:
    trajectory, stamps, evidence = moving(offset_s=offset_s, seed=seed)
    found, clock = calibrate_moving(trajectory, stamps, evidence)
    assert clock.offset_s == pytest.approx(offset_s, abs=2e-3)
    assert abs(clock.offset_s - offset_s) < 5 * clock.sigma_s < 5e-3
    millimetres, degrees = errors(found.camera, T_MOUNT_CAMERA)
    assert millimetres < 0.5
    assert degrees < 0.05


def test_the_coarse_search_is_right_to_its_step_without_any_calibration() -> None:
    trajectory, stamps, evidence = moving(offset_s=0.12, seed=3)
    found = coarse_offset(trajectory, stamps, evidence.T_camera_board, max_offset_s=0.25)
    assert found == pytest.approx(0.12, abs=8e-3)


def test_wrong_pictures_do_not_move_the_offset() -> None:
    trajectory, stamps, evidence = moving(offset_s=0.03, seed=1)
    stamps = stamps.copy()
    stamps[[4, 9, 15]] += 400_000_000  # three stamps of other pictures
    found, clock = calibrate_moving(trajectory, stamps, evidence)
    assert clock.offset_s == pytest.approx(0.03, abs=2e-3)
    assert list(found.rejected) == [4, 9, 15]


def test_poses_between_samples_lie_on_the_way() -> None:
    one, other = Pose.identity(), Pose.from_rotation_vector([0.0, 0.0, 1.0], [2.0, 0.0, 4.0])
    way = ArmTrajectory(np.array([1000, 3000]), [one, other])
    T = way.at(np.array([0, 1500, 2000, 9000]))
    np.testing.assert_allclose(T[0], one.matrix)
    np.testing.assert_allclose(T[1], Pose.from_rotation_vector([0.0, 0.0, 0.25], [0.5, 0.0, 1.0]).matrix, atol=1e-12)
    np.testing.assert_allclose(T[3], other.matrix, atol=1e-12)
    np.testing.assert_allclose(way.at(np.array([1500]), 5e-7), T[2:3], atol=1e-12)


def test_an_arm_that_stands_still_at_every_picture_does_not_show_the_offset() -> None:
    trajectory, stamps, evidence = moving(offset_s=0.0, seed=0)
    steps = np.arange(0, 14_000_000_000, 4_000_000)
    at_picture = np.abs(steps[:, None] - stamps).argmin(axis=1)
    poses = [Pose.from_matrix(T) for T in trajectory.at(stamps)]
    still = ArmTrajectory(steps, [poses[i] for i in at_picture])
    with pytest.raises(CalibrationError, match="the arm hardly moved while"):
        calibrate_moving(still, stamps, evidence, max_offset_s=0.05)


def test_pictures_outside_the_recording_and_stamps_out_of_order_are_refused() -> None:
    trajectory, stamps, evidence = moving(offset_s=0.0, seed=0)
    with pytest.raises(CalibrationError, match="20 of 20 pictures are not covered"):
        calibrate_moving(trajectory, stamps + 60_000_000_000, evidence)
    with pytest.raises(CalibrationError, match="must increase, they do not after row 1"):
        ArmTrajectory(np.array([0, 2, 1]), [Pose.identity()] * 3)
