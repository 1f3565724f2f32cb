from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from robot_rl.data.grid import grid_ns
from robot_rl.data.hdf5_rows import Hdf5Rows, first_not_finite, leaves, open_hdf5, plain
from robot_rl.errors import DataFormatError


@pytest.fixture
def file(tmp_path: Path):
    with h5py.File(tmp_path / "a.hdf5", "w") as made:
        made["a/x"] = np.arange(10.0).reshape(5, 2)
        made["a/b/big"] = np.arange(6, dtype=">i4")
        made["a/lost"] = h5py.SoftLink("/nowhere")
        made["nan"] = np.array([[0.0, 1.0], [2.0, np.nan]])
    with h5py.File(tmp_path / "a.hdf5") as opened:
        yield opened


@pytest.mark.parametrize("index", [0, -1, 5, slice(None), slice(3, 7), slice(None, None, 2), [4, 0, 5, 5], slice(6, 2)])
def test_rows_of_several_parts_are_indexed_like_one_array(file: h5py.File, index):
    more = np.array([[100.0, 101.0], [102.0, 103.0]])
    rows, wanted = Hdf5Rows(file["a/x"], more), np.concatenate([file["a/x"][:], more])
    assert (rows.shape, len(rows)) == ((7, 2), 7)
    np.testing.assert_array_equal(rows[index], wanted[index])
    np.testing.assert_array_equal(Hdf5Rows(file["a/x"], more, skip=2)[:], wanted[2:])


def test_rows_come_in_this_machines_byte_order(file: h5py.File):
    rows = Hdf5Rows(file["a/b/big"])
    assert rows.dtype == rows[:].dtype == np.dtype("int32")
    np.testing.assert_array_equal(rows[:], np.arange(6))


def test_leaves_are_every_dataset_by_path_without_links_that_lead_nowhere(file: h5py.File):
    assert list(leaves(file)) == ["a/b/big", "a/x", "nan"]


def test_the_first_value_that_is_not_finite_is_found(file: h5py.File):
    row, value = first_not_finite(file["nan"])
    assert (row, np.isnan(value)) == (1, True)
    assert first_not_finite(file["a/x"]) is first_not_finite(file["a/b/big"]) is None


def test_attributes_become_plain_json():
    assert plain(np.array([b"x", b"y"])) == ["x", "y"]
    assert [plain(v) for v in (np.int64(3), np.bool_(True), b"t", np.float32(0.5), float("nan"), None)] == [
        3, True, "t", 0.5, "nan", None,
    ]  # fmt: skip


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataFormatError, match=r"none\.hdf5 is not there or not a file"):
        open_hdf5(tmp_path / "none.hdf5")


def test_ticks_are_rounded_one_by_one_so_that_none_drifts():
    stamps = grid_ns(90_001, 30.0)
    assert stamps[[0, 1, 2, 90_000]].tolist() == [0, 33_333_333, 66_666_667, 3_000_000_000_000]
