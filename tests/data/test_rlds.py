from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from robot_rl.data import frame_codec
from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.rlds_dataset import RldsDataset, open_rlds
from robot_rl.data.store import EpisodeStore
from robot_rl.data.tf_example import parse_example
from robot_rl.data.tfrecord import masked_crc, scan
from robot_rl.errors import ConfigError, DataFormatError
from tests.data import tfrecord_writer as tf
from tests.data.store_data import picture

LENGTHS = (3, 4, 2)
CHILDREN = {
    "observation": tf.mapping({
        "state": tf.tensor((3,), "float32"), "camera": tf.image((24, 32, 3), "jpeg"),
        "wrist": tf.image((16, 20, 3), "png"), "depth": tf.image((4, 5, 1), "png", "uint16"),
        "counts": tf.tensor((2,), "int16", "bytes"), "packed": tf.tensor((2, 2), "float32", "zlib"),
    }),
    "action": tf.mapping({
        "move": tf.tensor((2,), "float32"), "grip": tf.tensor((), "float32"), "stop": tf.tensor((), "int32"),
    }),
    "reward": tf.tensor((), "float32"), "is_first": tf.tensor((), "bool"), "is_last": tf.tensor((), "bool"),
    "is_terminal": tf.tensor((), "bool"), "language_instruction": tf.text(), "clock": tf.tensor((), "int64"),
}  # fmt: skip


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


def values(episode: int, n: int) -> dict[str, list[Any]]:
    """Return an episode's features as TFDS flattens them; the value tells episode, step and column."""
    row = [100.0 * episode + i for i in range(n)]
    return {
        "steps/observation/state": [r + j / 8 for r in row for j in range(3)],
        "steps/observation/camera": [frame_codec.encode(picture(int(r)), "jpeg") for r in row],
        "steps/observation/wrist": [frame_codec.encode(picture(int(r), (16, 20, 3)), "png") for r in row],
        "steps/observation/depth": [png(np.full((4, 5), 1000 + int(r), np.uint16)) for r in row],
        "steps/observation/counts": [struct.pack("<2h", int(r), -int(r)) for r in row],
        "steps/observation/packed": [zlib.compress(struct.pack("<4f", r, 0, 0, -r)) for r in row],
        "steps/action/move": [x for r in row for x in (r / 10, -r / 10)],
        "steps/action/grip": [0.5 for _ in row],
        "steps/action/stop": [-i for i in range(n)],
        "steps/reward": [float(i == n - 1) for i in range(n)],
        "steps/is_first": [int(i == 0) for i in range(n)], "steps/is_last": [int(i == n - 1) for i in range(n)],
        "steps/is_terminal": [int(i == n - 1 and episode == 0) for i in range(n)],
        "steps/language_instruction": [f"pick {episode}".encode()] * n,
        "steps/clock": [-(2**40) + i for i in range(n)],
        "episode_metadata/file_path": [b"raw.bag"], "episode_metadata/operator": [7],
    }  # fmt: skip


ABOUT = {"file_path": tf.text(), "operator": tf.tensor((), "int64")}


def records(**change: Any) -> list[bytes]:
    """Return the episodes' records; `change` replaces features of episode 1 (`None` takes them out)."""
    found = [values(i, n) for i, n in enumerate(LENGTHS)]
    for key, value in change.items():
        name = key.replace("__", "/")
        found[1].pop(name)
        if value is not None:
            found[1][name] = value
    return [tf.example(of) for of in found]


def dataset(tmp_path: Path, rows: list[bytes] | None = None, **options: Any) -> RldsDataset:
    rows = records() if rows is None else rows
    folder = tf.write_tfds(tmp_path / "toy", [rows[:2], rows[2:]], CHILDREN, about=ABOUT)
    return open_rlds(folder, **{"fps": 10.0, **options})


def test_the_checksum_is_castagnolis():
    for data in (b"", b"123456789", bytes(range(256)) * 3):
        assert masked_crc(data) == int.from_bytes(tf.masked(data), "little")
    assert tf.crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("packed", [True, False])
def test_every_kind_of_feature_is_parsed_packed_or_not(packed: bool):
    ints = [0, 1, -1, 127, 128, 300, 2**62, -(2**63), 2**63 - 1]
    found = parse_example(
        tf.example({"i": ints, "f": [0.5, -2.0, 1e30], "b": [b"", b"\x00\xff"], "none": []}, packed=packed)
    )
    assert found["i"].tolist() == ints
    np.testing.assert_array_equal(found["f"], np.array([0.5, -2.0, 1e30], np.float32))
    assert found["b"] == [b"", b"\x00\xff"]
    assert len(found["none"]) == 0


