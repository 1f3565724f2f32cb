"""Mixture of horizons (arXiv 2511.19433): one transformer predicts a chunk at several horizons, a gate mixes them.

Each horizon h predicts the first h actions from the first h actions of the noisy chunk; at every step the predictions
that reach it are averaged with the weights of a small learned gate. Long horizons give foresight, short ones precision.

Departures from the paper: horizons are packed end to end into one sequence that attends within each horizon, where the
paper pads every horizon to the longest and folds them into the batch. The outputs are the same and no padding is
computed. The gate has no bias, which its softmax would cancel.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from policies.chunk_network import Measure, counted_mean
from policies.transformer import ChunkTransformer, TransformerOptions
from robot_rl.errors import ConfigError

_CHOICES = {"gate": ("learned", "uniform"), "fusion": ("gate", "mean"), "disagreement": ("final", "accumulated")}


class MixtureOfHorizons(nn.Module):
    """Denoises a chunk as the mixture of what a chunk transformer predicts at several horizons.

    Its loss is L_mix + lambda_ind L_ind + lambda_bal L_bal: the error of the mixture, the sum over horizons of their
    own mean errors, and the squared coefficient of variation of the gate's mean weights (`balance_loss`).

    Args:
        action_dim: A, action width.
        horizon: H, actions in a chunk.
        cond_dim: Width of the encoder's condition vector.
        horizons: Horizons in actions, rising, the last one H.
        gate: `learned` (a linear map of the last layer's tokens) or `uniform`, the control that learns none.
        gate_noise: Add noise of a learned scale to the gate's logits in training, drawn from torch's own generator as
            dropout is. In the authors' code, not in the paper.
        lambda_ind: Weight of the horizons' own errors.
        lambda_bal: Weight of the balance of the gate.
        fusion: How outputs are mixed: by the `gate`, or by the plain `mean`. The loss always uses the gate.
        disagreement: What a sampler measures between horizons: `final`, on the last solver step as the paper says, or
            `accumulated` over all of them, as the authors' code does.
        transformer: `policies.transformer.TransformerOptions`.

    Raises:
        ConfigError: Horizons that do not rise to H, a negative weight, or an unknown choice.
    """

    step: Tensor
    keep: Tensor
    place: Tensor
    valid: Tensor

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        cond_dim: int,
        *,
        horizons: Sequence[int] = (4, 8, 12, 16),
        gate: str = "learned",
        gate_noise: bool = False,
        lambda_ind: float = 1.0,
        lambda_bal: float = 1e-3,
        fusion: str = "gate",
        disagreement: str = "final",
        **transformer: Unpack[TransformerOptions],
    ) -> None:
        super().__init__()
        _check_horizons(horizons, horizon)
        for name, value in (("gate", gate), ("fusion", fusion), ("disagreement", disagreement)):
            if value not in _CHOICES[name]:
                raise ConfigError(f"`{name}` must be one of {_CHOICES[name]}, got {value!r}")
        for name, weight in (("lambda_ind", lambda_ind), ("lambda_bal", lambda_bal)):
            if not weight >= 0:
                raise ConfigError(f"`{name}` must be 0 or more, got {weight}")
        self.horizons, self.fusion, self.disagreement = tuple(horizons), fusion, disagreement
        self.lambda_ind, self.lambda_bal = lambda_ind, lambda_bal
        self.base = ChunkTransformer(action_dim, horizon, cond_dim, **transformer)
        learned = gate == "learned" and len(self.horizons) > 1
        self.gate = nn.Linear(self.base.width, 1, bias=False) if learned else None
        self.gate_noise = nn.Linear(self.base.width, 1) if learned and gate_noise else None
        for name, table in _packing(self.horizons).items():
            self.register_buffer(name, table, persistent=False)

    def per_horizon(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> tuple[Float[Tensor, "B N H A"], Float[Tensor, "B H N"]]:
        """Return what each horizon predicts, zero beyond its reach, and the weights that `forward` mixes them with.

        The weights of a step sum to one over the horizons that reach it and are exactly zero for the others.
        """
        hidden = self._hidden(x, t, cond)
        gate = self._uniform(hidden) if self.fusion == "mean" else self._weights(hidden)
        return self._unpack(self.base.out(hidden)), gate

    def forward(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], cond: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """Return the mixed native prediction for the noisy chunk `x` at time `t` under the condition."""
        return fuse(*self.per_horizon(x, t, cond))

    def loss(self, x: Tensor, t: Tensor, cond: Tensor, *, target: Tensor, counted: Tensor, measure: Measure) -> Tensor:
        """Return the training loss; arguments as of `policies.chunk_network.OwnLoss`.

        The balance looks at all steps, counted or not: the gate acts on them all.
        """
        hidden = self._hidden(x, t, cond)
        outputs, gate = self._unpack(self.base.out(hidden)).float(), self._weights(hidden)
        loss = counted_mean(measure(fuse(outputs, gate) - target), counted)
        errors = measure(outputs - target[:, None])  # [B, N, H, A]
        own = [counted_mean(errors[:, i], counted & reach) for i, reach in enumerate(self.valid)]
        return loss + self.lambda_ind * torch.stack(own).sum() + self.lambda_bal * balance_loss(gate, self.horizons)

    def _hidden(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Return the last layer's tokens of all horizons end to end, [B, S, width]."""
        tokens = self.base.tokens(x)
        if len(self.horizons) == 1:
            return self.base.attend(tokens, self.base.memory(t, cond))
        return self.base.attend(tokens[:, self.step], self.base.memory(t, cond), self.keep)

    def _unpack(self, packed: Tensor) -> Tensor:
        """Return [B, S, D] as [B, N, H, D], zero beyond each horizon."""
        placed = packed[:, self.place].unflatten(1, self.valid.shape)
        return placed * self.valid[..., None]

    def _weights(self, hidden: Tensor) -> Tensor:
        """Return the gate's weights [B, H, N]."""
        if self.gate is None:
            return self._uniform(hidden)
        logits = self.gate(hidden).float()
        if self.gate_noise is not None and self.training:
            scale = functional.softplus(self.gate_noise(hidden).float()) + 0.01
            logits = logits + torch.randn_like(logits) * scale
        # The smallest finite number, not -inf: its softmax is exactly zero, and no row can become NaN.
        logits = self._unpack(logits).squeeze(-1).masked_fill(~self.valid, torch.finfo(logits.dtype).min)
        return logits.transpose(1, 2).softmax(dim=-1)

    def _uniform(self, hidden: Tensor) -> Tensor:
        weights = self.valid / self.valid.sum(dim=0)  # [N, H]
        return weights.T.expand(hidden.shape[0], -1, -1)


class HorizonWeightedTransformer(ChunkTransformer):
    """A chunk transformer with the step weights that a mixture's own errors imply, and nothing else of the mixture.

    The control that tells what of a mixture's gain is plain re-weighting of early steps: its loss weighs step k by
    `step_weights`, normalised to mean 1.

    Args:
        action_dim: A, action width.
        horizon: H, actions in a chunk.
        cond_dim: Width of the encoder's condition vector.
        horizons: Those of the mixture it is compared with.
        transformer: `policies.transformer.TransformerOptions`.

    Raises:
        ConfigError: Horizons that do not rise to H.
    """

    weight: Tensor

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        cond_dim: int,
        *,
        horizons: Sequence[int] = (4, 8, 12, 16),
        **transformer: Unpack[TransformerOptions],
    ) -> None:
        super().__init__(action_dim, horizon, cond_dim, **transformer)
        _check_horizons(horizons, horizon)
        weight = step_weights(horizons)
        self.register_buffer("weight", (weight / weight.mean()).float()[:, None], persistent=False)  # [H, 1]

    def loss(self, x: Tensor, t: Tensor, cond: Tensor, *, target: Tensor, counted: Tensor, measure: Measure) -> Tensor:
        """Return the weighted error; arguments as of `policies.chunk_network.OwnLoss`."""
        return counted_mean(self.weight * measure(self(x, t, cond).float() - target), counted)


