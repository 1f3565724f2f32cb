"""PushT under our `Env`: gym-pusht 0.1.8 (Chi et al. 2023, Diffusion Policy), at 10 Hz, in pixels of a 512 px square.

Rewards and success are gym-pusht's: reward is min(coverage / 0.95, 1), success is coverage > 0.95 (strictly), and the
episode terminates at success. `reset` is gym-pusht's own, so a seed starts the same episode as in published results.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.errors import ConfigError, MissingExtraError, SimulationError, SpecError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Obs, Tick

WIDTH_PX = 512.0
CONTROL_HZ = 10.0
INSTALL_COMMAND = "pip install --no-deps gym-pusht==0.1.8"

KEYPOINTS_BLOCK = np.array(
    [
        [9.26979, 90.04097], [-60.98347, -1.18673], [60.91276, -1.39336], [-0.27050, 25.54363], [-14.06493, 122.81585],
        [39.00274, 32.85740], [-39.96641, 32.72966], [-16.82434, 62.86318], [23.54146, -1.70029],
    ]
)  # fmt: skip
"""The nine points on the T that Diffusion Policy observes [px], in the block's frame.

They were drawn at random there; these are recovered from its demonstrations (median over 25,650 frames, +-2e-5 px).
"""

_SPECS = {
    "agent_pos": ArraySpec(name="agent_pos", shape=(2,), unit="px", low=0.0, high=WIDTH_PX),
    "block_pose": ArraySpec(name="block_pose", shape=(3,), unit="px, px, rad"),
    "keypoint": ArraySpec(name="keypoint", shape=(9, 2), unit="px"),
    "image": ArraySpec(name="image", shape=(96, 96, 3), dtype="uint8"),
}
_ACTION = ActionSpec(name="action", shape=(2,), unit="px", low=0.0, high=WIDTH_PX, kind="position", frame="table")


def _make_simulator() -> Any:
    """Return gym-pusht's environment, or raise saying how to install it beside the headless OpenCV."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            from gym_pusht.envs.pusht import PushTEnv as GymPushT
    except ImportError as error:
        raise MissingExtraError("gym-pusht", "sim", command=INSTALL_COMMAND) from error
    return GymPushT(obs_type="state", visualization_width=480, visualization_height=480)


