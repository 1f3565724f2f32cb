"""T33 of the specs, and that every executed value is the one promised for its tick (ramp policy: value = stamp)."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import ActionChunk

STEP = 100_000_000
S = 1_000_000_000


def ramp(start_ns: int, n: int = 8, step_ns: int = STEP) -> ActionChunk:
    """a_i = t_i in seconds."""
    stamps = start_ns + step_ns * np.arange(n)
    return ActionChunk(start_ns, step_ns, (stamps / S)[:, None])


def test_t33_rows_after_now_plus_margin_survive():
    executor = ChunkExecutor(n_execute=8)
    assert executor.offer(ramp(100 * S), now_ns=round(100.23 * S)) == 5
    assert executor.counts.stale_actions == 3
    assert executor.action_at(round(100.2 * S)) is None
    for i in range(3, 8):
        assert executor.action_at(100 * S + i * STEP) == pytest.approx(100 + 0.1 * i)
    assert executor.action_at(round(100.8 * S)) is None
    assert executor.counts.starved == 2


def test_t33_margin_decides():
    assert (
        ChunkExecutor(n_execute=8).offer(ramp(100 * S), now_ns=round(100.29 * S)) == 4
    )  # 100.3 is not > 100.29 + 0.01
    assert ChunkExecutor(n_execute=8, margin_ns=0).offer(ramp(100 * S), now_ns=round(100.29 * S)) == 5


@pytest.mark.parametrize(("now_s", "at_s"), [(101.23, 101.3), (101.3, 101.3), (100.7, 100.7), (105.01, 105.1)])
def test_t33_past_the_end_one_action_at_the_next_grid_point(now_s, at_s):
    executor = ChunkExecutor(n_execute=8)
    assert executor.offer(ramp(100 * S), now_ns=round(now_s * S)) == 0
    assert executor.counts.stale_chunks == 1
    at = round(at_s * S)
    assert executor.action_at(at - 1) is None
    assert executor.action_at(at) == pytest.approx(100.7)
    assert executor.action_at(at + STEP - 1) == pytest.approx(100.7)
    assert executor.action_at(at + STEP) is None


def test_new_chunk_replaces_the_old_one_from_its_first_stamp_on():
    executor = ChunkExecutor(n_execute=4)
    executor.offer(ActionChunk(0, STEP, np.zeros((8, 1))), now_ns=-STEP)
    executor.offer(ActionChunk(2 * STEP, STEP, np.ones((8, 1))), now_ns=round(3.5 * STEP))
    values = [executor.action_at(i * STEP) for i in range(11)]
    assert [None if v is None else v.item() for v in values] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, None]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3 * STEP)), min_size=1, max_size=12),
    st.integers(5, 10),
)
def test_ramp_policy_executes_its_own_stamps(schedule, horizon):
    """However late chunks arrive, an executed value is the stamp of its tick."""
    executor, request, ticks = ChunkExecutor(n_execute=2, margin_ns=0), 0, []
    offers = []
    for gap, delay in schedule:
        offers.append((request * STEP + delay, request * STEP))
        request += gap
    pending = sorted(offers)
    for tick in range(request + horizon + 4):
        while pending and pending[0][0] < tick * STEP:
            done, start = pending.pop(0)
            executor.offer(ramp(start, horizon), now_ns=done)
        ticks.append((tick, executor.action_at(tick * STEP)))
    assert executor.counts.stale_chunks == 0  # horizons here outlast every delay
    for tick, value in ticks:
        assert value is None or value.item() == pytest.approx(0.1 * tick)


def test_load_keeps_every_row():
    executor = ChunkExecutor(n_execute=4)
    executor.load(ramp(0))
    assert [executor.action_at(i * STEP).item() for i in range(8)] == pytest.approx([0.1 * i for i in range(8)])
    assert executor.counts.stale_actions == 0


def test_receding_horizon_asks_after_n_execute_steps():
    executor = ChunkExecutor(n_execute=3)
    assert executor.wants_chunk(0)
    executor.requested(0)
    executor.load(ramp(0))
    assert [executor.wants_chunk(i * STEP) for i in range(5)] == [False, False, False, True, True]
    executor.requested(3 * STEP)
    assert not executor.wants_chunk(5 * STEP)
    assert executor.wants_chunk(6 * STEP)
    assert executor.wants_chunk(8 * STEP)  # the chunk is used up


def test_one_action_holds_for_its_whole_step_when_the_loop_is_faster():
    executor = ChunkExecutor(n_execute=8)
    executor.load(ramp(0))
    values = [executor.action_at(i * STEP // 5).item() for i in range(10)]
    assert values == pytest.approx([0.0] * 5 + [0.1] * 5)


def test_boundary_jump_is_measured_against_the_old_plan():
    executor = ChunkExecutor(n_execute=4)
    executor.load(ActionChunk(0, STEP, np.array([[0.0, 0.0]] * 8)))
    assert executor.counts.boundaries == 0
    executor.load(ActionChunk(4 * STEP, STEP, np.array([[0.25, -0.5]] * 8)))
    executor.load(ActionChunk(8 * STEP, STEP, np.array([[0.25, -0.25]] * 8)))
    counts = executor.counts
    assert (counts.boundaries, counts.boundary_jump_max, counts.boundary_jump_sum) == (2, 0.5, 0.75)


def test_source_is_the_observation_behind_the_action():
    executor = ChunkExecutor(n_execute=4)
    executor.offer(ramp(0), now_ns=round(2.5 * STEP))
    executor.action_at(0)
    assert executor.source_ns is None
    executor.action_at(3 * STEP)
    assert executor.source_ns == 0


def test_the_caller_cannot_change_the_plan():
    executor = ChunkExecutor(n_execute=4)
    executor.load(ramp(0))
    executor.action_at(0)[:] = 99
    assert executor.action_at(0) == pytest.approx(0.0)


def test_reset_forgets_plan_and_counts():
    executor = ChunkExecutor(n_execute=4)
    executor.requested(0)
    executor.load(ramp(0))
    executor.reset()
    assert executor.action_at(0) is None
    assert executor.counts.chunks == 0
    assert executor.wants_chunk(0)


def test_refuses_nan_and_bad_settings():
    executor = ChunkExecutor(n_execute=4)
    with pytest.raises(SpecError, match="`action` of a chunk must be finite"):
        executor.offer(ActionChunk(0, STEP, np.array([[np.nan]])), now_ns=0)
    with pytest.raises(ConfigError, match="`n_execute` must be at least 1, got 0"):
        ChunkExecutor(n_execute=0)
    with pytest.raises(ConfigError, match="`margin_ns` must not be negative, got -1"):
        ChunkExecutor(n_execute=1, margin_ns=-1)


def test_two_threads():
    """Offers from a worker never tear what the loop reads: every row is whole."""
    executor = ChunkExecutor(n_execute=4)
    stop = threading.Event()

    def offer() -> None:
        i = 0
        while not stop.is_set():
            executor.offer(ActionChunk(0, STEP, np.full((8, 50), float(i))), now_ns=-STEP)
            i += 1

    worker = threading.Thread(target=offer)
    worker.start()
    try:
        for _ in range(3000):
            value = executor.action_at(3 * STEP)
            assert value is None or (value == value[0]).all()
    finally:
        stop.set()
        worker.join()


def test_a_chunk_may_say_itself_how_long_it_is_good_for():
    executor = ChunkExecutor(n_execute=4)
    executor.requested(0)
    executor.load(ActionChunk(0, 10, np.zeros((8, 2)), n_execute=6))
    assert not executor.wants_chunk(50)
    assert executor.wants_chunk(60)
    executor.requested(60)
    executor.load(ActionChunk(60, 10, np.zeros((8, 2))))
    assert executor.wants_chunk(100)
    with pytest.raises(SpecError, match=r"`n_execute` of a chunk must be in \[1, 8\], got 9"):
        ActionChunk(0, 10, np.zeros((8, 2)), n_execute=9)
