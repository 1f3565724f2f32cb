"""The graph `calibrate`: a camera, and the node that judges its pictures of a board and keeps the good ones.

The arm of a hand-eye calibration is moved by another graph under the same namespace, or by the arm's own panel.
"""

from __future__ import annotations

from pathlib import Path

from robot_rl.errors import ConfigError
from robot_rl_ros.graphs import Argument, Graph, Process, Value, Values

_ARGUMENTS = (
    Argument(name="folder", default=str, help="new folder for pictures, poses and results"),
    Argument(name="namespace", default="arm", help="namespace of all nodes: one per robot"),
    Argument(name="camera", default="wrist", help="name of the camera"),
    Argument(
        name="camera_config", default="",
        help="parameter file of the camera, such as camera_realsense.yaml; empty: its driver runs already",
    ),
    Argument(
        name="camera_source", default="",
        help="with camera_recorded.yaml: the array, video or store that is played",
    ),
    Argument(name="calibration_config", default="calibration.yaml", help="parameter file: the board and the rules"),
    Argument(name="purpose", default="intrinsics", choices=("intrinsics", "hand-eye"), help="what is calibrated"),
    Argument(name="square_m", default=0.0, low=0.0, high=1.0, help="measured side of a square [m]; 0: as in the file"),
    Argument(name="views", default=20, low=3, high=1000, help="how many views to take"),
    Argument(name="auto", default=False, help="take a view as soon as it is good; else calibration/take does"),
    Argument(name="serial", default="", help="serial number of the camera, kept in the calibration"),
    Argument(name="intrinsics", default="", help="hand-eye: calibration file of the camera"),
    Argument(
        name="mount", default="eye_in_hand", choices=("eye_in_hand", "eye_to_hand"),
        help="hand-eye: whether the camera is on the arm or in the room",
    ),
)  # fmt: skip


def _build(values: Values) -> tuple[Process, ...]:
    namespace, camera = f"/{str(values['namespace']).strip('/')}", str(values["camera"])
    if not camera.isidentifier():
        raise ConfigError(f"argument `camera` must be a name, got {camera!r}")
    intrinsics = str(values["intrinsics"])
    parameters: dict[str, Value] = {
        "camera": camera,
        "folder": str(Path(str(values["folder"])).absolute()),
        "purpose": values["purpose"],
        "rules.n_views": values["views"],
        "auto": values["auto"],
        "serial": values["serial"],
        "intrinsics": str(Path(intrinsics).absolute()) if intrinsics else "",
        "mount": values["mount"],
    }
    if values["square_m"]:
        parameters["board.square_m"] = values["square_m"]
    nodes = [Process(name="calibration", module="robot_rl_ros.calibration_node", namespace=namespace, required=True,
                     config=str(values["calibration_config"]), parameters=parameters)]  # fmt: skip
    if values["camera_config"]:
        nodes.append(_camera(values, namespace, camera))
    return tuple(nodes)


def _camera(values: Values, namespace: str, camera: str) -> Process:
    parameters: dict[str, Value] = {"camera": camera}
    if values["camera_source"]:
        parameters["source"] = str(Path(str(values["camera_source"])).absolute())
    return Process(name=f"camera_{camera}", module="robot_rl_ros.camera_node", namespace=namespace, respawn=True,
                   config=str(values["camera_config"]), parameters=parameters)  # fmt: skip


CALIBRATE = Graph(
    name="calibrate",
    help="views of a board for intrinsics or hand-eye, judged live; calibration/finish calibrates",
    arguments=_ARGUMENTS,
    build=_build,
)
