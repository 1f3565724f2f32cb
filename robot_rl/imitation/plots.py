"""The learning curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robot_rl.metrics import read_metrics

_PANELS = (
    ("loss", ("train/loss", "val/loss"), "log"),
    ("action error (normalised)", ("val/action_error_normalised",), "log"),
    ("learning rate", ("train/lr",), "linear"),
)


def plot_learning_curve(metrics_file: str | Path, picture: str | Path) -> None:
    """Draw loss, held-out action error and learning rate over steps.

    Args:
        metrics_file: A `metrics.jsonl`.
        picture: Where to write the PNG.
    """
    records = read_metrics(metrics_file)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display and without pyplot's global state
    axes = figure.subplots(1, len(_PANELS))
    for axis, (title, names, scale) in zip(axes, _PANELS, strict=True):
        drawn = [_draw(axis, records, name) for name in names]
        axis.set_xlabel("step")
        axis.set_title(title)
        axis.grid(alpha=0.3)
        if any(drawn):
            axis.set_yscale(scale)
            axis.legend()
    figure.savefig(picture, dpi=110)


def _draw(axis: Axes, records: list[dict[str, object]], name: str) -> bool:
    """Draw one metric; return whether it has a value that any scale can show."""
    points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    if not points:
        return False
    steps, values = zip(*points, strict=True)
    axis.plot(steps, values, label=name, marker="." if len(points) < 50 else None)
    return any(isinstance(value, float) and value > 0 for value in values)
