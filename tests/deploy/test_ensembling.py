"""T41 and T43 of the specs: ACT's ensemble online and offline, LeRobot's aggregation, and both inside the executor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.ensembling import Aggregate, TemporalEnsemble, ensemble
from robot_rl.errors import ConfigError
from robot_rl.values import ActionChunk

STEP = 50_000_000


def online(predictions: np.ndarray, decay: float) -> np.ndarray:
    mean = predictions[:1]
    for i, prediction in enumerate(predictions[1:], start=1):
        mean = TemporalEnsemble(decay)(mean, np.array([i]), prediction[None])
    return mean[0]


def test_t41_weights_of_three_predictions_are_acts_with_the_oldest_largest():
    shares = [online(np.eye(3)[:, [i]], 0.01).item() for i in range(3)]
    np.testing.assert_allclose(shares, [0.33667, 0.33332, 0.33001], atol=5e-6)


def test_t41_no_decay_is_the_mean_and_constants_stay():
    rows = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(online(rows, 0.0), rows.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(online(np.full((7, 2), 0.25), 0.5), 0.25, atol=1e-15)


@given(st.integers(1, 20), st.floats(0, 2), st.integers(0, 2**31))
def test_t41_online_equals_offline(n, decay, seed):
    rows = np.random.default_rng(seed).standard_normal((n, 2))
    np.testing.assert_allclose(online(rows, decay), ensemble(rows, np.ones(n, bool), decay=decay), atol=1e-12)


def test_an_action_of_zeros_is_a_prediction_and_a_missing_one_is_not():
    rows = np.array([[0.0], [4.0], [2.0]])
    assert ensemble(rows, np.array([True, False, True]), decay=0.0).item() == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="at least one prediction"):
        ensemble(rows, np.zeros(3, bool))


@pytest.mark.parametrize("late", [0, 1, 2])
def test_t41_the_executor_gives_the_ensemble_of_all_chunks_that_cover_a_tick(late):
    """Chunks of six rows, one a tick, each arriving `late` ticks after it was asked for."""
    rng = np.random.default_rng(1)
    executor = ChunkExecutor(n_execute=1, margin_ns=0, combine=TemporalEnsemble(0.3))
    chunks = [rng.standard_normal((6, 2)) for _ in range(12)]
    for tick in range(12):
        if tick >= late:
            made = tick - late
            chunk = ActionChunk(made * STEP, STEP, chunks[made])
            if late == 0:
                executor.load(chunk)
            else:
                executor.offer(chunk, now_ns=tick * STEP - 1)
        got = executor.action_at(tick * STEP)
        made = [i for i in range(12) if i + late <= tick < i + 6]
        if not made:
            assert got is None
            continue
        rows = np.stack([chunks[i][tick - i] for i in made])
        np.testing.assert_allclose(got, ensemble(rows, np.ones(len(rows), bool), decay=0.3), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "blend"), [("weighted_average", 0.7), ("latest_only", 1.0), ("average", 0.5), ("conservative", 0.3)]
)
def test_t43_rows_already_executed_are_dropped_and_the_overlap_is_blended(name, blend):
    executor = ChunkExecutor(n_execute=4, margin_ns=0, combine=Aggregate(name))
    executor.load(ActionChunk(0, STEP, np.zeros((6, 1))))
    executor.action_at(0)
    executor.action_at(STEP)
    late = ActionChunk(0, STEP, np.ones((8, 1)))
    assert executor.offer(late, now_ns=2 * STEP - 1) == 6
    got = [executor.action_at(i * STEP).item() for i in range(2, 8)]
    np.testing.assert_allclose(got, [blend] * 4 + [1.0] * 2)


def test_t43_a_second_blend_takes_what_is_planned_not_what_was_predicted_first():
    executor = ChunkExecutor(n_execute=4, combine=Aggregate("average"))
    for value in (0.0, 1.0, 1.0):
        executor.load(ActionChunk(0, STEP, np.full((3, 1), value)))
    assert executor.action_at(0).item() == pytest.approx(0.75)


def test_a_stale_chunk_that_is_moved_is_not_averaged():
    executor = ChunkExecutor(n_execute=4, combine=Aggregate("average"))
    executor.load(ActionChunk(0, STEP, np.zeros((30, 1))))
    executor.offer(ActionChunk(0, STEP, np.ones((4, 1))), now_ns=10 * STEP)
    assert executor.action_at(10 * STEP).item() == 1.0


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"`aggregate` must be one of .*, got 'newest'"):
        Aggregate("newest")
    with pytest.raises(ConfigError, match=r"`decay` must be 0 or more, got -0\.1"):
        TemporalEnsemble(-0.1)
