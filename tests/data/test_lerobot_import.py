"""Sound LeRobot data sets of every version come into a store with every number as it was."""

import numpy as np
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from tests.data.lerobot_folders import (
    CAMERA,
    FPS,
    LENGTHS,
    TASKS,
    change_info,
    change_rows,
    columns,
    picture,
    write_v2,
    write_v3,
)

VERSIONS = {"v2.0": write_v2, "v2.1": write_v2, "v3.0": write_v3}


def write(root, version, kind=None):
    return write_v3(root, kind=kind) if version == "v3.0" else write_v2(root, kind=kind, version=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_number_of_a_sound_data_set_is_in_the_store(tmp_path, version):
    data = open_dataset(write(tmp_path / "toy", version))
    assert data.format == f"lerobot {version}"
    assert not data.defects
    assert not data.lost
    report = import_dataset(data, tmp_path / "store")
    assert (report.imported, report.episodes, report.skipped) == (3, 3, {})
    store = EpisodeStore.open(tmp_path / "store")
    assert store.ids() == ["toy-000000", "toy-000001", "toy-000002"]
    for number, id in enumerate(store.ids()):
        recording, wanted = store.read(id), columns(number)
        for name in ("observation.state", "action", "effort", "next.done", "next.success"):
            rows = np.asarray(recording.streams[name].data)
            expected = np.stack([np.asarray(row) for row in wanted[name]])
            assert rows.dtype == expected.dtype, name
            np.testing.assert_array_equal(rows.reshape(expected.shape), expected)
        np.testing.assert_array_equal(recording.streams["reward"].data[:], wanted["next.reward"])
        stamps = np.round(np.arange(LENGTHS[number]) * 1e9 / FPS).astype(np.int64)
        np.testing.assert_array_equal(recording.streams["action"].stamp_ns, stamps)
        assert recording.meta.task == TASKS[number]
        assert recording.meta.on_grid
        assert recording.meta.outcome == ("failure" if number == 1 else "success")
        assert recording.meta.terminated == (number != 1)
        assert recording.meta.truncated == (number == 1)
    names = store.read(store.ids()[0]).meta.extra["imported"]["features"]["action"]["names"]
    assert names == {"motors": ["x", "y"]}
    assert store.spec.control_hz == FPS
    assert store.spec.name == "toy"


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_pictures_in_parquet_are_copied_bit_by_bit(tmp_path, version):
    data = open_dataset(write(tmp_path / "toy", version, "image"))
    assert not data.defects
    assert data.schema.codecs == {CAMERA: "png"}
    import_dataset(data, tmp_path / "store")
    store = EpisodeStore.open(tmp_path / "store")
    for number, id in enumerate(store.ids()):
        frames = store.read(id).streams[CAMERA].data
        source = columns(number, "image")[CAMERA]
        for i in range(LENGTHS[number]):
            np.testing.assert_array_equal(frames[i], picture(number, i))
            assert frames.encoded(i) == source[i]["bytes"]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_each_video_frame_comes_to_its_own_row(tmp_path, version):
    data = open_dataset(write(tmp_path / "toy", version, "video"))
    assert not data.defects
    assert "JPEG" in data.lost[CAMERA]
    import_dataset(data, tmp_path / "store")
    store = EpisodeStore.open(tmp_path / "store")
    for number, id in enumerate(store.ids()):
        frames = store.read(id).streams[CAMERA].data
        assert len(frames) == LENGTHS[number]
        for i in range(len(frames)):
            # 12 levels part neighbouring frames; codec and JPEG move flat bands by less than 4.
            inner = np.s_[8:40, [4, 12, 20, 28, 36, 44, 52, 60]]
            difference = frames[i][inner].astype(int) - picture(number, i)[inner]
            assert abs(difference).max() < 5, (number, i)


def test_a_second_import_goes_on_and_another_data_set_is_refused(tmp_path):
    root = write_v2(tmp_path / "toy")
    assert import_dataset(open_dataset(root), tmp_path / "store", limit=1).imported == 1
    assert import_dataset(open_dataset(root), tmp_path / "store").imported == 3
    other = open_dataset(root, features=["observation.state"])
    with pytest.raises(StoreError, match="import into a new place"):
        import_dataset(other, tmp_path / "store")


def test_features_can_be_chosen_renamed_and_joined_to_an_action(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    data = open_dataset(root, features=["observation.state"], rename={"observation.state": "joints"})
    assert set(data.episode(0).streams) == {"joints", "action"}
    assert data.lost[CAMERA] == "not asked for by import.features"
    joined = open_dataset(root, videos=False, action=["action", "next.reward"])
    assert joined.schema.spec.action.shape == (3,)
    np.testing.assert_array_equal(joined.episode(1).streams["action"].data[:, 2], columns(1)["next.reward"])
    with pytest.raises(ConfigError, match=r"`import.features` names \['nothing'\]"):
        open_dataset(root, features=["nothing"])
    with pytest.raises(ConfigError, match="would both become stream `x`"):
        open_dataset(root, rename={"observation.state": "x", "effort": "x"})
    with pytest.raises(ConfigError, match=r"has no option \['colour'\]"):
        open_dataset(root, colour=True)


def test_an_action_in_parts_is_joined_in_their_order(tmp_path):
    root = write_v2(tmp_path / "toy")

    def split(info):
        info["features"]["action.arm"] = info["features"].pop("action")
        info["features"]["action.gripper"] = {"dtype": "float32", "shape": [1], "names": None}

    def split_rows(found):
        found["action.arm"] = found.pop("action")
        found["action.gripper"] = np.full(len(found["index"]), 0.5, np.float32)

    change_info(root, split)
    for episode in range(3):
        change_rows(root, episode, split_rows)
    data = open_dataset(root)
    assert [d.what for d in data.defects if "action" in d.what] == ["there is no feature `action`"]
    action = data.episode(0).streams["action"].data
    assert action.shape == (12, 3)
    assert (action[:, 2] == 0.5).all()
    assert action[3, 0] == 1003


def test_a_task_that_changes_within_an_episode_is_kept_row_by_row(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_rows(root, 0, lambda found: found.update(task_index=np.array([0] * 5 + [1] * 7)))
    data = open_dataset(root)
    recording = data.episode(0)
    assert recording.streams["task_index"].data.tolist() == [0] * 5 + [1] * 7
    assert recording.meta.extra["imported"]["task_words"] == {"0": "pick", "1": "place"}
    assert recording.meta.task == "pick"


def test_constant_text_goes_with_the_episode_and_changing_text_is_told_as_lost(tmp_path):
    root = write_v2(tmp_path / "toy")
    for name in ("note", "saying"):
        change_info(root, lambda i, name=name: i["features"].update({name: {"dtype": "string", "shape": [1]}}))
    change_info(root, lambda i: i["features"].update({"sound": {"dtype": "audio", "shape": [1]}}))
    for e in range(3):
        n = LENGTHS[e]
        change_rows(root, e, lambda f, n=n: f.update(note=["slow"] * n, saying=[str(i) for i in range(n)]))
    data = open_dataset(root)
    assert data.episode(2).meta.extra["imported"]["text"] == {"note": "slow"}
    assert set(data.lost) == {"saying", "sound"}
    assert "changes within an episode" in data.lost["saying"]


def test_done_in_every_last_row_says_nothing_of_the_task_but_a_difference_does(tmp_path):
    root = write_v2(tmp_path / "toy")

    def forget_success(found):
        del found["next.success"]

    change_info(root, lambda info: info["features"].pop("next.success"))
    for episode in range(3):
        change_rows(root, episode, forget_success)
    assert [open_dataset(root).episode(e).meta.terminated for e in range(3)] == [False, False, False]
    change_rows(root, 1, lambda f: (forget_success(f), f.update({"next.done": np.zeros(9, bool)})))
    assert [open_dataset(root).episode(e).meta.terminated for e in range(3)] == [True, False, True]


def test_a_rate_that_is_no_whole_number_keeps_its_stamps(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda info: info.update(fps=29.97))
    for e in range(3):
        change_rows(root, e, lambda f: f.update(timestamp=(f["frame_index"] / 29.97).astype(np.float32)))
    data = open_dataset(root)
    assert not data.defects
    assert data.schema.spec.control_hz == 29.97
    assert data.episode(0).streams["action"].stamp_ns[11] == round(11e9 / 29.97)


def test_the_real_data_set_opens_with_its_missing_videos_told(shared_data):
    root = shared_data / "lerobot_g1_v21"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    data = open_dataset(root)
    assert len(data) == 100
    assert [d.severity for d in data.defects] == ["episode"]
    assert 0 in data.defects[0].episodes
    assert 1 not in data.defects[0].episodes
    numbers = open_dataset(root, videos=False)
    assert not numbers.defects
    streams = numbers.episode(99).streams
    assert streams["observation.state"].data.shape[1:] == streams["action"].data.shape[1:] == (26,)
