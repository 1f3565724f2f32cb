import numpy as np
import pytest

from calibration.workspace import calibrate_workspace, fit_plane
from robot_rl.errors import CalibrationError

NORMAL = np.array([0.02, -0.03, 1.0]) / np.linalg.norm([0.02, -0.03, 1.0])
OFFSET = -0.012


def table(n: int, *, noise_m: float = 0.0, seed: int = 0) -> np.ndarray:
    """Points [n, 3] on a plane that leans a little."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform([0.2, -0.3], [0.7, 0.3], (n, 2))
    z = (OFFSET - xy @ NORMAL[:2]) / NORMAL[2]
    return np.column_stack([xy, z]) + noise_m * rng.standard_normal((n, 1)) * NORMAL


def test_the_plane_of_exact_points_is_exact() -> None:
    found = fit_plane(table(3))
    np.testing.assert_allclose(found.normal, NORMAL, atol=1e-9)
    assert found.offset_m == pytest.approx(OFFSET)
    assert found.rms_m < 1e-12
    assert found.held_out_rms_m == np.inf
    assert found.tilt_rad == pytest.approx(np.arccos(NORMAL[2]))


def test_the_residual_of_held_out_points_is_the_noise_and_a_little() -> None:
    found = fit_plane(table(12, noise_m=0.001))
    assert 0.0005 < found.rms_m < found.held_out_rms_m < 0.002


def test_a_point_that_touched_something_else_is_left_out() -> None:
    points = table(10, noise_m=0.0005)
    points[4, 2] += 0.03
    found = fit_plane(points)
    assert np.flatnonzero(~found.kept).tolist() == [4]
    np.testing.assert_allclose(found.height(points)[4], 0.03, atol=2e-3)
    np.testing.assert_allclose(found.normal, NORMAL, atol=5e-3)


def test_the_box_stands_on_the_highest_point_of_a_leaning_table() -> None:
    found = calibrate_workspace(table(8), [[0.2, -0.3, 0.0], [0.7, 0.3, 0.4]], clearance_m=0.01, margin_m=0.02)
    np.testing.assert_allclose(found.low[:2], [0.22, -0.28])
    np.testing.assert_allclose(found.high, [0.68, 0.28, 0.4])
    floor = [[x, y, found.low[2]] for x in (0.22, 0.68) for y in (-0.28, 0.28)]
    heights = found.table.height(np.array(floor))
    assert heights.min() == pytest.approx(0.01 * NORMAL[2])
    file = found.to_file(date="2030-01-01T00:00:00+00:00", device_serial="arm-1")
    assert file.values["low_m"] == found.low.tolist()
    assert file.residuals["n_points"] == 8


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (table(2), "at least 3 are needed, got 2"),
        (1000 * table(5), "if these are millimetres, divide them by 1000"),
        ([[0.1 * i, 0.05 * i, 0.0] for i in range(6)], "touch the table in places far apart, not in a row"),
        ([[0.0, 0.0, np.nan]] * 3, "must be finite"),
    ],
)
def test_points_that_give_no_plane_are_refused(points: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit_plane(points)


def test_an_empty_box_and_a_wall_for_a_table_are_refused() -> None:
    with pytest.raises(CalibrationError, match="the workspace box is empty"):
        calibrate_workspace(table(5), [[0.2, -0.3, -0.2], [0.7, 0.3, -0.1]])
    wall = table(5)[:, [2, 1, 0]]
    with pytest.raises(CalibrationError, match=r"leans \d+ deg against the base's z axis"):
        calibrate_workspace(wall, [[0.2, -0.3, 0.0], [0.7, 0.3, 0.4]])
