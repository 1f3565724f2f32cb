"""One episode into a Rerun recording: pictures as their stored bytes, curves by element, clouds, bands and events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_rl.data.frame_codec import encode
from robot_rl.data.rows import FrameRows
from robot_rl.data.schema import StoreSchema
from robot_rl.specs import ArraySpec
from robot_rl.values import Recording, Rows, Stream
from robot_rl.view.sdk import rerun
from robot_rl.view.signals import MAX_ELEMENTS, element_names, element_units, followed_states
from robot_rl.view.story import Story, about, tell
from robot_rl.view.timelines import Clock, clock_of, try_align

PALETTE = (
    (47, 107, 216), (217, 115, 13), (26, 127, 75), (139, 70, 196), (200, 56, 64), (18, 140, 150), (196, 148, 12),
    (214, 75, 150), (110, 110, 118), (120, 150, 40),
)  # fmt: skip
_BAND_COLOURS = {
    "human": 0xD9730DFF, "policy": 0x2F6BD8FF, "scripted": 0x1A7F4BFF, "machine": 0x2F6BD8FF, "import": 0x6E6E76FF,
    "unknown": 0x6E6E76FF, "gap": 0xC83840FF, "not valid": 0xC4940CFF,
}  # fmt: skip
_BATCH_BYTES = 8 << 20
_MIN_DEPTH_SIDE, _MIN_CLOUD = 16, 8


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One element of a stream: its entity, and what it is called."""

    path: str
    name: str
    unit: str


@dataclass(kw_only=True)
class Scene:
    """What was logged of one episode, by entity path, for the layout.

    Args:
        id: The episode.
        root: Path that all its entities lie under; `/` when it is shown alone.
        cameras: Pictures and depth pictures.
        clouds: Point clouds.
        curves: Stream -> a curve for each element, observations and extras; the reward too.
        action: A curve for each element of the commanded action.
        executed: Likewise for the executed action; empty when it was not recorded.
        state: Action element -> the state that follows it.
        predicted: Action element -> one path for each lane of predicted chunks.
        shown: Action element -> (low, high) that its plot shows, where chunks are predicted.
        bands: How many lanes there are of who drove, gaps and the like.
        undrawn: Streams of which nothing is shown.
    """

    id: str
    root: str
    cameras: list[str] = field(default_factory=list)
    clouds: list[str] = field(default_factory=list)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    action: list[Curve] = field(default_factory=list)
    executed: list[Curve] = field(default_factory=list)
    state: dict[int, Curve] = field(default_factory=dict)
    predicted: dict[int, list[str]] = field(default_factory=dict)
    shown: dict[int, tuple[float, float]] = field(default_factory=dict)
    bands: int = 0
    undrawn: list[str] = field(default_factory=list)

    def path(self, *parts: str) -> str:
        """Return the entity path of `parts` under the root, escaped as Rerun needs it."""
        return str(rerun().new_entity_path([part for part in (self.root.strip("/"), *parts) if part]))


def log_episode(log: Any, id: str, recording: Recording, schema: StoreSchema, *, root: str = "/") -> Scene:
    """Log an episode and return what there is to lay out.

    Args:
        log: A `rerun.RecordingStream`.
        id: The episode's id.
        recording: As it was recorded; rows are fetched in batches.
        schema: The store's.
        root: Entity that everything goes under; two episodes of one view need two.

    Raises:
        SpecError: A stream that the store does not have, or no sample at all.
        StoreError: A picture is damaged.
    """
    episode, trouble = try_align(recording, schema.spec, id)
    clock, scene = clock_of(recording, episode), Scene(id=id, root=root)
    for name, stream in recording.streams.items():
        if len(stream) and name != "by_human":
            _log_stream(log, scene, clock, schema.stream(name).spec, stream, recording)
    if episode is not None:
        followed = followed_states(episode, schema.spec.obs)
        measured = {k: scene.curves[name][i] for k, (name, i) in followed.items()}
        scene.state = {**_namesakes(scene, schema.spec.obs), **measured}
    story = tell(recording, schema.spec, episode, clock, trouble)
    _log_story(log, scene, clock, story)
    text = about(id, recording, schema.spec, story, scene.undrawn)
    log.log(scene.path("about"), rerun().TextDocument(text, media_type="text/markdown"), static=True)
    return scene


def _namesakes(scene: Scene, obs: Iterable[str]) -> dict[int, Curve]:
    """Return the one observation element that has the very name an import gave an action element; indices are none."""
    named: dict[str, list[Curve]] = {}
    for curve in (curve for name in obs for curve in scene.curves.get(name, ())):
        named.setdefault(curve.name, []).append(curve)
    found = {k: named.get(curve.name, []) for k, curve in enumerate(scene.action) if not curve.name.isdecimal()}
    return {k: curves[0] for k, curves in found.items() if len(curves) == 1}


