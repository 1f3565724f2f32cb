import numpy as np
import pytest

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.errors import ConfigError
from robot_rl.values import ActionChunk

MS = 1_000_000
STEP = 50 * MS


def due(start_ns: int, n: int = 8) -> ActionChunk:
    """Rows that say when they are due, in steps."""
    return ActionChunk(start_ns, STEP, (start_ns / STEP + np.arange(n))[:, None].astype(np.float32))


def test_a_row_is_sent_before_it_is_due_by_the_lead() -> None:
    executor = ChunkExecutor(n_execute=4, lead_ns=110 * MS)  # two steps and a bit
    executor.load(due(0))
    sent = [executor.action_at(tick * STEP) for tick in range(7)]
    assert [None if row is None else float(row[0]) for row in sent] == [2, 3, 4, 5, 6, 7, None]


def test_an_arm_that_is_late_by_the_lead_does_each_row_when_it_is_due() -> None:
    late, executor = 2 * STEP, ChunkExecutor(n_execute=2, margin_ns=0, lead_ns=2 * STEP)
    executor.load(due(0))
    done = {}
    for tick in range(20):
        now = tick * STEP
        if executor.wants_chunk(now):
            executor.ask({}, now)
            executor.offer(due(now), now)
        row = executor.action_at(now)
        assert row is not None
        done[now + late] = float(row[0])
    assert all(row == pytest.approx(when / STEP) for when, row in done.items())


def test_what_is_promised_starts_at_the_newest_observation_all_the_same() -> None:
    executor = ChunkExecutor(n_execute=4, lead_ns=2 * STEP)
    executor.load(due(0))
    for tick in range(3):
        executor.action_at(tick * STEP)
    asked = executor.ask({}, 3 * STEP)
    assert asked.prefix is not None
    assert asked.prefix[:, 0].tolist() == [3, 4, 5, 6, 7]


def test_the_observation_behind_an_action_is_not_shifted() -> None:
    executor = ChunkExecutor(n_execute=4, lead_ns=STEP)
    executor.load(due(10 * STEP))
    executor.action_at(10 * STEP)
    assert executor.source_ns == 10 * STEP


def test_a_negative_lead_is_refused() -> None:
    with pytest.raises(ConfigError, match="`lead_ns` must not be negative, got -1"):
        ChunkExecutor(n_execute=1, lead_ns=-1)
