"""Chunk transitions of stored episodes: which steps they cover, how ends are told apart, what is refused."""

import functools

import numpy as np
import pytest
import torch

from policies.chain import DenoisingChain
from policies.encoders import StateEncoder
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from robot_rl.chain_step import ChainNoise
from robot_rl.errors import ConfigError, SpecError, StoreError
from robot_rl.rl.offline.data import halves, load
from robot_rl.values import Episode, RecordingMeta
from tests.rl.offline.small import SPEC, STATS

GAMMA = 0.9


def model():
    torch.manual_seed(0)
    flow = functools.partial(
        FlowModel, encoder=functools.partial(StateEncoder, names=["x"]),
        denoiser=functools.partial(ResidualMLP, width=16, n_blocks=1, time_dim=8, context_dim=8), n_obs=2, horizon=5,
        action_offset=-1, n_steps=2, action_norm="mean_std", relative_to=[],
    )  # fmt: skip
    return DenoisingChain(SPEC, STATS, model=flow, noise=ChainNoise())


def episode(n, *, won, number=0, terminated=None, invalid=()):
    """Return n steps with x = 100 number + t, a = -x and a reward of 1 at the end if it was won."""
    x = (100.0 * number + np.arange(n + 1, dtype=np.float32))[:, None]
    reward = np.zeros(n, np.float32)
    reward[-1] = won
    ended = won if terminated is None else terminated
    return Episode(
        id=f"e{number}", stamp_ns=np.arange(n) * SPEC.step_ns, obs={"x": x[:n]}, final_obs={"x": x[n]}, action=-x[:n],
        action_executed=-x[:n], reward=reward, by_human=np.zeros(n, bool),
        valid=~np.isin(np.arange(n), invalid), terminated=ended, truncated=not ended, meta=RecordingMeta(),
    )  # fmt: skip


def loaded(episodes, **more):
    return load(episodes, SPEC, model(), n_execute=4, gamma=GAMMA, **more)


def test_every_chunk_starts_where_the_last_one_ended_and_knows_its_own_steps():
    data = loaded([episode(10, won=True), episode(8, won=False, number=1)])
    assert data.episode.tolist() == [0, 0, 0, 1, 1]
    assert data.action[:, :, 0].tolist() == [
        [0, -1, -2, -3], [-4, -5, -6, -7], [-8, -9, -9, -9], [-100, -101, -102, -103], [-104, -105, -106, -107]
    ]  # fmt: skip
    assert data.mask.sum(dim=1).tolist() == [4, 4, 2, 4, 4]
    assert data.reward.tolist() == pytest.approx([0, 0, GAMMA, 0, 0])
    assert data.bootstrap.tolist() == pytest.approx([GAMMA**4, GAMMA**4, 0, GAMMA**4, GAMMA**4])
    assert data.phase.tolist() == pytest.approx([0, 0.4, 0.8, 0, 0.5])
    assert data.success.tolist() == [True, True, True, False, False]


def test_conditions_are_those_the_policy_sees_before_and_after_a_chunk():
    data = loaded([episode(10, won=True), episode(8, won=False, number=1)])
    chain = model()
    seen = torch.tensor([[[3.0], [4.0]], [[9.0], [10.0]]])
    torch.testing.assert_close(data.cond[1], chain.encode({"x": seen[:1]})[0])
    torch.testing.assert_close(data.next_cond[2], chain.encode({"x": seen[1:]})[0])


def test_a_chunk_begins_at_valid_steps_alone():
    data = loaded([episode(8, won=True, invalid=[4]), episode(8, won=False, number=1)])
    assert data.phase.tolist() == [0, 0, 0.5]


def test_a_smaller_stride_gives_more_chunks():
    assert len(loaded([episode(8, won=True), episode(8, won=False, number=1)], stride=1)) == 16


def test_no_episodes_and_episodes_that_teach_nothing_are_refused():
    with pytest.raises(StoreError, match="there are no episodes to improve on"):
        loaded([])
    with pytest.raises(ConfigError, match="all 2 episodes earned 0, so there is nothing to learn reward from"):
        loaded([episode(8, won=False), episode(8, won=False, number=1)])
    with pytest.raises(ConfigError, match="all 2 episodes earned 1"):
        loaded([episode(8, won=True), episode(8, won=True, number=1)])


def test_observations_that_are_not_numbers_are_refused():
    bad = episode(8, won=True)
    bad.obs["x"][3] = np.nan
    with pytest.raises(SpecError, match="`cond` of the stored episodes holds numbers that are not finite"):
        loaded([bad, episode(8, won=False, number=1)])


def test_the_two_critics_see_different_episodes_with_successes_and_failures_in_both():
    data = loaded([episode(8, won=i % 3 == 0, number=i) for i in range(12)])
    mine, other = halves(data, 0)
    assert not set(mine.tolist()) & set(other.tolist())
    assert sorted([*mine.tolist(), *other.tolist()]) == list(range(12))
    for side in (mine, other):
        part = data.of_episodes(side)
        assert part.success.any()
        assert not part.success.all()
    assert halves(data, 0)[0].tolist() == mine.tolist()


def test_one_success_is_too_few_for_two_critics():
    data = loaded([episode(8, won=i == 0, number=i) for i in range(4)])
    with pytest.raises(ConfigError, match="at least 2 that earned reward, got 1"):
        halves(data, 0)
