import numpy as np
import pytest

from calibration.arm_noise import ArmNoise, estimate_arm_noise
from calibration.bundle_adjust import ArmModel, BundleOptions, adjust
from calibration.evidence import CornerEvidence, PoseEvidence, view_rms
from calibration.hand_eye_starts import Start
from calibration.motion import invert, small_transform, stack
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError
from tests.calibration.hand_eye_rig import (
    CAMERA,
    T_BASE_BOARD,
    T_MOUNT_CAMERA,
    arm_of,
    corners_of,
    errors,
    rig,
    views_of,
)

OFF = small_transform(np.array([0.03, -0.02, 0.04, 0.01, -0.02, 0.015]))[0]
START = Start(T_MOUNT_CAMERA.matrix @ OFF, T_BASE_BOARD.matrix @ OFF)
TRUTH = Start(T_MOUNT_CAMERA.matrix, T_BASE_BOARD.matrix)
EXACT = rig().shots(8, seed=0, noise_px=0.0)
ARM = ArmModel.exact(stack(arm_of(EXACT)))


@pytest.mark.parametrize("poses_alone", [True, False])
def test_exact_views_are_solved_exactly_from_centimetres_off(poses_alone: bool) -> None:
    evidence = PoseEvidence(stack([s.T_camera_board for s in EXACT])) if poses_alone else corners_of(EXACT)
    found = adjust(evidence, ARM, START)
    np.testing.assert_allclose(found.X, T_MOUNT_CAMERA.matrix, atol=1e-6)
    np.testing.assert_allclose(found.Z, T_BASE_BOARD.matrix, atol=1e-6)
    assert found.view_rms.max() < 1e-3


def test_a_residual_is_the_pixel_error_in_standard_deviations() -> None:
    moved = [v.__class__(**{**vars(v), "corners": v.corners + np.array([1.0, 0.0])}) for v in views_of(EXACT)]
    evidence = CornerEvidence(moved, CAMERA, sigma_px=0.5)
    found = evidence.residuals(stack([s.T_camera_board for s in EXACT]), None)
    np.testing.assert_allclose(found.reshape(-1, 2), np.broadcast_to((-2.0, 0.0), (len(found) // 2, 2)), atol=1e-9)
    np.testing.assert_allclose(view_rms(evidence, found), np.sqrt(2.0), atol=1e-9)


def test_the_stated_uncertainty_is_the_spread_over_repetitions() -> None:
    found = []
    for seed in range(25):
        shots = rig().shots(10, seed=seed)
        fit = adjust(
            corners_of(shots), ArmModel.exact(stack(arm_of(shots))), Start(T_MOUNT_CAMERA.matrix, T_BASE_BOARD.matrix)
        )
        millimetres, degrees = errors(Pose.from_matrix(fit.X), T_MOUNT_CAMERA)
        found.append((millimetres / (1e3 * fit.sigma_position_m), degrees / np.degrees(fit.sigma_rotation_rad)))
    ratio = np.sqrt(np.mean(np.square(found), axis=0))
    np.testing.assert_allclose(ratio, 1.0, atol=0.35)


def test_corrected_arm_poses_are_the_true_ones() -> None:
    shots = rig().shots(12, seed=1, noise_px=0.05)
    true, rng = stack(arm_of(shots)), np.random.default_rng(0)
    error = np.concatenate([0.002 * rng.standard_normal((12, 3)), 0.002 * rng.standard_normal((12, 3))], axis=1)
    given = true @ small_transform(error)
    options = BundleOptions(arm_position_sigma_m=0.002, arm_rotation_sigma_rad=0.002)
    found = adjust(corners_of(shots), ArmModel.exact(given), TRUTH, options)
    # Camera and board may move together with all arm poses; what each view shows may not.
    seen = invert(found.A @ found.X) @ found.Z
    np.testing.assert_allclose(seen[:, :3, 3], stack([s.T_camera_board for s in shots])[:, :3, 3], atol=1e-3)
    before = np.linalg.norm((invert(true) @ given)[:, :3, 3], axis=1).mean()
    after = np.linalg.norm((invert(true) @ found.A)[:, :3, 3], axis=1).mean()
    assert after < 0.7 * before


def test_the_arms_noise_is_told_from_that_of_the_corners() -> None:
    sizes = []
    for seed in range(4):
        shots = rig().shots(20, seed=seed)
        rng = np.random.default_rng(seed)
        error = rng.standard_normal((20, 6)) * np.array([1e-3] * 3 + [1e-3] * 3)
        given = stack(arm_of(shots)) @ small_transform(error)
        noise = ArmNoise(1e-4, 1e-4)
        for _ in range(3):  # camera and board are only as good as the weights of the arm's poses
            options = BundleOptions(arm_position_sigma_m=noise.position_m, arm_rotation_sigma_rad=noise.rotation_rad)
            bundle = adjust(corners_of(shots), ArmModel.exact(given), TRUTH, options)
            noise = estimate_arm_noise(given, corners_of(shots), bundle)
        sizes.append((noise.position_m, noise.rotation_rad))
    np.testing.assert_allclose(np.mean(sizes, axis=0), 1e-3, rtol=0.4)


def test_an_exact_arm_is_found_exact() -> None:
    shots = rig().shots(20, seed=3)
    bundle = adjust(
        corners_of(shots), ArmModel.exact(stack(arm_of(shots))), Start(T_MOUNT_CAMERA.matrix, T_BASE_BOARD.matrix)
    )
    assert estimate_arm_noise(stack(arm_of(shots)), corners_of(shots), bundle) == ArmNoise()


def test_a_parameter_that_changes_nothing_stays_at_its_prior() -> None:
    arm = ArmModel(
        poses=lambda p: ARM.poses(p), start=np.zeros(1), sigma=np.array([0.1]), scale=np.array([0.01])
    )  # fmt: skip
    found = adjust(corners_of(EXACT), arm, START)
    assert abs(found.arm[0]) < 1e-9
    assert found.observed[0] < 1e-6


def test_a_parameter_that_the_views_show_is_found() -> None:
    axis = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])

    def poses(p: np.ndarray) -> np.ndarray:  # the arm is too long by p along its x in half of the views
        A = ARM.poses(p).copy()
        A[::2] = A[::2] @ small_transform(-p[0] * axis)
        return A

    given = ArmModel(poses=lambda p: poses(p - 0.004), start=np.zeros(1), sigma=np.array([0.1]), scale=np.array([0.01]))
    found = adjust(corners_of(EXACT), given, START)
    assert found.arm[0] == pytest.approx(0.004, abs=1e-5)
    assert found.observed[0] > 0.99


def test_one_sigma_alone_is_refused() -> None:
    with pytest.raises(CalibrationError, match="go together"):
        BundleOptions(arm_position_sigma_m=0.001)
