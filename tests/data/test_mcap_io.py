"""Bags in and episodes out: the round trip is exact, rosbags reads what mcap-ros2-support wrote, refusals say why."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_rl.data import frame_codec
from robot_rl.data.bag_import import import_bag
from robot_rl.data.mcap_io import export_mcap
from robot_rl.data.plan import RecordingPlan
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, DataFormatError, MissingExtraError, StoreError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.contracts.episode_sink import assert_same
from tests.data.store_data import MS, command, picture

pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed; see extra `bags`")
rosbags_highlevel = pytest.importorskip("rosbags.highlevel", reason="rosbags is not installed; see extra `bags`")
rosbags_rosbag2 = pytest.importorskip("rosbags.rosbag2")
rosbags_typesys = pytest.importorskip("rosbags.typesys")

START = 1_700_000_000_123_456_789
TYPES = rosbags_typesys.get_typestore(rosbags_typesys.Stores.ROS2_KILTED)

SPEC = RobotSpec(
    name="arm",
    obs={
        "q": ArraySpec(name="q", shape=(7,), unit="rad"),
        "dq": ArraySpec(name="dq", shape=(7,), dtype="float64", unit="rad/s"),
        "pose": ArraySpec(name="pose", shape=(9,), unit="m, rot6d"),
        "keypoint": ArraySpec(name="keypoint", shape=(3, 2), unit="px"),
        "wrist": ArraySpec(name="wrist", shape=(24, 32, 3), dtype="uint8"),
        "front": ArraySpec(name="front", shape=(24, 32, 3), dtype="uint8"),
        "side": ArraySpec(name="side", shape=(24, 32, 1), dtype="uint8"),
        "depth": ArraySpec(name="depth", shape=(24, 32), dtype="uint16", unit="mm"),
    },
    action=ActionSpec(name="action", shape=(2,), unit="rad"),
    control_hz=20.0,
)
EXTRA = {
    "step": ArraySpec(name="step", shape=(), dtype="int64"),
    "half": ArraySpec(name="half", shape=(2,), dtype="float16"),
    "flags": ArraySpec(name="flags", shape=(3,), dtype="bool"),
    "counts": ArraySpec(name="counts", shape=(2,), dtype="uint32"),
    "value": ArraySpec(name="value", shape=(), dtype="float64"),
}


def _recording() -> Recording:
    """Every kind of stream, each at its own rate from its own time; NaN where the schema allows it."""
    rng = np.random.default_rng(0)

    def stream(n: int, period_ms: float, offset_ns: int, data: np.ndarray) -> Stream:
        return Stream(START + offset_ns + (np.arange(n) * period_ms * MS).astype(np.int64), data)

    half = rng.standard_normal((6, 2)).astype(np.float16)
    half[2, 1] = np.nan
    images = np.stack([picture(i) for i in range(5)])
    streams = {
        "q": stream(50, 2, 1, rng.standard_normal((50, 7)).astype(np.float32)),
        "dq": stream(50, 2, 2, rng.standard_normal((50, 7))),
        "pose": stream(10, 10, 3, rng.standard_normal((10, 9)).astype(np.float32)),
        "keypoint": stream(3, 33, 4, rng.standard_normal((3, 3, 2)).astype(np.float32)),
        "wrist": stream(5, 20.5, 5, images),
        "front": stream(5, 20.5, 6, images),
        "side": stream(5, 20.5, 7, images[..., :1]),
        "depth": stream(5, 20, 8, rng.integers(0, 2**16, (5, 24, 32)).astype(np.uint16)),
        "action": stream(6, 16, 9, np.stack([command(i) for i in range(6)])),
        "action_executed": stream(6, 16, 10, np.stack([command(i) for i in range(6)])),
        "reward": stream(6, 16, 11, np.arange(6, dtype=np.float32) / 3),
        "by_human": stream(6, 16, 12, np.arange(6) % 2 == 0),
        "step": stream(6, 16, 13, np.arange(6, dtype=np.int64) * -(10**15)),
        "half": stream(6, 16, 14, half),
        "flags": stream(6, 16, 15, np.arange(18).reshape(6, 3) % 2 == 0),
        "counts": stream(6, 16, 16, np.arange(12, dtype=np.uint32).reshape(6, 2) + 2**31),
        "value": stream(6, 16, 17, np.arange(6) / 7),
    }
    meta = RecordingMeta(task="lift the cube", outcome="success", source="human", seed=3, extra={"note": ["a", 1]})
    return Recording(streams, meta)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    url = tmp_path_factory.mktemp("mcap") / "store"
    store = EpisodeStore.create(url, SPEC, extra=EXTRA, codecs={"wrist": "jpeg", "front": "png", "side": "raw"})
    store.append(_recording(), id="episode-7")
    return store


@pytest.fixture(scope="module")
def exported(store: EpisodeStore) -> Path:
    path = Path(store.url).parent / "episode.mcap"
    export_mcap(store, "episode-7", path)
    return path


def test_an_exported_episode_comes_back_exactly(store: EpisodeStore, exported: Path, tmp_path: Path):
    seen = []
    result = import_bag(exported, tmp_path / "again", progress=lambda n, total: seen.append((n, total)))
    again = EpisodeStore.open(tmp_path / "again")
    assert again.ids() == [result.id] == ["episode-7"]
    assert_same(again.read("episode-7"), store.read("episode-7"))
    assert again.schema.to_dict() == store.schema.to_dict()
    assert again.entries()[0].checksum == store.entries()[0].checksum, "also the JPEG and PNG bytes are the same"
    assert result.samples == {name: len(s) for name, s in store.read("episode-7").streams.items()}
    assert result.skipped == {}
    assert seen[-1] == (sum(result.samples.values()),) * 2
    with pytest.raises(StoreError, match="episode-7 already exists"):
        import_bag(exported, tmp_path / "again")
    assert import_bag(exported, tmp_path / "again", id="other").id == "other"


def test_an_episode_on_the_grid_from_time_zero_comes_back_exactly(tmp_path: Path):
    spec = RobotSpec(name="a", obs={"q": SPEC.obs["q"]}, action=SPEC.action, control_hz=20.0)
    store = EpisodeStore.create(tmp_path / "store", spec)
    stamps = np.arange(5, dtype=np.int64) * 50 * MS
    streams = {
        "q": Stream(stamps, np.arange(35, dtype=np.float32).reshape(5, 7)),
        "action": Stream(stamps[:4], np.arange(8, dtype=np.float32).reshape(4, 2)),
    }
    id = store.append(Recording(streams, RecordingMeta(on_grid=True)))
    export_mcap(store, id, tmp_path / "e.mcap")
    import_bag(tmp_path / "e.mcap", tmp_path / "again")
    assert_same(EpisodeStore.open(tmp_path / "again").read(id), store.read(id))


def test_rosbags_reads_what_was_exported(exported: Path):
    """An independent reader of the format, instead of a person with Foxglove: types, stamps, order, values."""
    wanted = _recording().streams
    with rosbags_highlevel.AnyReader([exported]) as bag:
        types = {c.topic: c.msgtype for c in bag.connections}
        assert types == {
            "/q": "sensor_msgs/msg/JointState",
            "/dq": "sensor_msgs/msg/JointState",
            "/pose": "std_msgs/msg/Float32MultiArray",
            "/keypoint": "std_msgs/msg/Float32MultiArray",
            "/wrist/color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
            "/front/color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
            "/side/color/image_raw": "sensor_msgs/msg/Image",
            "/depth/image_rect_raw": "sensor_msgs/msg/Image",
            "/action": "trajectory_msgs/msg/JointTrajectory",
            "/action_executed": "sensor_msgs/msg/JointState",
            "/reward": "std_msgs/msg/Float32",
            "/by_human": "std_msgs/msg/Bool",
            "/step": "std_msgs/msg/Int64",
            "/half": "std_msgs/msg/Float32MultiArray",
            "/flags": "std_msgs/msg/UInt8MultiArray",
            "/counts": "std_msgs/msg/UInt32MultiArray",
            "/value": "std_msgs/msg/Float64",
        }
        messages = {topic: [] for topic in types}
        logged = []
        for connection, stamp, raw in bag.messages():
            logged.append(stamp)
            messages[connection.topic].append((stamp, bag.deserialize(raw, connection.msgtype)))
    assert logged == sorted(logged)
    q = messages["/q"]
    assert [stamp for stamp, _ in q] == wanted["q"].stamp_ns.tolist()
    assert [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in q] == wanted["q"].stamp_ns.tolist()
    np.testing.assert_array_equal([m.position for _, m in q], wanted["q"].data[:].astype(np.float64))
    np.testing.assert_array_equal([m.velocity for _, m in messages["/dq"]], wanted["dq"].data[:])
    image = messages["/side/color/image_raw"][3][1]
    assert (image.encoding, image.height, image.width, image.step) == ("mono8", 24, 32, 32)
    np.testing.assert_array_equal(image.data.reshape(24, 32), picture(3)[..., 0])
    assert image.header.frame_id == "side_color_optical_frame"
    jpeg = messages["/wrist/color/image_raw/compressed"][2][1]
    assert (jpeg.format, bytes(jpeg.data[:2])) == ("jpeg", b"\xff\xd8")
    keypoint = messages["/keypoint"][1][1]
    assert [(d.size, d.stride) for d in keypoint.layout.dim] == [(3, 6), (2, 2)]
    np.testing.assert_array_equal(keypoint.data.reshape(3, 2), wanted["keypoint"].data[1])
    assert [m.points[0].positions.tolist() for _, m in messages["/action"]] == wanted["action"].data[:].tolist()
    assert [m.data for _, m in messages["/by_human"]] == wanted["by_human"].data[:].tolist()


def test_the_reader_of_mcap_itself_decodes_with_the_definitions_in_the_file(exported: Path):
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    with exported.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        decoded = [m for _, channel, _, m in reader.iter_decoded_messages() if channel.topic == "/action"]
        summary = reader.get_summary()
    assert [list(m.points[0].positions) for m in decoded] == [command(i).tolist() for i in range(6)]
    assert summary is not None
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}


def test_an_export_overwrites_nothing_and_leaves_no_half_file(store: EpisodeStore, exported: Path, tmp_path: Path):
    with pytest.raises(StoreError, match=r"episode\.mcap exists already"):
        export_mcap(store, "episode-7", exported)
    with pytest.raises(StoreError, match="episode-8"):
        export_mcap(store, "episode-8", tmp_path / "e.mcap")
    spec = RobotSpec(name="a", obs={}, action=SPEC.action, control_hz=20.0)
    early = EpisodeStore.create(tmp_path / "early", spec)
    stream = Stream(np.array([-5, 5], np.int64), np.zeros((2, 2), np.float32))
    id = early.append(Recording({"action": stream}))
    with pytest.raises(DataFormatError, match="a ROS stamp must be from 0 to 2\\^31 s, got -5 ns"):
        export_mcap(early, id, tmp_path / "e.mcap")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["early"]


# Bags of others


STREAMS = {
    "q": {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "shape": [2], "unit": "rad",
          "names": ["joint2", "joint1"]},
    "dq": {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "shape": [2], "field": "velocity",
           "names": ["joint2", "joint1"]},
    "tcp": {"topic": "current_pose", "type": "geometry_msgs/msg/PoseStamped", "shape": [9]},
    "wrench": {"topic": "wrench", "type": "geometry_msgs/msg/WrenchStamped", "shape": [6]},
    "wrist": {"topic": "wrist/color/image_raw", "type": "sensor_msgs/msg/Image", "shape": [4, 5, 3], "dtype": "uint8",
              "codec": "png"},
    "action": {"topic": "/forward/commands", "type": "std_msgs/msg/Float64MultiArray", "shape": [2]},
    "by_human": {"topic": "control_source", "type": "std_msgs/msg/String", "true_when": "human", "required": False},
}  # fmt: skip
PLAN = RecordingPlan.from_dict({"name": "arm", "control_hz": 20}, STREAMS)


def _message(type_name: str, stamp_ns: int | None = None, **fields: object) -> object:
    kind = TYPES.types[type_name]
    if stamp_ns is not None:
        time = TYPES.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        fields["header"] = TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id="base_link")
    return kind(**fields)


def _vector(x: float, y: float, z: float) -> object:
    return TYPES.types["geometry_msgs/msg/Vector3"](x=x, y=y, z=z)


def _messages(n: int = 4) -> list[tuple[str, int, str, object]]:
    """Joints in another order than asked for, a padded BGR image, a half turn about z, commands without a stamp."""
    out: list[tuple[str, int, str, object]] = []
    pose = TYPES.types["geometry_msgs/msg/Pose"](
        position=TYPES.types["geometry_msgs/msg/Point"](x=1.0, y=2.0, z=3.0),
        orientation=TYPES.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=1.0, w=0.0),
    )
    for i in range(n):
        t = START + i * 50 * MS
        wrench = TYPES.types["geometry_msgs/msg/Wrench"](force=_vector(i, 1, 2), torque=_vector(3, 4, 5))
        image = np.zeros((4, 18), np.uint8)
        image[:, :15] = np.tile([i, 10, 20], 5)  # blue, green, red, and three bytes of padding
        layout = TYPES.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        joints = {"name": ["joint1", "joint2", "finger"], "position": np.array([i, 10.0 + i, 99]),
                  "velocity": np.array([-i, -10.0 - i, 99]), "effort": np.zeros(0)}  # fmt: skip
        size = {"height": 4, "width": 5, "encoding": "bgr8", "is_bigendian": 0, "step": 18}
        made = [
            ("/arm/joint_states", "sensor_msgs/msg/JointState", t, joints),
            ("/arm/current_pose", "geometry_msgs/msg/PoseStamped", t + 1, {"pose": pose}),
            ("/arm/wrench", "geometry_msgs/msg/WrenchStamped", t + 2, {"wrench": wrench}),
            ("/arm/wrist/color/image_raw", "sensor_msgs/msg/Image", t + 3, {**size, "data": image.reshape(-1)}),
            ("/forward/commands", "std_msgs/msg/Float64MultiArray", None,
             {"layout": layout, "data": np.array([i, i / 2])}),
            ("/arm/control_source", "std_msgs/msg/String", None, {"data": ["policy", "human"][i % 2]}),
        ]  # fmt: skip
        out += [(topic, t + 7 * MS, kind, _message(kind, stamp, **fields)) for topic, kind, stamp, fields in made]
    return out


def _bag(
    path: Path, messages: list[tuple[str, int, str, object]], *, storage: str = "sqlite3", version: int = 9
) -> Path:
    plugin = {"sqlite3": rosbags_rosbag2.StoragePlugin.SQLITE3, "mcap": rosbags_rosbag2.StoragePlugin.MCAP}[storage]
    with rosbags_rosbag2.Writer(path, version=version, storage_plugin=plugin) as writer:
        connections = {}
        for topic, logged_ns, kind, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], logged_ns, TYPES.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize(("storage", "version"), [("sqlite3", 9), ("sqlite3", 8), ("mcap", 9), ("mcap", 8)])
def test_a_rosbag2_folder_becomes_an_episode(tmp_path: Path, storage: str, version: int):
    """Version 8 is from before the definitions were kept with the messages."""
    bag = _bag(tmp_path / "bag", _messages(), storage=storage, version=version)
    meta = RecordingMeta(task="push", outcome="failure", source="human")
    result = import_bag(bag, tmp_path / "store", PLAN, namespace="/arm", meta=meta)
    recording = EpisodeStore.open(tmp_path / "store").read(result.id)
    streams = recording.streams
    assert recording.meta == meta
    header = START + np.arange(4) * 50 * MS
    for name, offset in (("q", 0), ("dq", 0), ("tcp", 1), ("wrench", 2), ("wrist", 3)):
        np.testing.assert_array_equal(streams[name].stamp_ns, header + offset, err_msg=name)
    np.testing.assert_array_equal(streams["action"].stamp_ns, header + 7 * MS, err_msg="no header: time of writing")
    i = np.arange(4)
    np.testing.assert_array_equal(streams["q"].data[:], np.stack([10 + i, i], axis=1))
    np.testing.assert_array_equal(streams["dq"].data[:], np.stack([-10 - i, -i], axis=1))
    np.testing.assert_allclose(streams["tcp"].data[:], np.tile([1, 2, 3, -1, 0, 0, 0, -1, 0], (4, 1)), atol=1e-7)
    np.testing.assert_array_equal(streams["wrench"].data[:, 0], i)
    np.testing.assert_array_equal(streams["wrench"].data[:, 1:], np.tile([1, 2, 3, 4, 5], (4, 1)))
    np.testing.assert_array_equal(streams["action"].data[:], np.stack([i, i / 2], axis=1))
    np.testing.assert_array_equal(streams["by_human"].data[:], [False, True, False, True])
    assert streams["wrist"].data[2][1, 3].tolist() == [20, 10, 2], "red, green, blue"


def test_samples_out_of_order_or_not_finite_are_left_out_and_counted(tmp_path: Path):
    messages = _messages()
    again = messages[0]
    messages.insert(6, (again[0], again[1] + 1, again[2], again[3]))
    messages[-2][3].data[1] = np.nan  # the last command
    result = import_bag(_bag(tmp_path / "bag", messages), tmp_path / "store", PLAN, namespace="/arm")
    late = {"not later than the sample before": 1}
    assert result.skipped == {"q": late, "dq": late, "action": {"NaN or infinity": 1}}
    assert result.samples == {"q": 4, "dq": 4, "tcp": 4, "wrench": 4, "wrist": 4, "action": 3, "by_human": 4}
    meta = EpisodeStore.open(tmp_path / "store").read(result.id).meta
    assert meta.extra["bag"] == {"name": "bag", "skipped": result.skipped}


def test_a_header_that_nobody_filled_gives_way_to_the_time_of_writing(tmp_path: Path):
    messages = _messages()
    for _, _, kind, message in messages:
        if kind == "sensor_msgs/msg/JointState":
            message.header.stamp.sec = message.header.stamp.nanosec = 0
    result = import_bag(_bag(tmp_path / "bag", messages), tmp_path / "store", PLAN, namespace="/arm")
    stamps = EpisodeStore.open(tmp_path / "store").read(result.id).streams["q"].stamp_ns
    np.testing.assert_array_equal(stamps, START + np.arange(4) * 50 * MS + 7 * MS)


def _plan(name: str, **changes: object) -> RecordingPlan:
    return RecordingPlan.from_dict({"name": "arm", "control_hz": 20}, {**STREAMS, name: {**STREAMS[name], **changes}})


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("q", {"topic": "joints"}, DataFormatError, r"lacks topic /arm/joints of stream `q`; it has \['/arm/contr"),
        ("q", {"type": "sensor_msgs/msg/Joy"}, DataFormatError, "`q` must be sensor_msgs/msg/Joy, it is sensor_msgs/m"),
        ("q", {"names": ["joint1", "joint9"]}, DataFormatError, r"joint_states, at \d+ ns: .*lacks \['joint9'\]"),
        ("q", {"field": "effort"}, DataFormatError, "`q`: the message has 0 values; its joints are"),
        ("q", {"field": "torque"}, ConfigError, "field of a JointState must be one of .*got 'torque'"),
        ("wrench", {"shape": [3]}, DataFormatError, r"`wrench` must be float32\(3,?\), got float32\(6,\)"),
        ("wrist", {"shape": [4, 4, 3]}, DataFormatError, r"`wrist` must be uint8\(4, 4, 3\), got uint8\(4, 5, 3\)"),
    ],
)
def test_a_bag_that_does_not_fit_is_refused_and_leaves_no_episode(
    tmp_path: Path, name: str, changes: dict[str, object], error: type[Exception], message: str
):
    bag = _bag(tmp_path / "bag", _messages(1))
    with pytest.raises(error, match=message):
        import_bag(bag, tmp_path / "store", _plan(name, **changes), namespace="/arm")
    assert not EpisodeStore.exists(tmp_path / "store") or len(EpisodeStore.open(tmp_path / "store")) == 0


def test_a_type_that_nobody_reads_is_refused(tmp_path: Path):
    bag = _bag(tmp_path / "bag", _messages(1))
    plan = RecordingPlan(
        schema=PLAN.schema,
        streams={**PLAN.streams, "q": replace(PLAN.streams["q"], topic="/forward/commands", type="std_msgs/msg/Empty")},
    )
    with pytest.raises(DataFormatError, match="`q` must be std_msgs/msg/Empty, it is std_msgs/msg/Float64MultiArray"):
        import_bag(bag, tmp_path / "store", plan, namespace="/arm")


def test_damaged_messages_are_refused(tmp_path: Path):
    with rosbags_rosbag2.Writer(tmp_path / "bag", version=9) as writer:
        for topic, logged_ns, kind, message in _messages(1):
            data = TYPES.serialize_cdr(message, kind)
            connection = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connection, logged_ns, data[: len(data) // 2] if topic == "/arm/wrench" else data)
    with pytest.raises(DataFormatError, match=r"bag .* is damaged: "):
        import_bag(tmp_path / "bag", tmp_path / "store", PLAN, namespace="/arm")
    assert len(EpisodeStore.open(tmp_path / "store")) == 0


def test_a_jpeg_of_another_size_is_refused(tmp_path: Path):
    kind = "sensor_msgs/msg/CompressedImage"
    changes = {"topic": "wrist/compressed", "type": kind, "codec": "jpeg"}
    picture_bytes = np.frombuffer(frame_codec.encode(picture(1), "jpeg"), np.uint8)
    jpeg = _message(kind, START, format="jpeg", data=picture_bytes)
    bag = _bag(tmp_path / "bag", [*_messages(1), ("/arm/wrist/compressed", START, kind, jpeg)])
    with pytest.raises(DataFormatError, match=r"wrist/compressed, at \d+ ns: `wrist` must be whole jpeg bytes of"):
        import_bag(bag, tmp_path / "store", _plan("wrist", **changes), namespace="/arm")


def test_what_is_no_bag_is_refused(tmp_path: Path):
    with pytest.raises(DataFormatError, match=r"there is no bag at .*nothing\.mcap"):
        import_bag(tmp_path / "nothing.mcap", tmp_path / "store", PLAN)
    for name in ("bad.mcap", "bad.db3", "bad.txt"):
        (tmp_path / name).write_bytes(b"not a bag")
        with pytest.raises(DataFormatError, match=f"{name} is not a bag that can be read"):
            import_bag(tmp_path / name, tmp_path / "store", PLAN)
    with pytest.raises(DataFormatError, match=r"bad\.mcap is not an MCAP file that can be read"):
        import_bag(tmp_path / "bad.mcap", tmp_path / "store")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataFormatError, match="folder is not a bag that can be read"):
        import_bag(tmp_path / "folder", tmp_path / "store", PLAN)
    bag = _bag(tmp_path / "bag", _messages(1), storage="mcap")
    with pytest.raises(DataFormatError, match="bag was not exported by robot_rl, so a plan must say"):
        import_bag(bag, tmp_path / "store")


def test_a_file_cut_short_is_refused(exported: Path, tmp_path: Path):
    data = exported.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataFormatError, match=r"cut\.mcap"):
        import_bag(cut, tmp_path / "store")
    with pytest.raises(DataFormatError, match=r"cut\.mcap is not a bag that can be read"):
        import_bag(cut, tmp_path / "store", PLAN)


@pytest.mark.parametrize(
    ("module", "package"), [("mcap_ros2.writer", "mcap-ros2-support"), ("rosbags.typesys", "rosbags")]
)
def test_a_missing_library_names_its_extra(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is needed here.*pip install 'robot-rl\[bags\]'"):
        export_mcap(store, "episode-7", tmp_path / "e.mcap")
    assert list(tmp_path.iterdir()) == []
