"""The recorder under the load of a real arm, as a real process beside real publishers.

    python -m benchmarks.record_load [--seconds 60] [--first]

Three cameras (640x480 RGB, 30 Hz), joint states (500 Hz), selected and executed commands (100 Hz each), each camera,
the joints and the commands in a process of their own, through Fast DDS's shared memory. Every publisher keeps its
stamps; they are compared with those in the store. Latency is header stamp to the recorder's callback.
Writes benchmarks/results/record_load.json and docs/img/record_load.png.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import DOC_IMAGES, write_results
from benchmarks.store_codecs import scene
from robot_rl.data.store import EpisodeStore

CONFIG = Path(__file__).resolve().parents[1] / "ros_ws/src/robot_rl_ros/config/recorder_three_cameras.yaml"
CAMERAS = ("front", "side", "wrist")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Rows = list[dict[str, Any]]


@dataclass
class Accounts:
    """What became of one stream's messages."""

    stream: str
    published: int
    stored: int
    lost: int
    dropped: int
    foreign: int
    """Stored stamps that no publisher ever sent."""

    @property
    def unaccounted(self) -> int:
        """Messages that are neither stored nor named in the verdict."""
        return self.published - self.stored - self.lost - self.dropped


@dataclass
class LoadReport:
    """One run."""

    seconds: float
    accounts: list[Accounts]
    quality: dict[str, Any]
    save_s: float
    elsewhere: float
    """Cores that other work on the machine kept busy meanwhile."""
    cpu: list[dict[str, float]] = field(default_factory=list)
    """CPU shares of one core since the previous sample: `receiving` (main thread), `other` (the rest)."""


