"""What every `EpisodeSink` must hold: call `check_episode_sink` with an empty one for `SINK_SPEC`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from robot_rl.errors import SpecError
from robot_rl.interfaces import EpisodeSink
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

SINK_SPEC = RobotSpec(
    name="sink",
    obs={"q": ArraySpec(name="q", shape=(3,), unit="rad"), "force": ArraySpec(name="force", shape=(), unit="N")},
    action=ActionSpec(name="action", shape=(2,), unit="rad"),
    control_hz=10.0,
)


def sink_recording(number: int, n: int = 6, **meta: object) -> Recording:
    """Return an on-grid recording whose every value tells episode, row and column: 1000 number + 10 row + column."""
    stamps = np.arange(n + 1, dtype=np.int64) * 100_000_000
    row = 1000 * number + 10 * np.arange(n + 1, dtype=np.float32)
    streams = {
        "q": Stream(stamps, (row[:, None] + np.arange(3)).astype(np.float32)),
        "force": Stream(stamps, row),
        "action": Stream(stamps[:n], (row[:n, None] + np.arange(2)).astype(np.float32)),
        "reward": Stream(stamps[:n], np.ones(n, np.float32)),
    }
    return Recording(streams, replace(RecordingMeta(task="count", on_grid=True, seed=number), **meta))  # type: ignore[arg-type]


def check_episode_sink(sink: EpisodeSink, read: Callable[[str], Recording]) -> None:
    """Assert the contract of a place for episodes.

    Args:
        sink: An empty one for `SINK_SPEC`.
        read: Returns what it keeps under an id.
    """
    assert isinstance(sink, EpisodeSink)
    ids = [sink.append(sink_recording(i, n=3 + i)) for i in range(4)]
    assert len(set(ids)) == 4, "every append needs an id of its own"
    for i, id in enumerate(ids):
        assert_same(read(id), sink_recording(i, n=3 + i))
    _check_refusals(sink)
    for i, id in enumerate(ids):
        assert_same(read(id), sink_recording(i, n=3 + i))
    _check_copies(sink, read)


def assert_same(got: Recording, wanted: Recording) -> None:
    """Assert that two recordings hold the same streams, bit for bit, and the same meta."""
    assert set(got.streams) == set(wanted.streams)
    for name, stream in wanted.streams.items():
        assert got.streams[name].data.dtype == stream.data.dtype
        np.testing.assert_array_equal(got.streams[name].stamp_ns, stream.stamp_ns, err_msg=name)
        np.testing.assert_array_equal(got.streams[name].data[:], stream.data[:], err_msg=name)
    assert got.meta == wanted.meta


def _check_refusals(sink: EpisodeSink) -> None:
    """A recording that is not what the schema says is refused by name; tests of the sink see that nothing stays."""
    good = sink_recording(9)
    q = good.streams["q"]
    nan = q.data[:].copy()
    nan[2, 1] = np.nan
    bad = {
        r"\['force'\] are required": {k: v for k, v in good.streams.items() if k != "force"},
        "unknown stream `extra`": {**good.streams, "extra": q},
        "`q` must be float32.*got float64": {**good.streams, "q": Stream(q.stamp_ns, q.data[:].astype(np.float64))},
        "`q` must be finite, got nan": {**good.streams, "q": Stream(q.stamp_ns, nan)},
        "`q`: stamp_ns must grow": {**good.streams, "q": Stream(q.stamp_ns[::-1].copy(), q.data)},
        "`reward` is off the control grid": {
            **good.streams,
            "reward": Stream(good.streams["action"].stamp_ns + 1, good.streams["reward"].data),
        },
    }
    for message, streams in bad.items():
        with pytest.raises(SpecError, match=message):
            sink.append(Recording(streams, good.meta))


def _check_copies(sink: EpisodeSink, read: Callable[[str], Recording]) -> None:
    """What was appended does not change with the caller's arrays."""
    given = sink_recording(5)
    id = sink.append(given)
    given.streams["q"].data[:] = -1.0  # type: ignore[index]
    assert_same(read(id), sink_recording(5))
