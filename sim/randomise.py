"""A simulated arm that is never quite the same: masses, friction, damping, gains, cameras and sensors vary by episode.

A policy that works in the nominal simulation alone may rely on its exact numbers. Everything drawn follows from the
episode's seed, so that two policies meet the same conditions and a failure can be played again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mujoco
import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.interfaces import Env
from robot_rl.specs import RobotSpec
from robot_rl.values import Obs, Tick

Range = tuple[float, float]
_SEED = 0x7A4D  # apart from what the environment itself draws from the episode's seed
_DYNAMICS = ("mass", "friction", "damping", "gain")
_MODEL = (*_DYNAMICS, "camera_m", "camera_deg", "light")


@dataclass(frozen=True, kw_only=True)
class Randomisation:
    """What varies, and by how much. Factors are drawn uniformly in their logarithm, the rest as said.

    Args:
        mass: Factor of each body's mass and inertia. The controller goes on compensating the nominal weight.
        friction: Factor of the sliding friction of all surfaces together.
        damping: Factor of each joint's damping.
        gain: Factor of each position controller's stiffness and damping.
        camera_m: Each camera is moved by up to this along each axis [m].
        camera_deg: Each camera is turned about a random axis by up to this [deg].
        light: Factor of the lights' brightness.
        pixel: Standard deviation of noise on pictures, in grey levels of 0 to 255.
        noise: Standard deviation of noise on each element of an observation, by its name, in its unit.

    Raises:
        ConfigError: A factor that is not 0 < low <= high, or a negative size.
    """

    mass: Range = (1.0, 1.0)
    friction: Range = (1.0, 1.0)
    damping: Range = (1.0, 1.0)
    gain: Range = (1.0, 1.0)
    camera_m: float = 0.0
    camera_deg: float = 0.0
    light: Range = (1.0, 1.0)
    pixel: float = 0.0
    noise: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*_DYNAMICS, "light"):
            given: Sequence[float] = getattr(self, name)
            if len(given) != 2 or not 0.0 < given[0] <= given[1]:
                raise ConfigError(f"`{name}` must be two factors with 0 < low <= high, got {list(given)}")
            object.__setattr__(self, name, (float(given[0]), float(given[1])))
        for name, size in {**{n: getattr(self, n) for n in ("camera_m", "camera_deg", "pixel")}, **self.noise}.items():
            if not size >= 0.0:
                raise ConfigError(f"`{name}` must be 0 or more, got {size}")

    @property
    def of_model(self) -> tuple[str, ...]:
        """What varies inside the physics or the scene, for which the environment must be an arm in MuJoCo."""
        nominal = Randomisation()
        return tuple(name for name in _MODEL if getattr(self, name) != getattr(nominal, name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


class RandomisedEnv:
    """An environment with other dynamics in every episode; an `Env`.

    `drawn` says what the present episode is like: the mean of each factor, the largest displacement of a camera.

    Args:
        env: The nominal environment; one with a `model` (a MuJoCo model that it steps) if its physics or scene vary.
        randomisation: What varies.
        on_draw: Called at each reset with the seed and `drawn`.

    Raises:
        ConfigError: Physics shall vary and the environment has no model, or noise on an unknown observation.
    """

    def __init__(
        self, env: Env, randomisation: Randomisation, *,
        on_draw: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:  # fmt: skip
        self._env, self._randomisation, self._on_draw = env, randomisation, on_draw
        model = getattr(env, "model", None)
        if randomisation.of_model and not isinstance(model, mujoco.MjModel):
            raise ConfigError(
                f"{', '.join(randomisation.of_model)} can vary only in an arm's MuJoCo model, and {type(env).__name__} "
                "has none; choose validate=observations"
            )
        if unknown := sorted(set(randomisation.noise) - set(env.spec.obs)):
            raise ConfigError(f"noise on unknown observations {unknown}; the environment has {sorted(env.spec.obs)}")
        self._scene = _Scene(model) if randomisation.of_model and model is not None else None
        self._rng = np.random.default_rng(0)
        self.drawn: dict[str, float] = {}

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out: that of the environment."""
        return self._env.spec

    def reset(self, seed: int) -> Tick:
        """Start an episode; the seed decides what it is like."""
        self._rng = np.random.default_rng([seed, _SEED])
        self.drawn = {} if self._scene is None else self._scene.vary(self._randomisation, self._rng)
        if self._on_draw is not None:
            self._on_draw(seed, self.drawn)
        tick = self._env.reset(seed)
        return replace(tick, obs=self._seen(tick.obs))

    def step(self, action: np.ndarray) -> Tick:
        """Step the environment, and show what its sensors show."""
        tick = self._env.step(action)
        return replace(tick, obs=self._seen(tick.obs))

    def render(self) -> np.ndarray:
        """Return the picture of the moment."""
        return self._env.render()

    def close(self) -> None:
        """Put the model back as it was and release what the environment holds."""
        if self._scene is not None:
            self._scene.restore()
        self._env.close()

    def _seen(self, obs: Obs) -> Obs:
        """Return the observations with noise on them; a value without noise is the same array."""
        return {name: self._noisy(name, value) for name, value in obs.items()}

    def _noisy(self, name: str, value: np.ndarray) -> np.ndarray:
        if self._env.spec.obs[name].is_image:
            size = self._randomisation.pixel
            if size == 0.0:
                return value
            return np.asarray(np.clip(np.rint(value + self._rng.normal(0.0, size, value.shape)), 0, 255), value.dtype)
        size = self._randomisation.noise.get(name, 0.0)
        return value if size == 0.0 else np.asarray(value + self._rng.normal(0.0, size, value.shape), value.dtype)


