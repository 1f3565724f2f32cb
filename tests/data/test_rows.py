from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.data import rows
from robot_rl.data.rows import FileBlob, FileRows, RowView
from robot_rl.values import Rows

DATA = np.arange(30, dtype=np.int64).reshape(10, 3)


@given(
    index=st.lists(st.integers(0, 9), max_size=12).map(lambda x: np.array(x, np.int64)),
    start=st.integers(-12, 12),
    stop=st.integers(-12, 12),
)
def test_a_view_is_the_gathered_array(index: np.ndarray, start: int, stop: int):
    view, wanted = RowView(DATA, index), DATA[index]
    assert isinstance(view, Rows)
    assert (len(view), view.shape, view.dtype) == (len(wanted), wanted.shape, wanted.dtype)
    np.testing.assert_array_equal(view[start:stop], wanted[start:stop])
    np.testing.assert_array_equal(np.asarray(view), wanted)
    if len(index):
        np.testing.assert_array_equal(view[-1], wanted[-1])
        np.testing.assert_array_equal(view[np.array([0, 0])], wanted[[0, 0]])


def test_more_files_than_maps_can_be_open(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rows, "_MAX_MAPS", 3)
    monkeypatch.setattr(rows, "_maps", OrderedDict())
    files = []
    for i in range(8):
        (tmp_path / str(i)).write_bytes((DATA + 100 * i).tobytes())
        files.append(FileRows(FileBlob(tmp_path / str(i), DATA.nbytes), DATA.shape, DATA.dtype))
    held = files[0][2:4]
    for _ in range(2):
        for i, file in enumerate(files):
            np.testing.assert_array_equal(file[np.array([9, 1])], DATA[[9, 1]] + 100 * i)
    np.testing.assert_array_equal(held, DATA[2:4])
    assert len(rows._maps) == 3
