"""What an observation costs: to sense it, to store it, to encode it and to train on it, for each kind of encoder.

    python -m benchmarks.encoders [--replot]

The simulated lift scene, weights untrained, one thread, processor time (so that other work on the machine does not
count). Raw figures in outputs/benchmarks/encoders/raw.json; writes benchmarks/results/encoders.json and
docs/img/encoders.png.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file

from benchmarks._results import DOC_IMAGES, write_results
from policies.bottleneck import BottleneckEncoder
from policies.encoders import Encoder, StateEncoder, steps_for_loss
from policies.pointcloud import PointCloudEncoder
from policies.pretrained import conv_shapes, norm_name
from policies.reconstruction import CloudReconstruction
from policies.vision import ImageEncoder
from robot_rl.data.normalizer import FieldStats
from robot_rl.pointcloud import Box, Pinhole, deproject, farthest_points
from sim.depth import CloudSettings
from sim.env import ArmEnv

RAW = Path("outputs/benchmarks/encoders/raw.json")
BATCH = 16
BOX = ((0.3, -0.3, 0.004), (0.75, 0.3, 0.35))
STATE = ["joint_position", "gripper_width", "tcp_pose"]


def milliseconds(call: Callable[[], object], calls: int) -> float:
    """Return the median processor time of a call."""
    call()
    times = []
    for _ in range(calls):
        began = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times)


def trunk_file(folder: str) -> str:
    """Write a ResNet-18 of random weights, full size: the time does not depend on their values."""
    state = {}
    for conv, shape in conv_shapes(64).items():
        state[f"{conv}.weight"] = 0.05 * torch.randn(shape)
        state |= {f"{norm_name(conv)}.{name}": torch.ones(shape[0]) for name in ("weight", "bias", "running_var")}
        state[f"{norm_name(conv)}.running_mean"] = torch.zeros(shape[0])
    path = Path(folder) / "resnet18.safetensors"
    save_file(state, path)
    return str(path)


def encoders(folder: str, points: int) -> dict[str, tuple[Callable[..., Encoder], list[str]]]:
    """Return how to make each encoder, and the observations it reads."""
    cloud = functools.partial(PointCloudEncoder, box=BOX)
    rebuild = functools.partial(CloudReconstruction, box=BOX)
    image = functools.partial(ImageEncoder, names=["front"], crop=(84, 84))
    return {
        "state": (functools.partial(StateEncoder, names=STATE), STATE),
        f"cloud of {points}": (cloud, ["point_cloud"]),
        f"cloud of {points}, bottleneck": (
            functools.partial(BottleneckEncoder, part=cloud, reconstruct=[rebuild]),
            ["point_cloud"],
        ),
        "picture, ResNet-18": (image, ["front"]),
        "picture, ResNet-18 frozen": (functools.partial(image, pretrained=trunk_file(folder)), ["front"]),
    }


def encode_and_train(points: int, calls: int) -> Iterator[dict[str, Any]]:
    """Yield parameters, bytes per step and times of each encoder."""
    env = ArmEnv(cameras=("front",), point_cloud=CloudSettings(n_points=points, low=BOX[0], high=BOX[1]))
    tick = env.reset(0)
    env.close()
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, reads) in encoders(folder, points).items():
            spec = env.spec.select(reads)
            stats = {n: _stats(tick.obs[n]) for n in reads if not spec.obs[n].is_image}
            encoder = make(spec, stats, n_obs=1)
            obs = {n: torch.from_numpy(tick.obs[n])[None, None] for n in reads}
            many = {n: value.repeat(BATCH, *[1] * (value.ndim - 1)) for n, value in obs.items()}
            encoder.eval()
            with torch.no_grad():
                once = milliseconds(functools.partial(encoder, obs), calls)
            encoder.train()
            yield {
                "encoder": name, "encode_ms": once, "features": encoder.step_dim,
                "train_ms": milliseconds(functools.partial(_train, encoder, many), max(5, calls // 3)) / BATCH,
                "parameters": sum(p.numel() for p in encoder.parameters()),
                "trained": sum(p.numel() for p in encoder.parameters() if p.requires_grad),
                "bytes": sum(value.numel() * value.element_size() for value in obs.values()),
            }  # fmt: skip


def _stats(value: np.ndarray) -> FieldStats:
    low, high = value.astype(np.float64) - 1.0, value.astype(np.float64) + 1.0
    return FieldStats(min=low, max=high, mean=(low + high) / 2, std=(high - low) / 4, q01=low, q99=high, count=1)


def _train(encoder: Encoder, obs: dict[str, torch.Tensor]) -> None:
    features, cost = steps_for_loss(encoder, obs)
    if features.requires_grad:
        torch.autograd.backward(features.square().mean() + cost)
        encoder.zero_grad()


def sense(calls: int) -> Iterator[dict[str, Any]]:
    """Yield the time of each stage on the way to a cloud."""
    env = ArmEnv(
        cameras=("front",), image_size=(120, 160), depth_cameras=("front",), point_cloud=CloudSettings(n_points=256)
    )
    env.reset(0)
    cloud, data = env._cloud, env._data
    if cloud is None:
        raise RuntimeError("the environment was made without a cloud")
    yield {"stage": "picture of 120 x 160 px, rendered", "ms": milliseconds(lambda: env._picture("front"), calls)}
    yield {"stage": "depth of 120 x 160 px, rendered", "ms": milliseconds(lambda: env._picture("front_depth"), calls)}
    yield {"stage": "cloud of 256 points from it, rendering included",
           "ms": milliseconds(lambda: cloud.observe(data, 0), calls)}  # fmt: skip
    env.close()
    rng = np.random.default_rng(0)
    depth = rng.integers(300, 1500, (480, 640)).astype(np.uint16)
    pinhole = Pinhole(fx=600.0, fy=600.0, cx=319.5, cy=239.5)
    box = Box((-0.3, -0.3, 0.5), (0.3, 0.3, 0.7))
    points = deproject(depth, pinhole)
    yield {"stage": "deproject 480 x 640 px", "ms": milliseconds(lambda: deproject(depth, pinhole), calls)}
    yield {"stage": "crop 307,200 points", "ms": milliseconds(lambda: points[box.holds(points)], calls)}
    scattered = rng.uniform(size=(20_000, 3)).astype(np.float32)
    for n in (256, 512, 1024):
        took = milliseconds(functools.partial(farthest_points, scattered, n), calls)
        yield {"stage": f"farthest points: {n} of 20,000", "ms": took}


def rows(raw: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the result rows of raw figures."""
    done = [
        {"claim": f"{r['stage']}, processor time, one thread", "value": round(r["ms"], 2), "unit": "ms"}
        for r in raw["sense"]
    ]
    for r in raw["encode"]:
        size = f"{r['trained']:,} of {r['parameters']:,} parameters trained, {r['bytes']:,} bytes a step"
        what = f"{r['encoder']} ({size})"
        done += [
            {"claim": f"encode one observation, {what}", "value": round(r["encode_ms"], 3), "unit": "ms"},
            {"claim": f"loss and gradient of one sample, batch {BATCH}, {r['encoder']}",
             "value": round(r["train_ms"], 3), "unit": "ms"},
        ]  # fmt: skip
    return [{**row, "command": "python -m benchmarks.encoders"} for row in done]


