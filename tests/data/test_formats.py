"""Formats are told by looking at files, and what fits none is refused with what was looked for."""

import json
import zipfile

import numpy as np
import pytest
import zarr

from robot_rl.data.foreign import ForeignDataset, import_dataset
from robot_rl.data.formats import FORMATS, find_format, open_dataset
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, DataFormatError
from tests.data.lerobot_folders import write_v2, write_v3


def hdf5(path, **attributes):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs.update(attributes)
    return path


def replay_buffer(path):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    rows = np.arange(7, dtype=np.float32)
    group.create_array("data/action", data=np.stack([rows, -rows], 1))
    group.create_array("data/agent", data=rows[:, None] + 100)
    group.create_array("data/camera", data=np.full((7, 8, 8, 3), rows[:, None, None, None]))
    group.create_array("meta/episode_ends", data=np.array([3, 7]))
    return path


def test_every_format_is_told_by_its_files(tmp_path):
    (tmp_path / "rlds").mkdir()
    (tmp_path / "rlds" / "toy-train.tfrecord-00000-of-00001").write_bytes(b"")
    places = {
        "lerobot": [write_v2(tmp_path / "v2"), write_v3(tmp_path / "v3")],
        "robomimic": [hdf5(tmp_path / "a.hdf5", env_args=json.dumps({}), env="Lift")],
        "robosuite": [hdf5(tmp_path / "b.hdf5", env="Lift", repository_version="1.4")],
        "rlds": [tmp_path / "rlds", tmp_path / "rlds" / "toy-train.tfrecord-00000-of-00001"],
        "replay_buffer": [replay_buffer(tmp_path / "buffer.zarr")],
    }
    assert set(places) == set(FORMATS)
    for name, paths in places.items():
        for path in paths:
            assert [f.name for f in FORMATS.values() if f.detect(path)] == [name], path


def test_a_lerobot_folder_without_its_info_is_still_known_for_one(tmp_path):
    root = write_v2(tmp_path / "toy")
    (root / "meta" / "info.json").unlink()
    assert find_format(root).name == "lerobot"


def test_a_zip_of_a_replay_buffer_is_known(tmp_path):
    folder = replay_buffer(tmp_path / "buffer.zarr")
    with zipfile.ZipFile(tmp_path / "buffer.zarr.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    assert find_format(tmp_path / "buffer.zarr.zip").name == "replay_buffer"


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_can_be_loaded_and_says_its_options(name):
    if name in ("robomimic", "robosuite"):
        pytest.importorskip("h5py")
    assert "fps" in FORMATS[name].options()


def test_what_fits_no_format_is_refused_with_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataFormatError) as error:
        open_dataset(tmp_path)
    message = str(error.value)
    assert 'a folder with ["notes.txt"]' in message
    assert "meta/info.json" in message
    assert "import.format" in message
    with pytest.raises(DataFormatError, match="there is nothing at"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"`import.format` must be one of \['lerobot'"):
        open_dataset(tmp_path, "mcap")


def test_a_replay_buffer_that_no_task_describes_comes_in_by_its_arrays(tmp_path):
    path = replay_buffer(tmp_path / "buffer.zarr")
    with pytest.raises(ConfigError, match=r"give import.fps=<Hz>"):
        open_dataset(path)
    data = open_dataset(path, fps=10.0, task="push")
    assert isinstance(data, ForeignDataset)
    assert data.schema.codecs == {"camera": "png"}
    assert import_dataset(data, tmp_path / "store").imported == 2
    recording = EpisodeStore.open(tmp_path / "store").read("replay_buffer-000001")
    assert recording.streams["agent"].data[:, 0].tolist() == [103, 104, 105, 106]
    assert recording.streams["camera"].data[2].max() == 5
    assert recording.meta.task == "push"
