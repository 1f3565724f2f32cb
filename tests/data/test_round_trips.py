"""Store -> another format -> store: the arrays are equal, or the export's list of losses says which are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._round_trip_compare import compare, difference
from benchmarks._round_trip_stores import MADE, PUBLISHED
from benchmarks.round_trips import TRIPS, robosuite_sources, round_trip, untold
from robot_rl.errors import MissingExtraError


def check(store, trip: str, folder: Path) -> dict[str, str]:
    """Return what differs after a round trip, all of which must have been told."""
    try:
        result = round_trip(store, TRIPS[trip], folder / "trip")
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert result["untold"] == [], result
    return result["differing"]


@pytest.mark.parametrize("trip", sorted(TRIPS))
@pytest.mark.parametrize("name", sorted(MADE))
def test_what_a_round_trip_changes_is_told_by_the_export(tmp_path: Path, name: str, trip: str):
    check(MADE[name](tmp_path / "store"), trip, tmp_path)


@pytest.mark.parametrize("trip", ["LeRobot v3.0, PNG", "robomimic", "MCAP"])
def test_arrays_and_labels_of_episodes_on_the_grid_come_back_equal(tmp_path: Path, trip: str):
    differing = check(MADE["pictures, extras, labels"](tmp_path / "store"), trip, tmp_path)
    lerobot = {f"final_obs/{name}" for name in ("q", "force", "camera", "depth")} if "LeRobot" in trip else set()
    assert set(differing) <= {"stamp_ns"} | lerobot


def test_mcap_keeps_recordings_of_several_rates_bit_for_bit(tmp_path: Path):
    assert check(MADE["off grid, three rates"](tmp_path / "store"), "MCAP", tmp_path) == {}


@pytest.mark.parametrize("trip", sorted(TRIPS))
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_data_goes_round(tmp_path: Path, shared_data: Path, name: str, trip: str):
    if trip == "LeRobot v3.0, video" and name == "robosuite stack":
        pytest.skip("it has no pictures, so no videos")
    check(PUBLISHED[name](tmp_path / "store", shared_data), trip, tmp_path)


def test_every_array_of_the_published_robosuite_files_is_in_the_store(tmp_path: Path, shared_data: Path):
    found = robosuite_sources(shared_data, tmp_path)
    assert len(found) == 12
    assert {name: about["wrong"] for name, about in found.items() if about["wrong"]} == {}
    assert sum(about["arrays"] for about in found.values()) >= 40


def test_the_comparison_sees_what_changed(tmp_path: Path):
    a = {"x": np.arange(3.0), "gone": np.zeros(1), "y": np.zeros(2, np.float32), "z": np.zeros(2)}
    b = {"x": np.array([0.0, 1.0, 2.5]), "new": np.zeros(1), "y": np.zeros(2), "z": np.zeros(3)}
    assert difference(a, b) == {
        "gone": "gone", "new": "new", "x": "values differ by up to 0.5", "y": "float32 became float64",
        "z": "shape (2,) became (3,)",
    }  # fmt: skip
    assert untold({"obs/camera": "", "stamp_ns": "", "meta/seed": ""}, {"camera": "why", "stamp_ns": "why"}) == [
        "meta/seed"
    ]
    store, other = MADE["off grid, three rates"](tmp_path / "a"), MADE["off grid, three rates"](tmp_path / "b")
    assert compare(store, other) == {}
    other.relabel("reach-1", outcome="failure")
    assert compare(store, other) == {"meta/outcome": "'unknown' became 'failure'"}
