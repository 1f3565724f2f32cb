"""Records topics into the episode store; services or `episode/status` say when an episode begins and how it ends."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot_rl.data.plan import RecordingPlan
from robot_rl.data.recorder_lock import RecorderLock
from robot_rl.data.session import RecordingSession
from robot_rl.data.verdict import StreamVerdict
from robot_rl.errors import RecordingError, RobotRLError
from robot_rl.values import Outcome, RecordingMeta
from robot_rl_ros.params import declare
from robot_rl_ros.qos import LATCHED
from robot_rl_ros.readers import Read
from robot_rl_ros.recorder_notes import EpisodeNotes
from robot_rl_ros.recorder_report import diagnostics, levels, status_json, waits_for
from robot_rl_ros.recorder_streams import stream_parameters, subscribe_all
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import now_ns

_WATCH_S = 0.2
_REPORT_NS = 1_000_000_000
_SAVE_TIMEOUT_S = 60.0
_SWITCH_S = 0.0005
"""How long another thread may keep the interpreter once the receiving one wants it; Python's default is 5 ms."""
_ENDINGS: dict[str, tuple[Outcome, dict[str, Any]]] = {
    "success": ("success", {"terminated": True}),
    "failure": ("failure", {"terminated": True}),
    "timeout": ("failure", {"truncated": True}),
}
"""What the supervisor's words mean for the episode that is saved."""


