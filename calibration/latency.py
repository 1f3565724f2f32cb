"""How late a signal is, by the lag at which it agrees best with what caused it.

Cross-correlation of a commanded motion with what came back, as in the latency calibration of UMI (Chi et al., 2024,
section on latency matching). Departures: the correlation is normalised over the overlap of each lag, so that a short
recording is not drawn towards zero; the peak is refined by a parabola; a command is held until the next one, as a robot
does; and a motion that repeats itself within the search is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_rl.errors import CalibrationError
from robot_rl.latency_calibration import LatencySamples

MAX_LAG_S = 0.5
MIN_CORRELATION = 0.7
_AMBIGUOUS = 0.98
_FINEST_S = 2e-3


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A signal over time.

    Args:
        stamp_ns: int64 [M], strictly increasing.
        value: [M] or [M, C], C channels.
        held: Between stamps the last value is in force (a command), rather than a straight line (a measurement).
    """

    stamp_ns: np.ndarray
    value: np.ndarray
    held: bool = False

    def __post_init__(self) -> None:
        stamps, value = np.asarray(self.stamp_ns, np.int64), np.asarray(self.value, np.float64)
        value = value[:, None] if value.ndim == 1 else value
        if len(stamps) != len(value) or len(stamps) < 8 or (np.diff(stamps) <= 0).any():
            raise CalibrationError(
                f"a signal needs eight or more increasing stamps and a value each, got {len(stamps)} and {len(value)}"
            )
        if not np.isfinite(value).all():
            raise CalibrationError("a signal must be finite; leave out the samples that are not")
        object.__setattr__(self, "stamp_ns", stamps)
        object.__setattr__(self, "value", value)

    @property
    def period_s(self) -> float:
        """Median time between samples [s]."""
        return float(np.median(np.diff(self.stamp_ns))) * 1e-9

    def between(self, start_ns: int, end_ns: int) -> Signal:
        """Return the part from `start_ns` to `end_ns`."""
        inside = (self.stamp_ns >= start_ns) & (self.stamp_ns <= end_ns)
        return Signal(stamp_ns=self.stamp_ns[inside], value=self.value[inside], held=self.held)

    def at(self, time_s: np.ndarray, origin_ns: int) -> np.ndarray:
        """Return values [T, C] at times after `origin_ns`."""
        own = (self.stamp_ns - origin_ns) * 1e-9
        if self.held:
            return np.asarray(self.value[np.maximum(np.searchsorted(own, time_s, side="right") - 1, 0)])
        return np.stack([np.interp(time_s, own, channel) for channel in self.value.T], axis=1)


@dataclass(frozen=True)
class Lag:
    """How much later the second signal is [s], and the correlation there, 1 for the same shape."""

    lag_s: float
    correlation: float


def lag_between(cause: Signal, effect: Signal, *, max_lag_s: float = MAX_LAG_S) -> Lag:
    """Return how much later `effect` shows the motion of `cause`; both with stamps of one clock.

    Args:
        cause: What was commanded, or the earlier measurement.
        effect: What came back; the same channels, in any unit and with any offset.
        max_lag_s: Largest lag to look for, either way [s].

    Raises:
        CalibrationError: Nothing moved, the signals do not overlap or do not resemble each other, the best lag is at
        the
            end of the search, or the motion repeats itself.
    """
    step = max(min(cause.period_s, effect.period_s) / 2, _FINEST_S)
    lags = step * np.arange(-int(np.ceil(max_lag_s / step)), int(np.ceil(max_lag_s / step)) + 1)
    correlation = _correlations(cause, effect, lags, step)
    best = int(np.argmax(correlation))
    _check_peak(correlation, lags, best)
    left, middle, right = correlation[best - 1 : best + 2]
    bend = left - 2 * middle + right
    shift = 0.0 if bend >= 0 else 0.5 * (left - right) / bend
    return Lag(float(lags[best] + shift * step), float(middle))


