"""Plays episodes with a chain's noise on, many side by side, and records the chain beside every executed chunk.

One batched call serves all environments that wait for a chunk, which on a CPU is by far the cheapest way; a real arm
is the same thing with one environment. Weights do not change while episodes run. Noise is drawn from (run's seed,
episode's seed, number of the decision, number of the attempt), so an episode does not depend on which others were
played beside it (but for the rounding of batched arithmetic).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from robot_rl.data.recorder import TickRecorder
from robot_rl.deploy.history import ObsHistory
from robot_rl.errors import ConfigError
from robot_rl.interfaces import Env, EpisodeSink
from robot_rl.rl.actor import Played
from robot_rl.rl.ppo.objective import executed_rows
from robot_rl.rl.ppo.tunable import TunableChain
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Obs, RecordingMeta, Tick

CHAIN, OFFSET, VERSION = "chain", "chunk_offset", "policy_version"


def chain_extras(chain: TunableChain) -> dict[str, ArraySpec]:
    """Return the streams recorded beside the usual ones.

    `chain` [S, H, A] holds the normalised states around the tuned steps at the tick of a decision and NaN at others,
    `chunk_offset` the row of the chunk that was executed (0 at a decision), `policy_version` the number of the weights.
    """
    shape = (chain.n_tuned + 1, chain.horizon, chain.action_dim)
    counts = {name: ArraySpec(name=name, shape=(), dtype="int64") for name in (OFFSET, VERSION)}
    return {CHAIN: ArraySpec(name=CHAIN, shape=shape), **counts}


class Player:
    """Plays one episode a seed.

    Args:
        envs: Environments of one kind.
        chain: Who acts, in evaluation mode.
        spec: The robot, restricted to the observations that the chain reads.
        n_execute: Actions executed of a chunk.
        sink: Takes the episodes.
        seed: The run's seed, for the noise.
        draw: Number of the attempt at these episodes, for other noise in each.
        task: What is attempted, in words.
        max_steps: Truncate episodes after so many steps; `None` leaves the end to the environment.

    Raises:
        ConfigError: No environment, a chunk shorter than `n_execute`, or an environment of another robot.
    """

    def __init__(
        self,
        envs: Sequence[Env],
        chain: TunableChain,
        spec: RobotSpec,
        *,
        n_execute: int,
        sink: EpisodeSink,
        seed: int = 0,
        draw: int = 0,
        task: str = "",
        max_steps: int | None = None,
    ) -> None:
        if not envs:
            raise ConfigError("playing needs at least one environment, got none")
        if (found := envs[0].spec.select(tuple(spec.obs))) != spec:
            raise ConfigError(
                f"the environment's robot `{found.name}` is not the one that the policy was trained for, "
                f"`{spec.name}`; its observations, action and rate must be the same"
            )
        self.envs, self.chain, self.spec, self.sink = list(envs), chain, spec, sink
        self.rows, self.seed, self.draw = executed_rows(chain, n_execute), seed, draw
        self.task, self.max_steps = task, max_steps

    def play(
        self,
        seeds: Sequence[int],
        version: str = "",
        number: int = 0,
        *,
        stop: Callable[[], bool] = lambda: False,
        on_done: Callable[[Played], None] | None = None,
    ) -> list[Played]:
        """Play one episode a seed to its end and append each, whole, to the sink.

        Args:
            seeds: Of the episodes; those not begun when `stop()` becomes true are left out.
            version: Whose weights act, for the recording's metadata.
            number: The same as a number, for the `policy_version` stream.
            stop: Asked before an episode begins.
            on_done: Called after each episode.

        Raises:
            SpecError: An observation or action is not what the robot's spec says, such as a NaN of the network's.
            StoreError: An episode could not be saved.
        """
        waiting, done = iter(seeds), {}
        lanes = [_Lane(self, env, version, number) for env in self.envs]
        playing = [lane for lane in lanes if lane.begin(_next(waiting, stop))]
        while playing:
            self._decide([lane for lane in playing if lane.hungry])
            for lane in list(playing):
                played = lane.step()
                if played is None:
                    continue
                done[played.seed] = played
                if on_done is not None:
                    on_done(played)
                if not lane.begin(_next(waiting, stop)):
                    playing.remove(lane)
        return [done[seed] for seed in seeds if seed in done]

    @torch.no_grad()
    def _decide(self, lanes: Sequence[_Lane]) -> None:
        """Give each of the lanes a new chunk and the chain that led to it."""
        if not lanes:
            return
        device = self.chain.action_low.device
        stacks = [lane.stacked for lane in lanes]
        obs = {n: torch.as_tensor(np.stack([stack[n] for stack in stacks]), device=device) for n in self.spec.obs}
        noise = torch.as_tensor(np.stack([lane.noise() for lane in lanes]), device=device)
        noise = noise.reshape(len(lanes), -1, self.chain.horizon, self.chain.action_dim)  # [B, 1 + K, H, A]
        states = self.chain.states(self.chain.encode(obs), noise[:, 0], noise[:, 1:])  # [B, S, H, A]
        action = self.chain.physical(obs, states[:, -1]).clamp(self.chain.action_low, self.chain.action_high)
        for lane, chain, chunk in zip(lanes, states.cpu().numpy(), action[:, self.rows].cpu().numpy(), strict=True):
            lane.take(chain, chunk)


def _next(waiting: Iterator[int], stop: Callable[[], bool]) -> int | None:
    return None if stop() else next(waiting, None)


class _Lane:
    """One environment and the episode it is in."""

    def __init__(self, player: Player, env: Env, version: str, number: int) -> None:
        self._player, self._env, self._version, self._number = player, env, version, number
        self._history = ObsHistory(player.chain.n_obs)
        extra = chain_extras(player.chain)
        self._recorder = TickRecorder(env.spec, extra=extra)
        self._blank = np.full(extra[CHAIN].shape, np.nan, np.float32)
        self.stacked: Obs = {}

    @property
    def hungry(self) -> bool:
        """Whether it has no action left to execute."""
        return len(self._chunk) == self._row

    def begin(self, seed: int | None) -> bool:
        """Start the episode of a seed; return false if there is none."""
        if seed is None:
            return False
        self.seed, self._decision = seed, 0
        self._history.reset()
        tick = self._env.reset(seed)
        self._recorder.start(tick)
        self._see(tick)
        self._chunk, self._row = self._blank[0, :0], 0
        return True

    def noise(self) -> np.ndarray:
        """Return the noise of the next decision."""
        rng = np.random.default_rng([self._player.seed, self.seed, self._decision, self._player.draw])
        return rng.standard_normal(self._player.chain.noise_shape, dtype=np.float32)

    def take(self, chain: np.ndarray, chunk: np.ndarray) -> None:
        """Take a chain [S, H, A] and the rows [n, A] to be executed."""
        self._chain, self._chunk, self._row = chain, chunk, 0
        self._decision += 1

    def step(self) -> Played | None:
        """Execute the next row; return the episode if that ended it."""
        dtype = self._env.spec.action.dtype
        tick = self._env.step(self._env.spec.action.validate(self._chunk[self._row].astype(dtype)))
        if len(self._recorder) + 1 == self._player.max_steps and not tick.terminated:
            tick = replace(tick, truncated=True)
        chain = self._chain if self._row == 0 else self._blank
        extras = {CHAIN: chain, OFFSET: np.int64(self._row), VERSION: np.int64(self._number)}
        self._recorder.add(tick, extras=extras)
        self._see(tick)
        self._row += 1
        if tick.by_human:  # the arm went another way
            self._row = len(self._chunk)
        return self._finish(tick) if tick.terminated or tick.truncated else None

    def _see(self, tick: Tick) -> None:
        self.stacked = self._history.push({name: tick.obs[name] for name in self._player.spec.obs})

    def _finish(self, tick: Tick) -> Played:
        success, steps = self._recorder.success, len(self._recorder)
        meta = RecordingMeta(
            task=self._player.task, source="policy", outcome="success" if success else "failure", seed=self.seed,
            policy_version=self._version, extra={"mode": "explore"},
        )  # fmt: skip
        id = self._player.sink.append(self._recorder.finish(meta))
        return Played(id=id, seed=self.seed, steps=steps, success=success, version=self._number)
