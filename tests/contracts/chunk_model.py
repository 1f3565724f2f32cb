"""Contract of `robot_rl.interfaces.ChunkModel`: call `check_chunk_model` from the test of any implementation."""

import copy

import torch

from robot_rl.interfaces import ChunkModel, ShapedNoise


def draws(model: ChunkModel, batch: int, seed: int = 0):
    """Return noise [B, H, A] and u [B]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, model.horizon, model.action_dim, generator=generator)
    return noise, torch.rand(batch, generator=generator)


def sampling_noise(model: ChunkModel, batch: int, seed: int = 0) -> torch.Tensor:
    """Return noise of the shape that sampling takes, [B, H, A] unless the model says otherwise."""
    shape = model.noise_shape if isinstance(model, ShapedNoise) else (model.horizon, model.action_dim)
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def check_chunk_model(
    model: ChunkModel, obs: dict[str, torch.Tensor], target: torch.Tensor, *, deterministic: bool = False
) -> None:
    """Check all the contract.

    Args:
        model: The model, of any state of training; it is put into evaluation mode.
        obs: Observations {name: [B, O, ...]} of at least two different samples, physical units.
        target: Actions [B, H, A] in physical units.
        deterministic: The model makes nothing of its noise.
    """
    model.eval()
    assert isinstance(model, ChunkModel)
    assert -model.horizon < model.action_offset <= 0
    assert target.shape[1:] == (model.horizon, model.action_dim)
    check_sample(model, obs, len(target), deterministic=deterministic)
    check_samples_of_a_batch_are_independent(model, obs, len(target))
    check_loss(model, obs, target)
    check_padding_is_ignored(model, obs, target)


def check_sample(model: ChunkModel, obs: dict[str, torch.Tensor], batch: int, *, deterministic: bool) -> None:
    """The same noise gives the same chunk, other noise another (or not); the observations are left alone."""
    noise = sampling_noise(model, batch)
    before = copy.deepcopy(obs)
    with torch.no_grad():
        first, again = model.sample(obs, noise), model.sample(obs, noise)
        other = model.sample(obs, sampling_noise(model, batch, 1))
    assert first.shape == (batch, model.horizon, model.action_dim)
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert torch.equal(first, other) == deterministic
    assert all(torch.equal(obs[name], before[name]) for name in obs)


def check_samples_of_a_batch_are_independent(model: ChunkModel, obs: dict[str, torch.Tensor], batch: int) -> None:
    """A batch gives what its samples give one by one."""
    noise = sampling_noise(model, batch)
    with torch.no_grad():
        together = model.sample(obs, noise)
        alone = [model.sample({k: v[i : i + 1] for k, v in obs.items()}, noise[i : i + 1]) for i in range(batch)]
    scale = float(together.abs().max())
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-4 * max(1.0, scale))


def check_loss(model: ChunkModel, obs: dict[str, torch.Tensor], target: torch.Tensor) -> None:
    """The loss is a repeatable, finite, non-negative scalar with a gradient to some parameter."""
    noise, u = draws(model, len(target))
    mask = torch.ones(target.shape[:2], dtype=torch.bool)
    loss = model.loss(obs, target, noise, u, mask)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert loss >= 0
    assert torch.equal(loss, model.loss(obs, target, noise, u, mask))
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool((g != 0).any()) for g in grads)
    model.zero_grad()


def check_padding_is_ignored(model: ChunkModel, obs: dict[str, torch.Tensor], target: torch.Tensor) -> None:
    """What stands in a masked step changes nothing, to the last bit; a fully padded batch is finite."""
    noise, u = draws(model, len(target))
    mask = torch.ones(target.shape[:2], dtype=torch.bool)
    mask[:, model.horizon // 2 :] = False
    altered = torch.where(mask[..., None], target, target + 123.0)
    assert torch.equal(model.loss(obs, target, noise, u, mask), model.loss(obs, altered, noise, u, mask))
    assert torch.isfinite(model.loss(obs, target, noise, u, torch.zeros_like(mask)))
