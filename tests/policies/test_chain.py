"""The chain of a denoising model: one mean and std for sampling and for log-probabilities."""

import copy
import functools

import pytest
import torch

from policies.chain import DenoisingChain
from policies.torch_policy import TorchBatchPolicy
from robot_rl.chain_step import ChainNoise
from robot_rl.errors import ConfigError
from tests.contracts.chain_model import check_chain_model
from tests.contracts.chunk_model import sampling_noise
from tests.policies.helpers import HORIZON, SPEC, STATS, batch, model

N_STEPS = 5


def chain_of(family: str = "flow", *, n_tuned: int | None = None, noise: ChainNoise | None = None, **settings):
    made = functools.partial(lambda spec, stats: model(family, n_steps=N_STEPS, **settings))
    return DenoisingChain(SPEC, STATS, model=made, noise=noise or ChainNoise(), n_tuned=n_tuned)


def step_noise(size: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(size, N_STEPS, HORIZON, 2, generator=torch.Generator().manual_seed(seed))


def start(size: int) -> torch.Tensor:
    return torch.randn(size, HORIZON, 2, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", ["flow", "epsilon", "sample", "v", "edm"])
def test_chain_of_every_family_fulfils_the_contract(family):
    check_chain_model(chain_of(family, noise=ChainNoise(std_min=0.05)), *batch(), n_steps=N_STEPS)


def test_chain_without_noise_is_the_models_deterministic_sampler():
    chain, (obs, _) = chain_of("epsilon", noise=ChainNoise(eta=0.0, std_min=0.0)), batch()
    states = chain.chain(obs, start(3), step_noise(3))
    torch.testing.assert_close(states[:, -1], chain.model.sample_normalised(obs, start(3)), rtol=0, atol=1e-6)


def test_a_fine_tuned_chain_keeps_the_names_of_the_models_weights():
    chain = chain_of()
    assert set(chain.state_dict()) == set(chain.model.state_dict())
    chain.load_state_dict(model("flow", n_steps=N_STEPS).state_dict())


@pytest.mark.parametrize("family", ["flow", "epsilon", "edm"])
def test_recomputed_log_probabilities_have_ratio_one(family):
    chain, (obs, _) = chain_of(family), batch()
    states = chain.chain(obs, start(3), step_noise(3)).detach()
    first, again = chain.log_prob(obs, states), chain.log_prob(obs, states)
    torch.testing.assert_close((first - again).exp(), torch.ones_like(first), rtol=0, atol=1e-6)
    std = torch.tensor(chain.std)[None, :, None, None]
    z = step_noise(3)
    drawn = (-0.5 * z.square() - std.log() - 0.9189385332).flatten(2).sum(-1)
    torch.testing.assert_close(first, drawn, rtol=0, atol=2e-3)  # rounding of (x' - mean) / std over 16 elements


def test_log_probability_is_torchs_normal_summed_over_the_chunk():
    chain, (obs, _) = chain_of("epsilon"), batch()
    states = chain.chain(obs, start(3), step_noise(3)).detach()
    cond = chain.encode(obs)
    for k in range(N_STEPS):
        mean, std = chain.mean_std(states[:, k], k, cond)
        expected = torch.distributions.Normal(mean, std).log_prob(states[:, k + 1])
        torch.testing.assert_close(chain.transition_log_prob(cond, states)[:, k], expected, rtol=0, atol=2e-3)


def test_only_the_tuned_steps_are_kept_and_only_they_change():
    chain, (obs, _) = chain_of("epsilon", n_tuned=2), batch()
    whole = chain_of("epsilon")
    states = chain.chain(obs, start(3), step_noise(3))
    assert states.shape == (3, 3, HORIZON, 2)
    torch.testing.assert_close(states, whole.chain(obs, start(3), step_noise(3))[:, -3:])
    with torch.no_grad():
        for parameter in chain.denoiser.parameters():
            parameter.add_(0.05)
    after = chain.chain(obs, start(3), step_noise(3))
    assert torch.equal(after[:, 0], states[:, 0])
    assert not torch.equal(after[:, -1], states[:, -1])
    chain.refreeze()
    assert not torch.equal(chain.chain(obs, start(3), step_noise(3))[:, 0], states[:, 0])


def test_frozen_copy_gets_no_gradient():
    chain, (obs, _) = chain_of("flow", n_tuned=2), batch()
    chain.log_prob(obs, chain.chain(obs, start(3), step_noise(3)).detach()).sum().backward()
    assert all(p.grad is None for p in chain.frozen.parameters())
    assert any(p.grad is not None for p in chain.denoiser.parameters())


def test_a_copy_is_a_chain_of_its_own():
    chain, (obs, _) = chain_of("flow"), batch()
    other = copy.deepcopy(chain)
    before = chain.chain(obs, start(3), step_noise(3))
    with torch.no_grad():
        for parameter in other.denoiser.parameters():
            parameter.mul_(1.5)
    assert torch.equal(chain.chain(obs, start(3), step_noise(3)), before)
    assert not torch.equal(other.chain(obs, start(3), step_noise(3)), before)


def test_policy_drives_with_the_chain():
    chain, (obs, _) = chain_of("epsilon"), batch()
    policy = TorchBatchPolicy(chain, SPEC, n_execute=4)
    noise = sampling_noise(chain, 3)
    first, *fresh = noise.split(HORIZON, dim=1)
    action = policy.act_batch({name: value.numpy() for name, value in obs.items()}, noise.numpy()).action
    with torch.no_grad():
        expected = chain.physical(obs, chain.chain(obs, first, torch.stack(fresh, dim=1))[:, -1])
    expected = expected.clamp(chain.action_low, chain.action_high)[:, 1:]
    torch.testing.assert_close(torch.as_tensor(action), expected)


def test_steps_without_noise_have_no_density():
    chain, (obs, _) = chain_of("flow", noise=ChainNoise(std_min=0.0, std_max=1.0)), batch()
    with pytest.raises(ConfigError, match=r"steps \[4\] .* set `std_min`"):
        chain.log_prob(obs, chain.chain(obs, start(3), step_noise(3)))


@pytest.mark.parametrize("n_tuned", [0, 6])
def test_more_tuned_steps_than_there_are_is_refused(n_tuned):
    with pytest.raises(ConfigError, match=r"`n_tuned` must be in 1 \.\.\. 5"):
        chain_of(n_tuned=n_tuned)
