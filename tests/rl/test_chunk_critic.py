"""Values of chunks: targets and masks with the known answers (specs, off-policy: rows 13-15), and what they are for."""

import numpy as np
import pytest
import torch
from torch import nn

from robot_rl.data.memory import MemorySink
from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.rl.actor import Actor
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.best_of_n import BestOfN
from robot_rl.rl.chunk_algorithms import ChunkAlgorithm, DecoupledAlgorithm
from robot_rl.rl.chunk_critic import ChunkAgent, ChunkBatch, ChunkSettings, complete
from robot_rl.rl.critic import QEnsemble
from robot_rl.rl.decoupled import DecoupledSettings
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.finetune import interleave
from robot_rl.rl.learner import PUBLISHED, Learner, LearnerSettings
from robot_rl.rl.pace import Pace
from robot_rl.rl.returns import segments
from robot_rl.rl.runner import StepRunner, StepwisePolicy, runner_extras
from robot_rl.rl.sampling import SymmetricSampler
from tests.rl.chunks import Spread
from tests.rl.reach import SCALER, SPEC, Newest, Reach


class Says(nn.Module):
    """Members [E, B, 1] that value an input by its last action's number, the members apart by 2."""

    def forward(self, x):
        return torch.stack([x[:, -1:] - 1, x[:, -1:] + 1])


def agent(horizon=3, **settings):
    torch.manual_seed(0)
    critic = QEnsemble(Newest(), n_features=17, action_dim=1, horizon=horizon, n_members=2, hidden=(16, 16))
    return ChunkAgent(critic, ChunkSettings(**{"bounds": None, **settings}))


def batch(reward, bootstrap, candidates, mask=None):
    b, _, h, _ = candidates.shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(b, 1, 1, generator=generator)
    mask = torch.ones(b, h, dtype=torch.bool) if mask is None else mask
    action = torch.randn(b, h, 1, generator=generator)
    return ChunkBatch({"x": x}, action, mask, torch.tensor(reward), torch.tensor(bootstrap), {"x": x}, candidates)


def ends(n, length, *, gamma, terminated, reward):
    """Return reward and bootstrap of the first segment of an episode."""
    found = segments(np.asarray(reward, float)[:length], n=n, gamma=gamma, terminated=terminated)
    return float(found.reward[0]), float(found.bootstrap[0]), int(found.n_steps[0])


def test_a_chunk_that_ends_the_task_has_no_bootstrap_and_another_has_gamma_to_the_h():
    subject = agent()
    subject.target_members = Says()
    candidates = torch.tensor([1.0, 5.0, 3.0])[None, :, None, None].expand(2, 3, 3, 1).clone()
    reward, none, _ = ends(3, 3, gamma=0.9, terminated=True, reward=[0, 0, 1])
    same, factor, _ = ends(3, 6, gamma=0.9, terminated=True, reward=[0, 0, 1, 0, 0, 0])
    target, _ = subject._target(batch([reward, same], [none, factor], candidates))
    assert target.tolist() == pytest.approx([0.81, 4.455])


def test_a_chunk_cut_short_keeps_its_own_length_in_the_exponent():
    reward, bootstrap, n = ends(5, 2, gamma=0.9, terminated=True, reward=[0, 1])
    assert (reward, bootstrap, n) == (pytest.approx(0.9), 0.0, 2)
    _, bootstrap, _ = ends(5, 2, gamma=0.9, terminated=False, reward=[0, 0])
    assert bootstrap == pytest.approx(0.81)


def test_the_released_rule_leaves_out_what_ours_learns_from():
    terminals = np.array([0, 1, 0, 0, 0])
    valid = np.concatenate([[True], np.cumsum(terminals)[:-1] == 0])
    assert valid.tolist() == [True, True, False, False, False]
    short, whole = torch.tensor(valid)[None], torch.ones(1, 5, dtype=torch.bool)
    assert complete(torch.cat([short, whole])).tolist() == [0.0, 1.0]
    before = agent(5).critic.state_dict()
    for complete_only, learns in ((True, False), (False, True)):
        subject = agent(5, complete_only=complete_only)
        subject.update(batch([0.9], [0.0], torch.zeros(1, 2, 5, 1), short))
        after = subject.critic.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before) == learns


