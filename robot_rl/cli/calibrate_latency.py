"""`robot-rl calibrate latency`: how late cameras and joints are stamped, and how late the arm follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from calibration.files import save_calibration, today
from calibration.latency import Signal, lag_samples
from calibration.motion_signals import speed, turning_speed
from calibration.pose_files import read_numbers, read_poses
from robot_rl.cli.config import plain
from robot_rl.errors import ConfigError
from robot_rl.latency_calibration import ACTION, LatencyCalibration, LatencySamples

_KINDS = ("value", "speed", "poses")


def run(config: DictConfig, console: Console) -> LatencyCalibration:
    """Compare the signals of `calibrate.latency`; writes latency.yaml."""
    settings, out = config.calibrate.latency, Path(config.calibrate.out)
    if settings.reference is None:
        raise ConfigError("`calibrate.latency.reference` is missing; give the stream whose latency is known best")
    reference_late = round(1e6 * settings.reference_ms)
    limits = {"window_s": settings.window_s, "max_lag_s": settings.max_lag_s}
    observation = {settings.reference.name: LatencySamples(np.array([reference_late]))}
    for stream in settings.streams:
        lags = lag_samples(_signal(settings.reference, stream.kind), _signal(stream, stream.kind), **limits)
        observation[stream.name] = lags.minus(-reference_late)
    action = None
    if settings.command is not None:
        caused = lag_samples(
            _signal(settings.command, settings.command.kind, held=True),
            _signal(settings.reference, settings.command.kind), **limits,
        )  # fmt: skip
        action = caused.minus(reference_late)
    result = LatencyCalibration(observation=observation, action=action)
    _print(result, settings.reference.name, console)
    how = f"cross-correlation in windows of {settings.window_s:g} s against {settings.reference.name}"
    given = f"whose stamps are taken to be {settings.reference_ms:g} ms late"
    file = result.to_file(date=today(), device_serial=str(config.calibrate.serial), method=f"{how}, {given}")
    console.print(f"calibration: {save_calibration(file, out / 'latency.yaml')}")
    return result


def _print(result: LatencyCalibration, reference: str, console: Console) -> None:
    table = Table("stream", "median ms", "5 to 95 % ms", "repetitions", title=f"Latency (against {reference})")
    every = {**result.observation, **({} if result.action is None else {ACTION: result.action})}
    for name, samples in every.items():
        known = "given" if name == reference else str(len(samples))
        table.add_row(name, f"{samples.median_ns / 1e6:.2f}", f"{samples.spread_ns / 1e6:.2f}", known)
    console.print(table)


def _signal(stream: DictConfig, kind: str, *, held: bool = False) -> Signal:
    """Read a CSV with `stamp_ns` as its values, their speed, or the turning speed of poses."""
    if kind not in _KINDS:
        raise ConfigError(f"`kind` of a stream must be one of {_KINDS}, got {kind!r}: {plain(stream)}")
    if kind == "poses":
        table = read_poses(stream.file)
        if table.stamp_ns is None:
            raise ConfigError(f"{stream.file} needs a column `stamp_ns`")
        return turning_speed(table.stamp_ns, table.poses)
    numbers, stamps, _ = read_numbers(stream.file, stream.get("columns"))
    if stamps is None:
        raise ConfigError(f"{stream.file} needs a column `stamp_ns`")
    return speed(stamps, numbers) if kind == "speed" else Signal(stamp_ns=stamps, value=numbers, held=held)
