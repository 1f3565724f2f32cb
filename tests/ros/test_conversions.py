"""Messages to arrays and back; values are chosen so that a swapped axis or name would show."""

import array

import numpy as np
import pytest
import simplejpeg
from geometry_msgs.msg import Pose, PoseStamped, WrenchStamped
from hypothesis import given
from hypothesis import strategies as st
from robot_rl_ros.conversions import (
    ImagePublisher,
    chunk_to_msg,
    command_to_msg,
    image_to_array,
    joint_state_to_arrays,
    msg_to_chunk,
    msg_to_command,
    pose9_to_msg,
    pose_to_pose9,
)
from robot_rl_ros.readers import make_reader, type_class
from robot_rl_ros.stamps import to_msg, to_ns
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, MultiArrayDimension

from robot_rl.data.ros_messages import READABLE
from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec


class Sent:
    """A publisher that keeps what it is given."""

    def publish(self, msg) -> None:
        self.msg = msg


def spec(shape, dtype="float32") -> ArraySpec:
    return ArraySpec(name="x", shape=shape, dtype=dtype)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_come_back(ns):
    assert to_ns(to_msg(ns)) == ns


@pytest.mark.parametrize(
    ("encoding", "dtype", "shape"),
    [
        ("rgb8", "uint8", (4, 6, 3)),
        ("16UC1", "uint16", (4, 6)),
        ("mono8", "uint8", (4, 6)),
        ("32FC1", "float32", (4, 6)),
    ],
)
def test_pictures_come_back_through_one_reused_message(encoding, dtype, shape):
    sent = Sent()
    publisher = ImagePublisher(sent, shape, encoding=encoding, frame_id="front_color_optical_frame")
    for first in (0, 7):
        picture = (np.arange(np.prod(shape)) + first).astype(dtype).reshape(shape)
        publisher.publish(picture, 5_000_000_007)
        assert image_to_array(sent.msg).tolist() == picture.tolist()
        assert image_to_array(sent.msg).dtype == dtype
    assert to_ns(sent.msg.header.stamp) == 5_000_000_007
    assert sent.msg.header.frame_id == "front_color_optical_frame"
    assert isinstance(sent.msg.data, array.array)


def test_bgr_padding_and_byte_order():
    pixel = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    padded = np.zeros((1, 8), np.uint8)
    padded[0, :6] = pixel[..., ::-1].reshape(-1)
    msg = Image(height=1, width=2, encoding="bgr8", step=8, data=padded.tobytes())
    assert image_to_array(msg).tolist() == pixel.tolist()
    msg = Image(height=1, width=1, encoding="16UC1", step=2, data=b"\x01\x02", is_bigendian=1)
    assert image_to_array(msg).tolist() == [[0x0102]]


def test_pictures_that_are_not_what_they_say():
    with pytest.raises(SpecError, match=r"image encoding must be one of .*, got 'yuv422'"):
        image_to_array(Image(encoding="yuv422"))
    with pytest.raises(SpecError, match="needs 2 rows of 6 bytes, got 5 bytes in rows of 6"):
        image_to_array(Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(5)))
    with pytest.raises(ConfigError, match=r"pictures of shape \(2, 2\) cannot be encoded as 'rgb8'"):
        ImagePublisher(Sent(), (2, 2), encoding="rgb8", frame_id="")
    publisher = ImagePublisher(Sent(), (2, 2), encoding="16UC1", frame_id="")
    with pytest.raises(SpecError, match=r"picture must be uint16\(2, 2\), got uint8\(2, 2\)"):
        publisher.publish(np.zeros((2, 2), np.uint8), 0)


def test_commands_come_back_in_the_order_asked_for():
    msg = command_to_msg(123, ["a", "b", "g"], np.array([1.0, np.nan, 3.0]), source="human")
    stamp, values = msg_to_command(msg, ["g", "a", "b"])
    assert stamp == 123
    assert values[:2].tolist() == [3.0, 1.0]
    assert np.isnan(values[2])
    assert msg.header.frame_id == "human"
    again = command_to_msg(124, ["a", "b", "g"], np.zeros(3), msg)
    assert again is msg
    assert msg.header.frame_id == ""