def fuse(outputs: Float[Tensor, "B N H A"], gate: Float[Tensor, "B H N"]) -> Float[Tensor, "B H A"]:
    """Return the mixture of the horizons' outputs."""
    return (outputs * gate.transpose(1, 2)[..., None]).sum(dim=1)


def disagreement(
    outputs: Float[Tensor, "B N H A"], gate: Float[Tensor, "B H N"], mixed: Float[Tensor, "B H A"]
) -> Float[Tensor, "B H"]:
    """Return sum_h alpha_h ||mixed - output_h||_1, the mean distance of the horizons from their mixture."""
    distance = (outputs - mixed[:, None]).abs().sum(dim=-1)  # [B, N, H]
    return (distance * gate.transpose(1, 2)).sum(dim=1)


def balance_loss(gate: Float[Tensor, "B H N"], horizons: Sequence[int]) -> Float[Tensor, ""]:
    """Return how unevenly the gate uses the horizons, 0 if evenly.

    The steps between two neighbouring horizons form an interval with its own set of active horizons. In each interval
    with more than one, it is the biased variance of the mean weights over their squared mean; averaged over intervals.
    (The authors' PyTorch code takes the unbiased variance, their JAX code and the paper the biased one.)
    """
    mean, terms = gate.mean(dim=0), []  # [H, N]
    for i, (start, end) in enumerate(pairwise([0, *horizons[:-1]])):
        active = mean[start:end, i:].mean(dim=0)
        terms.append(active.var(correction=0) / (active.mean() ** 2 + 1e-10))
    return torch.stack(terms).mean() if terms else mean.new_zeros(())


def step_weights(horizons: Sequence[int]) -> Float[Tensor, "H"]:
    """Return sum_{h > k} 1 / h for each step k: the weight of a step in the sum of the horizons' mean errors."""
    step = torch.arange(max(horizons))
    return torch.stack([(step < h).double() / h for h in horizons]).sum(dim=0)


def _packing(horizons: Sequence[int]) -> dict[str, Tensor]:
    """Return how S = sum of horizons tokens are packed end to end.

    `step` [S] is each token's step in the chunk, `keep` [S, S] says which token sees which, `valid` [N, H] which steps
    a horizon reaches, and `place` [N H] where they are among the S (anywhere for those that it does not).
    """
    step = torch.cat([torch.arange(h) for h in horizons])
    owner = torch.repeat_interleave(torch.arange(len(horizons)), torch.tensor(list(horizons)))
    valid = torch.arange(horizons[-1]) < torch.tensor(list(horizons))[:, None]
    place = torch.zeros(valid.shape, dtype=torch.long)
    place[owner, step] = torch.arange(len(step))
    return {"step": step, "keep": owner[:, None] == owner, "valid": valid, "place": place.flatten()}


def _check_horizons(horizons: Sequence[int], horizon: int) -> None:
    rising = list(horizons) == sorted(set(horizons))
    if len(horizons) == 0 or not rising or horizons[0] < 1 or horizons[-1] != horizon:
        raise ConfigError(
            f"`horizons` must rise from at least 1 to the chunk's horizon {horizon}, got {list(horizons)}"
        )
