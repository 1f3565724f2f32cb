"""Progress: a bar on a terminal, log lines elsewhere."""

import io
import logging

from rich.console import Console

from robot_rl.imitation.progress import ProgressReport


def test_without_a_terminal_metrics_are_logged(caplog):
    with caplog.at_level(logging.INFO), ProgressReport(100, console=Console(file=io.StringIO())) as progress:
        progress.advance(50)
        progress.report(50, {"train/loss": 0.12345})
    (record,) = caplog.records
    assert record.message.startswith("step 50/100  train/loss 0.1235  ")
    assert "steps/s" in record.message
    assert "s left" in record.message


def test_on_a_terminal_a_bar_is_drawn_and_nothing_logged(caplog):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with caplog.at_level(logging.INFO), ProgressReport(100, start=10, console=console) as progress:
        progress.advance(60)
        progress.report(70, {"train/loss": 0.5})
    assert "70/100" in screen.getvalue()
    assert "train/loss 0.5" in screen.getvalue()
    assert caplog.records == []
