"""The values that pass between rooms, processes and files: frozen numpy dataclasses in physical units.

Axis letters, the same everywhere: N steps of an episode, M samples of one stream, O observation steps, H predicted
actions, A action width, B batch, K denoising steps, E ensemble members. Stamps are nanoseconds of ROS time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from robot_rl.errors import SpecError

Obs = dict[str, np.ndarray]
Outcome = Literal["success", "failure", "unknown"]
OUTCOMES: tuple[str, ...] = ("success", "failure", "unknown")


@runtime_checkable
class Rows(Protocol):
    """Anything that can be indexed along time like an array: numpy, a memory map, or frames decoded on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with time first."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the decoded rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Stream:
    """One signal at its own rate: `stamp_ns` int64[M] of capture, strictly increasing, and `data` [M, ...]."""

    stamp_ns: np.ndarray
    data: Rows

    def __post_init__(self) -> None:
        if self.stamp_ns.dtype != np.int64 or self.stamp_ns.ndim != 1:
            raise SpecError(f"`stamp_ns` must be int64(M,), got {self.stamp_ns.dtype}{self.stamp_ns.shape}")
        if len(self.stamp_ns) != len(self.data):
            raise SpecError(f"a stream has {len(self.stamp_ns)} stamps for {len(self.data)} samples; need one each")

    def __len__(self) -> int:
        return len(self.stamp_ns)


@dataclass(frozen=True, kw_only=True)
class RecordingMeta:
    """What is known about an attempt besides its signals.

    Args:
        task: What was attempted, in words.
        outcome: How it ended, as labelled.
        source: Who acted: `human`, `scripted`, `policy`, or `import`.
        on_grid: All streams were born on one control clock, so that alignment is the identity.
        terminated: The task itself ended (success, failure), so that the value of what follows is zero.
        truncated: Time ran out or a person stopped it; what would follow still has value.
        policy_version: Bundle id that drove, if any.
        calibration_id: Calibration in force, if any.
        seed: Seed of a simulated reset.
        extra: Anything else that is plain JSON (provenance, verdicts, notes).
    """

    task: str = ""
    outcome: Outcome = "unknown"
    source: str = "unknown"
    on_grid: bool = False
    terminated: bool = False
    truncated: bool = False
    policy_version: str = ""
    calibration_id: str = ""
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise SpecError(f"`outcome` must be one of {OUTCOMES}, got {self.outcome!r}")


@dataclass(frozen=True)
class Recording:
    """One attempt as it happened: each stream at its own rate with capture stamps, and what is known about it."""

    streams: Mapping[str, Stream]
    meta: RecordingMeta = field(default_factory=RecordingMeta)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A recording seen from the control clock; N steps, observations before actions.

    `obs[name]` is [N, ...]; `final_obs` is the observation after the last action, `None` where it was not recorded.
    `valid[n]` is false where a required observation was missing or staler than allowed at tick n.
    """

    id: str
    stamp_ns: np.ndarray  # [N]
    obs: Mapping[str, Rows]
    final_obs: Obs | None
    action: np.ndarray  # [N, A] commanded, after clamp and human override
    action_executed: np.ndarray  # [N, A] after the safety filter
    reward: np.ndarray  # [N]
    by_human: np.ndarray  # [N] bool
    valid: np.ndarray  # [N] bool
    terminated: bool
    truncated: bool
    meta: RecordingMeta
    extras: Mapping[str, Rows] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stamp_ns)


@dataclass(frozen=True)
class ActionChunk:
    """What a policy returns: `action` [H, A] in physical units, row h due at `start_ns + h * step_ns`.

    Row 0 is due at the tick of the newest observation. A model whose chunk starts at the oldest observation
    (Diffusion Policy, LeRobot) slices from O-1 before it makes one of these. `n_execute` is how many rows to execute
    before asking again, where the policy decides that chunk by chunk; `None` leaves it to whoever executes.
    """

    start_ns: int
    step_ns: int
    action: np.ndarray
    n_execute: int | None = None

    def __post_init__(self) -> None:
        if self.action.ndim != 2 or len(self.action) == 0:
            raise SpecError(f"`action` of a chunk must be [H, A] with H >= 1, got shape {self.action.shape}")
        if self.step_ns <= 0:
            raise SpecError(f"`step_ns` must be positive, got {self.step_ns}")
        if self.n_execute is not None and not 1 <= self.n_execute <= len(self.action):
            raise SpecError(f"`n_execute` of a chunk must be in [1, {len(self.action)}], got {self.n_execute}")

    def __len__(self) -> int:
        return len(self.action)

    @property
    def stamp_ns(self) -> np.ndarray:
        """When each row is due, int64 [H]."""
        return self.start_ns + self.step_ns * np.arange(len(self.action), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class PolicyInput:
    """What a policy is given: O stacked observations, the newest one's tick, and its randomness.

    `noise` [H, A] makes a call repeatable; `None` lets the policy draw its own. `prefix` [P, A] are actions already
    promised and `delay_steps` how many of them will have been executed when the answer arrives (real-time chunking).
    """

    obs: Obs
    stamp_ns: int
    noise: np.ndarray | None = None
    prefix: np.ndarray | None = None
    delay_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One step of an `Env`: the observation at `stamp_ns` and what led to it (nothing, after a reset)."""

    stamp_ns: int
    obs: Obs
    action: np.ndarray | None = None
    action_executed: np.ndarray | None = None
    by_human: bool = False
    reward: float = 0.0
    success: bool = False
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
