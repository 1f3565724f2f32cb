"""How the dynamics are fitted: likelihood, held-out episodes, each member kept where it was best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.data import OfflineData, distinct
from robot_rl.rl.offline.dynamics import EnsembleDynamics, gaussian_nll
from robot_rl.rl.offline.stage import Stage
from robot_rl.rl.optimise import step

BOUND_WEIGHT = 0.01
"""Weight of the loss that draws the bounds of the log-variances together."""
IMPROVEMENT = 0.01
"""Share by which a member must get better on held-out episodes to be kept anew."""
DECAY = (2.5e-5, 1e-4)
"""Weight decay of the first and the last layer; between them it grows evenly."""


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings:
    """How the dynamics are fitted.

    Args:
        n_members: E.
        n_elites: How many are trusted.
        hidden: Widths of the hidden layers.
        epochs: At most so many passes over the data.
        patience: Stop after so many epochs in which no member got better.
        batch_size: Transitions of an update.
        lr: Learning rate.
        held_out: Share of the episodes held out.
        checkpoint_every: Epochs between checkpoints.
    """

    n_members: int = 7
    n_elites: int = 5
    hidden: Sequence[int] = (256, 256, 256)
    epochs: int = 300
    patience: int = 20
    batch_size: int = 256
    lr: float = 1e-3
    held_out: float = 0.1
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"`held_out` must be between 0 and 1, got {self.held_out}")


class DynamicsFit:
    """One fit; `run` makes it.

    Args:
        data: Transitions of at least two episodes.
        settings: How.
        seed: Of weights, bootstrap samples and batches.
        folder: For checkpoints, from the last of which it goes on; `None` for none.
        belongs_to: What else must be the same when it goes on, plain JSON.

    Raises:
        ConfigError: Fewer than two episodes.
    """

    def __init__(
        self, data: OfflineData, settings: DynamicsSettings, *, seed: int, folder: str | Path | None,
        belongs_to: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = EnsembleDynamics(
                data.cond.shape[1], data.action.shape[1], data.action.shape[2], n_members=settings.n_members,
                n_elites=settings.n_elites, hidden=settings.hidden,
            )  # fmt: skip
        self.settings = settings
        kept, held_out = _split(data, settings.held_out, seed)
        self.model.use_units(kept)
        self._x, self._y, self._ended = self._prepared(kept)
        self._held_out = self._prepared(held_out)
        self._optimiser = torch.optim.AdamW(_decayed(self.model), lr=settings.lr)
        self._generator = torch.Generator().manual_seed(seed)
        n, e = len(kept), settings.n_members
        self._drawn = torch.randint(n, (e, n), generator=self._generator)  # each member's bootstrap sample
        self._best = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.epoch, self.stale = 0, 0
        self.held_out = torch.full((e,), torch.inf)
        constants = {**asdict(settings), "hidden": list(settings.hidden), "seed": seed, "transitions": len(data)}
        constants |= belongs_to or {}
        self._keeper = EnsembleDynamics(
            data.cond.shape[1], data.action.shape[1], data.action.shape[2], n_members=e, n_elites=settings.n_elites,
            hidden=settings.hidden,
        )  # fmt: skip
        self._stage = Stage(
            folder, self.model, self._optimiser, self._generator, constants=constants, kept=self._keeper
        )
        self._resume()

    def _prepared(self, data: OfflineData) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        target = (model.targets(data) - model.out_mean) / model.out_std
        return model.inputs(data.cond, data.action), target, (data.bootstrap == 0).float()

    def _resume(self) -> None:
        if (found := self._stage.restore()) is not None:
            self.epoch, state = found
            self.stale = int(state["stale"])
            self.held_out = torch.tensor([torch.inf if x is None else x for x in state["held_out"]])
            self._best = {name: p.detach().clone() for name, p in self._keeper.named_parameters()}

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do."""
        return self.epoch >= self.settings.epochs or self.stale >= self.settings.patience

    def run(self, on_epoch: Callable[[int, float], None] | None = None) -> EnsembleDynamics:
        """Fit to the end and return the dynamics, each member as it was at its best; `on_epoch` is told the error.

        Raises:
            TrainingError: A loss is not finite; the last checkpoint stands.
        """
        while not self.finished:
            self._train_epoch()
            self._look()
            self.epoch += 1
            if on_epoch is not None:
                on_epoch(self.epoch, float(self.held_out.min()))
            if self.finished or self.epoch % self.settings.checkpoint_every == 0:
                self._save()
        self.model.load_state_dict({**self.model.state_dict(), **self._best})
        self.model.choose_elites(self.held_out)
        self.model.reward_explained.copy_(self._reward_explained())
        return self.model.eval().requires_grad_(False)

    def _save(self) -> None:
        self._keeper.load_state_dict({**self.model.state_dict(), **self._best})
        held_out = [float(x) if bool(torch.isfinite(x)) else None for x in self.held_out]
        self._stage.save(self.epoch, stale=self.stale, held_out=held_out)

    def _train_epoch(self) -> None:
        e, n = self._drawn.shape
        order = torch.rand(e, n, generator=self._generator).argsort(dim=1)
        drawn = self._drawn.gather(1, order)
        for first in range(0, n, self.settings.batch_size):
            index = drawn[:, first : first + self.settings.batch_size]
            out = self.model.raw(self._x[index])
            nll = gaussian_nll(out.mean - self._y[index], out.log_var).mean(dim=(1, 2)).sum()
            ended = nn.functional.binary_cross_entropy_with_logits(
                out.ended, self._ended[index], reduction="none"
            ).mean(dim=1).sum()  # fmt: skip
            bounds = BOUND_WEIGHT * (self.model.max_log_var - self.model.min_log_var).sum() / e
            step(self._optimiser, nll + ended + bounds, self.model.parameters(), what="dynamics")

    @torch.no_grad()
    def _look(self) -> None:
        """Measure every member on the held-out episodes and keep those that got better."""
        x, y, ended = self._held_out
        out = self.model.raw(x.expand(self.settings.n_members, *x.shape))
        wrong = nn.functional.binary_cross_entropy_with_logits(
            out.ended, ended.expand_as(out.ended), reduction="none"
        ).mean(dim=1)  # fmt: skip
        error = (out.mean - y).square().mean(dim=(1, 2)) + wrong
        better = error < (1 - IMPROVEMENT) * self.held_out
        self.held_out = torch.where(better, error, self.held_out)
        self.stale = 0 if bool(better.any()) else self.stale + 1
        for name, parameter in self.model.named_parameters():
            self._best[name][better] = parameter.detach()[better]

    @torch.no_grad()
    def _reward_explained(self) -> Tensor:
        """Return the share of the held-out rewards' variance that the elites explain; NaN where they are equal."""
        x, y, _ = self._held_out
        mean = self.model.raw(x.expand(self.settings.n_members, *x.shape)).mean[self.model.elites, :, -1].mean(0)
        variance = y[:, -1].var(unbiased=False)
        return torch.where(variance > 0, 1 - (mean - y[:, -1]).square().mean() / variance, torch.nan)


