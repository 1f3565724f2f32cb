"""What each operation of `robot-rl mend` makes of an episode."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.data.align import Alignment
from robot_rl.data.mend.apply import apply_plan
from robot_rl.data.mend.join import plan_join
from robot_rl.data.mend.operations import Trim, plan_delete, plan_merge, plan_relabel, plan_split, plan_trim
from robot_rl.data.mend.plan import Mend, Plan
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, StoreError
from robot_rl.values import Recording, RecordingMeta, Stream
from tests.contracts.episode_sink import assert_same, sink_recording
from tests.data.mend_stores import assert_streams_equal, full, multi_rate, on_grid
from tests.data.store_data import MS, SPEC, recording

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def mend(store: EpisodeStore) -> Mend:
    return Mend(store, when=WHEN)


def new_ids(plan: Plan) -> list[str]:
    assert apply_plan(plan) is not None
    return [product.id for product in plan.products]


def test_a_part_holds_its_rows_and_the_samples_in_force(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    [id] = new_ids(plan_trim(mend(store), ["a"], Trim(head=0.3, tail=0.4)))
    # The episode runs from 0 ms to one step after the command at 962 ms, so that [300 ms, 612 ms) stays.
    part = store.read(id)
    stamps = {name: (s.stamp_ns[0] / MS, s.stamp_ns[-1] / MS) for name, s in part.streams.items()}
    assert stamps["q"] == (300.0, 662.0), "joints every 2 ms, until one control step later"
    assert stamps["camera"][0] == pytest.approx(5 + 8 * 1000 / 30, abs=1e-3), "the frame in force at 300 ms"
    assert stamps["camera"][1] == pytest.approx(5 + 19 * 1000 / 30, abs=1e-3)
    assert stamps["action"] == stamps["by_human"] == stamps["force"] == (262.0, 562.0)
    assert stamps["reward"] == (pytest.approx(312.0, abs=1e-3), pytest.approx(562.0, abs=1e-3)), (
        "an event, not in force"
    )
    np.testing.assert_array_equal(part.streams["reward"].data[:], np.arange(6, 12, dtype=np.float32))
    np.testing.assert_array_equal(part.streams["action"].data[:, 0], np.arange(5, 12, dtype=np.float32))


def test_coded_pictures_are_copied_as_they_are(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    before = store.read("a").streams["camera"].data
    coded = [before.encoded(i) for i in range(len(before))]  # type: ignore[attr-defined]
    first, second = new_ids(plan_split(mend(store), ["a"], [0.5]))
    parts = [store.read(id).streams["camera"].data for id in (first, second)]
    assert [part.encoded(i) for part in parts for i in range(len(part))] == coded[:17] + coded[14:]  # type: ignore[attr-defined]


def test_each_tick_of_a_part_sees_what_it_saw_in_the_whole(tmp_path: Path):
    store = multi_rate(tmp_path / "s", 2.0)
    whole = store.episode("a")
    q, total = np.array(whole.obs["q"][:]), whole.reward.sum()
    first, second = (store.episode(id) for id in new_ids(plan_split(mend(store), ["a"], [0.705])))
    n = len(first)
    assert first.final_obs is not None, "the last command before the cut has its next observation"
    np.testing.assert_array_equal(first.final_obs["q"], q[n])
    np.testing.assert_array_equal(first.obs["q"][:], q[:n])
    np.testing.assert_array_equal(first.action, whole.action[:n])
    # A joint sample every 2 ms, a command every 50 ms from 12 ms, each with its index as value.
    ms = second.stamp_ns / MS
    assert 705 - 1000 / 30 <= ms[0] <= 705
    np.testing.assert_array_equal(second.obs["q"][:][:, 0], np.floor(ms / 2))
    np.testing.assert_array_equal(second.action[:, 0], np.ceil((ms - 12) / 50))
    assert second.valid.all()
    assert first.reward.sum() + second.reward.sum() == total


def test_parts_on_the_grid_keep_rows_and_final_observation(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    whole = {name: np.array(stream.data[:]) for name, stream in store.read("g").streams.items()}
    first, second = new_ids(plan_split(mend(store), ["g"], [2], unit="steps"))
    a, b = store.episode(first), store.episode(second)
    assert (len(a), len(b)) == (2, 4)
    assert a.final_obs is not None
    assert b.final_obs is not None
    np.testing.assert_array_equal(a.final_obs["q"], whole["q"][2])
    np.testing.assert_array_equal(b.final_obs["q"], whole["q"][6])
    np.testing.assert_array_equal(b.action, whole["action"][2:])
    assert store.read(second).meta.on_grid


def test_labels_of_parts_tell_how_they_ended(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    first, second = (store.read(id).meta for id in new_ids(plan_split(mend(store), ["g"], [2], unit="steps")))
    assert (first.outcome, first.terminated, first.truncated) == ("unknown", False, True)
    assert (second.outcome, second.terminated, second.truncated) == ("success", True, False)
    [kept] = new_ids(plan_trim(mend(store), ["h"], Trim(tail=1, unit="steps"), outcome="keep"))
    meta = store.read(kept).meta
    assert (meta.outcome, meta.terminated, meta.truncated) == ("success", False, True)


def test_provenance_tells_operation_parents_time_version_and_arguments(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    [first] = new_ids(plan_trim(mend(store), ["g"], Trim(head=1, unit="steps")))
    [second] = new_ids(plan_trim(mend(store), [first], Trim(tail=0.1)))
    earlier, later = store.read(second).meta.extra["provenance"]
    assert (earlier["operation"], earlier["parents"], earlier["transaction"]) == ("trim", ["g"], 1)
    assert earlier["when"] == "2026-01-02T03:04:05+00:00"
    assert earlier["arguments"]["start_ns"] == 100_000_000
    assert (later["parents"], later["arguments"]["stop_ns"]) == ([first], 500_000_000)
    assert second == "g.m1.m2"
    assert store.ids() == ["g.m1.m2", "h"], "a part stands where its parent stood"


def test_the_recorders_verdict_stays_with_the_whole(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    id = store.append(recording(1.0, extra={"quality": {"level": "bad"}, "note": 1}))
    [part] = new_ids(plan_trim(mend(store), [id], Trim(head=0.2)))
    assert set(store.read(part).meta.extra) == {"note", "provenance"}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(20, 900), min_size=1, max_size=3, unique=True), grid=st.booleans())
def test_split_then_join_gives_the_same_arrays(cuts: list[int], grid: bool):
    with tempfile.TemporaryDirectory() as folder:
        store = on_grid(Path(folder) / "s", 12) if grid else multi_rate(Path(folder) / "s")
        id = store.ids()[0]
        wanted = store.read(id)
        wanted = Recording({n: Stream(s.stamp_ns, np.array(s.data[:])) for n, s in wanted.streams.items()}, wanted.meta)
        plan = plan_split(mend(store), [id], sorted(cut / 1000 for cut in cuts))
        if plan.skipped:  # two cuts within one control step leave a part without a command
            return
        parts = new_ids(plan)
        [joined] = new_ids(plan_join(mend(store), parts))
        assert_streams_equal(store.read(joined), wanted)
        meta = store.read(joined).meta
        assert (meta.outcome, meta.terminated, meta.truncated) == (wanted.meta.outcome, True, wanted.meta.truncated)
        store.verify(joined)


def test_join_refuses_what_is_not_one_attempt(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    with pytest.raises(StoreError, match=r"episode b begins 0\.950 s before the last command of the one before it"):
        plan_join(mend(store), ["a", "b"])
    later = {n: Stream(s.stamp_ns + 3_000 * MS, s.data) for n, s in recording(0.5).streams.items()}
    store.append(full(Recording(later, recording(0.5).meta)), id="later")
    with pytest.raises(StoreError, match=r"begins 2\.050 s after the last command .* at most 1\.000 s"):
        plan_join(mend(store), ["a", "later"])
    store.append(full(recording(0.5, seed=9)), id="other")
    with pytest.raises(StoreError, match=r"a and other differ in \['seed'\]"):
        plan_join(mend(store), ["a", "other"])
    with pytest.raises(ConfigError, match="needs two or more"):
        plan_join(mend(store), ["a"])


def test_join_refuses_overlap_that_differs(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    first, second = new_ids(plan_split(mend(store), ["a"], [0.5]))
    part = store.read(second)
    streams = {**part.streams, "q": Stream(part.streams["q"].stamp_ns, part.streams["q"].data[:] + np.float32(1))}
    store.append(Recording(streams, part.meta), id="changed")
    with pytest.raises(StoreError, match="stream `q` overlaps: the later episode has another sample at"):
        plan_join(mend(store), [first, "changed"])


def test_join_restamps_imports_that_count_from_zero(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    store.relabel("h", task="count")
    store.append(sink_recording(0, 3, outcome="failure"), id="i")
    with pytest.raises(StoreError, match="or `restamp` those that count from zero"):
        plan_join(mend(store), ["g", "i"])
    [id] = new_ids(plan_join(mend(store), ["g", "i"], restamp=True))
    got = store.read(id)
    q = [row[0] for row in got.streams["q"].data[:]]
    assert q == [0, 10, 20, 30, 40, 50, 0, 10, 20, 30], "the earlier one's last observation gives way"
    np.testing.assert_array_equal(got.streams["action"].stamp_ns, np.arange(9) * 100 * MS)
    assert (got.meta.outcome, got.meta.on_grid) == ("failure", True)


def test_idle_ends_are_found_and_trimmed(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    store.append(_still(1.0, 1.5), id="still-ends")
    store.append(_still(0.0, 0.0), id="moving")
    plan = plan_trim(mend(store), store.ids(), Trim(idle=True, keep_s=0.1), outcome="keep")
    assert plan.skipped == {"moving": "nothing to take off"}
    [id] = new_ids(plan)
    stamps = store.read(id).streams["action"].stamp_ns / MS
    # Moves from 1.0 s to 3.0 s of 4.5 s; 0.1 s stays at each end, give or take a tick and the 2 % that may wander.
    assert stamps[0] == pytest.approx(912, abs=110)
    assert stamps[-1] == pytest.approx(3062, abs=110)
    assert store.read(id).meta.outcome == "success"


def _still(head_s: float, tail_s: float) -> Recording:
    seconds = 2.0 + head_s + tail_s
    whole = recording(seconds, outcome="success")

    def ramp(stamp_ns: np.ndarray) -> np.ndarray:
        return np.clip(stamp_ns / 1e9 - head_s, 0, 2.0).astype(np.float32)

    q, action = whole.streams["q"].stamp_ns, whole.streams["action"].stamp_ns
    return Recording(
        {
            "q": Stream(q, np.repeat(ramp(q)[:, None], 7, 1)),
            "camera": whole.streams["camera"],
            "action": Stream(action, np.repeat(ramp(action)[:, None], 2, 1)),
        },
        whole.meta,
    )


def test_relabel_changes_labels_and_nothing_else(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    digest, before = store.digest(), store.read("g")
    plan = plan_relabel(mend(store), ["g", "h"], outcome="failure", task="pour")
    apply_plan(plan)
    assert [(e.outcome, e.task) for e in EpisodeStore.open(store.url).entries()] == [("failure", "pour")] * 2
    assert store.digest() == digest
    assert_streams_equal(store.read("g"), before)
    assert store.read("g").meta.extra["provenance"][0]["arguments"] == {"outcome": "failure", "task": "pour"}
    again = plan_relabel(mend(store), ["g", "h"], outcome="failure", task="pour")
    assert (again.changes, again.skipped["g"]) == ((), "it has these labels")
    assert apply_plan(again) is None


def test_merge_copies_episodes_and_their_labels(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    other = on_grid(tmp_path / "o")
    other.append(sink_recording(7, outcome="failure"), id="new")
    assert new_ids(plan_merge(mend(store), other)) == ["new"]
    assert_same(store.read("new"), other.read("new"))
    assert store.digest() == other.digest()
    with pytest.raises(StoreError, match="their schemas differ"):
        plan_merge(mend(store), multi_rate(tmp_path / "m"))


def test_delete_moves_to_the_trash(tmp_path: Path):
    store = on_grid(tmp_path / "s")
    apply_plan(plan_delete(mend(store), ["g"]))
    assert store.ids() == ["h"]
    assert (tmp_path / "s" / "trash" / ".mend" / "000001" / "out" / "g" / "episode.json").exists()


def test_what_cannot_be_cut_is_left_with_its_reason(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    plan = plan_split(mend(store), ["a"], [0.52, 0.55])
    assert "no command lies in the part" in plan.skipped["a"]
    plan = plan_split(mend(store), ["a"], [7.0])
    assert "7.0 s lies outside of the episode, which has 1.012 s" in plan.skipped["a"]
    plan = plan_trim(mend(store), ["a"], Trim(head=0.6, tail=0.5))
    assert plan.skipped["a"] == "0.6 + 0.5 s off 1.012 s leaves nothing"
    with pytest.raises(ConfigError, match="moments that grow"):
        plan_split(mend(store), ["a"], [0.5, 0.5])
    with pytest.raises(ConfigError, match="say how much to take off"):
        Trim()
    with pytest.raises(ConfigError, match="`outcome` must be one of"):
        plan_split(mend(store), ["a"], [0.5], outcome="great")


def test_a_flipped_bit_is_not_given_a_new_checksum(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    chunk = tmp_path / "s" / "episodes" / "a" / "q" / "data" / "c.0.0"
    data = bytearray(chunk.read_bytes())
    data[5000] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match=r"the store .* is as it was: episode a, array `q/data`: checksum must be"):
        apply_plan(plan_trim(mend(store), ["a"], Trim(head=0.2)))
    assert store.ids() == ["a", "b", "c"]


def test_a_store_behind_a_url_is_refused_before_anything_changes():
    store = EpisodeStore.create("memory://mend", SPEC)
    with pytest.raises(StoreError, match="lies behind a URL, where many files cannot change as one"):
        Mend(store)


def test_alignment_with_latency_still_fits_a_part(tmp_path: Path):
    store = multi_rate(tmp_path / "s")
    [id] = new_ids(plan_trim(mend(store), ["a"], Trim(head=0.3, tail=0.3)))
    episode = store.episode(id, Alignment(latency_ns={"camera": 20 * MS}, max_age_ns=60 * MS))
    assert episode.valid.all()
    assert len(episode) >= 8
    assert isinstance(episode.meta, RecordingMeta)