def test_commands_that_do_not_fit():
    msg = command_to_msg(0, ["a", "b"], np.zeros(2))
    with pytest.raises(SpecError, match=r"command lacks \['c'\]; it has \['a', 'b'\]"):
        msg_to_command(msg, ["a", "c"])
    with pytest.raises(SpecError, match=r"must hold 3 values \['a', 'b', 'g'\], got names \['a', 'b'\]"):
        msg_to_command(msg, ["a", "b", "g"])
    msg.points.clear()
    with pytest.raises(SpecError, match="a command is a trajectory of 1 point, got 0"):
        msg_to_command(msg, ["a", "b"])


def test_chunks_come_back():
    rows = np.arange(8.0).reshape(4, 2)
    start, times, back = msg_to_chunk(chunk_to_msg(7, 400_000_000, ["a", "b"], rows), ["b", "a"])
    assert start == 7
    assert times.tolist() == [0, 400_000_000, 800_000_000, 1_200_000_000]
    assert back.tolist() == rows[:, ::-1].tolist()


def test_joint_states_by_name():
    msg = JointState(name=["g", "b", "a"], position=[3.0, 2.0, 1.0])
    _, position, velocity = joint_state_to_arrays(msg, ["a", "b"])
    assert position.tolist() == [1.0, 2.0]
    assert np.isnan(velocity).all()
    msg.velocity = [30.0, 20.0, 10.0]
    assert joint_state_to_arrays(msg, ["g", "a"])[2].tolist() == [30.0, 10.0]
    with pytest.raises(SpecError, match=r"joint_states lacks \['z'\]"):
        joint_state_to_arrays(msg, ["z"])


@given(st.integers(0, 10_000))
def test_poses_come_back(seed):
    matrix = Rotation.random(random_state=seed).as_matrix()
    pose9 = np.concatenate([[0.1, -0.2, 0.3], matrix[:, 0], matrix[:, 1]])
    msg = pose9_to_msg(pose9, 9, "base_link")
    assert pose_to_pose9(msg.pose) == pytest.approx(pose9, abs=1e-6)
    assert (to_ns(msg.header.stamp), msg.header.frame_id) == (9, "base_link")


def test_an_unset_quaternion_is_refused():
    pose = Pose()
    pose.orientation.w = 0.0
    with pytest.raises(SpecError, match="quaternion must have length 1, got 0"):
        pose_to_pose9(pose)


def test_readers_of_joint_states():
    msg = JointState(name=["b", "a"], position=[2.0, 1.0], velocity=[20.0, 10.0])
    msg.header.stamp = to_msg(77)
    read = make_reader("sensor_msgs/msg/JointState", spec((2,)), field="velocity", names=["a", "b"])
    stamp, value = read(msg)
    assert (stamp, value.tolist(), value.dtype) == (77, [10.0, 20.0], np.float32)
    assert make_reader("sensor_msgs/msg/JointState", spec((2,)))(msg)[1].tolist() == [2.0, 1.0]
    with pytest.raises(SpecError, match="the message has 0 values"):
        make_reader("sensor_msgs/msg/JointState", spec((1,)), field="effort", names=["a"])(msg)
    with pytest.raises(ConfigError, match=r"field of a JointState must be one of .* got 'torque'"):
        make_reader("sensor_msgs/msg/JointState", spec((2,)), field="torque")


