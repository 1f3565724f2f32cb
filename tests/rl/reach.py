"""A point on a line, a base that misses by a bias, and all that learning there needs; where spawned processes find it.

x' = x + a; the base goes to `bias` in one step; success is |x'| < 0.02 and ends the episode; at most five steps.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from robot_rl.data.store import EpisodeStore
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.actor import Actor, ActorSettings
from robot_rl.rl.algorithm import ResidualAlgorithm, SacAlgorithm
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.finetune import learn
from robot_rl.rl.learner import PUBLISHED, Learner, LearnerSettings
from robot_rl.rl.pace import Pace
from robot_rl.rl.residual import ResidualSettings
from robot_rl.rl.runner import StepRunner, runner_extras
from robot_rl.rl.sac import SacSettings
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import ActionChunk, PolicyInput, Tick

STEP_NS = 100_000_000
SPEC = RobotSpec(
    name="reach",
    obs={"x": ArraySpec(name="x", shape=(1,), unit="m")},
    action=ActionSpec(name="action", shape=(1,), unit="m", low=-2.0, high=2.0, kind="position"),
    control_hz=10.0,
)
SCALER = ActionScaler(np.zeros(1), np.ones(1))
PACE = Pace(total_steps=250, warm_up_steps=50, critic_first=50, utd=1.0, actor_every=2)


class Reach:
    """The environment; `slow_s` makes a step take time, so that a test can kill in mid-episode."""

    spec = SPEC

    def __init__(self, *, success: float = 0.02, max_steps: int = 5, slow_s: float = 0.0) -> None:
        self._success, self._max_steps, self._slow_s = success, max_steps, slow_s

    def reset(self, seed):
        self._x, self._n = float(np.random.default_rng(seed).uniform(-0.9, 0.9)), 0
        return Tick(stamp_ns=0, obs=self._obs())

    def step(self, action):
        time.sleep(self._slow_s)
        self._x += float(action[0])
        self._n += 1
        won = abs(self._x) < self._success
        return Tick(
            stamp_ns=self._n * STEP_NS, obs=self._obs(), action=action, reward=float(won), success=won, terminated=won,
            truncated=not won and self._n >= self._max_steps,
        )  # fmt: skip

    def _obs(self):
        return {"x": np.array([self._x], np.float32)}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass


class Biased:
    """The base: chunks of one action that goes to `bias`."""

    n_obs, n_execute = 1, 1

    def __init__(self, bias=0.05):
        self._bias = bias

    def reset(self):
        pass

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        action = np.clip(self._bias - policy_input.obs["x"][-1], -1, 1).astype(np.float32)
        return ActionChunk(policy_input.stamp_ns, STEP_NS, action[None])


class Newest(nn.Module):
    """The newest position as it is, and smooth bumps of it, which small critics need to see 2 cm."""

    out_dim = 17

    def __init__(self):
        super().__init__()
        self.register_buffer("centres", torch.linspace(-0.2, 0.2, 16))

    def forward(self, obs):
        x = obs["x"][:, -1]
        return torch.cat([x, torch.exp(-0.5 * ((x - self.centres) / 0.025) ** 2)], dim=1)


def residual(seed=0, **settings):
    torch.manual_seed(seed)
    chosen = ResidualSettings(**{"critic_lr": 1e-3, "actor_lr": 1e-3, **settings})
    return ResidualAlgorithm(Newest(), SCALER, ["x"], settings=chosen, n_members=2, hidden=(32, 32), noise=0.05)


def soft_actor_critic(seed=0):
    torch.manual_seed(seed)
    settings = SacSettings(lr=1e-3, temperature=0.1, bounds=(0.0, 1.0))
    return SacAlgorithm(Newest(), SCALER, ["x"], settings=settings, n_members=2, hidden=(32, 32))


def make_feed(algorithm, *, batch=64, ratio=0.0, seed=0):
    return ReplayFeed(
        SPEC, SymmetricSampler(batch, ratio), n_step=1, gamma=0.9, streams=algorithm.streams, seed=seed,
        bound=np.full(1, 0.1),
    )  # fmt: skip


def make_store(folder):
    return EpisodeStore.create(folder, SPEC, extra=runner_extras(SPEC))


def make_learner(folder, algorithm, *, pace=PACE, feed=None, every=25):
    settings = LearnerSettings(log_every=every, publish_every=every, checkpoint_every=every)
    feed = make_feed(algorithm) if feed is None else feed
    return Learner(algorithm, feed, pace, folder, belongs_to="reach", settings=settings)


def make_actor(folder, sink, algorithm, *, pace=PACE, bias=0.05, env=None, played=(), base=True, **settings):
    env = Reach() if env is None else env
    policy = algorithm.policy
    runner = StepRunner(SPEC, base=Biased(bias) if base else None, step=policy)
    return Actor(
        env, runner, policy, sink, pace=pace, published=Path(folder) / PUBLISHED, belongs_to="reach",
        settings=ActorSettings(**settings), played=played,
    )  # fmt: skip


def say(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(role, folder):
    """Play or learn until killed or done: `python -m tests.rl.reach learner <folder>`."""
    torch.set_num_threads(1)
    store = EpisodeStore.open(Path(folder) / "store")
    algorithm = residual()
    if role == "learner":
        learner = make_learner(folder, algorithm)
        learn(learner, store, stop=lambda: False)
        say(learner.updates)
        return
    actor = make_actor(folder, store, algorithm, env=Reach(success=0.0, slow_s=0.05))
    actor.run(stop=lambda: False, on_episode=lambda played: say(played.id))


if __name__ == "__main__":
    main(*sys.argv[1:])
