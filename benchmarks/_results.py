"""Where a benchmark's figures go: small JSON rows that docs/results.md and its plots are made from."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
DOC_IMAGES = Path(__file__).resolve().parents[1] / "docs" / "img"
FIELDS = ("claim", "value", "unit", "interval", "seeds", "baseline", "command")


def machine() -> str:
    """Return processor, core count, memory and Python in one line, with nothing that identifies the host."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, no GPU, Python {platform.python_version()}"


def command() -> str:
    """Return the command line as a person would type it from the project's root.

    Raises:
        ValueError: What runs is not a benchmark of the project, so that nobody could run it again.
    """
    module = Path(sys.argv[0]).stem
    if not (RESULTS.parent / f"{module}.py").is_file():
        raise ValueError(
            f"command: expected a module of benchmarks/, got {sys.argv[0]}; run `python -m benchmarks.<name>`"
        )
    return " ".join(["python -m", f"benchmarks.{module}", *sys.argv[1:]])


def write_results(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows to benchmarks/results/<name>.json, each completed with machine and command.

    Args:
        name: The benchmark's name.
        rows: Each has `claim`, `value`, `unit`; `interval`, `seeds`, `baseline`, `command` where they apply.

    Raises:
        ValueError: A row lacks claim, value or unit, or has a field nobody reads.
    """
    done = []
    for row in rows:
        missing = {"claim", "value", "unit"} - set(row)
        unknown = set(row) - set(FIELDS) - {"machine"}
        if missing or unknown:
            raise ValueError(f"result row of `{name}`: missing {sorted(missing)}, unknown {sorted(unknown)}: {row}")
        done.append({**dict.fromkeys(FIELDS), "command": command(), "machine": machine(), **row})
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(done, indent=1) + "\n")
    return path
