"""Shows how far a run is: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)
REDRAW_S = 0.25


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line, `train/loss 0.0123  val/loss 0.0140`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


class ProgressReport:
    """Progress of one run of `steps` steps.

    Args:
        steps: Steps of the whole run.
        start: Steps already made.
        console: Where to draw; a bar appears only when it is a terminal.
    """

    def __init__(self, steps: int, *, start: int = 0, console: Console | None = None) -> None:
        self.steps = steps
        self._start, self._began = start, time.monotonic()
        self._drawn = 0.0
        console = Console(stderr=True) if console is None else console
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("train", total=steps, completed=start, text="")

    def __enter__(self) -> ProgressReport:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Say that `step` steps are made; redraws a few times a second at most."""
        if self._bar is not None and (now := time.monotonic()) - self._drawn > REDRAW_S:
            self._drawn = now
            self._bar.update(self._task, completed=step)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show metrics of `step`."""
        text = format_metrics(metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
            return
        rate = (step - self._start) / max(1e-9, time.monotonic() - self._began)
        remaining_s = (self.steps - step) / rate if rate > 0 else 0.0
        logger.info("step %d/%d  %s  %.1f steps/s  %.0f s left", step, self.steps, text, rate, remaining_s)
