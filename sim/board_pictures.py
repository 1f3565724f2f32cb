"""Pictures of a printed board by a camera with a real lens, rendered by MuJoCo, with the true pose known."""

from __future__ import annotations

from typing import cast

import cv2
import mujoco
import numpy as np

from robot_rl.calibration_types import CameraIntrinsics, Pose
from robot_rl.errors import SimulationError
from sim.rendering import Renderer

_WIDEST_TAN = 2.5  # about 68 degrees from the axis: beyond it a flat rendering has too few pixels in the middle
_TURN = np.diag([1.0, -1.0, -1.0])  # from MuJoCo's camera (looks along -z, y up) to the optical frame


class BoardPictures:
    """Renders a board that lies in the world as its own frame says (origin, x right, y down, z into the board).

    MuJoCo renders a straight lens; the picture is then bent by the camera's model, on a finer grid than the result, and
    averaged down, so that edges are smooth and corners lie where the model says.

    Args:
        print_: The print as it would lie before you, uint8 [H, W], with its margin.
        size_m: Width and height of the print with its margin.
        origin_m: Where in the print the board's origin is, from its top left corner: the margin.
        intrinsics: The camera.
        oversampling: Rays per pixel along each axis.

    Raises:
        SimulationError: The camera sees wider than can be rendered, or no OpenGL back end works.
    """

    def __init__(
        self,
        print_: np.ndarray,
        size_m: tuple[float, float],
        origin_m: tuple[float, float],
        intrinsics: CameraIntrinsics,
        *,
        oversampling: int = 3,
    ) -> None:
        self._factor = oversampling
        rays = _rays(intrinsics, oversampling)
        reach = np.abs(rays).max(axis=(0, 1)) * 1.02
        if not np.isfinite(reach).all() or reach.max() > _WIDEST_TAN:
            raise SimulationError(
                f"the camera sees {np.degrees(np.arctan(reach.max())):.0f} degrees from its axis, "
                f"at most {np.degrees(np.arctan(_WIDEST_TAN)):.0f} can be rendered; take a longer focal length"
            )
        focal = max(intrinsics.fx, intrinsics.fy) * oversampling
        width, height = (2 * int(np.ceil(focal * r)) for r in reach)
        self._map = (rays * focal + (0.5 * (width - 1), 0.5 * (height - 1))).astype(np.float32)
        self._model = _scene(print_, size_m, origin_m, fovy=2 * np.degrees(np.arctan(0.5 * height / focal)),
                             size=(width, height))  # fmt: skip
        self._data = mujoco.MjData(self._model)
        self._renderer = Renderer(self._model, height, width)

    def render(self, T_camera_board: Pose, *, blur_px: float = 0.5, noise: float = 0.0, seed: int = 0) -> np.ndarray:
        """Return the picture, uint8 [H, W, 3].

        Args:
            T_camera_board: Where the board is.
            blur_px: Standard deviation of the lens's blur; 0 for none.
            noise: Standard deviation of the sensor's noise in grey levels (0 to 255).
            seed: Of the noise.
        """
        eye = T_camera_board.inverse()
        self._model.cam_pos[0] = eye.translation
        mujoco.mju_mat2Quat(self._model.cam_quat[0], (eye.rotation @ _TURN).reshape(-1))
        mujoco.mj_forward(self._model, self._data)
        straight = self._renderer.render(self._data, "camera")
        bent = cv2.remap(straight, self._map, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture = cv2.resize(bent, None, fx=1 / self._factor, fy=1 / self._factor, interpolation=cv2.INTER_AREA)
        if blur_px > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), blur_px)
        if noise > 0:
            drawn = np.random.default_rng(seed).normal(0.0, noise, picture.shape)
            picture = np.clip(np.rint(picture + drawn), 0, 255).astype(np.uint8)
        return cast(np.ndarray, picture)

    def close(self) -> None:
        """Free the renderer. Calling it twice is allowed."""
        self._renderer.close()


def _rays(camera: CameraIntrinsics, factor: int) -> np.ndarray:
    """Return the directions x/z, y/z [H * factor, W * factor, 2] of the points of a grid finer than the pixels."""
    u = (np.arange(camera.width * factor) + 0.5) / factor - 0.5
    v = (np.arange(camera.height * factor) + 0.5) / factor - 0.5
    pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 1, 2)
    distortion = np.asarray(camera.distortion)
    if camera.model == "fisheye":
        xy = cv2.fisheye.undistortPoints(pixels, camera.matrix, distortion)
    else:
        stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 40, 1e-9)
        xy = cv2.undistortPointsIter(pixels, camera.matrix, distortion, None, None, stop)
    return np.asarray(xy, np.float64).reshape(len(v), len(u), 2)


def _scene(
    print_: np.ndarray, size_m: tuple[float, float], origin_m: tuple[float, float], *, fovy: float,
    size: tuple[int, int],
) -> mujoco.MjModel:  # fmt: skip
    """Return the world: an evenly lit print on a grey background, and a camera."""
    spec = mujoco.MjSpec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = size
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = (0.9, 0.9, 0.9), (0.0, 0.0, 0.0)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    spec.stat.extent, spec.visual.map.znear, spec.visual.map.zfar = 1.0, 0.01, 50.0
    pixels = np.repeat(print_[:, :, None], 3, axis=2)
    texture = spec.add_texture(name="print", type=mujoco.mjtTexture.mjTEXTURE_2D, nchannel=3)
    texture.width, texture.height, texture.data = print_.shape[1], print_.shape[0], pixels.tobytes()
    paper = spec.add_material(name="paper", texuniform=False, texrepeat=(1, 1), specular=0.0, shininess=0.0)
    paper.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "print"
    middle = (0.5 * size_m[0] - origin_m[0], 0.5 * size_m[1] - origin_m[1], 0.0)
    # A plane shows its front towards its +z; the board's z points away from its front, hence the half turn about x.
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, pos=middle, quat=(0, 1, 0, 0), material="paper",
                            size=(0.5 * size_m[0], 0.5 * size_m[1], 0.01))  # fmt: skip
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, pos=(0, 0, 3.0), quat=(0, 1, 0, 0), size=(20, 20, 0.01),
                            rgba=(0.45, 0.45, 0.45, 1.0))  # fmt: skip
    spec.worldbody.add_camera(name="camera", fovy=fovy)
    return spec.compile()
