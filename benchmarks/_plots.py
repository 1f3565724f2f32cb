"""Pictures for the results page that are made from the committed JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks._results import DOC_IMAGES

mpl.use("Agg")
Rows = Sequence[Mapping[str, Any]]


def onnx_parity(rows: Rows) -> None:
    """Draw the largest difference of each model beside the mark, and the time of a call beside torch's."""
    parity = {row["claim"].split("; ")[1]: row for row in rows if row["claim"].startswith("max |")}
    times = {row["claim"].split("; ")[1]: row for row in rows if row["claim"].startswith("median time")}
    names = [name.replace(" with encoder", "") for name in parity]
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 0.26 * len(names) + 1.2), sharey=True, layout="constrained")
    left.barh(names, [row["value"] for row in parity.values()])
    left.axvline(1e-4, color="black", linestyle=":")
    left.set(xscale="log", xlabel="largest |ONNX - torch|, normalised (dotted: the mark)")
    torch_ms = [float(times[name]["baseline"].removeprefix("torch: ").removesuffix(" ms")) for name in parity]
    right.barh(names, torch_ms, color="lightgrey", label="torch")
    right.barh(names, [times[name]["value"] for name in parity], label="ONNX Runtime")
    right.set(xscale="log", xlabel="one policy call, batch 1, one thread [ms]")
    right.legend()
    left.invert_yaxis()
    _save(fig, "onnx_parity")


def store_kill(rows: Rows) -> None:
    """Draw what became of the episodes of killed writers."""
    value = {row["claim"]: row["value"] for row in rows}
    in_flight = next(claim for claim in value if claim.startswith("episodes in flight"))
    counts = dict(part.rsplit(" ", 1) for part in in_flight.split(": ", 1)[1].split(", "))
    bars = {
        "committed": value["episodes committed before a kill"],
        "lost, damaged or inconsistent": next(
            v for claim, v in value.items() if claim.startswith("committed episodes lost")
        ),
        **{f"in flight, {name}": int(count) for name, count in counts.items()},
    }
    fig, axes = plt.subplots(figsize=(8, 2.2), layout="constrained")
    drawn = axes.barh(list(bars), list(bars.values()), color=["C0", "C3", "C1", "C2"])
    axes.bar_label(drawn, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set(
        xlabel="episodes", title=f"{value['writers killed with SIGKILL at random moments']} writers killed with SIGKILL"
    )
    _save(fig, "store_kill")


def _save(fig: Any, name: str) -> None:
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / f"{name}.png", dpi=100)
    plt.close(fig)
