"""Messages to arrays and back. Arrays are in the units of the messages (rad, m, mm of depth) and never normalised."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Pose, PoseStamped
from rclpy.publisher import Publisher
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robot_rl.errors import ConfigError, SpecError
from robot_rl_ros.stamps import to_msg, to_ns

_ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("uint8", 3),
    "bgr8": ("uint8", 3),
    "mono8": ("uint8", 1),
    "16UC1": ("uint16", 1),
    "32FC1": ("float32", 1),
}


def image_to_array(msg: Image) -> np.ndarray:
    """Return the picture of a message without copying it: [H, W, 3] for colour (always RGB), [H, W] else.

    The array reads the message's own memory; copy it before the message is reused.

    Raises:
        SpecError: An encoding that is not known, or fewer bytes than the size promises.
    """
    if msg.encoding not in _ENCODINGS:
        raise SpecError(f"image encoding must be one of {sorted(_ENCODINGS)}, got {msg.encoding!r}")
    dtype, channels = _ENCODINGS[msg.encoding]
    row = msg.width * channels * np.dtype(dtype).itemsize
    if msg.step < row or len(msg.data) < msg.step * msg.height:
        raise SpecError(
            f"an image of {msg.height} x {msg.width} {msg.encoding} needs {msg.height} rows of {row} bytes, "
            f"got {len(msg.data)} bytes in rows of {msg.step}"
        )
    rows = np.frombuffer(msg.data, np.uint8)[: msg.step * msg.height].reshape(msg.height, msg.step)[:, :row]
    if row != msg.step:
        rows = np.ascontiguousarray(rows)
    pixels = rows.reshape(-1).view(np.dtype(dtype).newbyteorder(">" if msg.is_bigendian else "<"))
    if channels == 1:
        return pixels.reshape(msg.height, msg.width)
    picture = pixels.reshape(msg.height, msg.width, channels)
    return picture[..., ::-1] if msg.encoding == "bgr8" else picture


class ImagePublisher:
    """Publishes pictures of one size through one message that is filled again and again (30 times cheaper).

    Args:
        publisher: Publisher of sensor_msgs/Image.
        shape: (H, W, 3) or (H, W).
        encoding: Of the pixels, such as `rgb8` or `16UC1`.
        frame_id: Frame of the camera.

    Raises:
        ConfigError: The shape does not fit the encoding.
    """

    def __init__(self, publisher: Publisher, shape: Sequence[int], *, encoding: str, frame_id: str) -> None:
        dtype, channels = _ENCODINGS.get(encoding, ("", 0))
        if (shape[2] if len(shape) == 3 else 1) != channels:
            raise ConfigError(f"pictures of shape {tuple(shape)} cannot be encoded as {encoding!r}")
        self._publisher = publisher
        self._msg = Image(height=int(shape[0]), width=int(shape[1]), encoding=encoding, is_bigendian=0)
        self._msg.step = int(shape[1]) * channels * np.dtype(dtype).itemsize
        self._msg.header.frame_id = frame_id
        self._msg.data = array.array("B", bytes(self._msg.step * self._msg.height))
        self._view = np.frombuffer(self._msg.data, dtype).reshape(tuple(shape))

    def publish(self, picture: np.ndarray, stamp_ns: int) -> None:
        """Publish a picture with its stamp of capture.

        Raises:
            SpecError: Another shape or dtype than announced.
        """
        if picture.shape != self._view.shape or picture.dtype != self._view.dtype:
            raise SpecError(f"picture must be {self._view.dtype}{self._view.shape}, got {picture.dtype}{picture.shape}")
        np.copyto(self._view, picture)
        self._msg.header.stamp = to_msg(stamp_ns)
        self._publisher.publish(self._msg)


def command_to_msg(
    stamp_ns: int,
    names: Sequence[str],
    values: np.ndarray,
    msg: JointTrajectory | None = None,
    *,
    source: str = "",
) -> JointTrajectory:
    """Return a command as a trajectory of one point.

    Args:
        stamp_ns: When it was decided.
        names: Joints, then `gripper` if there is one.
        values: Angles [rad], then width [m].
        msg: Message to fill again.
        source: Who commands (`policy`, `human`); carried in `header.frame_id`, where the safety node reads it.
    """
    if msg is None:
        msg = JointTrajectory(points=[JointTrajectoryPoint()])
    msg.header.stamp = to_msg(stamp_ns)
    msg.header.frame_id = source
    msg.joint_names = list(names)
    msg.points[0].positions = np.asarray(values, dtype=np.float64).tolist()
    return msg


def msg_to_command(msg: JointTrajectory, names: Sequence[str]) -> tuple[int, np.ndarray]:
    """Return stamp and values [A] in the order of `names`, float64; NaN is passed on for the safety filter to judge.

    Raises:
        SpecError: Not one point, or other names than these.
    """
    if len(msg.points) != 1:
        raise SpecError(f"a command is a trajectory of 1 point, got {len(msg.points)}")
    return to_ns(msg.header.stamp), _ordered(msg.joint_names, msg.points[0].positions, names)


def chunk_to_msg(start_ns: int, step_ns: int, names: Sequence[str], rows: np.ndarray) -> JointTrajectory:
    """Return a chunk [H, A] whose row n is due at `start_ns + n * step_ns`."""
    msg = JointTrajectory(joint_names=list(names))
    msg.header.stamp = to_msg(start_ns)
    for n, row in enumerate(np.asarray(rows, dtype=np.float64)):
        point = JointTrajectoryPoint(positions=row.tolist())
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(n * step_ns, 1_000_000_000)
        msg.points.append(point)
    return msg


def msg_to_chunk(msg: JointTrajectory, names: Sequence[str]) -> tuple[int, np.ndarray, np.ndarray]:
    """Return start [ns], each row's time from start [ns] int64 [H], and rows [H, A] in the order of `names`."""
    times = [p.time_from_start.sec * 1_000_000_000 + p.time_from_start.nanosec for p in msg.points]
    rows = [_ordered(msg.joint_names, p.positions, names) for p in msg.points]
    return to_ns(msg.header.stamp), np.array(times, np.int64), np.array(rows).reshape(len(rows), len(names))


