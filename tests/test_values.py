"""Values that cross rooms check themselves."""

import dataclasses

import numpy as np
import pytest

from robot_rl.errors import SpecError
from robot_rl.values import ActionChunk, RecordingMeta, Rows, Stream


def test_chunk_stamps_follow_start_and_step() -> None:
    chunk = ActionChunk(start_ns=1_000, step_ns=50, action=np.zeros((4, 2)))
    assert chunk.stamp_ns.tolist() == [1_000, 1_050, 1_100, 1_150]
    assert chunk.stamp_ns.dtype == np.int64


def test_chunk_stamps_do_not_overflow_at_today_s_clock() -> None:
    now = 1_800_000_000_000_000_000
    assert ActionChunk(start_ns=now, step_ns=10**8, action=np.zeros((2, 1))).stamp_ns[1] == now + 10**8


@pytest.mark.parametrize("shape", [(3,), (0, 2), (1, 2, 3)])
def test_chunk_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=r"must be \[H, A\] with H >= 1"):
        ActionChunk(start_ns=0, step_ns=1, action=np.zeros(shape))


def test_chunk_refuses_a_period_of_zero() -> None:
    with pytest.raises(SpecError, match="`step_ns` must be positive, got 0"):
        ActionChunk(start_ns=0, step_ns=0, action=np.zeros((1, 1)))


def test_stream_needs_one_stamp_a_sample() -> None:
    with pytest.raises(SpecError, match="3 stamps for 2 samples"):
        Stream(np.arange(3), np.zeros((2, 7)))
    with pytest.raises(SpecError, match=r"must be int64\(M,\), got float64\(2,\)"):
        Stream(np.zeros(2), np.zeros((2, 7)))


def test_arrays_are_rows() -> None:
    assert isinstance(np.zeros((3, 2)), Rows)


def test_meta_refuses_an_unknown_outcome_and_is_frozen() -> None:
    with pytest.raises(SpecError, match=r"`outcome` must be one of .* got 'great'"):
        RecordingMeta(outcome="great")  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        RecordingMeta().task = "x"  # type: ignore[misc]
