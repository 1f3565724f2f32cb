"""Broken cameras of LeRobot data sets: missing, cut, damaged or other files than the meta data say."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.errors import DataFormatError
from tests.data.lerobot_folders import (
    CAMERA,
    HEIGHT,
    LENGTHS,
    WIDTH,
    change_info,
    change_rows,
    found,
    only,
    picture,
    png,
    sound_ones,
    video_of,
    write_v2,
    write_v3,
    write_video,
)


@pytest.mark.parametrize(
    "template",
    [
        "videos/{video_key}/{episode_index}.mp4",
        "/home/somebody/data/videos/episode_{episode_index:06d}.mp4",
        "../other/{video_key}/episode_{episode_index:06d}.mp4",
        "videos/{nothing}/{episode_index}.mp4",
    ],
)
def test_a_video_path_that_leads_nowhere_or_outside_falls_back_on_the_standard_one(tmp_path, template):
    root = write_v2(tmp_path / "toy", kind="video")
    change_info(root, lambda i: i.update(video_path=template))
    severity, _, text = only(root)
    assert severity == "warning"
    assert f"video_path {template!r}" in text
    assert sound_ones(root, tmp_path / "store") == [0, 1, 2]


def test_missing_videos_cost_their_episodes_only(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    for episode in (0, 2):
        video_of(root, episode).unlink()
    assert only(root) == ("episode", (0, 2), f"{CAMERA}: videos are missing")
    assert sound_ones(root, tmp_path / "store") == [1]
    assert not found(root, videos=False)


def test_another_codec_and_size_than_info_says_are_told_and_decoded_as_they_are(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    change_info(root, lambda i: i["features"][CAMERA]["info"].update({"video.codec": "av1"}))
    change_info(root, lambda i: i["features"][CAMERA].update(shape=[96, 64, 3]))
    defects = found(root)
    assert ("warning", (0, 1, 2), f"{CAMERA}: codec must be av1, as meta/info.json says, got h264") in defects
    assert any("must be 96x64, its videos are 48x64" in text for _, _, text in defects)
    assert open_dataset(root).schema.spec.obs[CAMERA].shape == (HEIGHT, WIDTH, 3)
    assert sound_ones(root, tmp_path / "store") == [0, 1, 2]


def test_a_video_with_fewer_frames_than_rows_costs_the_episode_and_one_with_more_does_not(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    write_video(video_of(root, 0), [picture(0, i) for i in range(9)])
    write_video(video_of(root, 1), [picture(1, i) for i in range(14)])
    defects = found(root)
    assert defects[0][:2] == ("episode", (0,))
    assert "too few frames: 9, the rows need 12" in defects[0][2]
    assert defects[1][:2] == ("warning", (1,))
    assert "more frames than the episode has rows, 14 for 9" in defects[1][2]
    assert sound_ones(root, tmp_path / "store") == [1, 2]


def test_an_episode_of_another_picture_size_is_left_out(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    write_video(video_of(root, 1), [np.zeros((64, 64, 3), np.uint8)] * LENGTHS[1])
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("episode", (1,))
    assert "videos must be 48x64 as the others, got 64x64" in text


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_video_cut_short_is_found_from_its_header(tmp_path, share):
    root = write_v2(tmp_path / "toy", kind="video")
    whole = video_of(root, 2).read_bytes()
    video_of(root, 2).write_bytes(whole[: int(len(whole) * share)])
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("episode", (2,))
    assert "ends before" in text or "cannot be opened" in text
    assert sound_ones(root, tmp_path / "store") == [0, 1]


def test_damage_in_the_middle_of_a_video_is_found_while_importing(tmp_path):
    root = write_v2(tmp_path / "toy", kind="video")
    path = video_of(root, 1)
    bytes_ = bytearray(path.read_bytes())
    start = bytes_.index(b"mdat") + 4
    bytes_[start + 20 :] = b"\x00" * (len(bytes_) - start - 20)
    path.write_bytes(bytes_)
    data = open_dataset(root)
    assert not data.defects
    with pytest.raises(DataFormatError, match=r"episode 1: .*episode_000001\.mp4"):
        import_dataset(data, tmp_path / "store")
    report = import_dataset(data, tmp_path / "store", keep_sound=True)
    assert list(report.skipped) == [1]
    assert report.imported == 2
    assert report.defects[-1].severity == "episode"
    assert "episode_000001.mp4" in report.defects[-1].what


def test_pictures_named_by_a_path_elsewhere_or_damaged_cost_the_episode(tmp_path):
    root = write_v2(tmp_path / "toy", kind="image")

    def elsewhere(f):
        f[CAMERA] = [{"bytes": None, "path": f"/home/somebody/{i}.png"} for i in range(LENGTHS[0])]

    def damaged(f):
        f[CAMERA][4] = {"bytes": png(picture(1, 4))[:-20], "path": None}

    change_rows(root, 0, elsewhere, "image")
    change_rows(root, 1, damaged, "image")
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("episode", (0,))
    assert "names the file '/home/somebody/0.png'" in text
    report = import_dataset(open_dataset(root), tmp_path / "store", keep_sound=True)
    assert sorted(report.skipped) == [0, 1]
    assert "no whole picture" in report.skipped[1]
    shutil.rmtree(tmp_path / "store")


def test_a_v3_episode_beyond_the_end_of_the_shared_video_is_left_out(tmp_path):
    root = write_v3(tmp_path / "toy", kind="video")
    frames = [picture(e, i) for e in range(2) for i in range(LENGTHS[e])]
    write_video(root / "videos" / CAMERA / "chunk-000" / "file-000.mp4", frames)
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("episode", (2,))
    assert "too few frames: 21, the rows need 36" in text
    assert sound_ones(root, tmp_path / "store") == [0, 1]


def test_a_v3_list_that_cannot_be_read_is_fatal_and_a_row_without_its_video_is_not(tmp_path):
    root = write_v3(tmp_path / "toy", kind="video")
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns([f"videos/{CAMERA}/from_timestamp"]), path)
    assert only(root) == ("episode", (0, 1, 2), f"{CAMERA}: nobody says where the video lies")
    path.unlink()
    with pytest.raises(DataFormatError, match="meta/episodes: has no parquet file"):
        open_dataset(root)
