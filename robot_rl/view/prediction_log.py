"""A policy's chunks into a Rerun recording, drawn over the recorded actions, with their error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_rl.values import Episode, Recording
from robot_rl.view.episode import PALETTE, Scene
from robot_rl.view.prediction import Prediction
from robot_rl.view.sdk import rerun
from robot_rl.view.timelines import clock_of


def log_prediction(
    log: Any, scene: Scene, recording: Recording, episode: Episode, prediction: Prediction, *, name: str
) -> None:
    """Log chunks over the actions of an episode that was logged before, and note them in its scene.

    Chunks that overlap lie in different lanes, so that each is a line of its own.

    Args:
        log: The recording stream.
        scene: What was logged of the episode.
        recording: The episode as recorded.
        episode: The same, aligned.
        prediction: What the policy answered.
        name: What the policy is called.
    """
    rr, clock = rerun(), clock_of(recording, episode)
    for k, curve in enumerate(scene.action):
        leaf = curve.path.rsplit("/", 1)[1].replace("\\", "")
        scene.predicted[k] = []
        scene.shown[k] = _range([episode.action[:, k], *(chunk.action[:, k] for chunk in prediction.chunks)])
        for number, (stamps, values, counts) in enumerate(_lanes(prediction, k)):
            path = scene.path("predicted", leaf, str(number))
            columns = rr.Scalars.columns(scalars=values).partition(counts)
            log.send_columns(path, indexes=clock.columns(stamps), columns=columns)
            scene.predicted[k].append(path)
        path = scene.path("prediction_error", leaf)
        unit = f" [{curve.unit}]" if curve.unit else ""
        line = rr.SeriesLines(names=f"{curve.name}{unit}", colors=PALETTE[k % len(PALETTE)])
        log.log(path, line, static=True)
        asked = clock.columns(episode.stamp_ns[prediction.step])
        log.send_columns(path, indexes=asked, columns=rr.Scalars.columns(scalars=prediction.error[:, k]))
    text = summary(scene, prediction, name)
    log.log(scene.path("prediction"), rr.TextDocument(text, media_type="text/markdown"), static=True)


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return what a plot must show, with a margin; the viewer's own choice takes the breaks between chunks for zero."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    margin = max(0.08 * (high - low), 1e-6)
    return low - margin, high + margin


def _lanes(prediction: Prediction, k: int) -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
    """Return (stamps, values, values at each stamp) of each lane; a stamp without a value ends a chunk's line."""
    lanes: list[list[int]] = []
    for i, chunk in enumerate(prediction.chunks):
        free = (lane for lane in lanes if prediction.chunks[lane[-1]].stamp_ns[-1] + 1 < chunk.start_ns)
        lane = next(free, None)
        if lane is None:
            lanes.append([i])
        else:
            lane.append(i)
    drawn = []
    for lane in lanes:
        chunks = [prediction.chunks[i] for i in lane]
        stamps = np.concatenate([np.append(c.stamp_ns, c.stamp_ns[-1] + 1) for c in chunks])
        values = np.concatenate([c.action[:, k] for c in chunks]).astype(np.float64)
        drawn.append((stamps, values, [count for c in chunks for count in [1] * len(c) + [0]]))
    return drawn


def summary(scene: Scene, prediction: Prediction, name: str) -> str:
    """Return the mean absolute error by element, in Markdown."""
    rows = [
        f"| {curve.name} | {error:.4g} | {curve.unit} |"
        for curve, error in zip(scene.action, prediction.mean_error, strict=True)
    ]
    count, length = len(prediction.chunks), len(prediction.chunks[0])
    head = f"{count} chunks of {length} actions by {name}, from the recorded observations."
    return "\n".join([head, "", "| action | mean absolute error | |", "|---|---|---|", *rows])
