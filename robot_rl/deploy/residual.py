"""A learned correction at control rate, run from a bundle without torch, on top of the base's chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_rl.bundle import PolicyBundle, base_of, residual_info
from robot_rl.bundle.residual import STEP
from robot_rl.deploy.onnx_policy import open_session, smoke_run
from robot_rl.deploy.promises import plain_rows
from robot_rl.deploy.providers import PREFERRED
from robot_rl.errors import BundleError, SafetyStop, SpecError
from robot_rl.hold import Hold
from robot_rl.values import Obs

_SLACK = 1e-4
"""Of the action's range: rounding of the graph's own arithmetic."""


class OnnxStep:
    """Runs a bundle's `step` graph: the newest observation and the base's action in, the action to take out.

    Implements `robot_rl.interfaces.StepPolicy` and `Holding`: ask it once a tick, for a correction can last several.
    The action is clamped to the range frozen in the bundle. That it stays within the correction's bound around the base
    (held to that range) is checked at every call.

    Args:
        bundle: A verified bundle with the graph `step`.
        threads: Threads one operator may use.
        providers: Execution providers in order of preference.

    Raises:
        BundleError: It has no such graph, the graph cannot be loaded, or the bundle holds another base's graphs.
        ConfigError: `threads` is below 1, or no listed provider is available.
    """

    def __init__(self, bundle: PolicyBundle, *, threads: int = 1, providers: Sequence[str] = PREFERRED) -> None:
        info = residual_info(bundle)
        if info is None:
            raise BundleError(f"bundle {bundle.id} has no graph `{STEP}`; package a fine-tuned run for one")
        base_of(bundle)
        self.bundle, self.info = bundle, info
        self._session = open_session(bundle, STEP, threads=threads, providers=providers)
        manifest, dtype = bundle.manifest, bundle.manifest.robot.action.dtype
        self._specs = {name: manifest.robot.obs[name] for name in info.names}
        self._action, self._dtype = manifest.robot.action, np.dtype(dtype)
        self._low, self._high = np.asarray(manifest.action_low, dtype), np.asarray(manifest.action_high, dtype)
        self._bound = np.asarray(info.bound) + _SLACK * (self._high - self._low)
        self._hold = Hold(info.hold)

    @property
    def held(self) -> int:
        """Ticks since the correction of the last action was chosen."""
        return self._hold.age

    def renew(self) -> None:
        """Choose anew at the next tick."""
        self._hold.renew()

    def act(self, obs: Obs, base_action: np.ndarray) -> np.ndarray:
        """Return the action [A] for one observation step and the base's action [A].

        Raises:
            SpecError: An observation or the base's action is not as specified.
            SafetyStop: The network answered NaN or infinity, or left its bound.
        """
        if missing := sorted(set(self._specs) - set(obs)):
            raise SpecError(f"observation lacks {missing}; got {sorted(obs)}, the correction reads {list(self._specs)}")
        base = np.asarray(base_action, np.float32)
        if base.shape != self._action.shape or not np.isfinite(base).all():
            raise SpecError(f"`base_action` must be finite float32{self._action.shape}, got {base.shape}: {base}")
        feed = {f"obs.{name}": spec.validate(obs[name])[None] for name, spec in self._specs.items()}
        within = np.clip(base.astype(self._dtype), self._low, self._high)
        action = np.clip(self._hold.total(within, lambda: self._answer(feed, base)), self._low, self._high)
        if not np.isfinite(action).all():
            raise SafetyStop(f"correction {self.bundle.id} answered NaN or infinity; its action was not used")
        if (np.abs(action - within) > self._bound).any():
            raise SafetyStop(f"correction {self.bundle.id} left its bound {list(self.info.bound)}; it was not used")
        return np.asarray(action)

    def _answer(self, feed: dict[str, np.ndarray], base: np.ndarray) -> np.ndarray:
        (answer,) = self._session.run(["action"], {**feed, "base_action": base[None]})
        return np.asarray(np.clip(answer[0].astype(self._dtype), self._low, self._high))

    def warm_up(self, calls: int = 3) -> None:
        """Run the graph on plain inputs, so that the first real call does not pay for allocation.

        Raises:
            SafetyStop: As of `act`.
        """
        obs = {name: rows[0] for name, rows in plain_rows(self.bundle.manifest.robot, 1).items()}
        for _ in range(calls):
            self.renew()
            self.act(obs, (self._low + self._high) / 2)
        self.renew()


def step_policy(bundle: PolicyBundle, *, threads: int = 1) -> OnnxStep | None:
    """Return the bundle's correction, warmed up, or `None` if it has none.

    Raises:
        BundleError: As of `OnnxStep`.
    """
    if STEP not in bundle.manifest.graphs:
        return None
    step = OnnxStep(bundle, threads=threads)
    step.warm_up()
    return step


def smoke_run_all(bundle: PolicyBundle) -> None:
    """Raise unless the bundle's base answers a plain observation with finite actions, and its correction too.

    Raises:
        BundleError: One of them cannot be loaded, answers with NaN or leaves its bound.
    """
    smoke_run(base_of(bundle))
    try:
        step_policy(bundle)
    except (SafetyStop, SpecError) as error:
        raise BundleError(f"bundle {bundle.id} failed its smoke run: {error}") from error
