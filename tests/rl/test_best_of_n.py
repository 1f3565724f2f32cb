"""The chunk with the largest value is executed (specs, off-policy: row 55)."""

import numpy as np
import pytest
import torch
from torch import nn

from robot_rl.errors import ConfigError, SpecError
from robot_rl.gaussian_path import GaussianPath, solve
from robot_rl.rl.best_of_n import BestOfN, ChunkValue, aggregated, best_of, values_of
from robot_rl.rl.critic import QEnsemble
from robot_rl.rl.runner import StepRunner
from robot_rl.values import PolicyInput
from tests.contracts.policy import check_policy
from tests.rl.chunks import Spread
from tests.rl.reach import SCALER, SPEC, Newest
from tests.rl.test_runner import Takes, actions, drive, offsets


class NearestZero(nn.Module):
    """Members [E, B, 1] that like the chunk that ends nearest the origin: -|x + sum of actions|, times each weight."""

    def __init__(self, *weights):
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return -self.weights[:, None, None] * (x[:, :1] + x[:, 17:].sum(1, keepdim=True)).abs()


def value(horizon=4, weights=(1.0,), **more):
    critic = QEnsemble(Newest(), n_features=17, action_dim=1, horizon=horizon, n_members=len(weights), hidden=(8,))
    critic.members = NearestZero(*weights)
    return ChunkValue(critic, SCALER, ["x"], **more)


def asked(policy, x):
    return policy.act(PolicyInput(obs={"x": np.full((2, 1), x, np.float32)}, stamp_ns=0))


def test_the_best_of_32_uniform_scores_has_the_known_mean():
    score = torch.rand(20_000, 32, generator=torch.Generator().manual_seed(0))
    chosen, top = best_of(score, score[..., None])
    assert torch.equal(top, score.amax(1))
    assert torch.equal(chosen[:, 0], top)
    assert top.mean().item() == pytest.approx(32 / 33, abs=0.005)


def test_a_flow_of_constant_velocity_ends_where_ten_euler_steps_lead():
    times = np.linspace(1, 0, 11).tolist()  # falling: the velocity points from data to noise
    end = solve(GaussianPath.flow(), lambda x, t: np.full_like(x, -0.6), np.array([0.2]), times)
    assert end.item() == pytest.approx(0.8)


def test_every_candidate_is_judged_as_it_would_be_alone():
    torch.manual_seed(0)
    critic = QEnsemble(Newest(), n_features=17, action_dim=1, horizon=3, n_members=2, hidden=(8, 8))
    obs, chunks = {"x": torch.randn(5, 1, 1)}, torch.randn(5, 7, 3, 1)
    together = values_of(critic, critic.members, critic.encoder(obs), chunks)
    for n in range(7):
        torch.testing.assert_close(together[:, :, n], critic.q(obs, chunks[:, n]))


def test_members_stand_for_one_value_by_their_mean_or_the_least():
    q = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    assert aggregated(q, "mean").tolist() == [2.0, 3.0]
    assert aggregated(q, "min").tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match="`aggregate` must be `mean` or `min`, got 'max'"):
        aggregated(q, "max")


def test_the_base_is_asked_once_and_its_best_chunk_is_executed():
    base = Spread()
    chunk = asked(BestOfN(base, value(), n=500), 0.8)
    assert chunk.action.shape == (4, 1)
    assert chunk.action[0, 0] == pytest.approx(-0.2, abs=0.02)
    assert len(base.calls) == 1
    alone = asked(BestOfN(Spread(), value(), n=1, seed=3), 0.8)
    first = np.random.default_rng(3).standard_normal((1, 1, 4, 1), dtype=np.float32)
    assert alone.action[0] == pytest.approx(np.clip(first[0, 0, 0], -1, 1))


def test_given_noise_is_one_of_the_proposals_and_a_seed_repeats_the_rest():
    policy = BestOfN(Spread(), value(), n=2)
    noise = np.full((4, 1), -0.2, np.float32)
    obs = {"x": np.full((2, 1), 0.8, np.float32)}
    assert policy.act(PolicyInput(obs=obs, stamp_ns=0, noise=noise)).action[0] == pytest.approx(-0.2)
    drawn = []
    for _ in range(2):
        policy.seed(7)
        drawn.append(asked(policy, 0.8).action.tolist())
    assert drawn[0] == drawn[1]


def test_it_keeps_the_contract_of_a_policy():
    check_policy(lambda: BestOfN(Spread(), value(), n=4), SPEC)


def test_whole_chunks_are_executed_and_a_takeover_drops_the_rest():
    base = Spread()
    runner = StepRunner(SPEC, base=BestOfN(base, value(), n=8), step=None, intervener=Takes(6))
    decisions = drive(runner, 10)
    assert offsets(decisions) == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]
    assert len(set(actions(decisions)[:4])) == 1
    assert len(base.calls) == 3


def test_fewer_actions_than_are_judged_can_be_executed():
    runner = StepRunner(SPEC, base=BestOfN(Spread(), value(), n=8, n_execute=2), step=None)
    assert offsets(drive(runner, 5)) == [0, 1, 0, 1, 0]
    with pytest.raises(ConfigError, match=r"`n_execute` must be in \[1, 4\], the actions judged, got 5"):
        BestOfN(Spread(), value(), n_execute=5)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        BestOfN(Spread(), value(), n=0)


def test_a_base_with_short_chunks_or_blind_to_an_observation_is_refused():
    with pytest.raises(ConfigError, match="judges 6 actions and the base's chunks have 4"):
        asked(BestOfN(Spread(), value(horizon=6)), 0.0)
    with pytest.raises(SpecError):
        BestOfN(Spread(), value()).act(PolicyInput(obs={}, stamp_ns=0))
