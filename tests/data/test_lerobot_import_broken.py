"""Broken LeRobot data sets: each fault is told by file and field, and what is sound comes in when asked for."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError
from tests.data.lerobot_folders import (
    FPS,
    LENGTHS,
    change_info,
    change_rows,
    columns,
    data_of,
    found,
    only,
    sound_ones,
    statistics,
    table,
    write_v2,
)


def test_without_info_nothing_can_be_imported_and_the_message_says_why(tmp_path):
    root = write_v2(tmp_path / "toy")
    (root / "meta" / "info.json").unlink()
    with pytest.raises(DataFormatError, match=r"fatal: meta/info.json: is missing"):
        open_dataset(root)
    (root / "meta" / "info.json").write_text('{"codebase_version": "v2.1",')
    with pytest.raises(DataFormatError, match="is not JSON"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("fps"), "fps must be a number above 0, got None"),
        (lambda i: i.update(fps=0), "fps must be a number above 0, got 0"),
        (lambda i: i.pop("features"), "features must be an object of features, got None"),
        (lambda i: i.update(codebase_version="v1.6"), "codebase_version must be one of v2.0, v2.1, v3.0, got 'v1.6'"),
        (lambda i: i["features"].pop("action"), "no feature is the action"),
        (lambda i: i["features"]["action"].update(shape=[0]), "feature `action` has no elements"),
    ],
)
def test_an_info_that_lacks_what_an_import_needs_is_fatal(tmp_path, change, message):
    root = write_v2(tmp_path / "toy")
    change_info(root, change)
    with pytest.raises(DataFormatError, match="fatal") as error:
        open_dataset(root)
    assert message in str(error.value)


def test_an_unknown_minor_version_and_a_missing_one_are_read_as_the_nearest(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda i: i.update(codebase_version="v2.7"))
    assert only(root)[2].endswith("got 'v2.7'")
    change_info(root, lambda i: i.pop("codebase_version"))
    assert only(root)[2].endswith("codebase_version is missing")


def test_missing_and_cut_data_files_cost_their_episodes(tmp_path):
    root = write_v2(tmp_path / "toy")
    data_of(root, 0).unlink()
    data_of(root, 1).write_bytes(data_of(root, 1).read_bytes()[:-30])
    defects = found(root)
    assert ("episode", (0,), "data/chunk-000: data files are missing") in defects
    assert any(episodes == (1,) and "is no whole parquet file" in text for _, episodes, text in defects)
    assert sound_ones(root, tmp_path / "store") == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(episode_index=np.full(9, 5)), "episode_index: must be 1 in"),
        (lambda f: f.update(frame_index=np.arange(9) * 2), "frame_index: must grow by one, got 2 after 0 in row 1"),
        (lambda f: f.update(index=np.arange(9)[::-1]), "index: must grow by one, got 7 after 8 in row 1"),
        (lambda f: f.update(timestamp=np.zeros(9, np.float32)), "timestamp: must grow, got 0 s after 0 s in row 1"),
        (lambda f: f["observation.state"][4].__setitem__(1, np.nan), "observation.state: must be finite"),
        (lambda f: f["action"][0].__setitem__(0, np.inf), "action: must be finite"),
    ],
)
def test_rows_that_are_not_what_they_must_be_cost_the_episode(tmp_path, change, message):
    root = write_v2(tmp_path / "toy", version="v2.0")
    change_rows(root, 1, change)
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("episode", (1,))
    assert message in text
    assert sound_ones(root, tmp_path / "store") == [0, 2]


def test_timestamps_off_the_clock_are_told_and_kept(tmp_path):
    root = write_v2(tmp_path / "toy")
    times = (np.arange(9) / FPS + np.linspace(0, 0.03, 9)).astype(np.float32)
    change_rows(root, 1, lambda f: f.update(timestamp=times))
    severity, episodes, text = only(root)
    assert (severity, episodes) == ("warning", (1,))
    assert "must be frame / 20 Hz within 0.0001 s" in text
    np.testing.assert_array_equal(open_dataset(root).episode(1).streams["timestamp"].data, times)


def test_nan_in_a_feature_that_is_no_observation_is_kept(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_rows(root, 1, lambda f: f["effort"][3][0].__setitem__(0, float("nan")))
    assert not found(root)
    import_dataset(open_dataset(root), tmp_path / "store")
    assert np.isnan(EpisodeStore.open(tmp_path / "store").read("toy-000001").streams["effort"].data[3, 0, 0])


def test_stale_statistics_are_told_and_do_no_harm(tmp_path):
    root = write_v2(tmp_path / "toy")
    rows = [{"episode_index": e, "stats": statistics(e)} for e in range(3)]
    rows[2]["stats"]["action"]["max"][0] += 50
    (root / "meta" / "episodes_stats.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    severity, episodes, text = only(root)
    assert (severity, episodes) == (
        "warning",
        (2,),
    )
    assert "statistics of `action` are not those of its rows (max)" in text


def test_statistics_of_the_whole_are_checked_too(tmp_path):
    root = write_v2(tmp_path / "toy", version="v2.0")
    actions = np.concatenate([np.stack(columns(e)["action"]) for e in range(3)]).astype(np.float64)
    stats = {"min": actions.min(0).tolist(), "max": actions.max(0).tolist(), "mean": actions.mean(0).tolist()}
    (root / "meta" / "stats.json").write_text(json.dumps({"action": stats}))
    assert not found(root)
    stats["mean"][1] = 0.0
    (root / "meta" / "stats.json").write_text(json.dumps({"action": stats}))
    assert only(root)[2] == "meta/stats.json: statistics of `action` are not those of its rows (mean)"


def test_features_without_elements_are_left_out_and_told(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda i: i["features"].update({"observation.tactile": {"dtype": "float32", "shape": [0]}}))
    assert "feature `observation.tactile` has no elements" in only(root)[2]
    assert "no elements" in open_dataset(root).lost["observation.tactile"]
    assert sound_ones(root, tmp_path / "store") == [0, 1, 2]


def test_rows_without_elements_are_left_out_whatever_info_says(tmp_path):
    root = write_v2(tmp_path / "toy")
    for e in range(3):
        rows, empty = table(columns(e)), pa.array([[]] * LENGTHS[e], pa.list_(pa.float64()))
        pq.write_table(rows.set_column(rows.column_names.index("effort"), "effort", empty), data_of(root, e))
    assert "effort" not in open_dataset(root).schema.extra
    assert "has no elements" in open_dataset(root).lost["effort"]
    assert sound_ones(root, tmp_path / "store") == [0, 1, 2]


def test_shapes_and_types_other_than_info_says_are_imported_as_they_are(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda i: i["features"]["observation.state"].update(shape=[7]))
    change_info(root, lambda i: i["features"]["effort"].update(dtype="float32"))
    texts = [text for _, _, text in found(root)]
    assert any("`observation.state` must be float32(7,), the data are float32(3,)" in text for text in texts)
    assert any("`effort` must be float32(2, 2), the data are float64(2, 2)" in text for text in texts)
    assert open_dataset(root).schema.spec.obs["observation.state"].shape == (3,)


def test_an_episode_whose_rows_have_another_shape_is_left_out(tmp_path):
    root = write_v2(tmp_path / "toy")
    found_ = columns(2)
    wide = pa.array([list(row) * 2 for row in found_["observation.state"]], pa.list_(pa.float32()))
    rows = table(found_)
    pq.write_table(
        rows.set_column(rows.column_names.index("observation.state"), "observation.state", wide), data_of(root, 2)
    )
    assert any(e == (2,) and s == "episode" and "as in other episodes, got float32(6,)" in t for s, e, t in found(root))
    ragged = pa.array([list(row)[: 1 + i % 2] for i, row in enumerate(found_["observation.state"])])
    pq.write_table(
        rows.set_column(rows.column_names.index("observation.state"), "observation.state", ragged), data_of(root, 2)
    )
    assert any(e == (2,) and "rows must be equally long, got 1 to 2 numbers" in t for _, e, t in found(root))


def test_totals_lists_and_tasks_that_disagree_are_told(tmp_path):
    root = write_v2(tmp_path / "toy")
    change_info(root, lambda i: i.update(total_episodes=5, total_frames=99))
    (root / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "pick"}\nnot json\n')
    lines = (root / "meta" / "episodes.jsonl").read_text().splitlines()
    (root / "meta" / "episodes.jsonl").write_text("\n".join([lines[0], '{"episode_index": 1, "length": 9}']))
    texts = [text for _, _, text in found(root)]
    assert "meta/info.json: total_episodes is 5, there are 2" in texts
    assert "meta/info.json: total_frames is 99, there are 21" in texts
    assert any(
        "1 data files belong to no episode, the first is data/chunk-000/episode_000002.parquet" in t for t in texts
    )
    assert any(t.startswith("meta/tasks.jsonl line 2: is not JSON") for t in texts)
    assert "meta/tasks: task_index [1] has no words" in texts
    assert sound_ones(root, tmp_path / "store") == [0, 1]


def test_a_list_that_says_another_length_costs_the_episode(tmp_path):
    root = write_v2(tmp_path / "toy")
    text = (root / "meta" / "episodes.jsonl").read_text().replace('"length": 15', '"length": 16')
    (root / "meta" / "episodes.jsonl").write_text(text)
    severity, episodes, told = only(root)
    assert (severity, episodes) == ("episode", (2,))
    assert "must have 16 rows, as meta/episodes says, got 15" in told


def test_without_its_list_the_episodes_of_v2_are_found_by_their_files(tmp_path):
    root = write_v2(tmp_path / "toy")
    (root / "meta" / "episodes.jsonl").unlink()
    assert only(root)[:2] == ("warning", ())
    assert sound_ones(root, tmp_path / "store") == [0, 1, 2]