def test_a_sequence_example_reads_as_steps():
    data = tf.sequence_example({"task": [b"pick"]}, {"action": [[0.5, 1.0], [2.0, 3.0]], "name": [[b"a"], [b"b"]]})
    found = parse_example(data)
    assert (found["task"], found["steps/name"]) == ([b"pick"], [b"a", b"b"])
    assert found["steps/action"].tolist() == [0.5, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\x0b\x00", b"\xff" * 12, b"\x0a\x05\x0a\x09\x00\x00\x00"])
def test_bytes_that_are_no_example_are_refused(data: bytes):
    with pytest.raises(DataFormatError, match=r"is not a tf\.train\.Example"):
        parse_example(data)


def test_every_array_of_an_episode_is_in_the_store_as_it_was(tmp_path: Path):
    found = dataset(tmp_path)
    assert [d for d in found.defects if d.severity != "warning"] == []
    assert import_dataset(found, tmp_path / "s").imported == 3
    store = EpisodeStore.open(tmp_path / "s")
    for i, n in enumerate(LENGTHS):
        wanted, episode = values(i, n), store.episode(f"episode_{i:06d}")
        row = 100.0 * i + np.arange(n)
        np.testing.assert_array_equal(episode.obs["state"][:], np.reshape(wanted["steps/observation/state"], (n, 3)))
        np.testing.assert_array_equal(episode.obs["depth"][:], (1000 + row)[:, None, None, None] + np.zeros((4, 5, 1)))
        np.testing.assert_array_equal(episode.obs["counts"][:], np.stack([row, -row], 1))
        np.testing.assert_array_equal(episode.obs["packed"][:][:, 1, 1], -row)
        move = np.reshape(wanted["steps/action/move"], (n, 2)).astype(np.float32)
        np.testing.assert_array_equal(episode.action, np.concatenate([np.full((n, 1), 0.5), move], 1))
        np.testing.assert_array_equal(episode.extras["action.stop"][:], -np.arange(n))
        np.testing.assert_array_equal(episode.extras["clock"][:], wanted["steps/clock"])
        np.testing.assert_array_equal(episode.reward, wanted["steps/reward"])
        for name in ("camera", "wrist"):
            rows = store.read(episode.id).streams[name].data
            assert [rows.encoded(k) for k in range(n)] == wanted[f"steps/observation/{name}"]
        assert (episode.meta.task, episode.terminated, episode.truncated) == (f"pick {i}", i == 0, i != 0)
        assert episode.meta.extra["imported"]["metadata"]["episode_metadata/operator"] == 7
    assert {n: s.codec for n, s in store.schema.streams.items() if s.codec != "raw"} == {
        "camera": "jpeg",
        "wrist": "png",
    }


def test_the_last_action_can_be_left_out_as_rlds_defines_it(tmp_path: Path):
    recording = dataset(tmp_path, last_action="drop").episode(1)
    assert len(recording.streams["action"]) == len(recording.streams["reward"]) == LENGTHS[1] - 1
    assert len(recording.streams["state"]) == len(recording.streams["camera"]) == LENGTHS[1]


def test_actions_that_all_end_in_zero_are_told(tmp_path: Path):
    def ending(i: int, n: int) -> bytes:
        of = values(i, n)
        of["steps/action/move"][-2:] = [0.0, 0.0]
        of["steps/action/grip"][-1] = 0.0
        return tf.example(of)

    found = dataset(tmp_path, [ending(i, n) for i, n in enumerate(LENGTHS)])
    assert any("last_action: drop" in d.advice for d in found.defects)
    assert not any("last_action: drop" in d.advice for d in dataset(tmp_path / "other").defects)


def test_what_actions_command_can_be_said_and_must_exist(tmp_path: Path):
    found = dataset(tmp_path, action_kind="delta_pose")
    assert (found.schema.spec.action.kind, found.defects) == ("delta_pose", [])
    with pytest.raises(ConfigError, match=r"`import\.action_kind` must be one of"):
        dataset(tmp_path / "a", action_kind="push")
    with pytest.raises(ConfigError, match="`last_action` must be one of"):
        dataset(tmp_path / "b", last_action="later")


def test_without_a_rate_the_message_says_what_to_give(tmp_path: Path):
    with pytest.raises(DataFormatError, match=r"give import\.fps"):
        dataset(tmp_path, fps=None)


def empty() -> dict[str, list[Any]]:
    return {key: [] for key in values(1, 1) if key.startswith("steps/")}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps__action__move": None}, "`steps/action/move` is missing"),
        ({"steps__action__move": [0.0] * 6}, "its arrays have different numbers of steps"),
        ({"steps__action__move": [0.0] * 7}, r"must be float32\(2,\) a step, the record has 7 numbers"),
        ({"steps__action__grip": [float("nan")] + [0.0] * 3}, "holds NaN or infinity"),
        ({key.replace("/", "__"): [] for key in empty()}, "it has 0 steps"),
        ({"steps__observation__packed": [b"no zlib"] * 4}, "does not decode as zlib"),
    ],
)
def test_a_broken_episode_is_named_and_the_others_can_be_imported(tmp_path: Path, change: dict[str, Any], what: str):
    found = dataset(tmp_path, records(**change))
    with pytest.raises(DataFormatError, match=what):
        import_dataset(found, tmp_path / "refused")
    report = import_dataset(found, tmp_path / "s", keep_sound=True)
    assert (report.imported, list(report.skipped)) == (2, [1])


