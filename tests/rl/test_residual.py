"""The residual begins as the base, keeps its bound, and learns what that allows (specs, off-policy: 9, 24-26, 32)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.critic import QEnsemble
from robot_rl.rl.residual import ResidualActor, ResidualAgent, ResidualBatch, ResidualSettings, bounds_of, judged_width


class Newest(nn.Module):
    """Features that are the newest state, through one layer so that there is something to train."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, obs):
        return self.layer(obs["x"][:, -1])


def make(n_state=3, n_action=2, n_critics=5, **settings):
    torch.manual_seed(0)
    chosen = ResidualSettings(**settings)
    width = judged_width(n_action, chosen)
    critic = QEnsemble(Newest(n_state), n_features=n_state, action_dim=width, n_members=n_critics, hidden=(64, 64))
    actor = ResidualActor(
        n_state, n_action, alpha=chosen.alpha, wide=chosen.wide, wide_alpha=chosen.wide_alpha, hidden=(64, 64)
    )
    return ResidualAgent(critic, actor, chosen)


def batch(b=32, n_state=3, n_action=2):
    g = torch.Generator().manual_seed(1)
    obs = {"x": torch.randn(b, 1, n_state, generator=g)}
    action = torch.rand(b, n_action, generator=g) * 2 - 1
    return ResidualBatch(
        obs=obs, action=action, base=action * 0.5, reward=torch.rand(b, generator=g), next_base=action * 0.3,
        bootstrap=torch.full((b,), 0.9), next_obs={"x": torch.randn(b, 1, n_state, generator=g)},
    )  # fmt: skip


def test_before_it_has_learned_anything_the_total_is_the_base_bit_for_bit():
    data = batch()
    assert torch.equal(make().act(data.obs, data.base), data.base)


def test_the_residual_never_exceeds_its_bound():
    actor = make().actor
    with torch.no_grad():
        actor.layers[-1].weight.normal_(0, 1e3)
    data = batch()
    assert actor(data.obs["x"][:, 0], data.base).abs().max() <= 0.1


def test_wide_elements_have_a_bound_of_their_own():
    actor = ResidualActor(3, 2, alpha=0.1, wide=[-1], wide_alpha=0.8)
    with torch.no_grad():
        actor.layers[-1].bias.fill_(50.0)
    assert actor(torch.zeros(1, 3), torch.zeros(1, 2))[0].tolist() == pytest.approx([0.1, 0.8])
    assert bounds_of(3, alpha=0.1, wide=[0], wide_alpha=0.8).tolist() == [0.8, 0.1, 0.1]
    with pytest.raises(ConfigError, match=r"`wide` names the elements \[2, -3\] of an action of 2"):
        bounds_of(2, alpha=0.1, wide=[2, 1, -3])


def test_the_penalty_is_told_in_shares_of_each_bound():
    losses = []
    for wide in ([], [1]):
        agent = make(residual_penalty=1.0, alpha=0.1, wide=wide, wide_alpha=0.8)
        with torch.no_grad():
            agent.actor.layers[-1].bias.copy_(torch.atanh(torch.tensor([0.5, 0.5])))
        agent._gain = lambda features, total, base: 0 * total.sum(1)
        losses.append(agent.update_actor(batch())["actor/loss"])
    assert losses == pytest.approx([0.5, 0.5], rel=1e-5)


def test_a_single_critic_that_is_to_doubt_itself_is_refused():
    with pytest.raises(ConfigError, match=r"`doubt` 0.5 needs two critics or more that may disagree, got one"):
        make(n_critics=1, subset=1, doubt=0.5)


@pytest.mark.parametrize(("average", "moved"), [(1.0, 1.0), (0.25, 0.25)])
def test_the_delivered_actor_moves_its_share_of_the_way_to_the_learning_one(average, moved):
    agent, data = make(average=average), batch()
    before = [p.detach().clone() for p in agent.average_actor.parameters()]
    agent.update_actor(data)
    for old, kept, learning in zip(before, agent.average_actor.parameters(), agent.actor.parameters(), strict=True):
        assert torch.allclose(kept, old + moved * (learning - old), atol=1e-7)


def test_the_sum_is_clamped_and_no_gradient_passes_where_it_is():
    actor, residuals = ResidualActor(3, 2, alpha=0.2), []
    with torch.no_grad():  # whatever is seen, the residual is (0.1, 0.05)
        actor.layers[-1].bias.copy_(torch.atanh(torch.tensor([0.5, 0.25])))

    def keep(module, inputs, output):
        output.retain_grad()
        residuals.append(output)

    actor.register_forward_hook(keep)
    total = actor.total(torch.zeros(1, 3), torch.tensor([[0.95, -0.2]]))
    total.sum().backward()
    (residual,) = residuals
    assert total[0].tolist() == pytest.approx([1.0, -0.15])
    assert residual.grad.tolist() == [[0.0, 1.0]]


def test_the_encoder_learns_from_the_critic_alone():
    agent, data = make(), batch()
    agent.update_actor(data)
    assert all(p.grad is None for p in agent.critic.parameters())
    agent.update_critic(data, torch.zeros(32, 2))
    assert agent.critic.encoder.layer.weight.grad.abs().sum() > 0


def test_what_lies_beyond_a_tasks_end_is_never_read():
    agent, data = make(), batch()
    ended = replace(data, bootstrap=torch.zeros(32), next_base=torch.full((32, 2), float("nan")))
    assert torch.equal(agent._target(ended, torch.zeros(32, 2)).mean, data.reward)