def _log_stream(log: Any, scene: Scene, clock: Clock, spec: ArraySpec, stream: Stream, recording: Recording) -> None:
    name, shape = spec.name, spec.shape
    if spec.is_image:
        _log_pictures(log, scene.path("cameras", name), clock, stream)
        scene.cameras.append(scene.path("cameras", name))
    elif spec.dtype in ("uint16", "float32") and len(shape) == 2 and min(shape) >= _MIN_DEPTH_SIDE:
        _log_depth(log, scene.path("cameras", name), clock, stream)
        scene.cameras.append(scene.path("cameras", name))
    elif len(shape) == 2 and shape[1] in (3, 6) and shape[0] >= _MIN_CLOUD:
        _log_cloud(log, scene.path("clouds", name), clock, stream)
        scene.clouds.append(scene.path("clouds", name))
    elif spec.size <= MAX_ELEMENTS:
        curves = _log_curves(log, scene, clock, spec, stream, element_names(spec, recording.meta))
        if name == "action":
            scene.action = curves
        elif name == "action_executed":
            scene.executed = curves
        else:
            scene.curves[name] = curves
    else:
        scene.undrawn.append(name)


def _encoded(rows: Rows, index: int) -> tuple[bytes, str]:
    """Return a picture's bytes as stored; one that is stored raw becomes a PNG, which loses nothing."""
    if isinstance(rows, FrameRows):
        return rows.encoded(index), f"image/{rows.codec}"
    return encode(np.ascontiguousarray(rows[index]), "png"), "image/png"


def _log_pictures(log: Any, path: str, clock: Clock, stream: Stream) -> None:
    rr, start, size = rerun(), 0, 0
    blobs: list[bytes] = []
    kinds: list[str] = []
    for i in range(len(stream)):
        blob, kind = _encoded(stream.data, i)
        blobs.append(blob)
        kinds.append(kind)
        size += len(blob)
        if size > _BATCH_BYTES or i + 1 == len(stream):
            columns = rr.EncodedImage.columns(blob=blobs, media_type=kinds)
            log.send_columns(path, indexes=clock.columns(stream.stamp_ns[start : i + 1]), columns=columns)
            start, size, blobs, kinds = i + 1, 0, [], []


def _log_depth(log: Any, path: str, clock: Clock, stream: Stream) -> None:
    """Log depth pictures: whole numbers are millimetres, fractions metres."""
    rr, meter = rerun(), 1000.0 if stream.data.dtype == np.uint16 else 1.0
    for i in range(len(stream)):
        clock.place(log, int(stream.stamp_ns[i]))
        log.log(path, rr.DepthImage(stream.data[i], meter=meter))
    log.reset_time()


def _log_cloud(log: Any, path: str, clock: Clock, stream: Stream) -> None:
    rr, points = rerun(), stream.data.shape[1]
    rows = max(1, _BATCH_BYTES // (points * stream.data.shape[2] * 4))
    for start in range(0, len(stream), rows):
        block = np.asarray(stream.data[start : start + rows], np.float32)
        flat = block.reshape(-1, block.shape[-1])
        colours = (255 * np.clip(flat[:, 3:], 0, 1)).astype(np.uint8) if flat.shape[1] == 6 else None
        columns = rr.Points3D.columns(positions=flat[:, :3], colors=colours).partition([points] * len(block))
        log.send_columns(path, indexes=clock.columns(stream.stamp_ns[start : start + rows]), columns=columns)


def _log_curves(
    log: Any, scene: Scene, clock: Clock, spec: ArraySpec, stream: Stream, names: Sequence[str]
) -> list[Curve]:
    rr, values = rerun(), np.asarray(stream.data[:], np.float64).reshape(len(stream), -1)
    times = clock.columns(stream.stamp_ns)
    label = {"action": "commanded", "action_executed": "executed"}.get(spec.name)
    parts = [spec.name] if spec.name in ("action", "action_executed", "reward") else ["obs", spec.name]
    curves = []
    for i, (name, unit) in enumerate(zip(names, element_units(spec), strict=True)):
        scalar = spec.shape == () or (spec.size == 1 and name == "0")
        curve = Curve(
            path=scene.path(*parts, *([] if scalar else [name])), name=spec.name if scalar else name, unit=unit
        )
        shown = curve.name + (f" [{unit}]" if unit else "")
        line = rr.SeriesLines(
            names=shown if label is None else label, colors=PALETTE[i % len(PALETTE)],
            interpolation_mode="StepAfter" if label or spec.name == "reward" else "Linear",
        )  # fmt: skip
        log.log(curve.path, line, static=True)
        log.send_columns(curve.path, indexes=times, columns=rr.Scalars.columns(scalars=values[:, i]))
        curves.append(curve)
    return curves


def _log_story(log: Any, scene: Scene, clock: Clock, story: Story) -> None:
    rr = rerun()
    for name, changes in story.bands.items():
        path, states = scene.path("bands", *name.split("/", 1)), [state for _, state in changes]
        known: Mapping[str, int] = {s: _BAND_COLOURS[s] for s in dict.fromkeys(states) if s in _BAND_COLOURS}
        log.log(path, rr.StateConfiguration(values=list(known), colors=list(known.values())), static=True)
        columns = rr.StateChange.columns(state=states)
        log.send_columns(path, indexes=clock.columns([stamp for stamp, _ in changes]), columns=columns)
        scene.bands += 1
    columns = rr.TextLog.columns(text=[e.text for e in story.events], level=[e.level for e in story.events])
    log.send_columns(scene.path("events"), indexes=clock.columns([e.stamp_ns for e in story.events]), columns=columns)
