"""The behaviour ensemble: disagreement by hand, why the released term gives none, members that stay imitators."""

import dataclasses

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.behaviour import (
    BehaviourSettings,
    behaviour_loss,
    best_other,
    fit_behaviour,
    gaussian,
    gaussian_kl,
)
from robot_rl.rl.offline.policy import OfflinePolicy
from tests.rl.offline.small import chain, choices

G = torch.Generator().manual_seed(0)
TARGET = torch.randn(64, 3, generator=G, dtype=torch.float64)
MEAN = torch.randn(4, 64, 3, generator=G, dtype=torch.float64)
STD = torch.full((4, 1, 1), 0.5, dtype=torch.float64)


def gradient(alpha, disagreement="kl", cap=1e9):
    mean = MEAN.clone().requires_grad_()
    loss, _ = behaviour_loss(mean, STD, TARGET, alpha=alpha, cap=cap, disagreement=disagreement)
    return torch.autograd.grad(loss, mean)[0]


def test_the_released_term_only_scales_imitation():
    torch.testing.assert_close(gradient(0.1, "heuristic"), 1.1 * gradient(0.0), rtol=1e-9, atol=1e-12)


def test_the_analytic_divergence_drives_members_apart():
    plain, apart = gradient(0.0), gradient(0.1) - gradient(0.0)
    assert float(apart.abs().max()) > 0
    cosine = torch.nn.functional.cosine_similarity(plain.flatten(), apart.flatten(), dim=0)
    assert abs(float(cosine)) < 0.9, "another direction than imitation"
    log_prob = (-0.5 * ((TARGET - MEAN) / STD).square()).sum(-1)
    other = best_other(log_prob)[..., None].expand_as(MEAN)
    away = MEAN - MEAN.gather(0, other)
    assert float((-apart * away).sum(-1).min()) > 0, "down the gradient is away from the best other member"


def test_the_divergence_is_capped():
    assert torch.equal(gradient(0.1, cap=1e-12), gradient(0.0))


def test_the_divergence_of_two_gaussians_is_torchs():
    a, b = torch.distributions.Normal(0.3, 0.5), torch.distributions.Normal(-0.2, 0.9)
    found = gaussian_kl(*(torch.tensor(x) for x in (0.3, 0.5, -0.2, 0.9)))
    assert float(found) == pytest.approx(float(torch.distributions.kl_divergence(a, b)))


def test_the_best_other_is_never_oneself():
    log_prob = torch.tensor([[5.0, 1.0], [4.0, 2.0], [3.0, 3.0]])
    assert best_other(log_prob).tolist() == [[1, 2], [0, 2], [0, 1]]
    with pytest.raises(ConfigError, match="at least 2 members, got 1"):
        best_other(log_prob[:1])


def members(n=3):
    return [OfflinePolicy(chain(n_steps=1, noise_scale=0.0, std=0.35, seed=i), 1) for i in range(n)]


def test_a_chain_of_one_step_without_noise_at_the_start_is_a_gaussian():
    member, cond = members(1)[0], torch.randn(6, 1, generator=torch.Generator().manual_seed(1))
    mean, std = gaussian(member, cond)
    states = member.draw(cond, torch.Generator().manual_seed(2))
    expected = torch.distributions.Normal(mean, std).log_prob(states[:, -1, :, 0])
    torch.testing.assert_close(member.log_prob(cond, states)[:, 0, 0], expected)


def test_the_ensemble_imitates_and_a_divergence_that_outweighs_imitation_keeps_it_wider():
    data, spread = choices(400), []
    for alpha in (0.0, 1.5):
        made = members()
        settings = BehaviourSettings(n_members=3, steps=120, batch_size=128, lr=3e-3, alpha=alpha, cap=0.2)
        fit_behaviour(made, data, settings, seed=0)
        means = torch.stack([gaussian(m, data.cond)[0] for m in made]).detach()
        assert float((means.mean(0) - data.action.mean()).abs().mean()) < 0.15
        spread.append(float(means.std(dim=0).mean()))
    assert spread[1] > 1.5 * spread[0]


def test_a_fit_that_was_cut_off_ends_as_one_that_was_not(tmp_path):
    data, settings = choices(100), BehaviourSettings(n_members=2, steps=30, batch_size=32, checkpoint_every=10)

    def die(n, _):
        if n == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_behaviour(members(2), data, settings, seed=0, folder=tmp_path, on_step=die)
    again, whole = members(2), members(2)
    fit_behaviour(again, data, settings, seed=0, folder=tmp_path)
    fit_behaviour(whole, data, dataclasses.replace(settings), seed=0)
    for a, b in zip(again, whole, strict=True):
        for x, y in zip(a.chain.parameters(), b.chain.parameters(), strict=True):
            assert torch.equal(x, y)


def test_members_that_are_not_gaussian_are_refused():
    with pytest.raises(ConfigError, match="got 3 steps"):
        fit_behaviour([OfflinePolicy(chain(), 1)], choices(10), BehaviourSettings(steps=1), seed=0)
    noisy = OfflinePolicy(chain(n_steps=1), 1)
    with pytest.raises(ConfigError, match="noise of 1 at the start"):
        fit_behaviour([noisy], choices(10), BehaviourSettings(steps=1), seed=0)