def test_the_best_candidate_is_chosen_by_the_mean_or_the_least_of_the_members():
    class Divided(nn.Module):
        def forward(self, x):
            a = x[:, -1:]
            return torch.stack([a, 4 - 2 * a])  # means 1.5, 0.5 and least 1, -2 for a = 1, 3

    candidates = torch.tensor([1.0, 3.0])[None, :, None, None].expand(1, 2, 3, 1).clone()
    for how, value in (("mean", 1.5), ("min", 1.0)):
        subject = agent(aggregate=how)
        subject.target_members = Divided()
        target, gain = subject._target(batch([0.0], [0.5], candidates))
        assert target.item() == pytest.approx(0.5 * value)
        assert gain.item() > 0


def test_candidates_beyond_a_tasks_end_are_never_read():
    subject = agent()
    target, _ = subject._target(batch([1.0], [0.0], torch.full((1, 2, 3, 1), float("nan"))))
    assert target.tolist() == [1.0]


def test_targets_are_clipped_and_the_target_network_follows():
    subject = agent(bounds=(0.0, 1.0), tau=0.5)
    subject.target_members = Says()
    target, _ = subject._target(batch([0.5], [0.9], torch.full((1, 2, 3, 1), 7.0)))
    assert target.tolist() == [1.0]
    subject = agent(tau=0.5)
    before = [p.clone() for p in subject.target_members.parameters()]
    subject.update(batch([0.5], [0.0], torch.zeros(1, 2, 3, 1)))
    online = subject.critic.members.parameters()
    for old, new, now in zip(before, subject.target_members.parameters(), online, strict=True):
        torch.testing.assert_close(new, (old + now) / 2)
    with pytest.raises(ConfigError, match=r"`tau` must be in \(0, 1\], got 0"):
        ChunkSettings(tau=0)


def q_chunking(seed=0):
    torch.manual_seed(seed)
    return ChunkAlgorithm(
        Newest(), SCALER, ["x"], Spread(), settings=ChunkSettings(lr=1e-3, tau=0.02), horizon=2, n_candidates=16,
        n_choose=32, hidden=(64, 64),
    )  # fmt: skip


def decoupled(seed=0):
    torch.manual_seed(seed)
    settings = DecoupledSettings(lr=1e-3, tau=0.02, backup=0.9)
    return DecoupledAlgorithm(
        Newest(), SCALER, ["x"], Spread(), settings=settings, horizon=4, n_execute=2, n_choose=32, hidden=(64, 64)
    )


def success_rate(policy):
    return np.mean([run_episode(Reach(success=0.15), policy, seed)[1].success for seed in range(5000, 5200)])


@pytest.mark.slow
@pytest.mark.parametrize("make", [q_chunking, decoupled])
def test_choosing_by_what_was_learned_beats_the_base(tmp_path, make):
    algorithm, pace = make(), Pace(total_steps=900, warm_up_steps=600, critic_first=500, utd=1.0)
    assert isinstance(algorithm, Algorithm)
    sink = MemorySink(SPEC, extra=runner_extras(SPEC))
    actor = Actor(
        Reach(success=0.15), StepRunner(SPEC, base=algorithm.driver, step=None), algorithm.policy, sink, pace=pace,
        published=tmp_path / PUBLISHED, belongs_to="reach",
    )  # fmt: skip
    feed = ReplayFeed(
        SPEC, SymmetricSampler(128, 0.0), n_step=algorithm.horizon, gamma=0.9, streams=algorithm.streams,
        horizon=algorithm.horizon, prepare=algorithm.prepare,
    )  # fmt: skip
    learner = Learner(algorithm, feed, pace, tmp_path, belongs_to="reach", settings=LearnerSettings(log_every=100))
    interleave(actor, learner, sink.episode)
    learner.close()
    base = BestOfN(Spread(), algorithm.policy, n=1)
    before = success_rate(StepwisePolicy(SPEC, base=base, step=None))
    after = success_rate(StepwisePolicy(SPEC, base=algorithm.driver, step=None))
    assert after > before + 0.3
