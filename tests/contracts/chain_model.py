"""Contract of `robot_rl.interfaces.ChainModel`: call `check_chain_model` from the test of any implementation."""

import torch

from robot_rl.interfaces import ChainModel
from tests.contracts.chunk_model import check_chunk_model, draws


def check_chain_model(model: ChainModel, obs: dict[str, torch.Tensor], target: torch.Tensor, n_steps: int) -> None:
    """Check all the contract of a chain of `n_steps` Gaussian transitions; the rest as of `check_chunk_model`."""
    check_chunk_model(model, obs, target)
    assert isinstance(model, ChainModel)
    noise, _ = draws(model, len(target))
    generator = torch.Generator().manual_seed(7)
    step_noise = torch.randn(len(target), n_steps, *noise.shape[1:], generator=generator)
    check_chain(model, obs, noise, step_noise)
    check_log_prob(model, obs, noise, step_noise)


def check_chain(model: ChainModel, obs: dict[str, torch.Tensor], noise: torch.Tensor, step_noise: torch.Tensor) -> None:
    """K transitions make K + 1 states; the chain repeats with its noises, and a state knows only those before it."""
    with torch.no_grad():
        chain = model.chain(obs, noise, step_noise)
        assert chain.shape == (len(noise), step_noise.shape[1] + 1, *noise.shape[1:])
        assert torch.isfinite(chain).all()
        assert torch.equal(chain, model.chain(obs, noise, step_noise))
        later = step_noise.clone()
        later[:, -1] += 1.0
        assert torch.equal(model.chain(obs, noise, later)[:, :-1], chain[:, :-1])


def check_log_prob(
    model: ChainModel, obs: dict[str, torch.Tensor], noise: torch.Tensor, step_noise: torch.Tensor
) -> None:
    """Each transition is Gaussian: against its mean, drawing z costs ||z||^2 / 2; and the parameters get a gradient."""
    with torch.no_grad():
        chain = model.chain(obs, noise, step_noise)
    log_prob = model.log_prob(obs, chain)
    assert log_prob.shape == step_noise.shape[:2]
    assert torch.isfinite(log_prob).all()
    for k in range(step_noise.shape[1]):
        mode = step_noise.clone()
        mode[:, k] = 0.0
        with torch.no_grad():
            best = model.log_prob(obs, model.chain(obs, noise, mode))[:, k]
        cost = step_noise[:, k].square().flatten(1).sum(dim=1) / 2
        torch.testing.assert_close(best - log_prob[:, k].detach(), cost, rtol=1e-3, atol=1e-3)
    log_prob.sum().backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())
    model.zero_grad()
