"""The learned policies of one step, with what surrounds a network on a robot: numpy in, physical units, exploration.

What is published is exactly the state of one of these modules: encoder and actor.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.hold import Hold
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.residual import ResidualActor
from robot_rl.rl.sac import GaussianActor
from robot_rl.values import Obs


class StepModule(nn.Module, abc.ABC):
    """Encoder and actor of a step policy; an abstract `robot_rl.rl.runner.ExploringPolicy`.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, C].
        actor: What acts on them.
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        correlation: Of the exploration's noise between one tick and the next. On absolute targets independent noise is
            smoothed away by the arm itself; correlated noise takes it somewhere else.

    Raises:
        ConfigError: A correlation outside [0, 1).
    """

    def __init__(
        self,
        encoder: nn.Module,
        actor: nn.Module,
        scaler: ActionScaler,
        names: Sequence[str],
        *,
        correlation: float = 0.0,
    ) -> None:
        if not 0 <= correlation < 1:
            raise ConfigError(f"`correlation` must be in [0, 1), got {correlation}")
        super().__init__()
        self.encoder, self.actor = encoder, actor
        self.scaler, self.names = scaler, tuple(names)
        self._correlation = correlation
        self.reset()

    def reset(self) -> None:
        """Begin an episode, whose noise has nothing of the last one's."""
        self._drawn: Tensor | None = None

    def act(self, obs: Obs, base_action: np.ndarray) -> np.ndarray:
        """Return the deterministic action [A] at one observation step."""
        return self._physical(self._choose(obs, base_action, None))

    def explore(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an action [A] drawn around the deterministic one."""
        return self._physical(self._choose(obs, base_action, self._draw(rng)))

    @abc.abstractmethod
    def warm_up(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an action [A] that nothing learned decides."""

    def _draw(self, rng: np.random.Generator) -> Tensor:
        """Return standard normal numbers [1, A] of a stationary first-order process; call it once a decision."""
        fresh = torch.from_numpy(rng.standard_normal((1, len(self.scaler.half)), dtype=np.float32))
        if self._drawn is not None:
            fresh = self._correlation * self._drawn + math.sqrt(1 - self._correlation**2) * fresh
        self._drawn = fresh
        return fresh

    @abc.abstractmethod
    def _choose(self, obs: Obs, base_action: np.ndarray, noise: Tensor | None) -> Tensor:
        """Return the action [1, A] in the agent's unit."""

    def _features(self, obs: Obs) -> Tensor:
        device = next(self.actor.parameters()).device
        rows = {name: torch.as_tensor(np.array(obs[name])[None, None], device=device) for name in self.names}
        return cast(Tensor, self.encoder(rows))

    def _base(self, base_action: np.ndarray) -> Tensor:
        device = next(self.actor.parameters()).device
        return torch.as_tensor(self.scaler.to_agent(np.asarray(base_action, np.float32))[None], device=device)

    def _physical(self, action: Tensor) -> np.ndarray:
        return np.asarray(self.scaler.to_physical(action[0].cpu().numpy()))


class ResidualStep(StepModule):
    """The base's action and a bounded correction.

    Args:
        encoder: As of `StepModule`.
        actor: The correction.
        scaler: As of `StepModule`.
        names: As of `StepModule`.
        noise: Standard deviation of the exploration, in the agent's unit.
        warm_up_noise: Half width of the uniform noise on the base before anything is learned.
        correlation: Of either noise, from one decision to the next, as of `StepModule`.
        hold: Ticks that a correction lasts, its noise with it; implements `robot_rl.interfaces.Holding`.
        average: What acts deterministically, in place of `actor`, which explores.

    Raises:
        ConfigError: A negative noise, or a hold below 1.
    """

    actor: ResidualActor

    def __init__(
        self,
        encoder: nn.Module,
        actor: ResidualActor,
        scaler: ActionScaler,
        names: Sequence[str],
        *,
        noise: float = 0.05,
        warm_up_noise: float = 0.2,
        correlation: float = 0.0,
        hold: int = 1,
        average: ResidualActor | None = None,
    ) -> None:
        if noise < 0 or warm_up_noise < 0:
            raise ConfigError(f"`noise` and `warm_up_noise` must be 0 or more, got {noise} and {warm_up_noise}")
        self.hold = Hold(hold)  # first, for `reset`, which the line below calls
        super().__init__(encoder, actor, scaler, names, correlation=correlation)
        self.average = actor if average is None else average
        self._noise, self._warm_up_noise = noise, warm_up_noise

    @property
    def held(self) -> int:
        """Ticks since the correction of the last action was chosen."""
        return self.hold.age

    def renew(self) -> None:
        """Choose anew at the next tick."""
        self.hold.renew()

    def reset(self) -> None:
        """Begin an episode, with nothing of the last one's noise or correction."""
        super().reset()
        self.renew()

    def act(self, obs: Obs, base_action: np.ndarray) -> np.ndarray:
        """Return the base's action [A] with the deterministic correction that is due."""
        return self._kept(base_action, lambda: self._choose(obs, base_action, None))

    def explore(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the base's action [A] with a correction drawn around the learning actor's."""
        return self._kept(base_action, lambda: self._choose(obs, base_action, self._draw(rng)))

    def warm_up(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the base's action with uniform noise, of elements with bounds of their own in proportion."""

        def choose() -> Tensor:
            uniform = torch.erf(self._draw(rng) / math.sqrt(2.0)).to(self.actor.relative.device)
            return (self._base(base_action) + self._warm_up_noise * self.actor.relative * uniform).clamp(-1, 1)

        return self._kept(base_action, choose)

    def _kept(self, base_action: np.ndarray, choose: Callable[[], Tensor]) -> np.ndarray:
        """Return the action of a tick, with the correction that `choose` makes or that still lasts."""
        total: Tensor = self.hold.total(self._base(base_action).clamp(-1, 1), choose)
        return self._physical(total.clamp(-1, 1))

    @torch.no_grad()
    def _choose(self, obs: Obs, base_action: np.ndarray, noise: Tensor | None) -> Tensor:
        base = self._base(base_action)
        if noise is None:
            return self.average.total(self._features(obs), base)
        return self.actor.total(self._features(obs), base, self._noise * noise.to(base.device))


class GaussianStep(StepModule):
    """A tanh-squashed Gaussian that needs no base: its mode is the deterministic action, a sample the exploration."""

    actor: GaussianActor

    def warm_up(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a uniform action over the demonstrated range."""
        uniform = rng.uniform(-1, 1, len(self.scaler.half)).astype(np.float32)
        return np.asarray(self.scaler.to_physical(uniform))

    @torch.no_grad()
    def _choose(self, obs: Obs, base_action: np.ndarray, noise: Tensor | None) -> Tensor:
        features = self._features(obs)
        return self.actor.choose(features, None if noise is None else noise.to(features.device))
