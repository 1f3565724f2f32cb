"""One update of a chain: what it changes, what it must not, and that it goes the right way."""

import math

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.ppo.objective import ChainClip, normalised, surrogate
from robot_rl.rl.ppo.settings import PpoSettings
from robot_rl.rl.ppo.value import StateValue
from tests.rl.ppo.parts import make_chain, make_player, make_ppo, make_sink, same, weights


def collected(ppo, n=6):
    sink = make_sink(ppo.chain)
    player = make_player(ppo.chain, sink)
    return ppo.collect(player, list(range(n)), sink.episode)


@pytest.mark.parametrize("options", [{}, {"train_encoder": True}, {"clip": ChainClip(reduction="mean", discount=0.9)}])
def test_before_anything_is_learned_the_ratio_is_one(options):
    ppo = make_ppo(epochs=1, minibatch=1000, **options)
    values = ppo.update(collected(ppo))
    assert values["ppo/first_ratio_max"] == pytest.approx(1.0, abs=1e-6)
    assert values["ppo/kl"] == pytest.approx(0.0, abs=1e-9)
    assert values["ppo/clip_fraction"] == 0.0
    assert values["ppo/steps"] == 1.0


@pytest.mark.parametrize("n_tuned", [None, 2])
def test_an_update_moves_the_denoiser_and_the_critic_and_nothing_else(n_tuned):
    ppo = make_ppo(make_chain(n_tuned=n_tuned))
    before = weights(ppo.modules())
    ppo.update(collected(ppo))
    changed = {name for name, value in weights(ppo.modules()).items() if not np.array_equal(value, before[name])}
    assert changed
    assert all(name.startswith(("chain.denoiser.", "critic.layers.")) for name in changed)
    assert any(name.startswith("chain.denoiser.") for name in changed)


def test_the_policy_waits_for_its_critic_but_not_for_ever():
    ppo = make_ppo(warm_up_updates=2, warm_up_variance=2.0)  # no critic explains more than all
    before = weights(ppo.chain)
    for waits in (True, True, False):
        values = ppo.update(collected(ppo))
        assert values["ppo/warm"] == float(not waits)
        assert same(weights(ppo.chain), before) == waits
    eager = make_ppo(warm_up_updates=100, warm_up_variance=-math.inf)
    assert eager.update(collected(eager))["ppo/warm"] == 1.0


def test_a_policy_that_has_gone_far_enough_stops_and_the_critic_goes_on():
    ppo = make_ppo(actor_lr=0.05, kl_stop=1e-4, epochs=4)
    batch = collected(ppo)
    values = ppo.update(batch)
    assert values["ppo/steps"] < values["critic/steps"] == 4 * math.ceil(len(batch) / 16)
    assert "ppo/stopped_at_epoch" in values


@pytest.mark.parametrize(("broken", "told"), [("reward", "the critic's loss is not finite"), ("chain", "the policy's")])
def test_what_is_not_a_number_changes_nothing(broken, told):
    ppo = make_ppo()
    ppo.update(collected(ppo))
    batch = collected(ppo)
    before, moments = weights(ppo.modules()), ppo.actor_optimiser.state_dict()["state"][0]["exp_avg"].clone()
    if broken == "reward":
        batch.reward[-1] = np.nan
    else:
        batch.chain[3] = float("nan")
    with pytest.raises(TrainingError, match=told):
        ppo.update(batch)
    assert same(weights(ppo.modules()), before)
    assert torch.equal(ppo.actor_optimiser.state_dict()["state"][0]["exp_avg"], moments)
    assert ppo.updates == 1


def test_the_learning_rate_falls_over_the_run_or_follows_the_divergence():
    linear = make_ppo(lr_schedule="linear", actor_lr=1e-3)
    assert linear.update(collected(linear), share=0.75)["ppo/lr"] == pytest.approx(2.5e-4)
    timid = make_ppo(lr_schedule="kl", actor_lr=1e-6, lr_bounds=(1e-7, 1.2e-6))
    timid.update(collected(timid))
    assert timid.lr == pytest.approx(1.2e-6)
    bold = make_ppo(lr_schedule="kl", actor_lr=3e-2, lr_bounds=(1e-7, 1.0))
    bold.update(collected(bold))
    assert bold.lr == pytest.approx(2e-2)


def test_a_value_of_nothing_learned_is_zero_and_its_encoder_is_its_own():
    chain = make_chain()
    critic = StateValue(chain.encoder, hidden=(8,))
    obs = {"x": torch.randn(5, 2, 1)}
    assert critic.values(obs, batch_size=2).tolist() == [0.0] * 5
    assert critic.encoder is not chain.encoder
    with pytest.raises(ConfigError, match="need an encoder with `out_dim`"):
        StateValue(torch.nn.Identity())


def test_settings_out_of_range_are_refused_by_name():
    for arguments, told in (
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"kl_stop": 0.0}, "`kl_stop` must be above 0, got 0.0"),
        ({"gamma": 1.1}, "need `gamma` in"),
        ({"lr_schedule": "cosine"}, "`lr_schedule` must be constant, linear or kl, got 'cosine'"),
        ({"bc_weight": -1.0}, "must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=told):
            PpoSettings(n_execute=2, **arguments)


def bandit(sign: float, clip: ChainClip, updates: int = 40) -> tuple[float, float]:
    """Return the mean reward -(a - 0.5)^2 of a chain that was taught a = 0, before and after learning with sign * A."""
    chain = make_chain(horizon=1, std_min=0.1, std_max=0.2)
    g = torch.Generator().manual_seed(0)
    obs, zero, kept = {"x": torch.zeros(128, 2, 1)}, torch.zeros(128, 1, 1), torch.ones(128, 1, dtype=torch.bool)
    optimiser = torch.optim.Adam(chain.denoiser.parameters(), lr=3e-3)
    for _ in range(100):
        optimiser.zero_grad()
        chain.loss(obs, zero, torch.randn(128, 1, 1, generator=g), torch.rand(128, generator=g), kept).backward()
        optimiser.step()
    cond, rewards = chain.encode(obs), []
    for _ in range(updates):
        with torch.no_grad():
            noise = torch.randn(128, 1, 1, generator=g), torch.randn(128, 5, 1, 1, generator=g)
            states = chain.states(cond, *noise)
            old = chain.transition_log_prob(cond, states)
        reward = -(states[:, -1, 0, 0] - 0.5).square()
        rewards.append(float(reward.mean()))
        for _ in range(3):
            optimiser.zero_grad()
            new = chain.transition_log_prob(cond, states)
            surrogate(new, old, sign * normalised(reward), clip).loss.backward()
            optimiser.step()
    return rewards[0], rewards[-1]


@pytest.mark.parametrize(
    "clip", [ChainClip(), ChainClip(epsilon=0.2, epsilon_base=0.05, reduction="mean", discount=0.99)]
)
def test_the_loss_climbs_the_reward(clip):
    start, end = bandit(1.0, clip)
    assert start < -0.15
    assert end > start + 0.1


def test_with_the_advantages_sign_turned_the_reward_falls():
    start, end = bandit(-1.0, ChainClip())
    assert end < start - 0.1
