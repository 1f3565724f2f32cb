"""What a mixture of horizons adds to the time of a policy call: batch 1, ten flow steps, over the plain transformer.

    python -m benchmarks.moh_overhead

Torch and ONNX Runtime on one thread, and torch on a GPU if there is one. Weights are untrained. Calls of all models are
made in turns, so that whatever else the machine does falls on all of them. Writes benchmarks/results/moh_overhead.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks._models import stats_around
from benchmarks._results import DOC_IMAGES, write_results
from policies.encoders import StateEncoder
from policies.export import export_bundle
from policies.flow import FlowModel
from policies.horizons import MixtureOfHorizons
from policies.torch_policy import TorchPolicy
from policies.transformer import ChunkTransformer, TransformerOptions
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import PolicyInput

mpl.use("Agg")
STATE, ACTION = 16, 8
N_OBS, HORIZON = 2, 16
PLAIN = "plain transformer"
COUNTS = (1, 2, 3, 4, 8)
MARK = 2.2  # of four horizons
SPEC = RobotSpec(
    name="bench", obs={"state": ArraySpec(name="state", shape=(STATE,))},
    action=ActionSpec(name="action", shape=(ACTION,)), control_hz=20,
)  # fmt: skip
STATS = {"state": stats_around(np.zeros(STATE), 2.0), "action": stats_around(np.zeros(ACTION), 2.0)}


def horizons(count: int) -> list[int]:
    """Return evenly spaced horizons that end at the chunk's."""
    return [round(HORIZON * (i + 1) / count) for i in range(count)]


def models(width: int, layers: int) -> dict[str, FlowModel]:
    """Return the plain transformer's policy and the mixtures', of one size."""
    size: TransformerOptions = {"width": width, "n_layers": layers, "cond_tokens": N_OBS}
    denoisers: dict[str, Callable[..., torch.nn.Module]] = {PLAIN: partial(ChunkTransformer, **size)}
    for count in COUNTS:
        denoisers[name_of(count)] = partial(MixtureOfHorizons, horizons=horizons(count), **size)
    torch.manual_seed(0)
    return {
        name: FlowModel(SPEC, STATS, encoder=StateEncoder, denoiser=denoiser, n_obs=N_OBS, horizon=HORIZON).eval()
        for name, denoiser in denoisers.items()
    }


def name_of(count: int) -> str:
    """Return what results call a mixture."""
    return f"mixture of {count} horizon{'s' if count > 1 else ''}"


def by_torch(model: FlowModel, device: str) -> Callable[[PolicyInput], object]:
    """Return a call of the torch policy."""
    return TorchPolicy(model.to(device), SPEC, n_execute=4).act


def by_onnx(model: FlowModel) -> Callable[[PolicyInput], object]:
    """Return a call of the exported policy."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = export_bundle(
            model, Path(scratch) / "bundle", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="",
            parity_rounds=1,
        )  # fmt: skip
        return OnnxPolicy(bundle, threads=1, providers=("CPUExecutionProvider",)).act


def measure(calls: Mapping[str, Callable[[PolicyInput], object]], rounds: int) -> dict[str, np.ndarray]:
    """Return milliseconds of each call, [rounds] each, made in turns."""
    rng = np.random.default_rng(0)
    asked = PolicyInput(
        obs={"state": rng.standard_normal((N_OBS, STATE)).astype(np.float32)}, stamp_ns=0,
        noise=rng.standard_normal((HORIZON, ACTION)).astype(np.float32),
    )  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 10):
        for name, call in calls.items():
            began = time.perf_counter()
            call(asked)
            if i >= 10:  # warm by then
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: np.ndarray, plain: np.ndarray, *, resamples: int = 2000) -> tuple[float, float, float]:
    """Return the ratio of medians with its 95 % bootstrap interval over rounds."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(plain), size=(resamples, len(plain)))
    low, high = np.quantile(np.median(times[drawn], axis=1) / np.median(plain[drawn], axis=1), [0.025, 0.975])
    return float(np.median(times) / np.median(plain)), float(low), float(high)


def rows(what: str, times: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the rows of one runtime."""
    done: list[dict[str, Any]] = []
    for name, values in times.items():
        p50, p99 = np.percentile(values, [50, 99])
        done.append({"claim": f"one policy call, {what}; {name}: median", "value": round(float(p50), 3), "unit": "ms",
                     "baseline": f"99th percentile {p99:.3f} ms"})  # fmt: skip
    for name, values in times.items():
        if name != PLAIN:
            value, low, high = ratio(values, times[PLAIN])
            mark = f"at most {MARK}" if name == name_of(4) else None
            done.append({"claim": f"time over the plain transformer's, {what}; {name}", "value": round(value, 3),
                         "unit": "", "interval": [round(low, 3), round(high, 3)], "baseline": mark})  # fmt: skip
    return done


def plot(measured: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Draw the time over the plain transformer's against the number of horizons."""
    fig, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for what, times in measured.items():
        values = [ratio(times[name_of(count)], times[PLAIN]) for count in COUNTS]
        spans = np.array([[value - low, high - value] for value, low, high in values]).T
        axes.errorbar(COUNTS, [value for value, _, _ in values], spans, marker="o", label=what)
    axes.plot(4, MARK, "k_", markersize=24, label="mark at four horizons")
    tokens = [sum(horizons(count)) / HORIZON for count in COUNTS]
    axes.plot(COUNTS, tokens, color="lightgrey", zorder=0, label="tokens over the plain transformer's")
    axes.set(xlabel="horizons", ylabel="time of a call over the plain transformer's", ylim=(0, None))
    axes.legend(fontsize=8)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "moh_overhead.png", dpi=110)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="timed calls of each model")
    parser.add_argument("--width", type=int, default=192, help="token width of the transformer")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--skip", nargs="*", choices=["torch", "onnx", "gpu"], default=[], help="runtimes to leave out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = models(args.width, args.layers)
    runtimes: dict[str, Callable[[FlowModel], Callable[[PolicyInput], object]]] = {}
    if "torch" not in args.skip:
        runtimes["torch, one thread"] = partial(by_torch, device="cpu")
    if "onnx" not in args.skip:
        runtimes["ONNX Runtime, one thread"] = by_onnx
    if "gpu" not in args.skip and torch.cuda.is_available():
        runtimes[f"torch, {torch.cuda.get_device_name()}"] = partial(by_torch, device="cuda")
    measured = {}
    for what, prepare in runtimes.items():
        measured[what] = measure({name: prepare(model) for name, model in made.items()}, args.rounds)
    done = [row for what, times in measured.items() for row in rows(what, times)]
    for row in done:
        print(f"{row['claim']}: {row['value']} {row['unit']}")
    write_results("moh_overhead", done)
    plot(measured)


if __name__ == "__main__":
    main()
