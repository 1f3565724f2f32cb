"""Makes docs/results.md from benchmarks/results/*.json, so that no figure is typed by hand."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import _plots
from benchmarks._results import DOC_IMAGES, RESULTS

TITLES = {
    "pusht_replay": "PushT: recorded actions replayed through our import and environment",
    "pusht_imitation": "PushT: imitation from 206 human demonstrations",
    "lift_imitation": "Lift: imitation from 100 scripted demonstrations",
    "rl100_stages": "RL-100's stages on lift and insert, from data of mixed quality",
    "online_settings": "RL-100's online stage: one setting changed at a time",
    "gate": "RL-100's offline gate on lift, and its controls",
    "residual": "Residual RL on lift and insert from a weak base",
    "rlif": "Interventions as reward on insert, against HG-DAgger",
    "critic_speed": "Critics: updates per second against Stable-Baselines3",
    "learner_faults": "Learner and actor: killed, disk full, lock held, loss not finite",
    "g1_prediction": "Unitree G1: prediction of recorded actions",
    "loader": "Loader: random training windows per second",
    "store_kill": "Episode store: kill -9 of a writer",
    "store_scale": "Episode store: many episodes",
    "store_codecs": "Episode store: image codecs",
    "round_trips": "Round trips: a store through another format and back, array by array",
    "lerobot_opens": "LeRobot's own reader on what we export",
    "edm_sampling": "Sampling: three-step EDM, DDIM and flow on PushT",
    "one_step_head": "One-step heads against their own ten-step teachers",
    "moh": "Mixture of horizons on PushT, against its controls at equal training compute",
    "moh_overhead": "Mixture of horizons: time of a policy call",
    "delay_execution": "Execution of chunks when inference is late: seven ways on a task that moves",
    "gpc": "Composition of two policies of different modality and family on PushT",
    "encoders": "Encoders: cost of an observation",
    "onnx_parity": "ONNX against torch",
    "loop_latency": "Control loop: latency and lateness",
    "loop_500hz": "Control loop at 500 Hz: inference in a process of its own",
    "import_speed": "Import of video data sets: speed and memory",
    "record_load": "Recorder: three cameras, joints at 500 Hz, commands at 100 Hz",
    "ros_latency": "ROS graph: lateness of a 200 Hz control node",
    "ros_deploy": "ROS graph: a trained bundle on the simulated arm",
    "node_faults": "ROS graph: a node killed or stalled, a clock that jumps, in mid-episode",
    "safety_through_topics": "Safety: from a fault on a topic to the last command that moves the arm",
    "intrinsics": "Calibration: intrinsics and stereo",
    "hand_eye": "Calibration: hand-eye, outliers, clock offset",
    "latency_calibration": "Calibration: latency of cameras, joints and commands",
}
HEAD = """# Results

Made by `python -m benchmarks.results_page` from `benchmarks/results/*.json`.
Each figure was measured by the command beside it. Success rates carry exact (Clopper-Pearson) 95 % intervals, means
bootstrap intervals. All on two CPU cores without a GPU.
"""


def _number(value: Any) -> str:
    """Return a figure with as many digits as it deserves."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _row(row: dict[str, Any]) -> str:
    interval = row["interval"]
    span = f" [{_number(interval[0])}, {_number(interval[1])}]" if isinstance(interval, list) else ""
    unit = f" {row['unit']}" if row["unit"] else ""
    cells = (row["claim"], f"{_number(row['value'])}{unit}{span}", _number(row["seeds"]), _number(row["baseline"]))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(name: str, rows: list[dict[str, Any]]) -> str:
    commands = sorted({row["command"] for row in rows})
    machines = sorted({row["machine"] for row in rows})
    lines = [f"## {TITLES[name]}", "", *(f"`{command}`" for command in commands), ""]
    lines += ["| claim | value | seeds | baseline |", "|---|---|---|---|", *map(_row, rows), ""]
    lines += [f"Machine: {'; '.join(machines)}.", ""]
    if (DOC_IMAGES / f"{name}.png").exists():
        lines += [f"![{name}](img/{name}.png)", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    for name, draw in {"onnx_parity": _plots.onnx_parity, "store_kill": _plots.store_kill}.items():
        if name in found:
            draw(found[name])
    if untitled := sorted(set(found) - set(TITLES)):
        raise SystemExit(f"results without a title: {untitled}; add them to TITLES, where the page's order is as well")
    order = [name for name in TITLES if name in found]
    page = HEAD + "\n" + "\n".join(_section(name, found[name]) for name in order)
    (DOC_IMAGES.parent / "results.md").write_text(page)


if __name__ == "__main__":
    main()
