"""Which codec for camera streams: size, encoding and random decoding on 480x640 frames, one thread.

    python -m benchmarks.store_codecs [--frames 120]

The frames are drawn: a smooth moving scene with sensor noise (sigma 2). Real cameras compress less than this.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import simplejpeg

from benchmarks._results import write_results
from robot_rl.data import frame_codec

SHAPE = (480, 640, 3)
GOP = 10
X264 = {"preset": "veryfast", "crf": "20", "g": str(GOP), "bf": "0"}

Figures = tuple[float, float, float, float]
"""Bytes a frame, encoded and randomly decoded frames a second, PSNR in dB."""


def scene(n: int, seed: int = 0) -> np.ndarray:
    """Return frames uint8 [n, 480, 640, 3]: shaded background, three moving discs, noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    base = np.stack([80 + y / 6, 90 + x / 8, 120 + 20 * np.sin(x / 40) * np.cos(y / 30)], axis=-1)
    frames = np.empty((n, *SHAPE), np.uint8)
    colours = rng.uniform(20, 235, (3, 3)).astype(np.float32)
    for i in range(n):
        frame = base.copy()
        for k, colour in enumerate(colours):
            cx, cy = 320 + 200 * np.cos(0.05 * i + 2 * k), 240 + 150 * np.sin(0.04 * i + k)
            frame[(x - cx) ** 2 + (y - cy) ** 2 < (40 + 15 * k) ** 2] = colour
        frames[i] = (frame + rng.normal(0, 2, (*SHAPE[:2], 1))).clip(0, 255)
    return frames


def rate(call: Callable[[int], Any], order: np.ndarray) -> float:
    """Return calls per second of processor time over `order`; the wall clock would measure the neighbours."""
    start = time.process_time()
    for i in order:
        call(int(i))
    return len(order) / (time.process_time() - start)


def still(frames: np.ndarray, order: np.ndarray, encode: Callable[[np.ndarray], bytes], codec: str) -> Figures:
    """Return the figures of a picture codec."""
    coded = [b""] * len(frames)

    def put(i: int) -> None:
        coded[i] = encode(frames[i])

    written = rate(put, np.arange(len(frames)))
    read = rate(lambda i: frame_codec.decode(coded[i], codec, SHAPE), order)
    quality = psnr(frames[0], frame_codec.decode(coded[0], codec, SHAPE))
    return float(np.mean([len(data) for data in coded])), written, read, quality


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite when equal."""
    error = np.mean((a.astype(float) - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def raw(frames: np.ndarray, order: np.ndarray) -> Figures:
    """Return the figures of plain bytes in memory."""
    sink = io.BytesIO()
    written = rate(lambda i: sink.write(frames[i].tobytes()), np.arange(len(frames)))
    return float(frames[0].nbytes), written, rate(lambda i: frames[i].copy(), order), float("inf")


def h264(frames: np.ndarray, order: np.ndarray) -> Figures:
    """Return the figures of an mp4 with a key frame every `GOP` frames, kept open while decoding."""
    file = io.BytesIO()
    start = time.process_time()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream(
            "libx264", rate=30, options={"preset": "veryfast", "crf": "20", "g": str(GOP), "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = SHAPE[1], SHAPE[0], "yuv420p", 1
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    written = len(frames) / (time.process_time() - start)
    nbytes = len(file.getvalue()) / len(frames)
    file.seek(0)
    with av.open(file) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1

        def get(i: int) -> np.ndarray:
            pts = int(i / 30 / video.time_base)
            container.seek(pts, stream=video)
            found = next(frame for frame in container.decode(video) if frame.pts >= pts)
            return np.asarray(found.to_ndarray(format="rgb24"))

        return nbytes, written, rate(get, order), psnr(frames[0], get(0))


def jpeg(quality: int, sampling: str) -> Callable[[np.ndarray], bytes]:
    """Return an encoder of another quality than the store's."""
    return lambda image: bytes(simplejpeg.encode_jpeg(image, quality, colorspace="RGB", colorsubsampling=sampling))


def main() -> None:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=120)
    n = parser.parse_args().frames
    frames, order = scene(n), np.random.default_rng(1).permutation(n)
    table = {
        "raw": raw(frames, order),
        "JPEG q95 4:2:0 (default)": still(frames, order, lambda f: frame_codec.encode(f, "jpeg"), "jpeg"),
        "JPEG q95 4:4:4": still(frames, order, jpeg(95, "444"), "jpeg"),
        "JPEG q90 4:2:0": still(frames, order, jpeg(90, "420"), "jpeg"),
        "PNG level 1": still(frames, order, lambda f: frame_codec.encode(f, "png"), "png"),
        f"h264 veryfast crf 20, gop {GOP}": h264(frames, order),
    }
    rows = []
    for name, (nbytes, written, read, db) in table.items():
        ratio = frames[0].nbytes / nbytes
        print(
            f"| {name} | {ratio:.1f} | {written:,.0f} | {read:,.0f} | {'lossless' if np.isinf(db) else f'{db:.1f}'} |"
        )
        size = ("compression", ratio, "x")
        speeds = (("encode", written, "frames/CPU-s"), ("random decode", read, "frames/CPU-s"))
        rows += [
            {"claim": f"{name}: {what}", "value": round(value, 1), "unit": unit}
            for what, value, unit in (size, *speeds)
        ]
    write_results("store_codecs", rows)


if __name__ == "__main__":
    main()
