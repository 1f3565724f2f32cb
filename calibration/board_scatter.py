"""How far a calibration puts the one board that did not move: the residual that a person can picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from calibration.motion import mean_pose, rotation_vectors


@dataclass(frozen=True, kw_only=True)
class BoardScatter:
    """Board poses over views, about their mean or about where other views put the board.

    Args:
        position_std_m: Root mean square deviation along x, y and z of the frame the board stands in [m].
        angle_mean_rad: Mean angle to the reference rotation [rad].
        angle_rms_rad: Root mean square of the angles [rad].
        position_max_m: Largest distance [m].
        angle_max_rad: Largest angle [rad].
        n_views: Views it is over.
    """

    position_std_m: tuple[float, float, float]
    angle_mean_rad: float
    angle_rms_rad: float
    position_max_m: float
    angle_max_rad: float
    n_views: int

    def describe(self) -> str:
        """Return it in millimetres and degrees."""
        x, y, z = (1e3 * value for value in self.position_std_m)
        return (
            f"{x:.2f}/{y:.2f}/{z:.2f} mm (x/y/z, 1 sigma), {np.degrees(self.angle_mean_rad):.2f} deg mean, largest "
            f"{1e3 * self.position_max_m:.2f} mm and {np.degrees(self.angle_max_rad):.2f} deg, over {self.n_views} "
            f"views"
        )

    def residuals(self, prefix: str) -> dict[str, float]:
        """Return it as residuals of a calibration file, units in the names."""
        x, y, z = (1e3 * value for value in self.position_std_m)
        return {
            f"{prefix}_x_std_mm": x, f"{prefix}_y_std_mm": y, f"{prefix}_z_std_mm": z,
            f"{prefix}_angle_mean_deg": float(np.degrees(self.angle_mean_rad)),
            f"{prefix}_position_max_mm": 1e3 * self.position_max_m,
            f"{prefix}_angle_max_deg": float(np.degrees(self.angle_max_rad)),
        }  # fmt: skip

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)


def board_scatter(A: np.ndarray, B: np.ndarray, X: np.ndarray) -> BoardScatter:
    """Return the scatter of `A_i X B_i` [N, 4, 4] about its own mean."""
    boards = A @ X @ B
    return scatter_of(boards, np.broadcast_to(mean_pose(boards), boards.shape))


def scatter_of(boards: np.ndarray, expected: np.ndarray) -> BoardScatter:
    """Return the scatter of board poses [N, 4, 4] about where each was expected [N, 4, 4]."""
    shift = boards[:, :3, 3] - expected[:, :3, 3]
    angle = np.linalg.norm(rotation_vectors(np.swapaxes(expected[:, :3, :3], 1, 2) @ boards[:, :3, :3]), axis=1)
    x, y, z = np.sqrt((shift**2).mean(axis=0)).tolist()
    return BoardScatter(
        position_std_m=(x, y, z),
        angle_mean_rad=float(angle.mean()),
        angle_rms_rad=float(np.sqrt((angle**2).mean())),
        position_max_m=float(np.linalg.norm(shift, axis=1).max()),
        angle_max_rad=float(angle.max()),
        n_views=len(boards),
    )
