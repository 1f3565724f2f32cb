"""What an array must look like before anything reads it.

Recorder, simulation, policy, safety filter and bundle all carry the same specs, so a mismatch is found where the
data enters and not three rooms later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robot_rl.errors import SpecError

ActionKind = Literal["joint_position", "position", "pose_rot6d", "delta_pose", "chunk_relative"]
ACTION_KINDS: tuple[str, ...] = ("joint_position", "position", "pose_rot6d", "delta_pose", "chunk_relative")
GripperKind = Literal["none", "width_m", "open_fraction"]
GRIPPER_KINDS: tuple[str, ...] = ("none", "width_m", "open_fraction")

Bound = float | tuple[float, ...] | None


def _bound(name: str, side: str, value: Any, shape: tuple[int, ...]) -> Bound:
    """Return a bound as a float or a flat tuple, or raise if it does not fit the shape."""
    if value is None or isinstance(value, int | float):
        return None if value is None else float(value)
    flat = tuple(float(x) for x in np.asarray(value, dtype=np.float64).reshape(-1))
    if len(flat) != math.prod(shape):
        raise SpecError(f"`{name}`: {side} must be one number or {math.prod(shape)} numbers, got {len(flat)}")
    return flat


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """Name, shape, dtype, unit and bounds of one array (of one row of a stream, without the time axis).

    Args:
        name: What the array is called in messages and on disk.
        shape: Shape of one sample; `()` for a scalar.
        dtype: numpy dtype name, such as `float32`.
        unit: SI unit in words (`rad`, `m`, `px`), for people and for messages.
        low: Lower bound, one number or one per element, in `unit`; `None` means none.
        high: Upper bound, likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    low: Bound = None
    high: Bound = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if any(n <= 0 for n in shape):
            raise SpecError(f"`{self.name}`: every axis of shape must be positive, got {shape}")
        try:
            dtype = np.dtype(self.dtype).name
        except TypeError as error:
            raise SpecError(f"`{self.name}`: dtype {self.dtype!r} is not a numpy dtype") from error
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "low", _bound(self.name, "low", self.low, shape))
        object.__setattr__(self, "high", _bound(self.name, "high", self.high, shape))

    @property
    def is_image(self) -> bool:
        """Whether one sample is an 8-bit picture with one or three channels (height, width, channel)."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[-1] in (1, 3)

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return math.prod(self.shape)

    def describe(self) -> str:
        """Return the spec as a message shows it, for example `float32(7,) [rad]`."""
        return f"{self.dtype}{self.shape}" + (f" [{self.unit}]" if self.unit else "")

    def validate(self, value: Any, *, leading: int = 0, finite: bool = True) -> np.ndarray:
        """Return `value` as an array, or raise naming the field, what was expected and what came.

        Nothing is cast: a float64 array where float32 was promised is an error, because it was recorded by
        something that does not follow the spec.

        Args:
            value: The array.
            leading: How many leading axes (time, batch) come before the sample's own.
            finite: Refuse NaN and infinity.

        Raises:
            SpecError: Wrong shape or dtype, or a value that is not finite.
        """
        array = np.asarray(value)
        if array.dtype != np.dtype(self.dtype) or array.shape[leading:] != self.shape or array.ndim < leading:
            lead = "".join("*, " for _ in range(leading))
            wanted = f"{self.dtype}({lead}{', '.join(map(str, self.shape))})"
            raise SpecError(
                f"`{self.name}` must be {wanted}{f' [{self.unit}]' if self.unit else ''}, "
                f"got {array.dtype}{array.shape}"
            )
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise SpecError(
                f"`{self.name}` must be finite, got {array[tuple(where)]} at index {where}; "
                "the source sent NaN or infinity, drop that sample or mend the driver"
            )
        return array

    def check_bounds(self, value: np.ndarray) -> None:
        """Raise if any element lies outside `[low, high]`.

        Raises:
            SpecError: Names the element, its bound and its value.
        """
        for side, bound, outside in (("low", self.low, np.less), ("high", self.high, np.greater)):
            if bound is None:
                continue
            limit = np.broadcast_to(np.asarray(bound).reshape(self.shape if np.ndim(bound) else ()), value.shape)
            bad = np.argwhere(outside(value, limit))
            if len(bad):
                i = tuple(bad[0])
                sign = ">=" if side == "low" else "<="
                raise SpecError(
                    f"`{self.name}`{list(map(int, i))} must be {sign} {limit[i]:g} {self.unit}, got {value[i]:g}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name, "shape": list(self.shape), "dtype": self.dtype, "unit": self.unit,
            "low": self.low, "high": self.high,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ArraySpec:
        """Build from `to_dict`'s values.

        Raises:
            SpecError: A key is missing or unknown.
        """
        try:
            return cls(**{**data, "shape": tuple(data["shape"])})
        except (KeyError, TypeError) as error:
            raise SpecError(f"{cls.__name__} needs name, shape, dtype, unit, low, high; {error}") from error


@dataclass(frozen=True, kw_only=True)
class ActionSpec(ArraySpec):
    """An `ArraySpec` that also says what the numbers move.

    Args:
        kind: What the action commands.
        frame: Frame that positions are expressed in; empty for joints.
        gripper: Convention of the last element, `none` when the action has no gripper.
    """

    kind: ActionKind = "joint_position"
    frame: str = ""
    gripper: GripperKind = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 1:
            raise SpecError(f"`{self.name}`: an action is a vector, got shape {self.shape}")
        if self.kind not in ACTION_KINDS:
            raise SpecError(f"`{self.name}`: kind must be one of {ACTION_KINDS}, got {self.kind!r}")
        if self.gripper not in GRIPPER_KINDS:
            raise SpecError(f"`{self.name}`: gripper must be one of {GRIPPER_KINDS}, got {self.gripper!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**super().to_dict(), "kind": self.kind, "frame": self.frame, "gripper": self.gripper}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActionSpec:
        """Build from `to_dict`'s values."""
        spec = super().from_dict(data)
        if not isinstance(spec, cls):
            raise SpecError(f"expected an action spec, got {type(spec).__name__}")
        return spec


@dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """All arrays that pass between a robot (or its simulation) and a policy, and the rate they pass at.

    Args:
        name: The robot's name.
        obs: Spec of each observation by name.
        action: Spec of the action.
        control_hz: Control rate in hertz.
    """

    name: str
    obs: Mapping[str, ArraySpec] = field(default_factory=dict)
    action: ActionSpec
    control_hz: float

    def __post_init__(self) -> None:
        for key, spec in self.obs.items():
            if key != spec.name:
                raise SpecError(f"observation `{key}` carries a spec named `{spec.name}`; names must agree")
        if not self.control_hz > 0:
            raise SpecError(f"`control_hz` must be positive, got {self.control_hz}")

    @property
    def step_ns(self) -> int:
        """Control period in nanoseconds."""
        return round(1e9 / self.control_hz)

    def validate_obs(self, obs: Mapping[str, Any], *, leading: int = 0, finite: bool = True) -> None:
        """Raise unless `obs` holds every observation of this robot as promised.

        Raises:
            SpecError: A missing name, or a value that its spec refuses.
        """
        missing = sorted(set(self.obs) - set(obs))
        if missing:
            raise SpecError(f"observation lacks {missing}; got {sorted(obs)}, expected {sorted(self.obs)}")
        for name, spec in self.obs.items():
            spec.validate(obs[name], leading=leading, finite=finite)

    def select(self, names: Sequence[str]) -> RobotSpec:
        """Return the same robot with only the named observations.

        Raises:
            SpecError: A name this robot does not have.
        """
        unknown = sorted(set(names) - set(self.obs))
        if unknown:
            raise SpecError(f"robot `{self.name}` has no observation {unknown}; it has {sorted(self.obs)}")
        obs = {name: self.obs[name] for name in names}
        return RobotSpec(name=self.name, obs=obs, action=self.action, control_hz=self.control_hz)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "obs": {name: spec.to_dict() for name, spec in self.obs.items()},
            "action": self.action.to_dict(),
            "control_hz": self.control_hz,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobotSpec:
        """Build from `to_dict`'s values.

        Raises:
            SpecError: A key is missing.
        """
        try:
            obs = {name: ArraySpec.from_dict(spec) for name, spec in data["obs"].items()}
            action, hz = ActionSpec.from_dict(data["action"]), float(data["control_hz"])
            return cls(name=data["name"], obs=obs, action=action, control_hz=hz)
        except KeyError as error:
            raise SpecError(f"a robot spec needs name, obs, action, control_hz; {error} is missing") from error