def test_the_noise_on_target_actions_is_clipped():
    agent = make(target_noise=1.0, subset=5)
    data = batch()
    clipped = agent._target(data, torch.full((32, 2), 50.0)).mean
    assert torch.equal(clipped, agent._target(data, torch.full((32, 2), 0.3)).mean)
    assert not torch.equal(clipped, agent._target(data, torch.full((32, 2), 0.1)).mean)


def test_a_loss_that_is_not_finite_stops_before_anything_changes():
    agent, data = make(), batch()
    before = [p.clone() for p in agent.parameters()]
    with pytest.raises(TrainingError, match="the critic's loss became nan; nothing was changed"):
        agent.update_critic(replace(data, reward=torch.full((32,), float("nan"))), torch.zeros(32, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))


class Reach:
    """x' = x + a; the base goes to `bias` in one step, success is |x'| < 0.02; at most 5 steps."""

    def __init__(self, bias):
        self.bias = bias

    def base(self, x):
        return np.clip(self.bias - x, -1, 1)

    def collect(self, agent, n, rng, noise):
        """Return n transitions as arrays: x, base, action, reward, ended, x', base'."""
        rows = []
        while len(rows) < n:
            x = rng.uniform(-0.9, 0.9)
            for _ in range(5):
                base = self.base(x)
                action = act(agent, x, base, noise * rng.standard_normal())
                after = x + action
                success = abs(after) < 0.02
                rows.append((x, base, action, float(success), success, after, self.base(after)))
                x = after
                if success:
                    break
        return np.array(rows, np.float32)

    def final_error(self, agent, rng):
        starts = rng.uniform(-0.4, 0.4, 200)
        return float(np.mean([abs(x + act(agent, x, self.base(x), 0.0)) for x in starts]))


def act(agent, x, base, noise):
    total = agent.act({"x": torch.tensor([[[x]]], dtype=torch.float32)}, torch.tensor([[base]], dtype=torch.float32),
                      torch.tensor([[noise]], dtype=torch.float32))  # fmt: skip
    return float(total)


@pytest.mark.parametrize(("bias", "updates"), [(0.05, 1000), (0.5, 300)])
def test_a_biased_base_is_corrected_as_far_as_the_bound_reaches(bias, updates):
    torch.manual_seed(0)
    rng, task = np.random.default_rng(0), Reach(bias)
    agent = make(1, 1, actor_lr=1e-3, critic_lr=1e-3)
    before = task.final_error(agent, np.random.default_rng(1))
    rows = task.collect(agent, 400, rng, 0.05)
    for update in range(updates):
        if update % 50 == 0:
            rows = np.concatenate([rows, task.collect(agent, 50, rng, 0.05)])
        x, base, action, reward, ended, after, next_base = torch.from_numpy(rows[rng.integers(0, len(rows), 128)]).T
        data = ResidualBatch(
            obs={"x": x[:, None, None]}, action=action[:, None], base=base[:, None], reward=reward,
            bootstrap=0.9 * (1 - ended), next_obs={"x": after[:, None, None]}, next_base=next_base[:, None],
        )  # fmt: skip
        agent.update_critic(data, torch.randn(128, 1))
        if update > 200:
            agent.update_actor(data)
    after = task.final_error(agent, np.random.default_rng(1))
    assert before == pytest.approx(bias, abs=1e-3)
    assert after > bias - 0.1 - 1e-3  # the bound holds whatever was learned
    if bias < 0.1:
        assert after < 0.5 * before


def test_a_critic_that_sees_the_base_tells_small_residuals_apart_that_the_total_hides():
    """Values depend on whether the residual of 0.01 points up or down; both critics get the same 300 updates."""
    errors = {}
    for sees in (False, True):
        agent = make(critic_sees_base=sees, alpha=0.01, critic_lr=1e-3)
        g = torch.Generator().manual_seed(2)
        for _ in range(300):
            data = batch(b=128)
            base = torch.rand(128, 2, generator=g) * 1.6 - 0.8
            way = torch.randint(0, 2, (128, 2), generator=g) * 2.0 - 1.0
            agent.update_critic(
                replace(data, base=base, action=base + 0.01 * way, reward=way[:, 0], bootstrap=torch.zeros(128)),
                torch.zeros(128, 2),
            )
        values = agent._out(agent.critic.encoder(data.obs), base + 0.01 * way, base)
        errors[sees] = float((agent.critic.head.mean(values).mean(0).detach() - way[:, 0].clamp(0, 1)).abs().mean())
    assert errors[True] < 0.1 < 0.3 < errors[False], errors


def test_doubt_leaves_alone_what_the_members_do_not_agree_on():
    """Each member values the first element by a slope of its own, of mean 0.2; the second by 1, all alike."""
    moved = {}
    for doubt in (0.0, 2.0):
        agent = make(doubt=doubt, actor_lr=1e-2)

        def slopes(features, total, base):
            return torch.stack([m * total[:, 0] + total[:, 1] for m in (-1.0, -0.5, 0.2, 0.9, 1.4)])[..., None]

        agent._out = slopes
        for _ in range(60):
            agent.update_actor(batch())
        data = batch()
        moved[doubt] = (agent.act(data.obs, data.base) - data.base).mean(0)
    assert (moved[0.0] > 0.08).all()
    assert moved[2.0][0].abs() < 0.03
    assert moved[2.0][1] > 0.08


@pytest.mark.parametrize("name", ["doubt", "residual_penalty"])
def test_negative_weights_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=name):
        ResidualSettings(**{name: -0.1})