class RecorderNode(Node):
    """Takes every topic of its plan as it comes. Its callbacks copy; encoding and writing are done by other threads."""

    def __init__(self) -> None:
        super().__init__("recorder")
        url = declare(self, "store", str, "folder or URL of the episode store; it is made when there is none")
        self._task = declare(self, "task", "", "what is attempted, in words; episode/status overrides it")
        sources = ("unknown", "human", "scripted", "policy")
        self._source = declare(self, "source", "unknown", "who acts in these episodes", choices=sources)
        limit = declare(self, "max_episode_s", 300.0, "longest episode [s], for the disk space", low=1.0, high=86400.0)
        follow = declare(self, "follow_episodes", True, "start and end with episode/status, besides the services")
        listen = declare(
            self, "look_for_others_s", 1.5, "how long to look for another recorder [s]", low=0.0, high=60.0
        )
        name = declare(self, "robot.name", str, "the robot's name; there is one recorder per robot")
        hz = declare(self, "robot.control_hz", float, "the robot's control rate [Hz]", low=0.1, high=10_000.0)
        self._plan = RecordingPlan.from_dict({"name": name, "control_hz": hz}, stream_parameters(self))
        self._instance = {"instance": f"{time.time_ns():020d}-{id(self):x}", "node": self.get_fully_qualified_name()}
        self._heard: tuple[int, str] | None = None
        self._claim(str(url), float(listen))
        self._session = RecordingSession(self._store, self._plan, max_episode_s=limit)
        self._refused = ""
        self._saving: tuple[Future[str] | None, str] = (None, "")
        # Judging and reporting take milliseconds: on the receiving thread, pictures would wait for them.
        self._report_lock, self._closed = threading.RLock(), threading.Event()
        self._failure: Exception | None = None
        self._following: int | None = None
        self._reported: tuple[dict[str, str], int] = ({}, 0)
        self._serve(follow)

    def _claim(self, url: str, listen_s: float) -> None:
        """Open the store and become this robot's only recorder, or refuse."""
        self._status_subscription = self.create_subscription(String, "recorder/status", self._hear, LATCHED)
        until = time.monotonic() + listen_s
        while time.monotonic() < until and self._heard is None:
            rclpy.spin_once(self, timeout_sec=0.05)
        if self._heard is not None:
            raise RecordingError(
                f"another recorder, {self._heard[1]}, is recording these topics already (it publishes "
                f"{self.resolve_topic_name('recorder/status')}); stop that one, or give this one another namespace"
            )
        self._store = self._plan.open_store(url)
        self._lock = RecorderLock(
            self._store.url, self._plan.schema.spec.name, holder=f"node {self.get_fully_qualified_name()}"
        )

    def _serve(self, follow: bool) -> None:
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = self.create_publisher(String, "recorder/status", LATCHED)
        codecs = {name: stream.codec for name, stream in self._store.schema.streams.items()}
        subscribe_all(self, self._plan.streams, codecs, self._take)
        self._listening_ns, self._notes = now_ns(self), EpisodeNotes(self)
        if follow:
            self.create_subscription(String, "episode/status", self._follow, LATCHED)
        services: dict[str, Callable[[], str]] = {
            "start": self._start,
            "stop": lambda: self._wait(self._end("unknown", {})),
            "discard": self._discard,
            "success": lambda: self._label("success"),
            "failure": lambda: self._label("failure"),
        }
        for name, act in services.items():
            self.create_service(Trigger, f"~/{name}", self._answer(act))
        self._reporter = threading.Thread(target=self._keep_watching, name="report", daemon=True)
        self._reporter.start()
        self._check = self.create_timer(1.0, self._raise_failure)

    # Samples

    def _take(self, stream: str, read: Read, msg: Any, sequence: int) -> None:
        received_ns, monotonic_ns = now_ns(self), time.monotonic_ns()
        try:
            stamp_ns, value = read(msg)
        except ValueError as error:  # a SpecError is one, and so is a picture that cannot be decoded
            self._session.refuse(stream, str(error))
            return
        self._session.push(
            stream, stamp_ns, value, received_ns=received_ns, monotonic_ns=monotonic_ns, sequence=sequence
        )

    # Episodes

    def _start(self, task: str = "", seed: int | None = None) -> str:
        if self._heard is not None and time.monotonic_ns() - self._heard[0] < 3 * _REPORT_NS:
            raise RecordingError(f"another recorder, {self._heard[1]}, was here first; stop that one")
        topics = {name: {"topic": self.resolve_topic_name(plan.topic), "type": plan.type, "qos": plan.qos}
                  for name, plan in self._plan.streams.items()}  # fmt: skip
        meta = RecordingMeta(
            task=task if task else self._task, source=self._source, seed=seed, extra=self._notes.begin(topics)
        )
        id = self._session.start(meta, stamp_ns=now_ns(self))
        self._refused = ""
        self._report()
        return f"recording episode {id}"

    def _end(self, outcome: Outcome, changes: dict[str, Any]) -> Future[str]:
        future = self._session.stop(outcome, **changes, **self._notes.end())
        self._saving = (future, outcome)
        self._report()
        return future

    def _wait(self, future: Future[str]) -> str:
        id = future.result(timeout=_SAVE_TIMEOUT_S)
        self._watch()
        verdict = self._store.read(id).meta.extra["quality"]
        bad = {name: s["reasons"][0] for name, s in verdict["streams"].items() if s["level"] != "ok"}
        return f"saved episode {id}; quality {verdict['level']}" + (f": {bad}" if bad else "")

    def _discard(self) -> str:
        id = self._session.discard()
        self._report()
        return f"threw episode {id} away"

    def _label(self, outcome: Outcome) -> str:
        if self._session.state == "recording":
            return self._wait(self._end(*_ENDINGS[outcome]))
        return f"labelled episode {self._session.label(outcome)} as {outcome}"

    def _answer(self, act: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def handle(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.message, response.success = act(), True
            except RobotRLError as error:
                response.message, response.success = str(error), False
                self._refuse(str(error))
            return response

        return handle

    def _refuse(self, why: str) -> None:
        self._refused = why
        self.get_logger().error(why)
        self._report()

    def _follow(self, msg: String) -> None:
        """Do as the supervisor says; an episode that was under way before this node is not recorded in part."""
        try:
            status = json.loads(msg.data)
            running, index = status["state"] == "running", int(status["index"])
            if running and self._following != index:
                self._join(index, status)
            elif not running and self._following is not None:
                self._following = None
                self._finish(status.get("outcome"))
        except RobotRLError as error:
            self._refuse(str(error))
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(
                f"episode/status must be JSON with state, index and started_ns: {error!r} in {msg.data[:200]!r}"
            )

    def _join(self, index: int, status: dict[str, Any]) -> None:
        self._following, missed = index, self._following is not None
        if int(status["started_ns"]) < self._listening_ns:
            raise RecordingError(f"episode {index} began before this recorder; the next one will be recorded")
        if missed and self._session.state == "recording":
            self._end("unknown", {"truncated": True})
        self._start(status.get("task", ""), status.get("seed"))

    def _finish(self, outcome: str | None) -> None:
        if self._session.state != "recording":
            return
        if outcome == "discard":
            self._discard()
            return
        self._end(*_ENDINGS.get(str(outcome), ("unknown", {"truncated": True})))

    # Reports

    def _hear(self, msg: String) -> None:
        """Notice a recorder that was here first; its name begins with the time at which it started."""
        other = json.loads(msg.data)
        if other["instance"] < self._instance["instance"]:
            self._heard = (time.monotonic_ns(), other["node"])

    def _keep_watching(self) -> None:
        try:
            while not self._closed.wait(_WATCH_S):
                self._watch()
        except Exception as error:  # raised again by `_raise_failure`, where the process can end for it
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        """Publish the verdict once a second, and at once when a stream's level changes or an episode was saved."""
        with self._report_lock:
            future, _ = self._saving
            if future is not None and future.done():
                self._saving = (None, "")
                error = future.exception()
                if error is None:
                    self._report()
                elif isinstance(error, RobotRLError):
                    self._refuse(str(error))
                else:
                    raise error
                return
            verdicts = self._session.verdicts()
            before, when = self._reported
            if levels(verdicts) != before or time.monotonic_ns() - when >= _REPORT_NS:
                self._report(verdicts)

    def _report(self, verdicts: Mapping[str, StreamVerdict] | None = None) -> None:
        with self._report_lock:
            verdicts = self._session.verdicts() if verdicts is None else verdicts
            self._reported = (levels(verdicts), time.monotonic_ns())
            spec, who = self._plan.schema.spec, self.get_fully_qualified_name()
            self._diagnostics.publish(
                diagnostics(verdicts, now_ns(self), name=who, robot=spec.name, refused=self._refused)
            )
            saving, outcome = self._saving
            about = {
                **self._instance, "state": "saving" if saving is not None else self._session.state,
                "id": self._session.episode_id, "last_id": self._session.last_id, "saving_as": outcome,
                "refused": self._refused, "waits_for": waits_for(self._session), "robot": spec.name,
                "store": self._store.url,
            }  # fmt: skip
            self._status.publish(String(data=status_json(about, verdicts)))

    def close(self) -> None:
        """Save an episode that is being recorded, truncated, and let another recorder take over."""
        self._closed.set()
        self._reporter.join()
        try:
            self._session.close()
        except RobotRLError as error:
            self.get_logger().error(str(error))
        finally:
            self._lock.release()


def make_node() -> RecorderNode:
    """Return the node in a process that gives way quickly to its receiving thread."""
    sys.setswitchinterval(_SWITCH_S)
    node = RecorderNode()
    gc.collect()
    gc.freeze()  # what is loaded by now is never collected: going through it would halt all threads for 50 ms
    return node


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(make_node, args)


if __name__ == "__main__":
    raise SystemExit(main())
