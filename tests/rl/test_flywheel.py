"""The memory and the data of a run of rounds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.rl.rounds.collection import (
    SEEDS_OF_A_ROUND,
    Composition,
    PlainSink,
    begin_store,
    episodes_of,
    round_seeds,
)  # fmt: skip
from robot_rl.rl.rounds.state import FILE, RunState, StageDone
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

SPEC = RobotSpec(
    name="arm", control_hz=10.0, obs={"q": ArraySpec(name="q", shape=(2,))}, action=ArraySpec(name="action", shape=(2,))
)


def attempt(outcome: str = "success", seed: int = 0, version: str = "", **extra: np.ndarray) -> Recording:
    stamps = np.arange(5, dtype=np.int64) * SPEC.step_ns
    values = np.full((5, 2), seed, np.float32)
    streams = {name: Stream(stamps, values) for name in ("q", "action")}
    streams |= {name: Stream(stamps, value) for name, value in extra.items()}
    return Recording(streams, RecordingMeta(outcome=outcome, seed=seed, policy_version=version, on_grid=True))


def test_a_state_read_again_knows_its_stages_and_the_policy_that_stands(tmp_path: Path) -> None:
    state = RunState(tmp_path, {"seed": 1})
    assert state.policy() is None
    state.record(StageDone(name="a", policy="a", accepted=True, why="", facts={"n": 3}))
    state.record(StageDone(name="b", policy="a", accepted=False, why="worse"))
    again = RunState(tmp_path, {"seed": 1})
    assert again.done == state.done
    assert again.policy() == tmp_path / "a"
    assert again.find("b") is not None
    assert again.find("c") is None
    with pytest.raises(ConfigError, match=r"stage `b` of .* is done already"):
        again.record(StageDone(name="b", policy="b", accepted=True, why=""))
    with pytest.raises(ConfigError, match="`seed` was 1 and is now 2"):
        RunState(tmp_path, {"seed": 2})


def test_a_state_is_on_disk_as_soon_as_a_stage_is_recorded(tmp_path: Path) -> None:
    state = RunState(tmp_path, {})
    state.record(StageDone(name="a", policy="a", accepted=True, why="told"))
    assert json.loads((tmp_path / FILE).read_text())["done"][0]["why"] == "told"


def test_the_runs_store_is_a_copy_that_is_completed_and_the_source_stays(tmp_path: Path) -> None:
    source = EpisodeStore.create(tmp_path / "source", SPEC)
    ids = [source.append(attempt(seed=seed)) for seed in range(4)]
    before = source.digest()
    half = EpisodeStore.create(tmp_path / "run.part", SPEC)
    half.append(source.read(ids[0]), id=ids[0])
    store = begin_store(source, tmp_path / "run", None)
    assert store.digest() == before
    PlainSink(store).append(attempt("failure", seed=9))
    assert (len(store), len(source), source.digest()) == (5, 4, before)
    assert begin_store(source, tmp_path / "few", 2).ids() == source.ids()[:2]
    source.append(attempt(seed=50))
    assert len(begin_store(source, tmp_path / "run", None)) == 5, "what comes later is not of the run"


def test_streams_that_the_store_has_no_place_for_are_left_out(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", SPEC)
    id = PlainSink(store).append(attempt(chain=np.zeros((5, 7), np.float32), reward=np.ones(5, np.float32)))
    assert set(store.read(id).streams) == {"q", "action", "reward"}
    wide = EpisodeStore.create(tmp_path / "wide", SPEC, extra={"chain": ArraySpec(name="chain", shape=(7,))})
    id = PlainSink(wide).append(attempt(chain=np.zeros((5, 7), np.float32)))
    assert "chain" in wide.read(id).streams


def test_a_composition_counts_labels_and_episodes_are_found_by_who_played_them(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", SPEC)
    ids = [
        store.append(attempt(outcome, seed=seed, version=version))
        for seed, (outcome, version) in enumerate([("success", "x"), ("failure", "x"), ("unknown", "y")])
    ]
    assert Composition.of(store) == Composition(3, 1, 1)
    assert Composition.of(store, ids[1:]) == Composition(2, 0, 1)
    assert episodes_of(store, "x") == {0: ids[0], 1: ids[1]}


def test_rounds_never_share_a_seed_even_if_one_is_given_more_episodes() -> None:
    first, longer, second = (round_seeds(100, *of) for of in ((0, 20), (0, SEEDS_OF_A_ROUND), (1, 20)))
    assert list(first) == list(range(100, 120))
    assert not set(longer) & set(second)
    for wrong in (0, SEEDS_OF_A_ROUND + 1):
        with pytest.raises(ConfigError, match=r"algo\.rounds\.episodes"):
            round_seeds(0, 0, wrong)


def test_a_recording_is_not_changed_by_the_sink(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", SPEC)
    recording = attempt(chain=np.zeros((5, 7), np.float32))
    before = replace(recording, streams=dict(recording.streams))
    PlainSink(store).append(recording)
    assert recording.streams.keys() == before.streams.keys()
