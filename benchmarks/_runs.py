"""What single runs of a long benchmark found, kept beside its results: seeds may run on different days or machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks._results import RESULTS


def keep(benchmark: str, run: str, facts: Mapping[str, Any]) -> None:
    """Write what a run found, plain JSON, to benchmarks/results/runs/<benchmark>/<run>.json."""
    path = RESULTS / "runs" / benchmark / f"{run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")


def kept(benchmark: str, run: str) -> dict[str, Any] | None:
    """Return what a run found, wherever it ran; `None` if nobody has run it."""
    path = RESULTS / "runs" / benchmark / f"{run}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found