def fit_dynamics(
    data: OfflineData,
    settings: DynamicsSettings,
    *,
    seed: int,
    folder: str | Path | None = None,
    belongs_to: Mapping[str, Any] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> EnsembleDynamics:
    """Return dynamics fitted on transitions; arguments as of `DynamicsFit` and its `run`."""
    return DynamicsFit(data, settings, seed=seed, folder=folder, belongs_to=belongs_to).run(on_epoch)


def _split(data: OfflineData, share: float, seed: int) -> tuple[OfflineData, OfflineData]:
    """Return the transitions to fit and those held out, by whole episodes, successes and failures alike."""
    generator = torch.Generator().manual_seed(seed + 1)
    chosen: list[Tensor] = []
    for won in (True, False):
        there = distinct(data.episode[data.success == won])
        n = min(round(share * len(there)), len(there) - 1) if len(there) > 1 else 0
        chosen.append(there[torch.randperm(len(there), generator=generator)[: max(n, int(len(there) > 1))]])
    held_out = torch.isin(data.episode, torch.cat(chosen))
    if not bool(held_out.any()) or bool(held_out.all()):
        raise ConfigError(
            "the dynamics need at least two episodes of one outcome, to hold one out; add episodes to the store"
        )
    return data.rows(~held_out), data.rows(held_out)


def _decayed(model: EnsembleDynamics) -> list[dict[str, object]]:
    """Return the parameters layer by layer with their weight decays; the bounds of log-variances have none."""
    layers = [layer for layer in model.layers if list(layer.parameters())]
    low, high = DECAY
    share = [i / max(1, len(layers) - 1) for i in range(len(layers))]
    groups: list[dict[str, object]] = [
        {"params": list(layer.parameters()), "weight_decay": low + (high - low) * s}
        for layer, s in zip(layers, share, strict=True)
    ]
    return [*groups, {"params": [model.max_log_var, model.min_log_var], "weight_decay": 0.0}]
