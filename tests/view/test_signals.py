"""Names, gaps and which state follows which command."""

import numpy as np
import pytest

from robot_rl.data.align import Alignment, to_episode
from robot_rl.specs import ArraySpec
from robot_rl.values import RecordingMeta, Stream
from robot_rl.view.signals import Gap, element_names, element_units, find_gaps, followed_states, from_extra, spells
from tests.view.view_data import MS, SPEC, recording

Q = ArraySpec(name="state", shape=(3,), unit="px, px, rad")


@pytest.mark.parametrize("names", [["x", "y", "th"], [["x", "y", "th"]], {"motors": ["x", "y", "th"]}])
def test_an_imports_element_names_are_kept_flat_nested_or_under_a_key(names):
    features = {"observation.state": {"names": names}, "other": {"names": ["a", "b", "c"]}}
    imported = {"features": features, "streams": {"observation.state": "state", "other": "force"}}
    assert element_names(Q, RecordingMeta(extra={"imported": imported})) == ["x", "y", "th"]


@pytest.mark.parametrize("names", [None, ["x", "y"], ["x", "x", "y"], "state"])
def test_names_that_do_not_fit_the_sample_give_way_to_indices(names):
    imported = {"features": {"f": {"names": names}}, "streams": {"f": "state"}}
    assert element_names(Q, RecordingMeta(extra={"imported": imported})) == ["0", "1", "2"]
    assert element_names(Q, RecordingMeta()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "imported", [0.5, "lerobot", {"features": 3}, {"streams": {"f": "state"}, "features": {"f": ["x", "y", "th"]}}]
)
def test_something_else_under_the_name_of_what_an_import_notes_is_nothing_noted(imported):
    assert element_names(Q, RecordingMeta(extra={"imported": imported})) == ["0", "1", "2"]


def test_what_was_noted_is_found_one_name_within_another():
    meta = RecordingMeta(extra={"quality": {"level": "warn", "streams": {"front": {"gaps": 1}}}, "imported": 0.5})
    assert from_extra(meta, "quality", "streams", "front") == {"gaps": 1}
    assert (
        from_extra(meta, "quality", "level")
        == from_extra(meta, "imported", "streams")
        == from_extra(meta, "operator")
        == {}
    )


def test_a_list_of_units_is_one_for_each_element_and_a_single_one_is_for_all():
    assert element_units(Q) == ["px", "px", "rad"]
    assert element_units(ArraySpec(name="q", shape=(3,), unit="rad")) == ["rad"] * 3


def test_a_gap_is_longer_than_three_periods_and_has_the_stamps_of_both_ends():
    stamps = 20 * MS * np.array([0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 16], np.int64)
    found = find_gaps(Stream(stamps, np.zeros(12)))
    assert found == [Gap(20 * MS * 8, 20 * MS * 12)]  # 60 ms is three periods and not more
    assert len(find_gaps(Stream(stamps, np.zeros(12)), rate_hz=100.0)) == 2


def test_a_stream_that_comes_when_something_happens_has_no_gaps():
    stamps = np.cumsum(np.array([1, 1, 1, 40, 1, 90, 1, 7, 1, 30, 1, 200, 1], np.int64)) * MS
    assert find_gaps(Stream(stamps, np.zeros(len(stamps)))) == []


def test_spells_start_where_a_label_changes():
    assert spells(["a", "a", "b", "a"]) == [(0, "a"), (2, "b"), (3, "a")]
    assert spells([]) == []


def test_each_command_is_matched_with_the_joint_that_follows_it():
    episode = to_episode(recording(), SPEC, Alignment(), id="e")
    assert followed_states(episode, SPEC.obs) == {0: ("q", 0), 1: ("q", 1)}


def test_nothing_follows_a_command_of_another_scale_or_one_that_never_moves():
    moved = recording()
    streams = dict(moved.streams)
    action = np.array(streams["action"].data[:])
    action[:, 0] *= 10
    action[:, 1] = 0.5
    streams["action"] = Stream(streams["action"].stamp_ns, action)
    episode = to_episode(type(moved)(streams, moved.meta), SPEC, Alignment(), id="e")
    assert followed_states(episode, SPEC.obs) == {}