def plot(raw: dict[str, list[dict[str, Any]]]) -> None:
    """Draw what one observation costs to encode and to train on."""
    mpl.use("Agg")
    names = [r["encoder"] for r in raw["encode"]]
    fig, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    place = np.arange(len(names))
    for shift, key, label in (
        (-0.2, "encode_ms", "encode, batch 1"),
        (0.2, "train_ms", f"train, batch {BATCH}, per sample"),
    ):
        bars = axes.barh(place + shift, [r[key] for r in raw["encode"]], height=0.38, label=label)
        axes.bar_label(bars, fmt="%.2g", padding=3)
    axes.set(xscale="log", xlabel="processor time, one thread [ms]", yticks=place, yticklabels=names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.legend()
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    fig.savefig(DOC_IMAGES / "encoders.png", dpi=100)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=30, help="timed calls of each")
    parser.add_argument("--points", type=int, default=256, help="points of the cloud that is encoded")
    parser.add_argument("--replot", action="store_true", help="make rows and picture again from the saved figures")
    args = parser.parse_args()
    if not args.replot:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        raw = {
            "sense": list(track(sense(args.calls), "sensing", total=8)),
            "encode": list(track(encode_and_train(args.points, args.calls), "encoding", total=5)),
        }
        RAW.parent.mkdir(parents=True, exist_ok=True)
        RAW.write_text(json.dumps(raw, indent=1) + "\n")
    raw = json.loads(RAW.read_text())
    plot(raw)
    path = write_results("encoders", rows(raw))
    print(f"{len(rows(raw))} rows in {path}")


if __name__ == "__main__":
    main()
