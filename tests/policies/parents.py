"""Parents for the tests of composition: real small models, and models whose denoiser is known exactly."""

import dataclasses

import torch

from policies.agreement import Parent
from tests.policies.helpers import SPEC, STATS, model


def parent(family: str = "flow", name: str | None = None, *, seed: int = 0, reads=None, denoiser="mlp", **kwargs):
    """Return a parent with random weights; `reads` restricts what it sees."""
    net = model(family, denoiser, **({"clip": None} | kwargs))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    spec = SPEC if reads is None else dataclasses.replace(SPEC, obs={n: SPEC.obs[n] for n in reads})
    return Parent(family if name is None else name, net.eval(), spec, STATS)


class Known(torch.nn.Module):
    """A network whose model's denoiser is `clean(y, sigma_e)`, whatever the model's path and prediction."""

    def __init__(self, net, clean):
        super().__init__()
        self.path, self.time_scale, self.clean = net.path, net.time_scale, clean
        self.calls = 0

    def forward(self, x, t, cond):
        self.calls += 1
        t = t / self.time_scale
        alpha, sigma = self.path.coefficients(t, x)
        return self.path.native(x, t, self.clean(x / alpha, sigma / alpha))


def known(family: str, clean, name: str | None = None, **kwargs) -> Parent:
    """Return a parent with the given denoiser."""
    found = parent(family, name, **kwargs)
    found.model.denoiser = Known(found.model, clean)
    return found


def gaussian(mean: float, sd: float):
    """Return the denoiser of normal data."""
    return lambda y, sigma: (sd**2 * y + sigma**2 * mean) / (sd**2 + sigma**2)
