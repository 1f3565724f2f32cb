"""Metrics of a run: one JSON object a line for programs, TensorBoard events for people."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from robot_rl.errors import ConfigError, MissingExtraError
from robot_rl.files import replace_text

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`, oldest first.

    A last line without its newline was cut off by a kill and is left out.

    Raises:
        ConfigError: A whole line is not a JSON object; the message names file and line.
    """
    records: list[dict[str, Any]] = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {number}: expected a JSON object, got {line[:80]!r}") from error
        if not isinstance(record, dict):
            raise ConfigError(f"{path}, line {number}: expected a JSON object, got {line[:80]!r}")
        records.append(record)
    return records


class MetricWriter:
    """Appends named numbers by step to `folder/metrics.jsonl` and, if asked, to `folder/tensorboard/`.

    Numbers that are not finite are written as `null`, which JSON has, and not as `NaN`, which it has not.

    Args:
        folder: The run's folder; made if absent.
        tensorboard: Write TensorBoard events too.
        resume_step: Continue after this step: records beyond it, left by a process that was killed after its last
            checkpoint, are dropped. `None` starts an empty file.

    Raises:
        MissingExtraError: `tensorboard` is asked for and not installed.
    """

    def __init__(self, folder: str | Path, *, tensorboard: bool = True, resume_step: int | None = None) -> None:
        self.path = Path(folder) / METRICS_FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [] if resume_step is None or not self.path.exists() else read_metrics(self.path)
        _replace_lines(self.path, [record for record in kept if record["step"] <= (resume_step or 0)])
        self._file = self.path.open("a", encoding="utf-8")
        self._events = _TensorBoard(self.path.parent / "tensorboard", resume_step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float], **text: str) -> None:
        """Append one record.

        Args:
            step: Training step, episode number or whatever the run counts.
            values: Number by name, such as `train/loss`.
            text: Words for the record that are not numbers, such as `event="resumed"`; kept out of TensorBoard.
        """
        numbers = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": int(step), **text, **numbers}, allow_nan=False) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(int(step), values)

    def close(self) -> None:
        """Finish both files. Calling it twice is allowed."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _replace_lines(path: Path, records: list[dict[str, Any]]) -> None:
    replace_text(path, "".join(json.dumps(record) + "\n" for record in records))


def _await_a_new_second(folder: Path) -> None:
    """Wait until no event file in `folder` was begun in this second.

    TensorBoard reads the files in the order of their names, which begin with the second: of two of the same second
    the later can come first, and what the resumed run replaced would be shown in its place.
    """
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.02)


class _TensorBoard:
    """Scalar events, written with tensorboard's own writer so that torch is not needed."""

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
            from tensorboard.summary.writer.event_file_writer import (  # type: ignore[import-untyped]
                EventFileWriter,
            )
        except ImportError as error:
            raise MissingExtraError("tensorboard", "train") from error
        self._event, self._summary = event_pb2, summary_pb2
        _await_a_new_second(folder)
        self._writer = EventFileWriter(str(folder))
        if resume_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=resume_step + 1, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=self._summary.Summary(value=scalars))

    def close(self) -> None:
        self._writer.close()

    def _add(self, **fields: Any) -> None:
        # TensorBoard dates its events by the wall clock; nothing here computes with it.
        self._writer.add_event(self._event.Event(wall_time=time.time(), **fields))
