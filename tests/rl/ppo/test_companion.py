"""A one-step head that follows the policy while that learns."""

from functools import partial

import pytest
import torch

from policies.diffusion import DiffusionModel
from policies.encoders import StateEncoder
from policies.mlp import ResidualMLP
from policies.one_step import OneStepModel, distil_loss
from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.ppo.companion import Companion
from tests.rl.ppo.parts import HORIZON, N_STEPS, STATS, make_chain, make_player, make_ppo
from tests.rl.reach import SPEC


def make_head(chain) -> OneStepModel:
    torch.manual_seed(7)
    denoiser = partial(ResidualMLP, width=32, n_blocks=1, time_dim=8, context_dim=16)
    model = partial(DiffusionModel, encoder=StateEncoder, denoiser=denoiser, n_obs=2, horizon=HORIZON, n_steps=N_STEPS)
    head = OneStepModel(SPEC, STATS, model=model, denoiser=denoiser)
    head.teach(chain.model)
    return head.train()


def make_companion(chain, *, lr=3e-3) -> Companion:
    head = make_head(chain)
    return Companion(head, partial(distil_loss, head, chain), noise_shape=(HORIZON, 1), lr=lr)


def observations(n=64):
    return {"x": torch.linspace(-0.9, 0.9, n)[:, None, None].expand(n, 2, 1).clone()}


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before, module):
    return all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


def test_it_comes_nearer_to_its_teacher_and_leaves_it_as_it_is():
    chain, generator = make_chain(), torch.Generator().manual_seed(0)
    companion = make_companion(chain)
    before = weights(chain)
    errors = [companion.follow(observations(), generator)["head/loss"] for _ in range(300)]
    assert sum(errors[-20:]) / 20 < 0.1 * errors[0]
    assert same(before, chain)
    assert all(parameter.grad is None for parameter in chain.parameters())


def test_it_follows_a_teacher_that_moved():
    chain, generator = make_chain(), torch.Generator().manual_seed(0)
    companion = make_companion(chain)
    for _ in range(200):
        companion.follow(observations(), generator)
    with torch.no_grad():
        for parameter in chain.denoiser.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    moved = companion.follow(observations(), generator)["head/loss"]
    for _ in range(200):
        later = companion.follow(observations(), generator)["head/loss"]
    assert later < 0.4 * moved


def test_the_policy_learns_the_same_with_a_head_beside_it_and_without():
    def learned(beside):
        chain = make_chain()
        ppo = make_ppo(chain)
        ppo.companion = make_companion(chain) if beside else None
        player = make_player(chain)
        for _ in range(2):
            values = ppo.update(ppo.collect(player, range(4), player.sink.episode))
        return weights(ppo.chain), values

    alone, together = learned(False), learned(True)
    assert all(torch.equal(alone[0][name], together[0][name]) for name in alone[0])
    assert "head/loss" not in alone[1]
    assert together[1]["head/loss"] > 0


def test_an_error_that_is_not_a_number_undoes_the_whole_update():
    chain = make_chain()
    ppo, player = make_ppo(chain), make_player(chain)
    companion = make_companion(chain)
    companion._error = lambda obs, noise: companion.head.denoiser(
        noise, noise.new_full((len(noise),), float("nan")), noise.new_zeros(len(noise), chain.encoder.out_dim)
    ).mean()
    ppo.companion = companion
    batch = ppo.collect(player, range(4), player.sink.episode)
    before = weights(ppo.modules())
    with pytest.raises(TrainingError, match="one-step head"):
        ppo.update(batch)
    assert same(before, ppo.modules())
    assert {"chain", "critic", "head"} == set(dict(ppo.modules().named_children()))


def test_a_rate_that_teaches_nothing_is_refused():
    with pytest.raises(ConfigError, match="head_lr"):
        make_companion(make_chain(), lr=0.0)
