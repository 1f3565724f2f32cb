"""What a one-step head is worth beside its teacher, and whether that is enough: a certificate beside the bundle.

Plain numbers and the comparison with limits, without torch; they are measured in `robot_rl.cli.distill_certificate`.
A bundle that carries one was packaged only because it had no failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robot_rl.bundle.directory import PolicyBundle
from robot_rl.errors import BundleError, ConfigError

KIND = "certificate"
FORMAT_VERSION = 1
_FIGURES = ("parity", "distance", "own_distance", "paired_error")


@dataclass(frozen=True)
class Latency:
    """Time of one call at batch 1.

    Args:
        p50_ms: Median, in milliseconds.
        p99_ms: 99th percentile.
        first_ms: Median of the calls that came after another network's, whose weights had to be fetched from memory
            again; `None` where that was not told apart.
    """

    p50_ms: float
    p99_ms: float
    first_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class PairedRates:
    """Success of head and teacher on the same seeds.

    Args:
        head: Seeds on which the head succeeded.
        teacher: Seeds on which the teacher did.
        episodes: Seeds played.
        difference: Success of the head minus that of the teacher.
        low: Lower end of its interval.
        high: Upper end.
        level: Confidence level of the interval.
        first_seed: The first of consecutive seeds.
    """

    head: int
    teacher: int
    episodes: int
    difference: float
    low: float
    high: float
    level: float
    first_seed: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a head must keep to be packaged.

    Args:
        success_loss: How much lower its success may be than its teacher's, on the same seeds.
        interval: Hold that against the lower end of the difference's interval; false holds it against the difference
            itself. With 100 seeds the interval alone is several hundredths wide, so that this takes some hundred seeds.
        episodes: Fewest seeds that count as a measurement, where the task has a simulation.
        distance: Largest energy distance to the teacher beyond that of the teacher to itself, in normalised actions.
        latency_ratio: Largest ratio of the median denoising times, head over teacher.

    Raises:
        ConfigError: A limit that is negative or not a number.
    """

    success_loss: float = 0.02
    interval: bool = False
    episodes: int = 50
    distance: float = 0.05
    latency_ratio: float = 0.5

    def __post_init__(self) -> None:
        for name in ("success_loss", "episodes", "distance", "latency_ratio"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"limit `{name}` must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Measurements of a head's bundle on one machine.

    Args:
        bundle_id: The head's bundle.
        teacher: What tells its teacher from others.
        teacher_steps: K, denoising steps of the teacher.
        parity: Largest |ONNX - torch| in normalised actions.
        latency: Of the head: `encode`, `denoise` and `end_to_end`.
        teacher_latency: The same of the teacher.
        calls: Timed calls of each.
        distance: Energy distance between chunks of head and teacher, averaged over observations.
        own_distance: The same between two draws of the teacher: what sampling alone makes.
        paired_error: Root mean square of head minus teacher from the same noise, in normalised actions.
        observations: Held-out observations that distances are over.
        draws: Chunks drawn of each for one observation.
        success: On the same seeds; `None` where nothing was played.
        simulation: Whether the task has a simulation to play in.
        date: UTC, ISO 8601.
        machine: Where it was measured.
        limits: What was asked.
    """

    bundle_id: str
    teacher: str
    teacher_steps: int
    parity: float
    latency: Mapping[str, Latency]
    teacher_latency: Mapping[str, Latency]
    calls: int
    distance: float
    own_distance: float
    paired_error: float
    observations: int
    draws: int
    success: PairedRates | None
    simulation: bool
    date: str
    machine: str
    limits: Limits

    @property
    def latency_ratio(self) -> float:
        """Median denoising time of the head over that of the teacher; NaN where the teacher's is no time."""
        theirs = self.teacher_latency["denoise"].p50_ms
        return self.latency["denoise"].p50_ms / theirs if theirs > 0 else math.nan

    def failures(self) -> list[str]:
        """Return one sentence for each limit that is not kept; a figure that is not a number keeps none."""
        faults = []
        asked = self.limits
        if not self.latency_ratio <= asked.latency_ratio:
            faults.append(
                f"denoising takes {self.latency_ratio:.2f} of the teacher's median time "
                f"({self.latency['denoise'].p50_ms:.3g} of {self.teacher_latency['denoise'].p50_ms:.3g} ms), "
                f"at most {asked.latency_ratio:g} is allowed (`latency_ratio`)"
            )
        if not self.distance - max(self.own_distance, 0.0) <= asked.distance:
            faults.append(
                f"the energy distance to the teacher is {self.distance:.3g} where the teacher's to itself is "
                f"{self.own_distance:.3g}, at most {asked.distance:g} more is allowed (`distance`)"
            )
        return [*faults, *self._success_failures()]

    def _success_failures(self) -> list[str]:
        asked, got = self.limits, self.success
        if got is None or got.episodes < asked.episodes:
            played = 0 if got is None else got.episodes
            if not self.simulation or played >= asked.episodes:
                return []
            return [f"{played} seeds were played, at least {asked.episodes} are asked for (`episodes`)"]
        held = got.low if asked.interval else got.difference
        if held >= -asked.success_loss:
            return []
        what = "the lower end of the difference" if asked.interval else "the difference"
        return [
            f"it succeeds on {got.head} of {got.episodes} seeds and its teacher on {got.teacher}: {what} is "
            f"{held:+.3f} ({100 * got.level:g} % interval {got.low:+.3f} to {got.high:+.3f}), at least "
            f"{-asked.success_loss:g} is allowed (`success_loss`)"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what is not finite is `None`."""
        plain: dict[str, Any] = _finite({"format_version": FORMAT_VERSION, **asdict(self)})
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Build from `to_dict`'s values.

        Raises:
            BundleError: Not a certificate of this version.
        """
        try:
            if data["format_version"] != FORMAT_VERSION:
                raise BundleError(
                    f"certificate: `format_version` must be {FORMAT_VERSION}, got {data['format_version']!r}"
                )
            values = {name: data[name] for name in cls.__dataclass_fields__}
            for name in ("latency", "teacher_latency"):
                values[name] = {key: Latency(**_measured(value)) for key, value in values[name].items()}
            values |= _measured({name: values[name] for name in _FIGURES})
            values["success"] = None if values["success"] is None else PairedRates(**values["success"])
            values["limits"] = Limits(**values["limits"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise BundleError(f"this is not a certificate ({error!r}); package the head again") from error

    def attest(self, bundle: PolicyBundle) -> Path:
        """Write it into the bundle's attestations.

        Raises:
            BundleError: It is of another bundle, or does not keep its limits.
        """
        if self.bundle_id != bundle.id:
            raise BundleError(f"`bundle_id` of the certificate must be {bundle.id!r}, got {self.bundle_id!r}")
        if faults := self.failures():
            raise BundleError(f"a certificate that fails proves nothing: {'; '.join(faults)}")
        return bundle.attest(KIND, self.to_dict())


def read_certificates(bundle: PolicyBundle) -> list[Certificate]:
    """Return the certificates that a bundle carries, oldest first.

    Raises:
        BundleError: One is not sound.
    """
    return sorted(map(Certificate.from_dict, bundle.attestations(KIND)), key=lambda one: one.date)


def _measured(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures with NaN again where `_finite` wrote `None`; `first_ms` may really be `None`."""
    return {key: math.nan if value is None and key != "first_ms" else value for key, value in figures.items()}


def _finite(value: Any) -> Any:
    """Return nested plain values with `None` for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
