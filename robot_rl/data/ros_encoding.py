"""Arrays to ROS 2 messages, as plain dictionaries of their fields: what an exported episode consists of. Needs no ROS.

Each stream gets the standard message that Foxglove shows best and that gives back every bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.data.ros_messages import COMPRESSED, IMAGE, JOINTS, NUMBERS, SECOND_NS, TRAJECTORY
from robot_rl.data.rows import FrameRows
from robot_rl.errors import DataFormatError
from robot_rl.specs import ActionSpec, ArraySpec
from robot_rl.values import Rows

_IMAGES = {("uint8", 3): "rgb8", ("uint8", 1): "mono8", ("uint16", 1): "16UC1"}
_JOINT_UNITS = {"rad": "position", "rad/s": "velocity", "Nm": "effort"}
_LATEST_NS = 2**31 * SECOND_NS


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How one stream is written: topic, message type, field of the message, and what makes the message of a row."""

    topic: str
    type: str
    field: str
    message: Callable[[int, int], dict[str, Any]]
    """From row and stamp [ns] to the message's fields."""


def encoding_of(name: str, spec: ArraySpec, rows: Rows) -> Encoding:
    """Return how a stream is written.

    Pictures become CompressedImage with the stored bytes (Image where they are stored raw), depth becomes Image,
    vectors in rad, rad/s or Nm become JointState, joint commands JointTrajectory, everything else std_msgs numbers.

    Args:
        name: Stream.
        spec: One sample.
        rows: Its samples.
    """
    if isinstance(rows, FrameRows):
        topic = f"/{name}/color/image_raw/compressed"
        return Encoding(topic=topic, type=COMPRESSED, field="", message=_compressed(name, rows))
    if (encoding := _image_encoding(spec)) is not None:
        kind = "color/image_raw" if spec.dtype == "uint8" else "image_rect_raw"
        message = _image(name, rows, encoding)
        return Encoding(topic=f"/{name}/{kind}", type=IMAGE, field="", message=message)
    is_vector = len(spec.shape) == 1 and spec.dtype in ("float32", "float64")
    if is_vector and isinstance(spec, ActionSpec) and spec.kind == "joint_position":
        return Encoding(topic=f"/{name}", type=TRAJECTORY, field="", message=_trajectory(name, rows))
    if is_vector and spec.unit in _JOINT_UNITS:
        field = _JOINT_UNITS[spec.unit]
        return Encoding(topic=f"/{name}", type=JOINTS, field=field, message=_joints(name, rows, field))
    many = spec.shape != ()
    dtype = {"float16": "float32", "bool": "uint8" if many else "bool"}.get(spec.dtype, spec.dtype)
    type_name = f"std_msgs/msg/{NUMBERS[dtype]}{'MultiArray' if many else ''}"
    return Encoding(topic=f"/{name}", type=type_name, field="", message=_numbers(spec, rows, dtype))


def _image_encoding(spec: ArraySpec) -> str | None:
    if len(spec.shape) == 3:
        return _IMAGES.get((spec.dtype, spec.shape[2]))
    return "16UC1" if len(spec.shape) == 2 and spec.dtype == "uint16" else None


def _header(stamp_ns: int, frame_id: str = "") -> dict[str, Any]:
    if not 0 <= stamp_ns < _LATEST_NS:
        raise DataFormatError(f"a ROS stamp must be from 0 to 2^31 s, got {stamp_ns} ns; this episode has none to give")
    sec, nanosec = divmod(stamp_ns, SECOND_NS)
    return {"stamp": {"sec": sec, "nanosec": nanosec}, "frame_id": frame_id}


def _compressed(name: str, rows: FrameRows) -> Callable[[int, int], dict[str, Any]]:
    def message(row: int, stamp_ns: int) -> dict[str, Any]:
        header = _header(stamp_ns, f"{name}_color_optical_frame")
        return {"header": header, "format": rows.codec, "data": rows.encoded(row)}

    return message


def _image(name: str, rows: Rows, encoding: str) -> Callable[[int, int], dict[str, Any]]:
    def message(row: int, stamp_ns: int) -> dict[str, Any]:
        picture = np.ascontiguousarray(rows[row])
        return {
            "header": _header(stamp_ns, f"{name}_color_optical_frame"), "height": picture.shape[0],
            "width": picture.shape[1], "encoding": encoding, "is_bigendian": 0,
            "step": picture.nbytes // picture.shape[0],
            "data": picture.astype(picture.dtype.newbyteorder("<"), copy=False).tobytes(),
        }  # fmt: skip

    return message


def _joint_names(name: str, rows: Rows) -> list[str]:
    return [f"{name}_{i}" for i in range(rows.shape[1])]


def _joints(name: str, rows: Rows, field: str) -> Callable[[int, int], dict[str, Any]]:
    names = _joint_names(name, rows)
    return lambda row, stamp_ns: {"header": _header(stamp_ns), "name": names, field: rows[row].tolist()}


def _trajectory(name: str, rows: Rows) -> Callable[[int, int], dict[str, Any]]:
    names = _joint_names(name, rows)

    def message(row: int, stamp_ns: int) -> dict[str, Any]:
        return {"header": _header(stamp_ns), "joint_names": names, "points": [{"positions": rows[row].tolist()}]}

    return message


def _numbers(spec: ArraySpec, rows: Rows, dtype: str) -> Callable[[int, int], dict[str, Any]]:
    if spec.shape == ():
        return lambda row, stamp_ns: {"data": np.asarray(rows[row]).item()}
    strides = [int(np.prod(spec.shape[i:])) for i in range(len(spec.shape))]
    dim = [{"label": "", "size": n, "stride": s} for n, s in zip(spec.shape, strides, strict=True)]

    def message(row: int, stamp_ns: int) -> dict[str, Any]:
        flat = np.asarray(rows[row]).reshape(-1).astype(dtype)
        data = flat.tobytes() if dtype == "uint8" else flat.tolist()
        return {"layout": {"dim": dim, "data_offset": 0}, "data": data}

    return message
