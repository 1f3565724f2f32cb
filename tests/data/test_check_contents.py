"""Duplicates, leakage, pictures, labels, bounds and damaged files, each planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_rl.data.checks import CheckSettings, Thresholds, check_store
from robot_rl.data.checks.duplicates import nearest_shift
from robot_rl.data.splits import split_episodes
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.values import Recording, Stream
from tests.data.check_stores import (
    SPEC,
    Arrays,
    among_sound,
    arrays,
    fill,
    on_grid,
    only,
    planted,
    raised,
    verdict_on,
)


def cut(data: Arrays, ticks: int, noise: float = 0.0) -> Arrays:
    """Return an episode without its first ticks, and with sensor noise of its own."""
    rng = np.random.default_rng(99)
    rest = {name: rows[ticks:].copy() for name, rows in data.items()}
    rest["q"] += noise * rng.normal(size=rest["q"].shape).astype(np.float32)
    return rest


@pytest.mark.parametrize(("ticks", "noise"), [(0, 1e-3), (7, 0.0), (7, 1e-3), (15, 1e-3)])
def test_an_episode_that_is_nearly_another_names_it_and_the_shift(tmp_path: Path, ticks: int, noise: float):
    store = among_sound(tmp_path, on_grid(cut(arrays(1), ticks, noise)), grid=True)
    verdict = verdict_on(store)
    found = next(f for f in raised(verdict) if f.check == "duplicate")
    assert verdict.measures["duplicates"] == [
        {"a": "e1", "b": "e3", "kind": "near", "difference": pytest.approx(0, abs=0.002), "shift": ticks}
    ]
    assert found.what == "is nearly episode e1" + (f", +{ticks} ticks apart" if ticks else "")
    assert {f.check for f in raised(verdict)} <= {"duplicate", "leakage"}


def test_a_second_copy_is_exact_and_every_copy_names_the_first(tmp_path: Path):
    store = among_sound(tmp_path, on_grid(arrays(1), seed=5), grid=True)
    store.append(on_grid(arrays(1)), id="e9")
    pairs = verdict_on(store).measures["duplicates"]
    assert [(p["a"], p["b"], p["kind"]) for p in pairs] == [("e1", "e3", "exact"), ("e1", "e9", "exact")]


def test_the_shift_between_two_tables_is_found_from_either_side():
    rows = np.random.default_rng(0).normal(size=(100, 3)).cumsum(axis=0).astype(np.float32)
    assert nearest_shift(rows, rows[9:], 20) == (0.0, 9)
    assert nearest_shift(rows[9:], rows, 20) == (0.0, -9)
    assert nearest_shift(rows, rows[::-1], 20)[0] > 1.0


def test_a_duplicate_on_both_sides_of_the_split_that_training_makes_fails_the_store(tmp_path: Path):
    store = among_sound(tmp_path, on_grid(arrays(1), seed=5), grid=True)
    ids = store.ids()
    for seed in range(30):
        split = split_episodes(ids, val_fraction=0.2, seed=seed)
        apart = sum(ids[i] in ("e1", "e3") for i in split.val) == 1
        verdict = check_store(store, CheckSettings(thresholds=Thresholds(), val_fraction=0.2, seed=seed))
        assert [f.check for f in raised(verdict)] == (["leakage", "duplicate"] if apart else ["duplicate"])
        assert verdict.severity == ("fail" if apart else "warn")
        if apart:
            assert "e1 = e3" in verdict.findings[-1].what
            return
    pytest.fail("no split of thirty tore the pair apart")


def blur(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 4)


def over(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(int) + 160, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("check", "change", "severity"),
    [
        ("blur", blur, "warn"),
        ("bright", over, "warn"),
        ("dark", lambda image: np.clip(image.astype(int) - 160, 0, 255).astype(np.uint8), "warn"),
        ("empty", lambda image: np.zeros_like(image), "fail"),
    ],
)
def test_bad_pictures_are_told_from_the_cameras_other_pictures(
    tmp_path: Path, check: str, change: Callable[[np.ndarray], np.ndarray], severity: str
):
    rng = np.random.default_rng(0)

    def fault(data: Arrays) -> None:
        bad = np.stack([change(image) for image in data["camera"]]).astype(int)
        # Bytes that differ, as a camera's do, or it would also stand still.
        data["camera"] = np.clip(bad + rng.integers(0, 3, bad.shape), 0, 255).astype(np.uint8)

    found = only(verdict_on(planted(tmp_path, fault)), check)
    assert (found.severity, found.stream) == (severity, "camera")
    assert found.what.startswith("8 of 8 pictures are")


def test_one_black_picture_warns(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["camera"][:3] = 0

    found = only(verdict_on(planted(tmp_path, fault)), "empty")
    assert (found.severity, found.start_s) == ("warn", 0.0)
    assert found.what == "1 of 8 pictures are empty (one colour) and black"


def test_a_camera_that_hangs_while_the_robot_moves(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["camera"][60:80] = data["camera"][60]

    found = only(verdict_on(planted(tmp_path, fault)), "standstill")
    assert found.value == pytest.approx(0.95, abs=0.1)
    assert found.start_s == pytest.approx(3.0, abs=0.1)
    assert found.severity == "warn"


def with_labels(url: Path, **changes: dict[str, object]) -> EpisodeStore:
    """Return a store of sound episodes with other meta: episode -> its changes."""
    return fill(url, {f"e{i}": on_grid(arrays(i), **changes.get(f"e{i}", {})) for i in range(6)})


def test_outcomes_that_lack_among_others_that_do_not(tmp_path: Path):
    found = only(verdict_on(with_labels(tmp_path, e3={"outcome": "unknown"})), "outcomes", episode="")
    assert found.what == "1 of 6 episodes have no outcome (5 success, 1 unknown)"


def test_a_task_in_two_spellings(tmp_path: Path):
    found = only(verdict_on(with_labels(tmp_path, e3={"task": "Reach "})), "task_spelling", episode="")
    assert found.what == "one task in 2 spellings: 'reach' (5), 'Reach ' (1)"


def test_a_task_with_hardly_any_episodes(tmp_path: Path):
    verdict = verdict_on(with_labels(tmp_path, e3={"task": "pour"}), rare_task=0.3)
    assert only(verdict, "task_balance", episode="").what == "task 'pour' has 1 episodes, the most frequent task 5"


def test_an_episode_of_another_length(tmp_path: Path):
    found = only(verdict_on(among_sound(tmp_path, on_grid(arrays(3, 400)), grid=True)), "length")
    assert found.what == "400 steps, the median of its task is 120"
    assert found.threshold == pytest.approx(360.0)


def test_an_episode_of_a_few_steps(tmp_path: Path):
    found = [
        f for f in raised(verdict_on(among_sound(tmp_path, on_grid(arrays(3, 6)), grid=True))) if f.check == "short"
    ]
    assert [(f.episode, f.value, f.severity) for f in found] == [("e3", 6.0, "warn")]


def rewarded(i: int, *, reward: bool, outcome: str) -> Recording:
    values = np.zeros(120, np.float32)
    values[-1] = float(reward)
    return on_grid({**arrays(i), "reward": values}, outcome=outcome)


@pytest.mark.parametrize(("reward", "outcome"), [(False, "success"), (True, "failure")])
def test_a_reward_that_contradicts_the_outcome(tmp_path: Path, reward: bool, outcome: str):
    sound = {f"e{i}": rewarded(i, reward=i != 5, outcome="success" if i != 5 else "failure") for i in (0, 1, 2, 4, 5)}
    store = fill(tmp_path, {**sound, "e3": rewarded(3, reward=reward, outcome=outcome)})
    found = only(verdict_on(store), "reward")
    assert found.what == f"labelled {outcome}, and its largest reward is {int(reward)}"


def test_terminated_and_truncated_at_once(tmp_path: Path):
    only(verdict_on(planted(tmp_path, terminated=True, truncated=True)), "ending")


def test_an_action_beyond_its_spec(tmp_path: Path):
    def fault(data: Arrays) -> None:
        data["action"][30:42, 3] = 3.5

    found = [f for f in raised(verdict_on(planted(tmp_path, fault))) if f.check == "bounds"]
    assert [(f.episode, f.element, f.value, f.threshold, f.start_s) for f in found] == [("e3", 3, 3.5, 3.0, 1.5)]
    assert "(10 % of the samples are outside)" in found[0].what


def test_nan_in_an_extra_is_told_and_not_held_against_it(tmp_path: Path):
    note = np.zeros((120, 1), np.float32)
    note[:30] = np.nan
    verdict = verdict_on(among_sound(tmp_path, on_grid({**arrays(3), "note": note}), grid=True))
    assert raised(verdict) == []
    found = [f for f in verdict.everything if f.check == "not_finite"]
    assert [(f.episode, f.stream, f.value, f.severity) for f in found] == [("e3", "note", 0.25, "ok")]


def test_a_flipped_byte_fails_the_episode_and_the_others_are_judged(tmp_path: Path):
    store = planted(tmp_path)
    path = next(
        p for p in (tmp_path / "episodes" / "e3" / "q" / "data").rglob("*") if p.is_file() and p.suffix != ".json"
    )
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    found = only(verdict_on(store), "read")
    assert found.severity == "fail"
    assert "checksum must be" in found.what
    trusting = CheckSettings(thresholds=Thresholds(), verify=False)
    assert "read" not in {f.check for f in check_store(EpisodeStore.open(tmp_path), trusting).everything}


def test_a_store_without_episodes_is_fine(tmp_path: Path):
    verdict = verdict_on(fill(tmp_path, []))
    assert (verdict.severity, verdict.everything, verdict.exit_status(strict=True)) == ("ok", [], 0)


def test_one_short_episode_alone_is_judged_without_a_crash(tmp_path: Path):
    store = fill(tmp_path, [on_grid(arrays(0, 1))])
    assert [(f.check, f.severity) for f in raised(verdict_on(store))] == [("short", "fail")]


def test_a_store_of_cameras_only_is_judged_without_a_crash(tmp_path: Path):
    recording = on_grid(arrays(0))
    bare = EpisodeStore.create(tmp_path, SPEC.select(["camera"]), codecs={"camera": "png"})
    streams: dict[str, Stream] = {name: recording.streams[name] for name in ("camera", "action")}
    bare.append(Recording(streams, recording.meta), id="e0")
    assert raised(verdict_on(bare)) == []


@pytest.mark.parametrize("name", [f.name for f in fields(Thresholds) if f.name != "rates_hz"])
def test_a_threshold_that_is_not_positive_is_refused_by_name(name: str):
    with pytest.raises(ConfigError, match=f"`check.thresholds.{name}` must be positive, got 0"):
        Thresholds(**{name: 0})


def test_progress_counts_both_looks(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    check_store(planted(tmp_path), CheckSettings(thresholds=Thresholds()), lambda *pair: seen.append(pair))
    assert seen == [(i, 12) for i in range(1, 13)]
