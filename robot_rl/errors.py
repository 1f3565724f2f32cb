"""Every error this project raises on purpose, in one tree.

A message names the field, what was expected, what came, and what to do about it.
"""

from __future__ import annotations


class RobotRLError(Exception):
    """Root of all errors raised on purpose."""


class SpecError(RobotRLError, ValueError):
    """An array, a stream or a message is not what its spec says."""


class StoreError(RobotRLError):
    """The episode store, or an episode in it, cannot be read or written as asked."""


class DataFormatError(RobotRLError, ValueError):
    """A foreign data set is not what its format promises."""


class ConfigError(RobotRLError, ValueError):
    """A setting is unknown, missing or contradicts another."""


class BundleError(RobotRLError):
    """A policy bundle is incomplete, altered, or does not fit this robot."""


class CheckpointError(RobotRLError):
    """A training checkpoint is missing, incomplete or altered."""


class TrainingError(RobotRLError):
    """Training cannot go on, for example because the loss is no longer a number."""


class SafetyStop(RobotRLError):  # noqa: N818 - it is an event first and an error second
    """Motion was stopped; the message says by which check."""


class SimulationError(RobotRLError):
    """A simulated robot or task cannot be built or has diverged."""


class EvaluationError(RobotRLError):
    """Some seeds of an evaluation could not be played; the message names each with its traceback."""


class MissingExtraError(RobotRLError, ImportError):
    """An optional dependency is needed for what was asked."""

    def __init__(self, package: str, extra: str, *, command: str = "") -> None:
        run = command if command else f"pip install 'robot-rl[{extra}]'"
        super().__init__(f"{package} is needed here but not installed; run: {run}")


class CameraError(RobotRLError):
    """A camera cannot be opened or gives something else than was asked of it."""


class CameraTimeout(CameraError):  # noqa: N818 - it names what happened
    """No frame came in time; the camera is still there, or being waited for."""


class CameraLost(CameraError):  # noqa: N818 - it names what happened
    """The camera is gone (unplugged, or its driver gave up); open it again when it is back."""


class RecordingError(RobotRLError):
    """An attempt cannot be recorded as asked: no disk space, a stream that is missing, another recorder."""


class EpisodeError(RobotRLError):
    """An episode cannot go from the state it is in to the one asked for."""


class TeleopError(RobotRLError):
    """A teleoperation device cannot be opened or sends what it must not."""


class CalibrationError(RobotRLError):
    """A calibration cannot be made from these captures, or must not be trusted; the message says what to do."""
