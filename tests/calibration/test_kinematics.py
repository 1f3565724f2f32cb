import numpy as np
import pytest

from calibration.hand_eye import HandEyeOptions
from calibration.kinematics import DhChain, JointZeros, calibrate_kinematics
from robot_rl.calibration_types import Pose
from robot_rl.errors import CalibrationError
from sim.robots import ARM7
from tests.calibration.hand_eye_rig import T_MOUNT_CAMERA, arm_shots, corners_of, errors

TRUE_DEG = np.array([0.0, 0.6, -0.4, 0.8, -0.5, 0.3, 0.0])
# The same arm by modified Denavit-Hartenberg is not distal; a plain six-joint one serves here.
ELBOW = {
    "a": [0.0, -0.6, -0.57, 0.0, 0.0, 0.0],
    "alpha": [np.pi / 2, 0.0, 0.0, np.pi / 2, -np.pi / 2, 0.0],
    "d": [0.13, 0.0, 0.0, 0.16, 0.12, 0.1],
    "theta": [0.0] * 6,
}


def test_joint_zeros_of_the_simulated_arm_are_found() -> None:
    arm = ARM7.kinematics()
    q, shots = arm_shots(arm, 20, seed=0)
    model, options = JointZeros(arm.forward, 7), HandEyeOptions(folds=2, arm_noise="exact")
    found = calibrate_kinematics(model, q - np.radians(TRUE_DEG), corners_of(shots), options)
    inner = [f"joint_{i}_zero_rad" for i in range(2, 7)]
    assert list(found.observed) == inner
    np.testing.assert_allclose(np.degrees([found.correction[name] for name in inner]), TRUE_DEG[1:6], atol=0.03)
    assert abs(found.correction["joint_1_zero_rad"]) < np.radians(0.1)
    assert errors(found.after.camera, T_MOUNT_CAMERA)[0] < 0.5
    assert errors(found.before.camera, T_MOUNT_CAMERA)[0] > 2.0
    assert max(found.after.held_out.position_std_m[:2]) < 0.5 * max(found.before.held_out.position_std_m[:2])
    file = found.to_file(date="2030-01-01T00:00:00+00:00")
    assert file.values["joint_4_zero_rad"] == found.correction["joint_4_zero_rad"]
    assert file.residuals["heldout_board_x_std_mm"] < file.residuals["uncorrected_heldout_board_x_std_mm"]


def test_a_chain_by_denavit_and_hartenberg_reaches_the_textbook_place() -> None:
    chain = DhChain(**ELBOW)
    T = chain.forward(np.zeros((1, 6)), np.zeros(30))[0]
    np.testing.assert_allclose(T[:3, 3], [-1.17, -0.16 - 0.1, 0.13 - 0.12], atol=1e-12)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)


def test_each_correction_of_a_chain_does_what_it_says() -> None:
    chain, q = DhChain(**ELBOW), np.array([[0.1, -0.7, 0.9, 0.3, -0.5, 0.2]])
    none = np.zeros(30)
    longer = none.copy()
    longer[chain.names.index("joint_6_d_m")] = 0.01
    before, after = chain.forward(q, none)[0], chain.forward(q, longer)[0]
    np.testing.assert_allclose(after[:3, 3] - before[:3, 3], 0.01 * before[:3, 2], atol=1e-12)
    zero = none.copy()
    zero[chain.names.index("joint_3_theta_rad")] = 0.02
    np.testing.assert_allclose(chain.forward(q, zero), chain.forward(q + 0.02 * np.eye(6)[2], none), atol=1e-12)


def test_angles_in_degrees_of_another_arm_or_too_few_are_refused() -> None:
    arm = ARM7.kinematics()
    q, shots = arm_shots(arm, 6, seed=1)
    model, evidence = JointZeros(arm.forward, 7), corners_of(shots)
    with pytest.raises(CalibrationError, match="if these are degrees, convert them"):
        calibrate_kinematics(model, np.degrees(q), evidence)
    with pytest.raises(CalibrationError, match=r"must be finite \[N, 7\] rad, got shape \(6, 6\)"):
        calibrate_kinematics(model, q[:, :6], evidence)
    with pytest.raises(CalibrationError, match="6 views are too few for 19 unknowns; capture at least 7"):
        calibrate_kinematics(model, q, evidence)
    with pytest.raises(CalibrationError, match="one value per joint each"):
        DhChain(a=[0.0], alpha=[0.0, 0.0], d=[0.0], theta=[0.0])


def test_zeros_are_added_to_the_angles() -> None:
    def forward(q: np.ndarray) -> np.ndarray:
        return Pose.from_rotation_vector([0.0, 0.0, q.sum()], [1.0, 0.0, 0.0]).matrix

    model = JointZeros(forward, 2)
    found = model.forward(np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([0.01, 0.02]))
    np.testing.assert_allclose(found[1], forward(np.array([0.31, 0.42])))