def joint_state_to_arrays(msg: JointState, names: Sequence[str]) -> tuple[int, np.ndarray, np.ndarray]:
    """Return stamp, positions and velocities (float64, in the order of `names`; velocity is NaN where not sent).

    Raises:
        SpecError: A name is not in the message.
    """
    index = name_index(msg.name, names, what="joint_states")
    position = np.array(msg.position)[index]
    velocity = np.array(msg.velocity)[index] if len(msg.velocity) else np.full(len(index), np.nan)
    return to_ns(msg.header.stamp), position, velocity


def name_index(there: Sequence[str], wanted: Sequence[str], *, what: str) -> list[int]:
    """Return where each wanted name stands.

    Raises:
        SpecError: One is not there.
    """
    missing = [name for name in wanted if name not in there]
    if missing:
        raise SpecError(f"{what} lacks {missing}; it has {list(there)}")
    return [list(there).index(name) for name in wanted]


def pose_to_pose9(pose: Pose) -> np.ndarray:
    """Return position [m] and the rotation matrix's first two columns, float32 [9].

    Raises:
        SpecError: The quaternion is no rotation.
    """
    q = np.array([pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w])
    norm = float(np.linalg.norm(q))
    if not abs(norm - 1.0) < 1e-2:
        raise SpecError(f"a pose's quaternion must have length 1, got {norm:g}; the sender left it unset?")
    matrix = Rotation.from_quat(q).as_matrix()
    position = (pose.position.x, pose.position.y, pose.position.z)
    return np.concatenate([position, matrix[:, 0], matrix[:, 1]]).astype(np.float32)


def pose9_to_msg(pose9: np.ndarray, stamp_ns: int, frame_id: str, msg: PoseStamped | None = None) -> PoseStamped:
    """Return position and rot6d [9] as a stamped pose."""
    msg = PoseStamped() if msg is None else msg
    x, y = np.asarray(pose9[3:6], np.float64), np.asarray(pose9[6:9], np.float64)
    x = x / np.linalg.norm(x)
    y = y - x * (x @ y)
    y = y / np.linalg.norm(y)
    q = Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], axis=1)).as_quat()
    msg.header.stamp, msg.header.frame_id = to_msg(stamp_ns), frame_id
    p, o = msg.pose.position, msg.pose.orientation
    p.x, p.y, p.z = (float(v) for v in pose9[:3])
    o.x, o.y, o.z, o.w = (float(v) for v in q)
    return msg


def _ordered(there: Sequence[str], positions: Sequence[float], names: Sequence[str]) -> np.ndarray:
    if len(there) != len(names) or len(positions) != len(names):
        raise SpecError(
            f"a command must hold {len(names)} values {list(names)}, got names {list(there)} "
            f"and {len(positions)} positions"
        )
    values: Any = np.array(positions, dtype=np.float64)
    return np.asarray(values[name_index(there, names, what="command")])