def lag_samples(
    cause: Signal, effect: Signal, *, window_s: float = 4.0, max_lag_s: float = MAX_LAG_S
) -> LatencySamples:
    """Return the lag in windows that follow each other: its distribution over repetitions of the motion.

    Args:
        cause: As for `lag_between`.
        effect: As for `lag_between`.
        window_s: Length of each; several times `max_lag_s`, and long enough to hold a turn of the motion.
        max_lag_s: As for `lag_between`.

    Raises:
        CalibrationError: The recording is shorter than one window, or every window is refused; windows in which nothing
            moved are left out, the others must not be refused.
    """
    lag_between(cause, effect, max_lag_s=max_lag_s)  # the whole must be sound before its parts are believed
    start, end = max(cause.stamp_ns[0], effect.stamp_ns[0]), min(cause.stamp_ns[-1], effect.stamp_ns[-1])
    window, margin = round(1e9 * window_s), round(1e9 * max_lag_s)
    if end - start < window or window_s < 2 * max_lag_s:
        raise CalibrationError(
            f"windows of {window_s:g} s must be twice `max_lag_s` = {max_lag_s:g} s and fit into the recording of "
            f"{(end - start) * 1e-9:.1f} s; record for longer"
        )
    samples, refused = [], ""
    for begin in range(int(start), int(end) - window + 1, window):
        part = cause.between(begin - margin, begin + window + margin)
        try:
            lag = lag_between(part, effect.between(begin, begin + window), max_lag_s=max_lag_s)
        except CalibrationError as error:
            refused = str(error)
            continue
        samples.append(1e9 * lag.lag_s)
    if not samples:
        raise CalibrationError(f"no window of {window_s:g} s gives a lag; the last one: {refused}")
    return LatencySamples(np.asarray(samples))


def chirp(duration_s: float, *, rate_hz: float, low_hz: float = 0.3, high_hz: float = 1.2) -> np.ndarray:
    """Return a motion [T] between -1 and 1 whose lag is never ambiguous: a sweep up in frequency, and down again.

    Args:
        duration_s: How long [s].
        rate_hz: Samples a second.
        low_hz: Frequency at the ends.
        high_hz: Frequency in the middle.
    """
    time = np.arange(round(duration_s * rate_hz)) / rate_hz
    rise = 0.5 * (1 - np.cos(2 * np.pi * time / duration_s))
    phase = 2 * np.pi * np.cumsum(low_hz + (high_hz - low_hz) * rise) / rate_hz
    return np.asarray(np.sin(phase))


def _correlations(cause: Signal, effect: Signal, lags: np.ndarray, step: float) -> np.ndarray:
    """Return the correlation at each lag [L], over the time in which both exist; -1 where that is too short."""
    if cause.value.shape[1] != effect.value.shape[1]:
        raise CalibrationError(
            f"both signals must have the same channels, got {cause.value.shape[1]} and {effect.value.shape[1]}"
        )
    origin = int(effect.stamp_ns[0])
    length = (effect.stamp_ns[-1] - origin) * 1e-9
    n, reach = int(length / step) + 1, len(lags) // 2
    # In the middle of each step, so that a held command counts as late by half its period on average, as it is.
    values = effect.at(step * (np.arange(n) + 0.5), origin)  # [T, C]
    time = step * (np.arange(-reach, n + reach) + 0.5)
    causes = cause.at(time, origin)  # row r is the cause at (r - reach) steps
    span = (cause.stamp_ns[[0, -1]] - origin) * 1e-9
    exists = (time >= span[0]) & (time <= span[1])
    result = np.full(len(lags), -1.0)
    for i in range(len(lags)):
        begin = 2 * reach - i  # the cause one lag earlier
        inside = exists[begin : begin + n]
        if inside.sum() * step > 0.5 * min(length, span[1] - span[0]):
            result[i] = _correlation(causes[begin : begin + n][inside], values[inside])
    if (result == -1.0).all():
        raise CalibrationError(
            "the two signals do not move in common time: check that something moved, that both were recorded together, "
            "and that their stamps come from one clock"
        )
    return result


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of [T, C] signals over all channels, each with its own mean; -1 when one stands still."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 1e-12 * len(a) else -1.0


def _check_peak(correlation: np.ndarray, lags: np.ndarray, best: int) -> None:
    peak = float(correlation[best])
    if peak < MIN_CORRELATION:
        raise CalibrationError(
            f"the signals do not resemble each other (best correlation {peak:.2f}, {MIN_CORRELATION} is needed): check "
            "that they show the same motion, and move more"
        )
    if best in (0, len(lags) - 1) or correlation[best - 1] == -1.0 or correlation[best + 1] == -1.0:
        raise CalibrationError(
            f"the best lag, {lags[best]:.3f} s, is at the end of the search; raise `max_lag_s`, or synchronise the "
            f"clocks"
        )
    rising = np.diff(correlation)
    peaks = np.flatnonzero((rising[:-1] > 0) & (rising[1:] <= 0)) + 1
    others = [i for i in peaks if i != best and correlation[i] > _AMBIGUOUS * peak and _dips(correlation, int(i), best)]
    if others:
        raise CalibrationError(
            f"the motion repeats itself: lags {lags[best]:.3f} s and {lags[others[0]]:.3f} s fit equally well; move "
            f"in a "
            "sweep of rising frequency, or lower `max_lag_s`"
        )


def _dips(correlation: np.ndarray, one: int, other: int) -> bool:
    """Whether the correlation falls well below two peaks between them, so that they are two and not one with noise."""
    low, high = sorted((one, other))
    return bool(correlation[low:high].min() < 0.9 * min(correlation[one], correlation[other]))