class _Scene:
    """A model that can be varied and put back."""

    FIELDS = (
        "body_mass", "body_inertia", "body_gravcomp", "geom_friction", "dof_damping", "actuator_gainprm",
        "actuator_biasprm", "cam_pos", "cam_quat", "light_diffuse",
    )  # fmt: skip

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._nominal = {name: np.array(getattr(model, name)) for name in self.FIELDS}
        self._stat = (float(model.stat.extent), np.array(model.stat.center), float(model.stat.meansize))

    def restore(self) -> None:
        """Put every number back."""
        for name, value in self._nominal.items():
            getattr(self._model, name)[...] = value
        self._derive()

    def vary(self, r: Randomisation, rng: np.random.Generator) -> dict[str, float]:
        """Set new numbers, drawn in a fixed order whatever varies, and return a summary."""
        m, nominal = self._model, self._nominal
        mass, damping, gain = (_factors(rng, r_, n) for r_, n in ((r.mass, m.nbody), (r.damping, m.nv), (r.gain, m.nu)))
        friction, light = float(_factors(rng, r.friction, 1)[0]), float(_factors(rng, r.light, 1)[0])
        moved = rng.uniform(-r.camera_m, r.camera_m, (m.ncam, 3))
        turned = np.stack([_turn(rng, r.camera_deg) for _ in range(m.ncam)]) if m.ncam else np.zeros((0, 4))
        m.body_mass[:] = nominal["body_mass"] * mass
        m.body_inertia[:] = nominal["body_inertia"] * mass[:, None]
        m.body_gravcomp[:] = nominal["body_gravcomp"] / mass
        m.geom_friction[:, 0] = nominal["geom_friction"][:, 0] * friction
        m.dof_damping[:] = nominal["dof_damping"] * damping
        m.actuator_gainprm[:] = nominal["actuator_gainprm"] * gain[:, None]
        m.actuator_biasprm[:] = nominal["actuator_biasprm"] * gain[:, None]
        m.cam_pos[:] = nominal["cam_pos"] + moved
        for i in range(m.ncam):
            mujoco.mju_mulQuat(m.cam_quat[i], nominal["cam_quat"][i], turned[i])
        m.light_diffuse[:] = np.clip(nominal["light_diffuse"] * light, 0.0, 1.0)
        self._derive()
        return {
            "mass": float(mass[1:].mean()), "friction": friction, "light": light,
            "damping": float(damping.mean()), "gain": float(gain.mean()),
            "camera_m": float(np.abs(moved).max(initial=0.0)),
        }  # fmt: skip

    def _derive(self) -> None:
        """Compute what follows from masses; the scene's extent, which sizes the cameras' clipping planes, stays."""
        mujoco.mj_setConst(self._model, mujoco.MjData(self._model))
        extent, center, size = self._stat
        self._model.stat.extent, self._model.stat.meansize = extent, size
        self._model.stat.center[:] = center


def _factors(rng: np.random.Generator, given: Range, n: int) -> np.ndarray:
    return np.exp(rng.uniform(math.log(given[0]), math.log(given[1]), n))


def _turn(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Return a rotation about a random axis by up to `degrees`, as a quaternion (w, x, y, z)."""
    axis, quat = rng.normal(size=3), np.zeros(4)
    mujoco.mju_axisAngle2Quat(quat, axis / np.linalg.norm(axis), math.radians(rng.uniform(-degrees, degrees)))
    return quat