def test_readers_of_the_other_types():
    def sample(name, msg, shape, dtype="float32"):
        return make_reader(name, spec(shape, dtype))(msg)

    wrench = WrenchStamped()
    wrench.wrench.force.y, wrench.wrench.torque.z = 2.0, 6.0
    assert sample("geometry_msgs/msg/WrenchStamped", wrench, (6,))[1].tolist() == [0, 2, 0, 0, 0, 6]
    assert sample("std_msgs/msg/Bool", Bool(data=True), (), "bool") == (None, np.True_)
    assert sample("std_msgs/msg/Float32", Float32(data=0.5), (1,))[1].tolist() == [0.5]
    grid = Float64MultiArray(data=[1.0, 2.0, 3.0, 4.0])
    grid.layout.dim = [MultiArrayDimension(size=2), MultiArrayDimension(size=2)]
    assert sample("std_msgs/msg/Float64MultiArray", grid, (2, 2), "float64")[1].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    pose = PoseStamped()
    pose.pose.position.x, pose.pose.orientation.w = 1.0, 1.0
    assert sample("geometry_msgs/msg/PoseStamped", pose, (9,))[1].tolist() == [1, 0, 0, 1, 0, 0, 0, 1, 0]
    assert sample("geometry_msgs/msg/PoseStamped", pose, (7,))[1].tolist() == [1, 0, 0, 0, 0, 0, 1]
    command = command_to_msg(5, ["a", "b"], np.array([1.0, 2.0]))
    assert sample("trajectory_msgs/msg/JointTrajectory", command, (2,))[1].tolist() == [1.0, 2.0]
    grey = np.full((16, 16, 3), 90, np.uint8)
    jpeg = CompressedImage(format="rgb8; jpeg compressed bgr8", data=simplejpeg.encode_jpeg(grey))
    assert sample("sensor_msgs/msg/CompressedImage", jpeg, (16, 16, 3), "uint8")[1] == pytest.approx(grey, abs=2)
    depth = Image(height=1, width=2, encoding="16UC1", step=4, data=b"\x01\x00\x02\x00")
    assert sample("sensor_msgs/msg/Image", depth, (1, 2, 1), "uint16")[1].tolist() == [[[1], [2]]]


def test_what_cannot_be_read_is_refused_with_what_can():
    with pytest.raises(ConfigError, match=r"no reader for message type 'x/msg/Y'; there are \['geometry_msgs"):
        make_reader("x/msg/Y", spec((1,)))
    with pytest.raises(ConfigError, match="no reader for message type 'x/msg/Y'"):
        type_class("x/msg/Y")
    with pytest.raises(SpecError, match=r"`x` must be float32\(3\), got float32\(2,\)"):
        make_reader("std_msgs/msg/Float64MultiArray", spec((3,)))(Float64MultiArray(data=[1.0, 2.0]))
    assert type_class("sensor_msgs/msg/Image") is Image


def test_every_type_that_can_be_read_can_be_subscribed_to():
    for name in READABLE:
        assert type_class(name).__name__ == name.rpartition("/")[2]


def test_a_stream_of_commands_takes_its_own_joints_and_no_others():
    read = make_reader("trajectory_msgs/msg/JointTrajectory", spec((2,)), names=["b", "a"])
    assert read(command_to_msg(5, ["a", "b"], np.array([1.0, 2.0])))[1].tolist() == [2.0, 1.0]
    with pytest.raises(SpecError, match=r"must hold 2 values \['b', 'a'\], got names \['a', 'b', 'c'\]"):
        read(command_to_msg(5, ["a", "b", "c"], np.array([1.0, 2.0, 3.0])))


def test_a_jpeg_in_the_codec_of_the_store_is_passed_on_and_a_damaged_one_is_refused():
    data = bytes(simplejpeg.encode_jpeg(np.full((16, 16, 3), 90, np.uint8)))
    kind, stream = "sensor_msgs/msg/CompressedImage", spec((16, 16, 3), "uint8")
    msg = CompressedImage(format="jpeg", data=data)
    assert make_reader(kind, stream, codec="jpeg")(msg)[1] == data
    msg.data = data[:20] + bytes(len(data) - 22) + data[-2:]
    with pytest.raises(SpecError, match="`x`: a JPEG frame cannot be decoded"):
        make_reader(kind, stream)(msg)
