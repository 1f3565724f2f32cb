"""Measured latencies as the robot side uses them: how late a stream's stamps are, how late the arm follows a command.

Used in three places. Alignment subtracts an observation's latency from its stamps when an episode is read; the chunk
executor sends an action ahead of time by the latency of commands; a simulated arm is delayed by both, drawn from the
measured distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robot_rl.calibration_types import CalibrationFile
from robot_rl.errors import ConfigError

ACTION = "action"


@dataclass(frozen=True, eq=False)
class LatencySamples:
    """A latency as it was measured, time and again.

    Args:
        samples_ns: One value per repetition, int64 [M], M >= 1 [ns].

    Raises:
        ConfigError: None, or a value that is not finite or beyond ten seconds.
    """

    samples_ns: np.ndarray

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples_ns, np.float64)
        if samples.ndim != 1 or len(samples) == 0 or not (np.abs(samples) < 1e10).all():
            raise ConfigError(
                f"latency samples must be one or more values in ns below 1e10, got {samples.tolist()[:5]}"
            )
        sorted_ns = np.sort(np.round(samples).astype(np.int64))
        sorted_ns.setflags(write=False)
        object.__setattr__(self, "samples_ns", sorted_ns)

    def __len__(self) -> int:
        return len(self.samples_ns)

    @property
    def median_ns(self) -> int:
        """The value to compensate by: half of the repetitions were shorter [ns]."""
        return int(np.median(self.samples_ns))

    @property
    def spread_ns(self) -> int:
        """From the 5th to the 95th percentile [ns]."""
        low, high = np.percentile(self.samples_ns, (5, 95))
        return int(high - low)

    def draw(self, rng: np.random.Generator) -> int:
        """Return one of the measured values at random [ns]."""
        return int(rng.choice(self.samples_ns))

    def minus(self, other_ns: int) -> LatencySamples:
        """Return the samples less a constant, such as the other half of a round trip."""
        return LatencySamples(self.samples_ns - other_ns)


@dataclass(frozen=True, kw_only=True)
class LatencyCalibration:
    """Latencies of one cell.

    Args:
        observation: Per stream, how much later than capture its stamps are.
        action: From a command's stamp to the motion it causes; `None` when it was not measured.
    """

    observation: Mapping[str, LatencySamples] = field(default_factory=dict)
    action: LatencySamples | None = None

    @property
    def lead_ns(self) -> int:
        """How much ahead of time to send an action so that the arm does it when it is due [ns]."""
        return 0 if self.action is None else max(self.action.median_ns, 0)

    def alignment_ns(self, *, action: bool = False) -> dict[str, int]:
        """Return `latency_ns` for `robot_rl.data.align.Alignment` and the deploy observer.

        Args:
            action: Also place each command at the time when the arm does it. Only together with an executor that sends
                actions ahead by `lead_ns`; one without the other shifts what the policy learns against what it does.
        """
        latency = {name: samples.median_ns for name, samples in self.observation.items()}
        return {**latency, ACTION: -self.lead_ns} if action else latency

    @classmethod
    def from_file(cls, file: CalibrationFile) -> LatencyCalibration:
        """Read from a calibration file of kind `latency`.

        Raises:
            ConfigError: Another kind of file, or a value that is not a list of latencies.
        """
        if file.kind != "latency":
            raise ConfigError(f"a calibration of kind `latency` is needed here, got `{file.kind}`")
        samples = {}
        for name, value in file.values.items():
            stream, unit = name.removesuffix("_ns"), name.endswith("_ns")
            if not unit or not isinstance(value, list | tuple):
                raise ConfigError(
                    f"value `{name}` of a latency calibration must be a list named <stream>_ns, got {value!r}"
                )
            samples[stream] = LatencySamples(np.asarray(value))
        action = samples.pop(ACTION, None)
        return cls(observation=samples, action=action)

    def to_file(self, *, date: str, device_serial: str = "", method: str, digest: str = "") -> CalibrationFile:
        """Return it as a calibration file, samples and all."""
        every = {**self.observation, **({} if self.action is None else {ACTION: self.action})}
        residuals = {}
        for name, samples in every.items():
            residuals[f"{name}_median_ms"] = samples.median_ns / 1e6
            residuals[f"{name}_spread_p5_p95_ms"] = samples.spread_ns / 1e6
        return CalibrationFile(
            kind="latency",
            values={f"{name}_ns": samples.samples_ns.tolist() for name, samples in every.items()},
            frames={},
            date=date,
            device_serial=device_serial,
            method=method,
            residuals=residuals,
            image_digest=digest,
        )
