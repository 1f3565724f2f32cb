"""The simulated cell that a bundle is validated in: other dynamics each time, as late and as lossy as measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import build, plain, simulation
from robot_rl.cli.latency import read_latency
from robot_rl.data.store import EpisodeStore
from robot_rl.deploy.execution import Execution
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.promises import ChunkSampler
from robot_rl.deploy.residual import step_policy
from robot_rl.errors import ConfigError
from robot_rl.evaluation.delayed import DelaySetting, run_delayed
from robot_rl.evaluation.delayed_env import DelayedEnv
from robot_rl.evaluation.drops import DropPattern, DroppingEnv, measured_drops
from robot_rl.interfaces import Env
from robot_rl.values import Obs, Tick
from sim.randomise import RandomisedEnv


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What an episode is played under.

    Args:
        delay_steps: Ticks from a request to its answer.
        observations: Losses of observations.
        chunks: Losses of answers.
        latency: The cell's latency file, `None` for none.
    """

    delay_steps: int
    observations: DropPattern
    chunks: DropPattern
    latency: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a latency file is its digest."""
        digest = "" if self.latency is None else hashlib.sha256(Path(self.latency).read_bytes()).hexdigest()
        return {
            "delay_steps": self.delay_steps, "lost_observations": self.observations.to_dict(),
            "lost_chunks": self.chunks.to_dict(), "latency": digest,
        }  # fmt: skip


def conditions(config: DictConfig, *, p99_ms: float, control_hz: float) -> Conditions:
    """Return what `validate` says, with the delay measured on this machine and losses measured on the cell.

    Raises:
        ConfigError: A latency file that is not there, or a store without recordings of a cell.
    """
    v = config.validate
    if v.latency is not None and not Path(v.latency).is_file():
        raise ConfigError(f"`validate.latency` {v.latency} is no file; make one with `robot-rl calibrate latency`")
    measured = math.ceil(p99_ms * control_hz / 1e3 - 1e-9)
    seen = DropPattern(**plain(v.drops.observations))
    if v.drops.store is not None:
        found = measured_drops(EpisodeStore.open(v.drops.store))
        if not found:
            raise ConfigError(
                f"`validate.drops.store` {v.drops.store} holds no recordings of a cell, only of simulations"
            )
        seen = max(found.values(), key=lambda pattern: pattern.fraction)
    return Conditions(
        delay_steps=measured if v.delay_steps is None else int(v.delay_steps), observations=seen,
        chunks=DropPattern(**plain(v.drops.chunks)), latency=None if v.latency is None else str(v.latency),
    )  # fmt: skip


class Cell:
    """Plays episodes of bundles under the same conditions.

    Args:
        config: The configuration; `task`, `execution` and `validate` of it.
        given: The conditions.

    Raises:
        ConfigError: The task has no simulation, or nothing that holds its arm still.
    """

    def __init__(self, config: DictConfig, given: Conditions) -> None:
        self._config, self._given = config, given
        self._rest: list[str] = plain(config.task.rest)
        if not self._rest:
            raise ConfigError(f"`validate` needs `task.rest`, what holds the arm still; `{config.task.name}` has none")
        self._drawn: dict[int, Mapping[str, float]] = {}
        self._envs: list[Env] = []
        try:
            for _ in range(int(config.validate.lanes)):
                self._envs.append(self._env())
        except BaseException:
            self.close()
            raise

    def _env(self) -> Env:
        randomise = build(self._config.validate.randomise)
        varied: Env = RandomisedEnv(build(simulation(self._config)), randomise, on_draw=self._drawn.__setitem__)
        late = DelayedEnv(varied, read_latency(self._given.latency), hold=self._hold)
        return DroppingEnv(late, self._given.observations)

    def identity(self) -> dict[str, Any]:
        """Return what must agree before trials may be added up."""
        v = self._config.validate
        varied = build(v.randomise).to_dict()
        execution = plain(self._config.execution)
        env = plain(simulation(self._config))
        return {
            "env": env,
            "randomised": varied,
            "execution": execution,
            **self._given.to_dict(),
            "max_steps": v.max_steps,
        }

    def player(self, bundle: PolicyBundle) -> Callable[[Sequence[int]], list[dict[str, Any]]]:
        """Return what plays a bundle's episodes: seeds in, one row a seed out.

        Raises:
            BundleError: The bundle does not fit the simulated robot.
            ConfigError: An execution that cannot be played with a delay.
        """
        bundle.check_fits(self._envs[0].spec)
        sampler, setting = chunk_sampler(self._config, bundle, self._given)
        correction = partial(step_policy, bundle, threads=int(self._config.validate.threads))

        def play(seeds: Sequence[int]) -> list[dict[str, Any]]:
            results = run_delayed(
                self._envs, sampler, seeds, setting=setting, rest=self._rest_action,
                max_steps=self._config.validate.max_steps, make_correction=correction,
            )  # fmt: skip
            return [{**r.episode.to_dict(), "jerk": r.jerk, "held": r.held, "drawn": dict(self._drawn[r.episode.seed])}
                    for r in results]  # fmt: skip

        return play

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs:
            env.close()

    def _rest_action(self, obs: Obs) -> np.ndarray:
        return np.concatenate([np.ravel(obs[name]) for name in self._rest])

    def _hold(self, tick: Tick) -> np.ndarray:
        return self._rest_action(tick.obs)


def chunk_sampler(config: DictConfig, bundle: PolicyBundle, given: Conditions) -> tuple[ChunkSampler, DelaySetting]:
    """Return a bundle's arithmetic and how its chunks are executed, by the configured strategy.

    Raises:
        ConfigError: A consensus, which is not played with a delay.
    """
    execution: Execution = build(config.execution)
    if execution.consensus is not None:
        raise ConfigError("`execution.consensus` is not played with a delay; validate with execution.consensus=null")
    policy = replace(execution, lead_ns=0).policy(bundle, threads=int(config.validate.threads), seed=0)
    sampler: ChunkSampler = policy if isinstance(policy, OnnxPolicy) else policy.sampler
    usable = bundle.manifest.horizon + bundle.manifest.action_offset
    period = execution.period(n_execute=bundle.manifest.n_execute, usable=usable)
    setting = DelaySetting(
        delay_steps=given.delay_steps, n_execute=period, combine=execution.combine(), lost_chunks=given.chunks
    )
    return sampler, setting
