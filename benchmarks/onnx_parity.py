"""ONNX Runtime against torch: difference of actions under the same noise, and time of a call, for each kind of policy.

    python -m benchmarks.onnx_parity

Three denoisers, four families, state and picture observations, ten solver steps, one thread. Weights are untrained.
Writes benchmarks/results/onnx_parity.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._models import (
    DENOISERS,
    ENCODERS,
    FAMILIES,
    HORIZON,
    N_EXECUTE,
    N_OBS,
    make_model,
    n_parameters,
    stats_around,
)
from benchmarks._results import RESULTS, write_results
from policies.export import export_bundle
from policies.torch_policy import TorchPolicy
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Obs, PolicyInput

TOTAL = "largest |ONNX - torch| of all models, normalised"
STATE = {"position": 7, "object": 9}
ACTION_WIDTH = 8


def robot(encoder: str) -> RobotSpec:
    """Return a robot with an arm's state, and with a camera of 96 pixels where the encoder needs one."""
    obs = {name: ArraySpec(name=name, shape=(n,)) for name, n in STATE.items()}
    if encoder == "image":
        obs["camera"] = ArraySpec(name="camera", shape=(96, 96, 3), dtype="uint8")
    return RobotSpec(name="bench", obs=obs, action=ActionSpec(name="action", shape=(ACTION_WIDTH,)), control_hz=20)


def milliseconds(call: Callable[[], object], calls: int) -> float:
    """Return the median time of a call."""
    for _ in range(3):
        call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def measure(family: str, denoiser: str, encoder: str, *, calls: int, rounds: int) -> list[dict[str, Any]]:
    """Export one model, and return its rows."""
    spec = robot(encoder)
    stats = {name: stats_around(np.zeros(n), 2.0) for name, n in STATE.items()}
    stats["action"] = stats_around(np.zeros(ACTION_WIDTH), 2.0)
    model = make_model(spec, stats, family=family, denoiser=denoiser, encoder=encoder)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = export_bundle(
            model, Path(scratch) / "bundle", spec=spec, stats=stats, n_execute=N_EXECUTE, config={}, data_digest="",
            parity_rounds=rounds,
        )  # fmt: skip
        onnx_policy = OnnxPolicy(bundle, threads=1)
    torch_policy = TorchPolicy(model, spec, n_execute=N_EXECUTE)
    rng = np.random.default_rng(0)
    obs: Obs = {name: rng.standard_normal((N_OBS, n)).astype(np.float32) for name, n in STATE.items()}
    if encoder == "image":
        obs["camera"] = rng.integers(0, 256, (N_OBS, 96, 96, 3), dtype=np.uint8)
    noise = rng.standard_normal((HORIZON, ACTION_WIDTH)).astype(np.float32)
    asked = PolicyInput(obs=obs, stamp_ns=0, noise=noise)
    parity = bundle.manifest.parity
    what = f"{denoiser} ({n_parameters(model) / 1e6:.1f} M with encoder), {family}, {encoder}"
    torch_ms = milliseconds(lambda: torch_policy.act(asked), calls)
    onnx_ms = milliseconds(lambda: onnx_policy.act(asked), calls)
    print(f"{what}: max |difference| {parity.max_abs_normalised:.1e}, torch {torch_ms:.2f} ms, ONNX {onnx_ms:.2f} ms")
    return [
        {
            "claim": f"max |ONNX - torch| in normalised actions, same noise; {what}",
            "value": float(f"{parity.max_abs_normalised:.2g}"), "unit": f"1, over {parity.n} chunks",
        },
        {
            "claim": f"median time of one policy call, ONNX Runtime, one thread; {what}",
            "value": round(onnx_ms, 3), "unit": "ms", "baseline": f"torch: {torch_ms:.3f} ms",
        },
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50, help="timed calls of each model")
    parser.add_argument("--rounds", type=int, default=4, help="comparisons at each of the batch sizes 1, 4, 7")
    for name, kinds in (("encoders", ENCODERS), ("denoisers", DENOISERS), ("families", FAMILIES)):
        parser.add_argument(f"--{name}", nargs="+", choices=list(kinds), default=list(kinds))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for encoder in args.encoders:
        for denoiser in args.denoisers:
            for family in args.families:
                save(measure(family, denoiser, encoder, calls=args.calls, rounds=args.rounds))


def save(rows: list[dict[str, Any]]) -> None:
    """Put one model's rows in place of its old ones, so that parts can be measured again and nothing is lost."""
    path = RESULTS / "onnx_parity.json"
    old = json.loads(path.read_text()) if path.exists() else []
    claims = {TOTAL, *(row["claim"] for row in rows)}
    kept = [row for row in old if row["claim"] not in claims] + rows
    worst = max(row["value"] for row in kept if row["claim"].startswith("max"))
    write_results("onnx_parity", [{"claim": TOTAL, "value": worst, "unit": "1", "baseline": "1e-4"}, *kept])


if __name__ == "__main__":
    main()
