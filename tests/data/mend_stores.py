"""Stores to mend, and what of a store must be as before: documents, schema, digest, index, every array's bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from robot_rl.data.mend.fields import plan_drop, plan_rename
from robot_rl.data.mend.join import plan_join
from robot_rl.data.mend.operations import Trim, plan_delete, plan_relabel, plan_split, plan_trim
from robot_rl.data.mend.plan import Mend, Plan
from robot_rl.data.mend.recompute import plan_recompute
from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ArraySpec
from robot_rl.values import Recording, Stream
from tests.contracts.episode_sink import SINK_SPEC, sink_recording
from tests.data.store_data import SPEC, recording

Planner = Callable[[Mend], Plan]
OFF, ON = ["a", "b", "c"], ["g", "h"]

PLANNERS: dict[str, Planner] = {
    "delete": lambda mend: plan_delete(mend, mend.store.ids()[:1]),
    "trim": lambda mend: plan_trim(mend, mend.store.ids(), Trim(head=1, tail=1, unit="steps")),
    "split": lambda mend: plan_split(mend, mend.store.ids()[-1:], [2], unit="steps"),
    "join": lambda mend: plan_join(mend, mend.store.ids()[:2], restamp=True, outcome="failure"),
    "relabel": lambda mend: plan_relabel(mend, mend.store.ids(), task="other"),
    "rename": lambda mend: plan_rename(mend, {next(iter(mend.store.spec.obs)): f"obs{mend.number}"}),
    "drop": lambda mend: plan_drop(mend, [list(mend.store.spec.obs)[-1]]),
    "reward": lambda mend: plan_recompute(mend, mend.store.ids(), "reward_from_outcome"),
}
"""One plan of each kind for whatever is in the store."""


def multi_rate(root: Path, seconds: float = 1.0) -> EpisodeStore:
    """Return a store of joints, camera and commands at their own rates, with every optional stream."""
    store = EpisodeStore.create(root, SPEC, extra={"force": ArraySpec(name="force", shape=(2,))})
    for i, id in enumerate(OFF):
        store.append(full(recording(seconds, outcome=("success", "failure", "unknown")[i], terminated=True)), id=id)
    return store


def full(whole: Recording) -> Recording:
    """Return a recording with the optional streams too; the value of a sample is its index."""
    stamps = whole.streams["action"].stamp_ns
    index = np.arange(len(stamps))
    streams = {
        **whole.streams,
        "action_executed": Stream(stamps, whole.streams["action"].data[:] + np.float32(0.5)),
        "reward": Stream(stamps + 1, index.astype(np.float32)),
        "by_human": Stream(stamps, index % 2 == 0),
        "force": Stream(stamps, np.stack([index, index + 0.25], 1).astype(np.float32)),
    }
    return Recording(streams, whole.meta)


def on_grid(root: Path, n: int = 6) -> EpisodeStore:
    """Return a store of episodes born on the control clock, with their last observation."""
    store = EpisodeStore.create(root, SINK_SPEC)
    for i, id in enumerate(ON):
        store.append(sink_recording(i, n, outcome="success", terminated=True), id=id)
    return store


def state(root: Path | str) -> dict[str, object]:
    """Open a store and return all that an undo must bring back; raises where a checksum is wrong."""
    store = EpisodeStore.open(root)
    for id in store.ids():
        store.verify(id)
    root = Path(root)
    assert sorted(path.name for path in (root / "episodes").iterdir()) == store.ids()
    documents = {id: (root / "episodes" / id / "episode.json").read_bytes() for id in store.ids()}
    return {
        "schema": (root / "store.json").read_bytes(), "documents": documents, "digest": store.digest(),
        "index": store.entries(),
    }  # fmt: skip


def every_byte(root: Path | str) -> dict[str, tuple[bytes, int]]:
    """Return content and time of change of every file below a folder."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


def assert_streams_equal(got: Recording, wanted: Recording) -> None:
    """Assert that two recordings hold the same streams, bit for bit."""
    assert set(got.streams) == set(wanted.streams)
    for name, stream in wanted.streams.items():
        np.testing.assert_array_equal(got.streams[name].stamp_ns, stream.stamp_ns, err_msg=name)
        np.testing.assert_array_equal(got.streams[name].data[:], stream.data[:], err_msg=name)