@pytest.mark.parametrize("key", ["camera", "wrist", "depth"])
def test_a_damaged_picture_fails_its_episode_and_no_other(tmp_path: Path, key: str):
    pictures = values(1, LENGTHS[1])[f"steps/observation/{key}"]
    found = dataset(tmp_path, records(**{f"steps__observation__{key}": [*pictures[:3], pictures[3][:20]]}))
    report = import_dataset(found, tmp_path / "s", keep_sound=True)
    assert (report.imported, list(report.skipped)) == (2, [1])
    assert f"`steps/observation/{key}` of step 3" in report.skipped[1]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "what", "lost"),
    [
        ("data", "the checksum of the record at byte 0 is wrong", [0]),
        ("length", "the checksum of the length at byte 0 is wrong", [0, 1]),
        ("cut", "it was cut short", [1]),
        ("gone", "the file is missing", [0, 1]),
    ],
)
def test_a_damaged_shard_loses_its_episodes_and_no_other(tmp_path: Path, damage: str, what: str, lost: list[int]):
    rows = records()
    folder = tf.write_tfds(tmp_path / "toy", [rows[:2], rows[2:]], CHILDREN, about=ABOUT)
    shard = folder / "toy-train.tfrecord-00000-of-00002"
    if damage == "data":
        flip(shard, 40)
    elif damage == "length":
        flip(shard, 0)
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-30])
    else:
        shard.unlink()
    found = open_rlds(folder, fps=10.0)
    assert any(what in d.what and d.severity == "episode" for d in found.defects)
    report = import_dataset(found, tmp_path / "s", keep_sound=True)
    assert (report.episodes, sorted(report.skipped)) == (3, lost)
    assert EpisodeStore.open(tmp_path / "s").ids() == [f"episode_{i:06d}" for i in range(3) if i not in lost]


def test_a_file_changed_after_it_was_opened_is_noticed(tmp_path: Path):
    found = dataset(tmp_path)
    flip(tmp_path / "toy" / "toy-train.tfrecord-00001-of-00002", 60)
    with pytest.raises(DataFormatError, match="is damaged; copy the file again"):
        found.episode(2)


def test_features_of_unknown_classes_are_left_out_and_told(tmp_path: Path):
    children = {**CHILDREN, "video": {"pythonClassName": f"{tf.CORE}.video_feature.Video", "video": {}}}
    rows = [tf.example(values(i, n)) for i, n in enumerate(LENGTHS)]
    found = open_rlds(tf.write_tfds(tmp_path / "toy", [rows], children, about=ABOUT), fps=10.0)
    assert "features of Video" in found.lost["steps/video"]
    assert any(d.where == "steps/video" and d.severity == "warning" for d in found.defects)
    assert import_dataset(found, tmp_path / "s").imported == 3


def test_one_file_without_features_json_is_read_by_guessing_shapes(tmp_path: Path):
    folder = tf.write_tfds(tmp_path / "toy", [records()], None)
    found = open_dataset(folder / "toy-train.tfrecord-00000-of-00001", fps=10.0)
    assert any("shapes were guessed" in d.advice for d in found.defects)
    recording = found.episode(1)
    assert recording.streams["state"].data.shape == (4, 3)
    assert recording.streams["camera"].data.shape == (4, 24, 32, 3)
    assert recording.streams["action"].data.shape == (4, 3)


def test_what_dataset_info_counts_otherwise_is_told(tmp_path: Path):
    rows = records()
    folder = tf.write_tfds(tmp_path / "toy", [rows[:2], rows[2:]], CHILDREN, about=ABOUT)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('["2", "1"]', '["2", "3"]'))
    found = open_rlds(folder, fps=10.0)
    assert [(d.what, d.episodes) for d in found.defects if d.severity == "episode"] == [("has 1 episodes of 3", (3, 4))]
    (folder / "features.json").write_text("{")
    with pytest.raises(DataFormatError, match="cannot be read as TFDS features"):
        open_rlds(folder, fps=10.0)


def test_records_are_found_where_they_lie(tmp_path: Path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(tf.framed([b"one", b"", b"three"]))
    assert [data for _, data in scan(path)] == [b"one", b"", b"three"]
    assert [record.offset for record, _ in scan(path)] == [12, 31, 47]
