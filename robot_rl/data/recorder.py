"""Turns the ticks of an `Env` into a recording that was born on the control grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from robot_rl.errors import SpecError
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream, Tick


class TickRecorder:
    """Collects one episode: N+1 observations (the final one included) and N actions with what goes with them.

    Args:
        spec: What the ticks carry; each is checked as it comes.
        extra: Further values given with each action (`add(tick, extras=...)`).
    """

    def __init__(self, spec: RobotSpec, *, extra: Mapping[str, ArraySpec] | None = None) -> None:
        self._spec = spec
        self._extra = dict(extra or {})
        self._ticks: list[Tick] = []
        self._rows: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return max(0, len(self._ticks) - 1)

    @property
    def success(self) -> bool:
        """Whether any tick so far reported success."""
        return any(tick.success for tick in self._ticks)

    def start(self, tick: Tick) -> None:
        """Begin an episode with the tick that `Env.reset` returned; what was collected before is dropped.

        Raises:
            SpecError: The observation is not what the spec says.
        """
        names = (*self._spec.obs, "action", "action_executed", *self._extra)
        self._ticks = []
        self._rows = {name: [] for name in names}
        self._add_obs(tick)

    def add(self, tick: Tick, *, extras: Mapping[str, Any] | None = None) -> None:
        """Add the tick that `Env.step` returned: what was commanded, and what was seen after it.

        Raises:
            SpecError: Not started, no action in the tick, a value that its spec refuses, or time going backwards.
        """
        if not self._ticks:
            raise SpecError("`start` must be called with the tick of `Env.reset` before `add`")
        if tick.action is None:
            raise SpecError("`tick.action` must be the action that led to this tick, got None")
        given = dict(extras or {})
        if set(given) != set(self._extra):
            raise SpecError(f"`extras` must hold {sorted(self._extra)}, got {sorted(given)}")
        executed = tick.action if tick.action_executed is None else tick.action_executed
        rows = {"action": self._spec.action.validate(tick.action)}
        rows["action_executed"] = replace(self._spec.action, name="action_executed").validate(executed)
        rows |= {name: spec.validate(given[name], finite=False) for name, spec in self._extra.items()}
        self._add_obs(tick)
        for name, row in rows.items():
            self._rows[name].append(np.array(row))

    def _add_obs(self, tick: Tick) -> None:
        if self._ticks and tick.stamp_ns <= self._ticks[-1].stamp_ns:
            raise SpecError(f"`stamp_ns` must grow, got {tick.stamp_ns} after {self._ticks[-1].stamp_ns}")
        self._spec.validate_obs(tick.obs)
        for name in self._spec.obs:
            self._rows[name].append(np.array(tick.obs[name]))
        self._ticks.append(replace(tick, obs={}, info={}))

    def finish(self, meta: RecordingMeta) -> Recording:
        """Return the recording; `on_grid`, `terminated` and `truncated` of `meta` are set from the ticks.

        Raises:
            SpecError: No action was added.
        """
        if len(self) == 0:
            raise SpecError("an episode needs at least one action; got none since `start`")
        stamps = np.array([tick.stamp_ns for tick in self._ticks], np.int64)
        steps, last = self._ticks[1:], self._ticks[-1]
        data = {name: np.stack(rows) for name, rows in self._rows.items()}
        data["reward"] = np.array([tick.reward for tick in steps], np.float32)
        data["by_human"] = np.array([tick.by_human for tick in steps], bool)
        meta = replace(meta, on_grid=True, terminated=last.terminated, truncated=last.truncated)
        return Recording({name: Stream(stamps[: len(rows)], rows) for name, rows in data.items()}, meta)
