"""What the recorder says of itself: a diagnostic status per stream, and `recorder/status`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from robot_rl.data.session import RecordingSession
from robot_rl.data.verdict import StreamVerdict, worst
from robot_rl.errors import RecordingError
from robot_rl_ros.stamps import to_msg

_LEVEL = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


def diagnostics(
    verdicts: Mapping[str, StreamVerdict], stamp_ns: int, *, name: str, robot: str, refused: str
) -> DiagnosticArray:
    """Return the live verdict as diagnostics: the recorder's own status, then one per stream.

    Args:
        verdicts: By stream.
        stamp_ns: Now.
        name: The recorder's full name.
        robot: The robot's name.
        refused: Why the last episode was not started or saved, empty when it was.
    """
    msg = DiagnosticArray()
    msg.header.stamp = to_msg(stamp_ns)
    level = "error" if refused else worst(verdicts)
    bad = [stream for stream, verdict in verdicts.items() if verdict.level != "ok"]
    words = refused if refused else f"look at {', '.join(bad)}" if bad else "all streams are fine"
    msg.status.append(DiagnosticStatus(level=_LEVEL[level], name=name, message=words, hardware_id=robot))
    for stream, verdict in verdicts.items():
        figures = {key: value for key, value in verdict.to_dict().items() if key not in ("level", "reasons")}
        msg.status.append(
            DiagnosticStatus(
                level=_LEVEL[verdict.level],
                name=f"{name}: {stream}",
                message="; ".join(verdict.reasons) if verdict.reasons else "fine",
                hardware_id=robot,
                values=[KeyValue(key=key, value=json.dumps(value)) for key, value in figures.items()],
            )
        )
    return msg


def levels(verdicts: Mapping[str, StreamVerdict]) -> dict[str, str]:
    """Return the level of each stream: what must be told at once when it changes."""
    return {name: verdict.level for name, verdict in verdicts.items()}


def status_json(about: Mapping[str, Any], verdicts: Mapping[str, StreamVerdict]) -> str:
    """Return the content of `recorder/status`: what is known about the recorder, and each stream's level and why."""
    streams = {
        name: {"level": verdict.level, "reasons": list(verdict.reasons), "hz": verdict.figures.recent_hz}
        for name, verdict in verdicts.items()
    }
    return json.dumps({**about, "level": worst(verdicts), "streams": streams})


def waits_for(session: RecordingSession) -> str:
    """Return why no episode could be recorded now, or an empty string; also while one is being recorded."""
    if session.state == "recording":
        return ""
    try:
        session.preflight()
    except RecordingError as error:
        return str(error)
    return ""
