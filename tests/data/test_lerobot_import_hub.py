"""Data sets as they are found on the hub: depth, channels first, notes of files in place of files, wrong rates."""

import cv2
import numpy as np
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.store import EpisodeStore
from tests.data.lerobot_folders import (
    CAMERA,
    HEIGHT,
    LENGTHS,
    WIDTH,
    change_info,
    change_rows,
    columns,
    data_of,
    found,
    only,
    picture,
    png,
    video_of,
    write_v2,
    write_video,
)

DEPTH = "observation.depth"


def depth(episode, frame):
    return np.full((HEIGHT, WIDTH), 1000 * episode + 300 + frame, np.uint16)


@pytest.mark.parametrize("shape", [[HEIGHT, WIDTH], [HEIGHT, WIDTH, 1], [1, HEIGHT, WIDTH]])
def test_depth_pictures_of_16_bits_keep_every_millimetre(tmp_path, shape):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda i: i["features"].update({DEPTH: {"dtype": "image", "shape": shape, "names": None}}))
    for e in range(3):
        coded = [bytes(cv2.imencode(".png", depth(e, i))[1]) for i in range(LENGTHS[e])]
        change_rows(root, e, lambda f, coded=coded: f.update({DEPTH: [{"bytes": c, "path": None} for c in coded]}))
    data = open_dataset(root)
    assert not data.defects
    import_dataset(data, tmp_path / "store")
    stream = EpisodeStore.open(tmp_path / "store").read("toy-000002").streams[DEPTH].data
    assert (stream.dtype, stream.shape) == (np.uint16, (15, HEIGHT, WIDTH, 1))
    np.testing.assert_array_equal(np.asarray(stream[7])[..., 0], depth(2, 7))


@pytest.mark.parametrize("names", [["channels", "height", "width"], None])
def test_channels_first_in_info_are_pictures_like_others(tmp_path, names):
    root = write_v2(tmp_path / "toy", kind="video")
    change_info(root, lambda i: i["features"][CAMERA].update(shape=[3, HEIGHT, WIDTH], names=names))
    data = open_dataset(root)
    assert not data.defects
    assert data.schema.spec.obs[CAMERA].shape == (HEIGHT, WIDTH, 3)


def test_jpegs_in_parquet_are_copied_as_they_are(tmp_path):
    root = write_v2(tmp_path / "toy", kind="image")
    coded = {}
    for e in range(3):
        coded[e] = [bytes(cv2.imencode(".jpg", picture(e, i))[1]) for i in range(LENGTHS[e])]
        change_rows(root, e, lambda f, e=e: f.update({CAMERA: [{"bytes": c, "path": None} for c in coded[e]]}), "image")
    import_dataset(open_dataset(root), tmp_path / "store")
    frames = EpisodeStore.open(tmp_path / "store").read("toy-000001").streams[CAMERA].data
    assert [frames.encoded(i) for i in range(9)] == coded[1]


def test_two_cameras_come_in_together_each_with_its_own_pictures(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    other = "observation.images.wrist"
    change_info(root, lambda i: i["features"].update({other: i["features"][CAMERA]}))
    for e in range(3):
        path = root / "videos" / "chunk-000" / other / f"episode_{e:06d}.mp4"
        write_video(path, [picture(e, LENGTHS[e] - 1 - i) for i in range(LENGTHS[e])])
    import_dataset(open_dataset(root), tmp_path / "store")
    streams = EpisodeStore.open(tmp_path / "store").read("toy-000000").streams
    front, wrist = streams[CAMERA].data[:].astype(int), streams[other].data[:].astype(int)
    assert np.abs(front - wrist[::-1])[:, 8:40, [4, 12, 32, 40, 56]].max() < 6


def test_notes_of_git_lfs_in_place_of_files_are_called_so(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    data_of(root, 0).write_text(note)
    video_of(root, 1).write_text(note)
    texts = {text for _, _, text in found(root)}
    assert any("data files are Git LFS pointers; run `git lfs pull`" in text for text in texts)
    assert any("videos are Git LFS pointers; run `git lfs pull`" in text for text in texts)


def test_a_wrong_rate_is_told_with_the_true_one_and_can_be_corrected(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda i: i.update(fps=50))
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("warning", (0, 1, 2))
    assert "they come at 20 Hz" in text
    assert not found(root, fps=20.0)
    assert open_dataset(root, fps=20.0).schema.spec.control_hz == 20


def test_words_of_a_column_stand_in_for_a_task_that_nobody_gives(tmp_path):
    root = write_v2(tmp_path / "toy")
    (root / "meta" / "tasks.jsonl").write_text("")
    lines = [f'{{"episode_index": {e}, "length": {LENGTHS[e]}}}' for e in range(3)]
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    assert open_dataset(root, task="tidy up").episode(0).meta.task == "tidy up"
    name = "language_instruction"
    change_info(root, lambda i: i["features"].update({name: {"dtype": "string", "shape": [1]}}))
    for e in range(3):
        change_rows(root, e, lambda f, n=LENGTHS[e]: f.update({name: ["open the door"] * n}))
    assert open_dataset(root, task="tidy up").episode(2).meta.task == "open the door"


def test_names_without_prefix_and_with_slashes_become_observations(tmp_path):
    root = write_v2(tmp_path / "toy")

    def rename(info):
        info["features"] = {
            "image" if n == CAMERA else n.replace("observation.", "robot/").replace("action", "actions"): f
            for n, f in info["features"].items()
        }

    def rename_rows(rows):
        rows["robot/state"], rows["actions"] = rows.pop("observation.state"), rows.pop("action")

    change_info(root, rename)
    for e in range(3):
        change_rows(root, e, rename_rows)
    data = open_dataset(root)
    assert not data.defects
    assert set(data.schema.spec.obs) == {"robot_state", "effort"}
    np.testing.assert_array_equal(data.episode(1).streams["action"].data, np.stack(columns(1)["action"]))


def test_transparency_is_told_as_lost(tmp_path):
    root = write_v2(tmp_path / "toy", kind="image")
    clear = [np.dstack([picture(0, i), np.full((HEIGHT, WIDTH), 128, np.uint8)]) for i in range(LENGTHS[0])]
    for e in range(3):
        coded = [bytes(cv2.imencode(".png", cv2.cvtColor(c, cv2.COLOR_RGBA2BGRA))[1]) for c in clear]
        coded = (coded * 2)[: LENGTHS[e]]
        change_rows(root, e, lambda f, c=coded: f.update({CAMERA: [{"bytes": x, "path": None} for x in c]}), "image")
    data = open_dataset(root)
    assert data.lost == {CAMERA: "transparency"}
    rows = data.episode(0).streams[CAMERA].data
    np.testing.assert_array_equal(rows[3], picture(0, 3))
    assert rows.encoded(3)[:4] == png(picture(0, 3))[:4]