class PushTEnv:
    """Push a T-shaped block onto its goal with a round pusher; an `Env`.

    Observations, each in `obs`: `agent_pos` [px], `block_pose` (x, y [px], angle [rad] in [0, 2 pi)), `keypoint`
    (nine points of the block [px]), `image` (96 px RGB). The action is the pusher's target position [px].

    Args:
        obs: Which observations to give; fewer are faster (an image costs more than the physics).
        max_steps: Control steps after which an episode is truncated.

    Raises:
        MissingExtraError: gym-pusht is not installed.
        ConfigError: An unknown observation name or a `max_steps` that is not positive.
    """

    def __init__(self, *, obs: Sequence[str] = ("agent_pos", "block_pose"), max_steps: int = 300) -> None:
        unknown = sorted(set(obs) - set(_SPECS))
        if unknown:
            raise ConfigError(f"PushT has no observation {unknown}; choose from {sorted(_SPECS)}")
        if max_steps < 1:
            raise ConfigError(f"`max_steps` must be at least 1, got {max_steps}")
        self._spec = RobotSpec(
            name="pusht", obs={name: _SPECS[name] for name in obs}, action=_ACTION, control_hz=CONTROL_HZ
        )
        self._gym = _make_simulator()
        self._max_steps = max_steps
        self._n_steps = 0
        self._running = False

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return self._spec

    @property
    def state(self) -> np.ndarray:
        """Agent x, y, block x, y [px], block angle [rad] in [0, 2 pi), float64 [5]; the order the data set uses."""
        block = self._gym.block
        return np.array([*self._gym.agent.position, *block.position, block.angle % (2 * np.pi)])

    def reset(self, seed: int) -> Tick:
        """Start the episode that gym-pusht starts for `seed`."""
        self._gym.reset(seed=seed)
        return self._start()

    def set_state(self, agent_pos: np.ndarray, block_pose: np.ndarray) -> Tick:
        """Start an episode at rest in exactly the given state (gym-pusht's own `reset_to_state` does not).

        The block's position is that of its frame, not of its centre of gravity, so turning it moves it: the angle
        goes first, then the position.

        Args:
            agent_pos: Pusher position [px], shape (2,).
            block_pose: x, y [px] and angle [rad], shape (3,).

        Raises:
            SpecError: A shape is wrong or a value is not finite.
        """
        state = np.concatenate([_vector("agent_pos", agent_pos, 2), _vector("block_pose", block_pose, 3)])
        self._gym._setup()  # a new space: no velocity and no cached contact of an earlier episode survives
        self._gym._last_action = None
        self._place(state)
        self._gym.space.step(self._gym.dt)  # as gym-pusht's reset does, so that contacts exist at the first step
        return self._start()

    def step(self, action: np.ndarray) -> Tick:
        """Move the pusher towards `action` [px] for 0.1 s.

        Raises:
            SimulationError: No episode is running.
            SpecError: The action has the wrong shape or dtype, or is not finite.
        """
        if not self._running:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        commanded = self._spec.action.validate(action)
        executed = np.clip(commanded, np.float32(0.0), np.float32(WIDTH_PX))
        _, reward, terminated, _, info = self._gym.step(executed.astype(np.float64))
        self._n_steps += 1
        truncated = not terminated and self._n_steps >= self._max_steps
        self._running = not (terminated or truncated)
        return Tick(
            stamp_ns=self._n_steps * self._spec.step_ns,
            obs=self._observe(),
            action=commanded.copy(),
            action_executed=executed,
            reward=float(reward),
            success=bool(info["is_success"]),
            terminated=bool(terminated),
            truncated=truncated,
            info={"coverage": float(info["coverage"])},
        )

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [480, 480, 3], with the target position as a red cross."""
        return np.ascontiguousarray(self._gym.render(), dtype=np.uint8)

    def close(self) -> None:
        """End the episode; gym-pusht holds nothing else."""
        self._running = False
        self._gym.close()

    def _place(self, state: np.ndarray) -> None:
        """Move pusher and block to `state` [5] and leave their velocities as they are."""
        x = [float(value) for value in state]
        self._gym.agent.position = (x[0], x[1])
        self._gym.block.angle = x[4]
        self._gym.block.position = (x[2], x[3])

    def _start(self) -> Tick:
        self._n_steps = 0
        self._running = True
        return Tick(stamp_ns=0, obs=self._observe(), info={"coverage": float(self._gym._get_coverage())})

    def _observe(self) -> Obs:
        state = self.state
        obs: Obs = {}
        for name in self._spec.obs:
            if name == "agent_pos":
                obs[name] = state[:2].astype(np.float32)
            elif name == "block_pose":
                obs[name] = state[2:].astype(np.float32)
            elif name == "keypoint":
                obs[name] = block_keypoints(state[2:]).astype(np.float32)
            else:
                obs[name] = np.ascontiguousarray(self._gym._render(), dtype=np.uint8)
        return obs


def block_keypoints(block_pose: np.ndarray) -> np.ndarray:
    """Return the nine keypoints [9, 2] in table pixels for `block_pose` (x, y [px], angle [rad])."""
    c, s = np.cos(block_pose[2]), np.sin(block_pose[2])
    return np.asarray(KEYPOINTS_BLOCK @ np.array([[c, s], [-s, c]]) + block_pose[:2])


@dataclass(frozen=True)
class Replay:
    """Recorded and simulated states, [N, 5] each: agent x, y, block x, y [px], block angle [rad]."""

    recorded: np.ndarray
    simulated: np.ndarray

    @property
    def position_error_px(self) -> np.ndarray:
        """Absolute error of the four positions, [N, 4]."""
        return np.asarray(np.abs(self.simulated[:, :4] - self.recorded[:, :4]))

    @property
    def angle_error_rad(self) -> np.ndarray:
        """Absolute error of the block's angle the short way round, [N]."""
        difference = self.simulated[:, 4] - self.recorded[:, 4]
        return np.asarray(np.abs((difference + np.pi) % (2 * np.pi) - np.pi))


def replay_episode(env: PushTEnv, states: np.ndarray, actions: np.ndarray, *, open_loop: bool = True) -> Replay:
    """Replay recorded actions, where `states[n]` was seen before `actions[n]` was applied.

    The demonstrations carry no velocity, but they begin at rest, so the whole episode follows from its first state.

    Args:
        env: The environment; its episode is restarted and its step limit does not apply.
        states: Recorded agent x, y, block x, y [px], block angle [rad], [N, 5].
        actions: Recorded target positions [px], [N, 2].
        open_loop: Follow from the first state alone; otherwise put every recorded position back before each step (only
            velocities carry over), so that the error is that of one step.

    Raises:
        SpecError: The lengths disagree.
    """
    if states.ndim != 2 or states.shape[1] != 5 or actions.shape != (len(states), 2):
        raise SpecError(f"replay needs states [N, 5] and actions [N, 2], got {states.shape} and {actions.shape}")
    recorded = states.astype(np.float64)
    env.set_state(recorded[0, :2], recorded[0, 2:])
    simulated = [env.state]
    for n, action in enumerate(actions[:-1]):
        if not open_loop:
            env._place(recorded[n])
        env._gym.step(np.asarray(action, dtype=np.float64))
        simulated.append(env.state)
    return Replay(recorded=recorded, simulated=np.stack(simulated))


def _vector(name: str, value: np.ndarray, size: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise SpecError(f"`{name}` must be {size} finite numbers, got shape {array.shape}: {array.tolist()}")
    return array
