"""A one-step actor of chunks stays with the base, climbs the critic, and drives without the base."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robot_rl.data.memory import MemorySink
from robot_rl.errors import ConfigError
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.candidates import CANDIDATE_NOISE, CANDIDATES, CandidateLabels
from robot_rl.rl.chunk_critic import ChunkSettings
from robot_rl.rl.distilled import DistilledAlgorithm
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.replay import FINAL
from robot_rl.rl.runner import runner_extras
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.values import PolicyInput
from tests.contracts.policy import check_policy
from tests.rl.chunks import Spread
from tests.rl.reach import SCALER, SPEC, Newest, Reach, make_actor, residual


def make(alpha=10.0, seed=0):
    torch.manual_seed(seed)
    return DistilledAlgorithm(
        Newest(), SCALER, ["x"], Spread(), settings=ChunkSettings(lr=3e-3), alpha=alpha, horizon=2, hidden=(64, 64)
    )


def make_feed(algorithm, folder):
    sink = MemorySink(SPEC, extra=runner_extras(SPEC))
    actor = make_actor(folder, sink, residual(), env=Reach(success=0.1))
    feed = ReplayFeed(
        SPEC, SymmetricSampler(128, 0.0), n_step=2, gamma=0.9, streams=algorithm.streams, horizon=2,
        prepare=algorithm.prepare,
    )  # fmt: skip
    for _ in range(40):
        feed.add(sink.episode(actor.episode().id))
    return feed


def test_the_noise_of_every_candidate_is_the_one_it_was_made_of(tmp_path):
    sink = MemorySink(SPEC, extra=runner_extras(SPEC))
    played = make_actor(tmp_path, sink, residual(), env=Reach(success=0.0)).episode()
    got = CandidateLabels(Spread(), n=3, horizon=2, with_noise=True)(sink.episode(played.id))
    noise, chunks = got.extras[CANDIDATE_NOISE], got.extras[CANDIDATES]
    assert noise.shape == (5, 3, 4)
    assert chunks[..., 0, 0].tolist() == np.clip(noise[..., 0], -1, 1).tolist()
    assert got.meta.extra[FINAL][CANDIDATE_NOISE].shape == (3, 4)


@pytest.mark.slow
def test_while_the_critic_learns_alone_it_learns_to_say_what_the_base_says(tmp_path):
    algorithm, generator = make(alpha=0.0), torch.Generator().manual_seed(0)
    feed = make_feed(algorithm, tmp_path)
    for _ in range(400):
        values = algorithm.update(feed.sample(), generator, actor=False)
    assert algorithm.policy.updates.item() == 400
    assert values["actor/from_base"] < 0.05
    noise = torch.tensor([[-0.5, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
    chunk = algorithm.agent.actor(torch.zeros(2, 17), noise)
    assert chunk.shape == (2, 2, 1)
    assert chunk[1].mean() - chunk[0].mean() > 0.4


def test_left_alone_it_climbs_the_critic():
    algorithm, generator = make(alpha=0.0), torch.Generator().manual_seed(0)
    agent = algorithm.agent

    class LikesPointThree(torch.nn.Module):
        def forward(self, x):
            return -(x[:, 17:] - 0.3).square().sum(1, keepdim=True).expand(2, -1, -1)

    agent.critic.members = LikesPointThree()

    data = SimpleNamespace(obs={"x": torch.zeros(64, 1, 1)})
    for _ in range(200):
        noise = torch.randn(64, 4, generator=generator)
        agent.update_actor(data, torch.zeros(64, 2, 1), noise)
    chunk = agent.actor(agent.critic.encoder(data.obs), torch.randn(64, 4, generator=generator))
    assert chunk.detach().numpy() == pytest.approx(0.3, abs=0.1)


def learned():
    algorithm = make()
    algorithm.policy.updates += 1
    return algorithm


def test_before_anything_is_learned_the_base_drives():
    algorithm = make()
    assert isinstance(algorithm, Algorithm)
    check_policy(lambda: make().driver, SPEC)
    algorithm.driver.seed(3)
    chunk = algorithm.driver.act(PolicyInput(obs={"x": np.full((2, 1), 0.3, np.float32)}, stamp_ns=0))
    first = np.random.default_rng(3).standard_normal((1, 1, 4, 1), dtype=np.float32)[0, 0, 0]
    assert chunk.action == pytest.approx(np.tile(np.clip(first, -1, 1), (2, 1)))


def test_then_it_drives_without_the_base():
    algorithm = learned()
    check_policy(lambda: learned().driver, SPEC)
    policy, obs = algorithm.driver, {"x": np.full((2, 1), 0.3, np.float32)}
    drawn = []
    for seed in (1, 1, 2):
        policy.seed(seed)
        drawn.append(policy.act(PolicyInput(obs=obs, stamp_ns=0)).action)
    assert drawn[0].shape == (2, 1)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert np.abs(drawn).max() <= 1
    assert not algorithm.prepare.sampler.calls


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigError, match="`alpha`, the weight of staying with the base, must be 0 or more"):
        make(alpha=-1.0)
