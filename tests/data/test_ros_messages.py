"""Messages to arrays. What a message is does not matter, only its attributes, so plain namespaces stand for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from robot_rl.data import frame_codec
from robot_rl.data.ros_messages import make_reader
from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec
from tests.data.store_data import picture

STAMP = SimpleNamespace(sec=12, nanosec=345)
HEADER = SimpleNamespace(stamp=STAMP)
STAMP_NS = 12_000_000_345


def _spec(shape: tuple[int, ...] = (), dtype: str = "float32") -> ArraySpec:
    return ArraySpec(name="x", shape=shape, dtype=dtype)


def _image(pixels: np.ndarray, encoding: str, **kwargs: Any) -> Any:
    height, width = pixels.shape[:2]
    size = {"height": height, "width": width, "step": pixels.nbytes // height, "is_bigendian": 0}
    return SimpleNamespace(header=HEADER, encoding=encoding, data=pixels.tobytes(), **{**size, **kwargs})


def _read(type_name: str, spec: ArraySpec, msg: Any, **kwargs: Any) -> Any:
    return make_reader(f"{type_name}", spec, **kwargs)(msg)


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_a_picture_in_the_codec_of_the_store_is_passed_on_as_it_came(codec: str):
    data = frame_codec.encode(picture(7), codec)
    msg = SimpleNamespace(header=HEADER, format=codec, data=np.frombuffer(data, np.uint8))
    spec = _spec((24, 32, 3), "uint8")
    stamp, value = _read("sensor_msgs/msg/CompressedImage", spec, msg, codec=codec)
    assert (stamp, value) == (STAMP_NS, data)
    _, value = _read("sensor_msgs/msg/CompressedImage", spec, msg, codec="raw")
    np.testing.assert_array_equal(value, frame_codec.decode(data, codec, (24, 32, 3)))


def test_compressed_depth_keeps_its_sixteen_bits():
    depth = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
    data = cv2.imencode(".png", depth)[1].tobytes()
    msg = SimpleNamespace(header=HEADER, format="16UC1; png compressed", data=data)
    _, value = _read("sensor_msgs/msg/CompressedImage", _spec((24, 32), "uint16"), msg)
    np.testing.assert_array_equal(value, depth)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8 cut short"])
def test_a_picture_that_is_none_is_refused(data: bytes):
    msg = SimpleNamespace(header=HEADER, format="jpeg", data=data)
    with pytest.raises(SpecError, match="`x`: a compressed image must be JPEG or PNG, got format 'jpeg'"):
        _read("sensor_msgs/msg/CompressedImage", _spec((24, 32, 3), "uint8"), msg)


def test_images_of_every_encoding():
    rgb = picture(9)
    gray = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)
    depth = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 70
    metres = depth.astype(np.float32) / 1000
    for pixels, encoding, wanted in (
        (rgb, "rgb8", rgb),
        (rgb[..., ::-1].copy(), "bgr8", rgb),
        (gray, "mono8", gray),
        (depth, "16UC1", depth),
        (metres, "32FC1", metres),
    ):
        spec = _spec(wanted.shape, str(wanted.dtype))
        stamp, value = _read("sensor_msgs/msg/Image", spec, _image(pixels, encoding))
        assert stamp == STAMP_NS
        np.testing.assert_array_equal(value, wanted, err_msg=encoding)
    big = _image(depth.astype(">u2"), "16UC1", is_bigendian=1)
    np.testing.assert_array_equal(_read("sensor_msgs/msg/Image", _spec((24, 32, 1), "uint16"), big)[1][..., 0], depth)


def test_an_image_that_is_none_is_refused():
    spec = _spec((24, 32, 3), "uint8")
    with pytest.raises(SpecError, match=r"image encoding must be one of .*got 'yuv422'"):
        _read("sensor_msgs/msg/Image", spec, _image(picture(1), "yuv422"))
    with pytest.raises(SpecError, match="an image of 99 x 32 rgb8 needs 99 rows of 96 bytes, got 2304 bytes"):
        _read("sensor_msgs/msg/Image", spec, _image(picture(1), "rgb8", height=99))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((3,), [1, 2, 3]), ((7,), [1, 2, 3, 0, 0, 0.6, 0.8]), ((9,), [1, 2, 3, 0.28, 0.96, 0, -0.96, 0.28, 0])],
)
def test_a_pose_is_given_as_its_stream_wants_it(shape: tuple[int, ...], wanted: list[float]):
    position, orientation = SimpleNamespace(x=1.0, y=2.0, z=3.0), SimpleNamespace(x=0.0, y=0.0, z=0.6, w=0.8)
    msg = SimpleNamespace(header=HEADER, pose=SimpleNamespace(position=position, orientation=orientation))
    np.testing.assert_allclose(_read("geometry_msgs/msg/PoseStamped", _spec(shape), msg)[1], wanted, atol=1e-6)
    orientation.w = 0.0
    if shape == (9,):
        with pytest.raises(SpecError, match="a pose's quaternion must have length 1"):
            _read("geometry_msgs/msg/PoseStamped", _spec(shape), msg)


def test_joints_are_picked_by_name():
    msg = SimpleNamespace(header=HEADER, name=["b", "a", "grip"], position=[2.0, 1.0, 9.0], velocity=[], effort=[])
    _, value = _read("sensor_msgs/msg/JointState", _spec((2,)), msg, names=("a", "b"))
    assert value.tolist() == [1, 2]
    assert value.dtype == np.float32
    assert _read("sensor_msgs/msg/JointState", _spec((3,)), msg)[1].tolist() == [2, 1, 9]
    with pytest.raises(SpecError, match=r"lacks \['c'\]; its joints are \['b', 'a', 'grip'\]"):
        _read("sensor_msgs/msg/JointState", _spec((1,)), msg, names=("c",))
    with pytest.raises(SpecError, match="has 0 values"):
        _read("sensor_msgs/msg/JointState", _spec((1,)), msg, names=("a",), field="velocity")


def test_a_command_is_a_trajectory_of_one_point():
    points = [SimpleNamespace(positions=[1.0, 2.0])]
    msg = SimpleNamespace(header=HEADER, joint_names=["a", "b"], points=points)
    _, value = _read("trajectory_msgs/msg/JointTrajectory", _spec((2,)), msg, names=("b", "a"))
    assert value.tolist() == [2, 1]
    msg.points = points * 3
    with pytest.raises(SpecError, match="a command is a trajectory of 1 point, got 3"):
        _read("trajectory_msgs/msg/JointTrajectory", _spec((2,)), msg)


@pytest.mark.parametrize(
    ("type_name", "value", "spec", "wanted"),
    [
        ("Float64", 0.1, _spec((), "float32"), np.float32(0.1)),
        ("Float64", 0.1, _spec((1,), "float64"), [0.1]),
        ("Bool", True, _spec((), "bool"), True),
        ("UInt8", 1, _spec((), "bool"), True),
        ("Int64", 2**40, _spec((), "int64"), 2**40),
        ("Int32", -3, _spec((), "int8"), -3),
    ],
)
def test_numbers_fit_their_stream_where_nothing_is_lost(type_name: str, value: Any, spec: ArraySpec, wanted: Any):
    stamp, got = _read(f"std_msgs/msg/{type_name}", spec, SimpleNamespace(data=value))
    assert stamp is None
    assert got.dtype == spec.dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("value", "dtype"), [(2**40, "int32"), (2, "bool"), (0.5, "int64"), (1, "float32")])
def test_numbers_that_would_lose_something_are_refused(value: Any, dtype: str):
    with pytest.raises(SpecError, match=rf"`x` must be {dtype}\(\), got"):
        _read("std_msgs/msg/Int64", _spec((), dtype), SimpleNamespace(data=value))


def test_text_is_true_for_one_word():
    read = make_reader("std_msgs/msg/String", _spec((), "bool"), true_when="human")
    assert [bool(read(SimpleNamespace(data=word))[1]) for word in ("human", "policy", "")] == [True, False, False]
    with pytest.raises(ConfigError, match="`x`: text cannot be stored; say with `true_when`"):
        make_reader("std_msgs/msg/String", _spec((), "bool"))


def test_what_cannot_be_read_is_refused_with_what_can():
    with pytest.raises(ConfigError, match=r"no reader for message type 'tf2_msgs/msg/TFMessage'; there are \['geo"):
        make_reader("tf2_msgs/msg/TFMessage", _spec())
    with pytest.raises(ConfigError, match=r"field of a JointState must be one of .*, got 'torque'"):
        make_reader("sensor_msgs/msg/JointState", _spec(), field="torque")
