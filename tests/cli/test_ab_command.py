"""Two bundles of known answers, compared in simulation and through the keys of a real terminal."""

import json
import os
import pty
import signal
import threading
import time
from pathlib import Path

import pytest
from omegaconf import DictConfig
from rich.console import Console

pytest.importorskip("onnx", reason="onnx is not installed here; pip install 'robot-rl[train]'")

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.accepted import POINTER, read_accepted
from robot_rl.cli.ab_command import RobotCell, run
from robot_rl.cli.config import load_config
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import TeleopError
from robot_rl.evaluation.ab import SHEET, Trial
from robot_rl.evaluation.rollback import promote
from robot_rl.teleop.keyboard import KeyboardSource
from tests.cli.hand_bundle import hand_bundle

EASY = ["++task.env.catch_m=0.45", "++task.env.hold_steps=3", "++task.env.max_steps=8"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    hand_bundle(folder / "one", created="2026-01-01T00:00:00+00:00")
    hand_bundle(folder / "two", way=(0.3, 0.0), created="2026-02-01T00:00:00+00:00")
    return folder


def arguments(bundles: Path, out: Path, *more: str) -> list[str]:
    pair = f"ab.bundles=[{bundles / 'one'},{bundles / 'two'}]"
    return ["task=intercept", f"ab.out={out}", pair, *EASY, *more]


def test_a_simulated_comparison_stores_its_episodes_by_trial_and_ends_with_intervals(bundles, tmp_path, capsys):
    store = tmp_path / "store"
    given = arguments(bundles, tmp_path / "ab", "ab.plan.trials=4", f"ab.store={store}")
    assert main(["ab", *given]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "two-sided p: Barnard" in said
    found = json.loads((tmp_path / "ab" / "comparison.json").read_text())
    assert set(found["bundles"]) == {"A", "B"}
    assert all(0.0 <= found[arm]["low"] <= found[arm]["value"] <= found[arm]["high"] for arm in "AB")
    metas = [EpisodeStore.open(store).read(id).meta for id in EpisodeStore.open(store).ids()]
    assert sorted(meta.extra["trial"] for meta in metas) == [f"ab/{slot:04d}.0" for slot in range(8)]
    seeds: dict[str, list[int]] = {}
    for meta in metas:
        seeds.setdefault(meta.policy_version, []).append(meta.seed)
    assert [sorted(s) for s in seeds.values()] == [list(range(400_000, 400_004))] * 2
    rows = (tmp_path / "ab" / SHEET).read_text()
    assert main(["ab", *given]) == 0  # over: the key is opened again and nothing is played
    assert (tmp_path / "ab" / SHEET).read_text() == rows


def test_an_operator_labels_by_keys_and_the_pointer_says_who_drives(bundles, tmp_path):
    config = load_config(
        arguments(bundles, tmp_path, "ab.where=robot", f"ab.folder={bundles}", "ab.plan.trials=1", "ab.plan.block=2")
    )
    terminal, other = pty.openpty()
    drove: list[str] = []

    def press() -> None:
        for key in (b"41", b"x", b"22", b"1", b"231"):  # two presses of one key are one label, and 1 confirms it
            before = len((tmp_path / SHEET).read_text().splitlines()) if (tmp_path / SHEET).exists() else 0
            while (accepted := read_accepted(bundles)) is None:
                time.sleep(0.01)
            drove.append(f"{accepted.bundle} {accepted.trial}")
            time.sleep(0.1)
            os.write(terminal, key)
            while key not in (b"x", b"22") and len((tmp_path / SHEET).read_text().splitlines()) <= before:
                time.sleep(0.01)
            time.sleep(0.1)

    operator = threading.Thread(target=press, daemon=True)
    operator.start()
    assert run(config, Console(quiet=True), keys=lambda: KeyboardSource(fd=other)) == 0
    operator.join(timeout=5)
    labels = [json.loads(line)["label"] for line in (tmp_path / SHEET).read_text().splitlines()[1:]]
    assert labels == ["void", "success", "failure"]
    assert [text.split()[1] for text in drove] == ["ab/0000.0", "ab/0000.1", "ab/0000.1", "ab/0000.1", "ab/0001.0"]
    assert drove[0].split()[0] == drove[1].split()[0] != drove[4].split()[0]
    assert not (bundles / POINTER).exists()  # nobody was named before
    os.close(terminal)


@pytest.fixture
def driven(bundles):
    """The folder with a bundle that was promoted, and who drives there."""
    old, new = (PolicyBundle.open(bundles / name).id for name in ("one", "two"))
    yield promote(bundles, new, incumbent=old, successes=47, trials=50, reason="validated")
    (bundles / POINTER).unlink()


def on_the_robot(bundles: Path, out: Path) -> DictConfig:
    return load_config(arguments(bundles, out, "ab.where=robot", f"ab.folder={bundles}", "ab.plan.trials=2"))


@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "terminal"])
def test_who_drove_before_drives_again_however_a_session_ends(bundles, driven, tmp_path, end):
    terminal, other = pty.openpty()

    def act() -> None:
        while not read_accepted(bundles).trial:
            time.sleep(0.01)
        time.sleep(0.1)
        os.close(terminal) if end == "terminal" else os.kill(os.getpid(), signal.Signals[end])

    threading.Thread(target=act, daemon=True).start()
    with pytest.raises(TeleopError if end == "terminal" else KeyboardInterrupt):
        run(on_the_robot(bundles, tmp_path), Console(quiet=True), keys=lambda: KeyboardSource(fd=other))
    assert read_accepted(bundles) == driven
    if end != "terminal":
        os.close(terminal)


def test_a_session_that_is_killed_loses_nothing_of_who_drove_before(bundles, driven, tmp_path):
    config, trial = on_the_robot(bundles, tmp_path), Trial(0, 0, "A", 0)
    terminal, other = pty.openpty()
    killed = RobotCell(config, Console(quiet=True), KeyboardSource(fd=other))
    waiting = threading.Thread(target=killed.play, args=(trial, driven.incumbent), daemon=True)
    waiting.start()
    while read_accepted(bundles) == driven:
        time.sleep(0.01)
    again = RobotCell(config, Console(quiet=True), KeyboardSource(fd=other))
    again.close()
    assert read_accepted(bundles) == driven
    os.write(terminal, b"21")
    waiting.join(timeout=5)


def test_what_cannot_be_compared_is_refused(bundles, tmp_path, capsys):
    assert main(["ab", *arguments(bundles, tmp_path, "ab.where=moon")]) == 2
    assert "`ab.where` be sim or robot" in " ".join(capsys.readouterr().out.split())
    assert main(["ab", *arguments(bundles, tmp_path, "ab.where=robot")]) == 2
    assert "needs `ab.folder`" in " ".join(capsys.readouterr().out.split())
