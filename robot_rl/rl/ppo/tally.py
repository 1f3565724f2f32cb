"""Running means of what the steps of an update said, over all of it and over its last pass."""

from __future__ import annotations

from collections.abc import Mapping


class Tally:
    """Adds up named numbers. `epoch` counts the passes begun, from 0."""

    def __init__(self) -> None:
        self.epoch = -1
        self._all: dict[str, list[float]] = {}
        self._pass: dict[str, list[float]] = {}
        self._once: dict[str, float] = {}

    def begin(self) -> None:
        """Begin a pass."""
        self.epoch += 1
        self._pass = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Count what a step said."""
        for name, value in values.items():
            self._all.setdefault(name, []).append(value)
            self._pass.setdefault(name, []).append(value)

    def once(self, name: str, value: float) -> None:
        """Keep the first value given under a name."""
        self._once.setdefault(name, value)

    def last(self, name: str) -> float | None:
        """Return the mean of the last pass in which there was one, or `None`."""
        values = self._pass.get(name) or self._all.get(name, [])[-1:]
        return sum(values) / len(values) if values else None

    def means(self) -> dict[str, float]:
        """Return means over the update, and what was kept once; counts of the policy's and the critic's steps."""
        values = {name: sum(rows) / len(rows) for name, rows in self._all.items()}
        counts = {
            "ppo/steps": len(self._all.get("ppo/loss", [])),
            "critic/steps": len(self._all.get("critic/loss", [])),
        }
        return {**values, **self._once, **{name: float(count) for name, count in counts.items()}}
