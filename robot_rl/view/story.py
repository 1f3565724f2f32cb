"""What happened in an episode, in words: who drove when, gaps, the recorder's verdict, how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_rl.specs import RobotSpec
from robot_rl.values import Episode, Recording, RecordingMeta
from robot_rl.view.signals import Gap, find_gaps, from_extra, spells
from robot_rl.view.timelines import Clock

LEVELS: Mapping[str, str] = {"ok": "INFO", "warn": "WARN", "error": "ERROR"}


@dataclass(frozen=True)
class Event:
    """Something that happened: when, how bad (INFO, WARN, ERROR), and what."""

    stamp_ns: int
    level: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Story:
    """Bands and events of an episode.

    Args:
        bands: Name of a lane -> (stamp, state) of each change, in order; an empty state ends the last one.
        events: In order of time.
        gaps: Stream -> its gaps, streams without any left out.
        shares: State of the lane `driver` -> its share of the ticks.
    """

    bands: Mapping[str, Sequence[tuple[int, str]]]
    events: Sequence[Event]
    gaps: Mapping[str, Sequence[Gap]]
    shares: Mapping[str, float] = field(default_factory=dict)


def tell(recording: Recording, spec: RobotSpec, episode: Episode | None, clock: Clock, trouble: str = "") -> Story:
    """Return what happened in a recording.

    Args:
        recording: The recording.
        spec: The robot.
        episode: The same, aligned; `None` where it cannot be.
        clock: Its clock.
        trouble: Why it cannot be aligned.
    """
    rate = spec.control_hz if recording.meta.on_grid else None
    judged = _judged(recording.meta)
    sound = {name for name, verdict in judged.items() if verdict.get("gaps") == 0}  # the recorder knew the true rate
    streams = {name: s for name, s in recording.streams.items() if name not in sound}
    gaps = {name: found for name, s in streams.items() if (found := find_gaps(s, rate))}
    driver = _drivers(recording)
    bands = {"driver": _band(driver, clock.end_ns)} if driver else {}
    if episode is not None and not episode.valid.all():
        labels = ["" if valid else "not valid" for valid in episode.valid]
        bands["tick"] = _band([(int(episode.stamp_ns[i]), text) for i, text in spells(labels)], clock.end_ns)
    for name, found in gaps.items():
        bands[f"gap/{name}"] = [pair for g in found for pair in ((g.start_ns, "gap"), (g.end_ns, ""))]
    events = [*_events(driver), *_gap_events(gaps), *_verdicts(recording.meta, clock.end_ns)]
    if trouble:
        events.append(Event(clock.start_ns, "ERROR", trouble))
    events.append(Event(clock.end_ns, "INFO", _ending(recording.meta)))
    ordered = sorted(events, key=lambda event: event.stamp_ns)
    return Story(bands=bands, events=ordered, gaps=gaps, shares=_shares(recording, driver))


def _band(changes: Sequence[tuple[int, str]], end_ns: int) -> list[tuple[int, str]]:
    return [*changes, (end_ns, "")]


def _drivers(recording: Recording) -> list[tuple[int, str]]:
    """Return (stamp, who) at each change of driver; by the recording's source where nobody noted it."""
    meta, noted = recording.meta, recording.streams.get("by_human")
    if noted is None or not len(noted):
        first = recording.streams["action"].stamp_ns[:1]
        return [(int(stamp), meta.source) for stamp in first]
    other = meta.source if meta.source in ("policy", "scripted") else "machine"
    labels = ["human" if human else other for human in np.asarray(noted.data[:], bool)]
    return [(int(noted.stamp_ns[i]), label) for i, label in spells(labels)]


def _shares(recording: Recording, driver: Sequence[tuple[int, str]]) -> dict[str, float]:
    noted = recording.streams.get("by_human")
    if noted is None or not len(noted):
        return {label: 1.0 for _, label in driver}
    human = float(np.mean(np.asarray(noted.data[:], bool)))
    return {label: human if label == "human" else 1.0 - human for _, label in driver}


def _events(driver: Sequence[tuple[int, str]]) -> list[Event]:
    return [
        Event(stamp, "INFO", f"{who} drives" if i == 0 else f"{who} takes over")
        for i, (stamp, who) in enumerate(driver)
        if who not in ("import", "unknown")
    ]


def _gap_events(gaps: Mapping[str, Sequence[Gap]]) -> list[Event]:
    return [
        Event(gap.start_ns, "WARN", f"{name}: gap of {(gap.end_ns - gap.start_ns) / 1e9:.3f} s")
        for name, found in gaps.items()
        for gap in found
    ]


def _judged(meta: RecordingMeta) -> dict[str, Mapping[str, Any]]:
    """Return the recorder's verdict on each stream; none where no recorder judged."""
    verdicts = from_extra(meta, "quality", "streams")
    return {name: verdict for name, verdict in verdicts.items() if isinstance(verdict, Mapping)}


def _verdicts(meta: RecordingMeta, end_ns: int) -> list[Event]:
    """Return what the recorder found, at the end, which is when it judged."""
    events = [
        Event(end_ns, LEVELS.get(verdict.get("level", ""), "WARN"), f"recorder: {name}: {'; '.join(reasons)}")
        for name, verdict in _judged(meta).items()
        if (reasons := verdict.get("reasons"))
    ]
    if salvaged := meta.extra.get("salvaged"):
        events.append(Event(end_ns, "WARN", f"salvaged: {salvaged}"))
    return events


def _ending(meta: RecordingMeta) -> str:
    how = [word for word, is_so in (("terminated", meta.terminated), ("truncated", meta.truncated)) if is_so]
    return f"outcome: {meta.outcome}" + (f" ({', '.join(how)})" if how else "")


def about(id: str, recording: Recording, spec: RobotSpec, story: Story, undrawn: Sequence[str]) -> str:
    """Return a page about an episode in Markdown: its labels, its streams, what is not drawn."""
    meta, streams = recording.meta, recording.streams
    facts = {
        "task": meta.task, "outcome": _ending(meta).removeprefix("outcome: "), "source": meta.source,
        "driven by": ", ".join(f"{who} {100 * share:.0f} %" for who, share in story.shares.items()),
        "policy": meta.policy_version, "calibration": meta.calibration_id,
        "seed": "" if meta.seed is None else str(meta.seed), "robot": f"{spec.name}, {spec.control_hz:g} Hz",
        "steps": str(len(streams["action"])), "operator": str(meta.extra.get("operator", "")),
        "recorder": str(from_extra(meta, "quality").get("level", "")),
    }  # fmt: skip
    lines = [f"# {id}", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items() if value)]
    lines += ["", "| stream | sample | unit | samples | Hz | gaps |", "|---|---|---|---|---|---|"]
    specs = {**spec.obs, "action": spec.action}
    for name, stream in streams.items():
        unit = specs[name].unit if name in specs else ""
        sample = f"{stream.data.dtype}{list(stream.data.shape[1:])}"
        gaps = len(story.gaps.get(name, ()))
        lines.append(f"| {name} | {sample} | {unit} | {len(stream)} | {_rate(stream.stamp_ns)} | {gaps or ''} |")
    if undrawn:
        lines += ["", f"Not drawn, too large for curves and neither picture nor cloud: {', '.join(undrawn)}."]
    return "\n".join(lines)


def _rate(stamp_ns: np.ndarray) -> str:
    return f"{1e9 / float(np.median(np.diff(stamp_ns))):.1f}" if len(stamp_ns) > 1 else ""
