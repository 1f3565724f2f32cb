"""Episodes that are parts of one attempt, put together as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robot_rl.data.mend.cut import span
from robot_rl.data.mend.episodes import encoded, part
from robot_rl.data.mend.plan import Change, Mend, Plan, check_outcome
from robot_rl.errors import ConfigError, StoreError
from robot_rl.values import Recording, Stream

SAME = ("task", "source", "on_grid", "policy_version", "calibration_id", "seed")
"""What episodes must share to be parts of one attempt."""


def plan_join(
    mend: Mend, ids: Sequence[str], *, outcome: str | None = None, max_gap_s: float = 1.0, restamp: bool = False
) -> Plan:
    """Plan to make one episode of some that are parts of one attempt.

    Args:
        mend: The store.
        ids: Two or more episodes, in the order of time.
        outcome: Label of the whole; by default that of the last part.
        max_gap_s: How long at most between the last command of one and the first of the next.
        restamp: Move each later episode in time to where the earlier one ends: for imports that count from zero.

    Raises:
        ConfigError: Fewer than two episodes.
        StoreError: They are not parts of one attempt, or overlap.
    """
    check_outcome(outcome)
    if len(ids) < 2:
        raise ConfigError(f"`join` needs two or more episodes, got {list(ids)}")
    step_ns = mend.store.spec.step_ns

    def build() -> list[Recording]:
        recordings = [mend.recording(id) for id in ids]
        return without_overlap(_one_after_another(recordings, mend) if restamp else recordings)

    recordings = [mend.recording(id) for id in ids]
    _check_alike(ids, recordings)
    if not restamp:
        _check_gaps(ids, recordings, step_ns, max_gap_s)
    last = recordings[-1].meta
    extra = {key: value for r in recordings for key, value in r.meta.extra.items() if key != "quality"}
    meta = replace(last, outcome=last.outcome if outcome is None else outcome, extra=extra)  # type: ignore[arg-type]
    product = mend.product(mend.new_id(ids[-1]), mend.explain(meta, "join", ids, restamp=restamp), ids, build)
    what = f"{len(ids)} episodes -> one of {product.steps} steps"
    change = Change(episode=ids[0], what=what, out=tuple(ids), products=(product,))
    arguments = {"episodes": list(ids), "max_gap_s": max_gap_s, "restamp": restamp, "set": outcome}
    return mend.plan("join", [change], arguments=arguments)


def without_overlap(recordings: Sequence[Recording]) -> list[Recording]:
    """Return recordings without the samples that the one before holds too: written one after the other they are one.

    Raises:
        StoreError: They overlap in time and differ there.
    """
    before: dict[str, Stream] = {}
    parts = []
    for recording in recordings:
        streams = {name: _after(stream, name, before.get(name)) for name, stream in recording.streams.items()}
        before |= recording.streams
        parts.append(Recording(streams, recording.meta))
    return parts


def _after(stream: Stream, name: str, before: Stream | None) -> Stream:
    if before is None or len(before) == 0:
        return stream
    new = int(np.searchsorted(stream.stamp_ns, before.stamp_ns[-1], side="right"))
    for i in range(new):
        j = int(np.searchsorted(before.stamp_ns, stream.stamp_ns[i]))
        if before.stamp_ns[j] != stream.stamp_ns[i] or encoded(before, j) != encoded(stream, i):
            raise StoreError(
                f"stream `{name}` overlaps: the later episode has another sample at {int(stream.stamp_ns[i])} ns, "
                "before the earlier one ends; only episodes that follow each other can be joined"
            )
    return part(stream, new, len(stream))


def _check_alike(ids: Sequence[str], recordings: Sequence[Recording]) -> None:
    first = recordings[0]
    for id, other in zip(ids, recordings, strict=True):
        differ = [name for name in SAME if getattr(other.meta, name) != getattr(first.meta, name)]
        if first.meta.on_grid and set(other.streams) != set(first.streams):
            differ.append("streams")
        if differ:
            raise StoreError(f"episodes {ids[0]} and {id} differ in {differ}, which parts of one attempt share")


def _one_after_another(recordings: Sequence[Recording], mend: Mend) -> list[Recording]:
    moved = [recordings[0]]
    for recording in recordings[1:]:
        end = span(moved[-1], mend.store.spec)[1]
        by = end - int(recording.streams["action"].stamp_ns[0])
        later = {name: Stream(s.stamp_ns + by, s.data) for name, s in recording.streams.items()}
        # What the earlier one saw once the later one begins gives way to what the later one saw.
        begins = min(int(s.stamp_ns[0]) for s in later.values())
        earlier = moved[-1].streams.items()
        kept = {n: part(s, 0, int(np.searchsorted(s.stamp_ns, min(end, begins)))) for n, s in earlier}
        moved[-1] = Recording({n: s for n, s in kept.items() if len(s)}, moved[-1].meta)
        moved.append(Recording(later, recording.meta))
    return moved


def _check_gaps(ids: Sequence[str], recordings: Sequence[Recording], step_ns: int, max_gap_s: float) -> None:
    for id, a, b in zip(ids[1:], recordings, recordings[1:], strict=False):
        last, commands = int(a.streams["action"].stamp_ns[-1]), b.streams["action"].stamp_ns
        new = commands[commands > last]
        if commands[0] < last or len(new) == 0:
            raise StoreError(
                f"episode {id} begins {(last - int(commands[0])) / 1e9:.3f} s before the last command of the one "
                "before it; give the episodes in the order of time, or `restamp` those that count from zero"
            )
        gap = int(new[0]) - last
        allowed = 1.5 * step_ns / 1e9 if a.meta.on_grid else max_gap_s
        if gap / 1e9 > allowed:
            raise StoreError(
                f"episode {id} begins {gap / 1e9:.3f} s after the last command of the one before it, at most "
                f"{allowed:.3f} s are allowed: a policy would learn from the gap"
            )
