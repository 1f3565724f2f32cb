"""How a viewer lays out one episode, or two side by side: pictures and bands left, curves right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robot_rl.view.episode import Curve, Scene
from robot_rl.view.sdk import rerun
from robot_rl.view.timelines import TIME

COMMANDED, STATE, EXECUTED, PREDICTED = (217, 115, 13), (47, 107, 216), (200, 56, 64), (26, 127, 75)
PAIRS = (((47, 107, 216), (130, 175, 250)), ((200, 90, 10), (245, 170, 95)))
"""(command, state) of the first and the second of two episodes."""
PER_TAB = 9


def blueprint(scenes: Sequence[Scene]) -> Any:
    """Return the layout of one episode, or of two on common time.

    Args:
        scenes: What was logged of each.
    """
    rrb = rerun().blueprint
    left = rrb.Vertical(*_left(scenes), row_shares=_left_shares(scenes))
    right = rrb.Tabs(*_action_tabs(scenes), *_observation_tabs(scenes), *_error_tab(scenes))
    shares = [2, 3] if len(scenes) == 1 else [1, 1]
    time = rrb.TimePanel(state="collapsed", timeline=TIME, play_state="playing", loop_mode="all")
    hidden = (rrb.BlueprintPanel(state="collapsed"), rrb.SelectionPanel(state="hidden"), time)
    return rrb.Blueprint(rrb.Horizontal(left, right, column_shares=shares), *hidden, auto_views=False)


def _left_shares(scenes: Sequence[Scene]) -> list[float]:
    pictures = [3.0] if any(scene.cameras or scene.clouds for scene in scenes) else []
    lanes = sum(scene.bands for scene in scenes)
    return [*pictures, *([min(0.7 + 0.35 * lanes, 2.5)] if lanes else []), 1.8]


def _left(scenes: Sequence[Scene]) -> list[Any]:
    rrb, views = rerun().blueprint, []
    pictures = [_pictures(scene) for scene in scenes if scene.cameras or scene.clouds]
    if pictures:
        views.append(pictures[0] if len(pictures) == 1 else rrb.Horizontal(*pictures))
    if any(scene.bands for scene in scenes):
        bands = [f"+ {scene.path('bands')}/**" for scene in scenes if scene.bands]
        views.append(rrb.StateTimelineView(contents=bands, name="who drove, gaps"))
    told = [f"+ {scene.path('events')}" for scene in scenes]
    pages = [rrb.TextDocumentView(contents=[f"+ {s.path('about')}"], name=_title(s, "about")) for s in scenes]
    pages += [
        rrb.TextDocumentView(contents=[f"+ {s.path('prediction')}"], name=_title(s, "prediction"))
        for s in scenes
        if s.predicted
    ]
    log = rrb.TextLogView(contents=told, name="events", columns=_log_columns(len(scenes) > 1))
    return [*views, rrb.Tabs(log, *pages)]


def _log_columns(with_entity: bool) -> Any:
    """Return the columns of the list of events; which episode it was matters only between two."""
    bp = rerun().blueprint
    kinds = (*(("EntityPath",) if with_entity else ()), "LogLevel", "Body")
    shown = [bp.encodings.TextLogColumn(kind=kind, visible=True) for kind in kinds]
    times = [bp.encodings.TimelineColumn(timeline=TIME, visible=True)]
    return bp.archetypes.TextLogColumns(timeline_columns=times, text_log_columns=shown)


def _title(scene: Scene, what: str) -> str:
    root = scene.root.strip("/")
    return f"{what} {root}" if root else what


def _pictures(scene: Scene) -> Any:
    rrb = rerun().blueprint
    views = [rrb.Spatial2DView(contents=[f"+ {path}"], name=_title(scene, _leaf(path))) for path in scene.cameras]
    views += [rrb.Spatial3DView(contents=[f"+ {path}"], name=_title(scene, _leaf(path))) for path in scene.clouds]
    return views[0] if len(views) == 1 else rrb.Grid(*views)


def _leaf(path: str) -> str:
    return path.rsplit("/", 1)[1].replace("\\", "")


def _action_tabs(scenes: Sequence[Scene]) -> list[Any]:
    """Return tabs with a plot for each action element: the command, what was executed, the state that follows."""
    rrb, first = rerun().blueprint, scenes[0]
    plots = [_action_plot(scenes, k, curve) for k, curve in enumerate(first.action)]
    rewards = [f"+ {curve.path}" for scene in scenes for curve in scene.curves.get("reward", ())]
    if rewards:
        plots.append(rrb.TimeSeriesView(contents=rewards, name="reward"))
    tabs = [plots[i : i + PER_TAB] for i in range(0, len(plots), PER_TAB)]
    return [
        rrb.Grid(*part, grid_columns=_columns(len(part)), name="actions" if len(tabs) == 1 else f"actions {i + 1}")
        for i, part in enumerate(tabs)
    ]


def _columns(count: int) -> int:
    return max(1, round(math.sqrt(count * 0.75)))


def _action_plot(scenes: Sequence[Scene], k: int, curve: Curve) -> Any:
    rr, rrb = rerun(), rerun().blueprint
    contents, overrides = [], {}
    for second, scene in enumerate(scenes):
        mark = "" if len(scenes) == 1 else f" {scene.root.strip('/')}"
        commanded, state = (COMMANDED, STATE) if len(scenes) == 1 else PAIRS[second]
        shown = [(scene.action[k], f"commanded{mark}", commanded, "StepAfter")] if k < len(scene.action) else []
        if k in scene.state:
            shown.append((scene.state[k], f"{_stream(scene.state[k])}{mark}", state, "Linear"))
        if scene.executed and len(scenes) == 1:
            shown.append((scene.executed[k], "executed", EXECUTED, "StepAfter"))
        for line, name, colour, mode in shown:
            contents.append(f"+ {line.path}")
            overrides[line.path] = rr.SeriesLines(names=name, colors=colour, interpolation_mode=mode)
        for lane in scene.predicted.get(k, ()):
            contents.append(f"+ {lane}")
            overrides[lane] = rr.SeriesLines(names=f"predicted{mark}", colors=PREDICTED)
    unit = f" [{curve.unit}]" if curve.unit else ""
    name = f"action {curve.name}{unit}" if curve.name != "action" else f"action{unit}"
    # The legend is the same in all of these plots and would cover them.
    legend = rrb.PlotLegend(visible=k % PER_TAB == 0)
    ranges = [scene.shown[k] for scene in scenes if k in scene.shown]
    axis = rrb.ScalarAxis(range=(min(r[0] for r in ranges), max(r[1] for r in ranges))) if ranges else None
    return rrb.TimeSeriesView(contents=contents, overrides=overrides, name=name, plot_legend=legend, axis_y=axis)


def _stream(curve: Curve) -> str:
    """Return `joint_position 3` of the entity `/obs/joint_position/3`."""
    parts = curve.path.replace("\\", "").split("/")
    return " ".join(parts[parts.index("obs") + 1 :])


def _observation_tabs(scenes: Sequence[Scene]) -> list[Any]:
    rrb, views = rerun().blueprint, []
    for name in dict.fromkeys(name for scene in scenes for name in scene.curves if name != "reward"):
        contents = [f"+ {curve.path}" for scene in scenes for curve in scene.curves.get(name, ())]
        views.append(rrb.TimeSeriesView(contents=contents, name=name))
    return [rrb.Grid(*views, grid_columns=_columns(len(views)), name="observations")] if views else []


def _error_tab(scenes: Sequence[Scene]) -> list[Any]:
    rrb = rerun().blueprint
    predicted = [scene for scene in scenes if scene.predicted]
    contents = [f"+ {scene.path('prediction_error')}/**" for scene in predicted]
    return [rrb.TimeSeriesView(contents=contents, name="prediction error")] if predicted else []