@contextmanager
def processes(commands: list[list[str]], env: dict[str, str], logs: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run commands side by side; SIGTERM ends them and gives them time to save what they keep."""
    root = Path(__file__).resolve().parents[1]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for i, command in enumerate(commands):
            with (logs / f"{i}.log").open("wb") as out:
                running.append(subprocess.Popen(command, env=env, cwd=root, stdout=out, stderr=subprocess.STDOUT))
        yield running
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()


def source(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks._load_source", *map(str, args)]


def cpu_ticks(pid: int) -> dict[int, int]:
    """Return user and system time of each thread, in clock ticks."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        found[int(task.name)] = int(fields[11]) + int(fields[12])
    return found


def busy_elsewhere(pids: list[int]) -> int:
    """Return the machine's busy time less that of these processes, in clock ticks."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4] - sum(sum(cpu_ticks(pid).values()) for pid in pids)


def watch_cpu(pid: int, seconds: float) -> list[dict[str, float]]:
    """Sample the process's threads once a second."""
    before, then, samples = cpu_ticks(pid), time.monotonic(), []
    end = then + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        now, at = cpu_ticks(pid), time.monotonic()
        share = {tid: (n - before.get(tid, 0)) / TICKS_PER_S / (at - then) for tid, n in now.items()}
        samples.append({"receiving": share[pid], "other": sum(share.values()) - share[pid]})
        before, then = now, at
    return samples


class Operator:
    """Calls the recorder's services."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
        from std_srvs.srv import Trigger

        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._rclpy, self._kind = rclpy, Trigger
        self.node = rclpy.create_node("operator", namespace="/arm")
        self._clients: dict[str, Any] = {
            name: self.node.create_client(Trigger, f"recorder/{name}") for name in ("start", "stop")
        }

    def call(self, name: str, timeout_s: float = 30.0) -> tuple[bool, str]:
        """Return success and message of a service."""
        client = self._clients[name]
        if not client.wait_for_service(timeout_s):
            raise RuntimeError(f"no service recorder/{name}")
        future = client.call_async(self._kind.Request())
        self._rclpy.spin_until_future_complete(self.node, future, timeout_sec=timeout_s)
        answer = future.result()
        if answer is None:
            raise RuntimeError(f"recorder/{name} did not answer within {timeout_s} s")
        return bool(answer.success), str(answer.message)

    def start(self, timeout_s: float = 40.0) -> None:
        """Start as soon as every required stream is there."""
        end = time.monotonic() + timeout_s
        while True:
            started, message = self.call("start")
            if started:
                return
            if time.monotonic() > end:
                raise RuntimeError(message)
            time.sleep(0.5)

    def close(self) -> None:
        """Leave the graph."""
        self.node.destroy_node()
        self._rclpy.shutdown()


def run_load(folder: Path, seconds: float, *, domain: int) -> LoadReport:
    """Record the load for a while and compare the store with what the publishers sent."""
    from robot_rl_ros.environment import environment

    env = {**os.environ, **environment(), "ROS_DOMAIN_ID": str(domain)}
    os.environ.update({key: env[key] for key in (*environment(), "ROS_DOMAIN_ID")})
    frames, stamps = folder / "frames.npy", {name: folder / f"{name}.npy" for name in CAMERAS}
    np.save(frames, scene(30))
    store = folder / "store"
    options = ["-r", "__ns:=/arm", "--params-file", str(CONFIG), "-p", f"store:={store}"]
    recorder = [sys.executable, "-m", "robot_rl_ros.recorder_node", "--ros-args", *options]
    stamps |= {name: folder / f"{name}.npy" for name in ("joint_position", "action", "action_executed")}
    sources = [source("camera", name, frames, stamps[name]) for name in CAMERAS]
    sources.append(source("joints", stamps["joint_position"]))
    sources.append(source("commands", stamps["action"], stamps["action_executed"]))
    with processes([recorder, *sources], env, folder) as running:
        operator = Operator()
        try:
            operator.start()
            mine = [os.getpid(), *(process.pid for process in running)]
            before = busy_elsewhere(mine)
            cpu = watch_cpu(running[0].pid, seconds)
            elsewhere = (busy_elsewhere(mine) - before) / TICKS_PER_S / seconds
            began = time.monotonic()
            saved, message = operator.call("stop")
            save_s = time.monotonic() - began
        finally:
            operator.close()
    if not saved:
        raise RuntimeError(f"not saved: {message}\n{(folder / '0.log').read_text()}")
    opened = EpisodeStore.open(store)
    recording = opened.read(opened.ids()[-1])
    quality = recording.meta.extra["quality"]
    accounts = [
        account(name, np.load(path), recording.streams[name].stamp_ns, quality["streams"][name])
        for name, path in stamps.items()
    ]
    return LoadReport(seconds, accounts, quality, save_s=save_s, elsewhere=elsewhere, cpu=cpu)


def account(stream: str, sent: np.ndarray, stored: np.ndarray, verdict: dict[str, Any]) -> Accounts:
    """Compare the stamps sent while the episode ran with those stored."""
    inside = sent[(sent >= stored[0]) & (sent <= stored[-1])]
    foreign = int((~np.isin(stored, sent)).sum())
    dropped = sum(verdict["dropped"].values())
    return Accounts(stream, len(inside), len(stored), verdict["lost"], dropped, foreign)


def rows_of(report: LoadReport) -> Rows:
    """Return result rows of a run."""
    where = "three 640x480 RGB streams at 30 Hz, joints 500 Hz, two command topics 100 Hz"
    rows: Rows = []

    def row(claim: str, value: float, unit: str, **more: Any) -> None:
        rows.append({"claim": f"{claim}; {where}", "value": value, "unit": unit, **more})

    total = sum(a.published for a in report.accounts)
    for name, words in (
        ("published", "messages published while the episode ran"), ("stored", "messages stored"),
        ("lost", "messages lost before the recorder, all named in the verdict"),
        ("dropped", "messages dropped by the recorder, all named in the verdict"),
        ("unaccounted", "messages neither stored nor named"), ("foreign", "stored stamps that no publisher sent"),
    ):  # fmt: skip
        row(words, sum(getattr(a, name) for a in report.accounts), f"of {total}")
    for name in CAMERAS:
        figures = report.quality["streams"][name]
        for q in ("p50", "p99"):
            row(f"latency of camera {name}, header stamp to callback, {q}", figures[f"latency_{q}_ms"], "ms")
    cpu, seconds = report.quality["cpu"], report.quality["cpu"]["seconds"]
    receiving = float(np.mean([sample["receiving"] for sample in report.cpu]))
    row("receiving thread of the recorder, share of one core", round(100 * receiving, 1), "%")
    before = (cpu["process_s"] - cpu["encoding_s"]) / seconds
    row("recorder before encoding and writing, all threads, share of one core", round(100 * before, 1), "%")
    row("recorder in all, share of one core", round(100 * cpu["process_s"] / seconds, 1), "%")
    row("save at the end of the episode, service call to answer", round(report.save_s, 3), "s")
    row("length of the episode", round(seconds, 1), "s")
    row("other work on the machine meanwhile", round(report.elsewhere, 2), "cores")
    return rows


def plot(report: LoadReport) -> None:
    """Draw the recorder's CPU over the episode and the latency of each stream."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    seconds = np.arange(1, len(report.cpu) + 1)
    shares = [np.array([100 * sample[key] for sample in report.cpu]) for key in ("receiving", "other")]
    left.stackplot(seconds, shares, labels=["receiving thread", "transport, encoding, writing"])
    left.axhline(40, color="black", linestyle=":", linewidth=1)
    left.set(xlabel="second of the episode", ylabel="recorder's CPU [% of one core]", ylim=(0, None))
    left.legend(fontsize=8)
    names = [a.stream for a in report.accounts]
    for key, label in (("latency_p50_ms", "median"), ("latency_p99_ms", "99th percentile")):
        values = [report.quality["streams"][name][key] for name in names]
        right.plot(values, names, "o", label=label)
    right.axvline(5, color="black", linestyle=":", linewidth=1)
    right.set(xlabel="stamp to callback [ms], dotted: limit for images", xlim=(0, None))
    right.legend(fontsize=8)
    DOC_IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOC_IMAGES / "record_load.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the episode")
    parser.add_argument(
        "--first", action="store_true", help="let the whole run go before other work on the machine (Linux, as root)"
    )
    args = parser.parse_args()
    if args.first:
        os.setsid()
        Path("/proc/self/autogroup").write_text("-19")
    with tempfile.TemporaryDirectory() as folder:
        report = run_load(Path(folder), args.seconds, domain=18)
    for a in report.accounts:
        print(f"{a.stream}: {a}, unaccounted {a.unaccounted}")
    rows = rows_of(report)
    for row in rows:
        print(f"{row['claim'].split(';')[0]}: {row['value']} {row['unit']}")
    print({name: s["reasons"] for name, s in report.quality["streams"].items() if s["reasons"]})
    write_results("record_load", rows)
    plot(report)


if __name__ == "__main__":
    main()
