"""Strategies by name; what the executor promises and how it learns the delay; the whole way through loop and driver."""

import numpy as np
import pytest

from policies.export import export_bundle
from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.ensembling import Aggregate, TemporalEnsemble
from robot_rl.deploy.execution import STRATEGIES, Execution
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.promises import SampledPolicy
from robot_rl.errors import BundleError, ConfigError
from robot_rl.values import ActionChunk, PolicyInput
from tests.contracts.policy import check_policy
from tests.policies import helpers

STEP = 100


def ramp(start: int, n: int = 8) -> ActionChunk:
    return ActionChunk(start * STEP, STEP, np.arange(start, start + n, dtype=np.float64)[:, None])


def test_a_request_promises_what_is_planned_from_its_tick_on():
    executor = ChunkExecutor(n_execute=4, margin_ns=0)
    first = executor.ask({}, 0)
    assert first.prefix is None
    assert first.delay_steps == 0
    executor.offer(ramp(0), now_ns=2 * STEP)  # rows 0, 1 and 2 are late: a delay of three
    assert executor.delay_steps == 3
    request = executor.ask({}, 5 * STEP)
    np.testing.assert_array_equal(request.prefix, [[5.0], [6.0], [7.0]])
    assert (request.stamp_ns, request.delay_steps) == (5 * STEP, 3)
    assert executor.ask({}, 7 * STEP).delay_steps == 1  # no more than is promised


def test_the_promise_ends_at_a_gap_and_joins_old_and_new_plan():
    executor = ChunkExecutor(n_execute=4, margin_ns=0)
    executor.load(ramp(0, 4))
    executor.offer(ActionChunk(2 * STEP, STEP, np.full((3, 1), 9.0)), now_ns=2 * STEP)
    np.testing.assert_array_equal(executor.ask({}, STEP).prefix.ravel(), [1, 2, 9, 9])
    executor.offer(ActionChunk(8 * STEP, STEP, np.full((3, 1), 5.0)), now_ns=0)
    np.testing.assert_array_equal(executor.ask({}, 3 * STEP).prefix.ravel(), [9, 9])


def test_the_delay_is_the_longest_of_the_last_ones_and_the_first_call_is_forgotten():
    executor = ChunkExecutor(n_execute=4, margin_ns=0, delay_window=2)
    seen = []
    for late in (7, 1, 3, 2, 1, 1):
        executor.ask({}, 0)
        executor.offer(ramp(0), now_ns=late * STEP - 1)
        seen.append(executor.delay_steps)
    assert seen == [7, 1, 3, 3, 2, 1]
    executor.reset()
    assert executor.delay_steps == 1, "a new episode does not change how long inference takes"


def test_a_chunk_that_takes_longer_than_the_policy_was_told_is_counted(caplog):
    executor = ChunkExecutor(n_execute=4, margin_ns=0)
    executor.offer(ramp(0), now_ns=2 * STEP - 1)
    executor.ask({}, 3 * STEP)
    executor.offer(ramp(3), now_ns=5 * STEP - 1)
    assert executor.counts.late_chunks == 0
    executor.ask({}, 6 * STEP)
    with caplog.at_level("INFO"):
        executor.offer(ramp(6), now_ns=9 * STEP - 1)
    assert executor.counts.late_chunks == 1
    assert "a chunk took 3 control steps, the policy was told 2" in caplog.text


def test_strategies_set_what_they_differ_in():
    assert Execution().combine() is None
    assert Execution(strategy="temporal_ensembling").combine() == TemporalEnsemble(0.01)
    assert Execution(strategy="async_blend", aggregate="average").combine() == Aggregate("average")
    periods = {name: Execution(strategy=name).period(n_execute=3, usable=9) for name in STRATEGIES}
    assert periods == {
        "receding_horizon": 3, "temporal_ensembling": 1, "async_blend": 5, "realtime_chunking": 3, "bidirectional": 3,
    }  # fmt: skip
    assert Execution(strategy="async_blend", n_execute=2).period(n_execute=3, usable=9) == 2
    with pytest.raises(ConfigError, match=r"`execution` must be one of .*realtime_chunking.*, got 'rtc'"):
        Execution(strategy="rtc")
    with pytest.raises(ConfigError, match="`aggregate` must be one of"):
        Execution(strategy="async_blend", aggregate="sum")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return export_bundle(
        helpers.model(), tmp_path_factory.mktemp("execution") / "bundle", spec=helpers.SPEC, stats=helpers.STATS,
        n_execute=4, config={}, data_digest="", graphs=("sample", "encode", "denoise"), parity_rounds=1,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_a_policy_that_holds_the_contract(bundle, strategy):
    execution = Execution(strategy=strategy, n_candidates=3)
    policy = execution.policy(bundle, seed=0)
    check_policy(lambda: execution.policy(bundle, seed=0), helpers.SPEC, noise_shape=policy.noise_shape)
    assert isinstance(policy, SampledPolicy if strategy in STRATEGIES[3:] else OnnxPolicy)
    policy.warm_up(1)
    assert execution.executor(bundle).n_execute == {"temporal_ensembling": 1}.get(strategy, 4)


def test_a_bundle_that_cannot_be_stepped_is_refused_for_real_time_chunking_only(make_bundle):
    plain = make_bundle()
    with pytest.raises(BundleError, match="does not say how to step its denoiser"):
        Execution(strategy="realtime_chunking").policy(plain)
    Execution(strategy="bidirectional").policy(plain)


def test_a_promise_changes_what_the_policy_answers(bundle):
    obs = {name: value[0].numpy() for name, value in helpers.batch(1)[0].items()}
    held = np.full((6, 2), 200.0, dtype=np.float32)
    for strategy, differs in (("receding_horizon", False), ("realtime_chunking", True), ("bidirectional", True)):
        answers = []
        for prefix in (None, held):
            policy = Execution(strategy=strategy).policy(bundle, seed=5)
            answers.append(policy.act(PolicyInput(obs=obs, stamp_ns=0, prefix=prefix, delay_steps=2)).action)
        assert np.array_equal(*answers) != differs
        if differs:
            distance = [np.abs(answer[:2] - 200.0).mean() for answer in answers]
            assert distance[1] < distance[0]
