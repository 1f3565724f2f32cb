"""What a run leaves behind to be read: how it ended, and where its checkpoints are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robot_rl.files import replace_text

Status = Literal["finished", "budget", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """How a run ended.

    Args:
        status: `finished` all steps, stopped by the time `budget`, or `interrupted` by a signal.
        step: Updates made.
        seconds: Training time, over all resumes.
        metrics: Last metrics, see docs/imitation.md.
        best_step: Step of the best checkpoint; `None` without held-out data.
        best_metrics: Held-out metrics there.
        run_dir: The run's folder.
        last: The last checkpoint.
        best: The best checkpoint; `None` without held-out data.
    """

    status: Status
    step: int
    seconds: float
    metrics: Mapping[str, float]
    best_step: int | None
    best_metrics: Mapping[str, float]
    run_dir: Path
    last: Path
    best: Path | None


def write_json(path: Path, value: Any) -> None:
    """Write JSON by one rename; what JSON does not know, such as a path, becomes text."""
    replace_text(path, json.dumps(value, indent=1, default=str))
