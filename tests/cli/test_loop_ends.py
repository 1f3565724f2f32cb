"""How `robot-rl loop` ends: at its time, by Ctrl-C, by a second one; and times that cannot be."""

import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import load_config
from robot_rl.cli.loop_command import run
from robot_rl.errors import ConfigError
from robot_rl.values import Tick
from tests.cli.still_arm import StillArm, still
from tests.ros.formula_bundle import formula_bundle


class Interrupting(StillArm):
    """Presses Ctrl-C `times` times during its third step.

    Args:
        file: As `StillArm`.
        times: How often.
    """

    def __init__(self, file: str, times: int) -> None:
        super().__init__(file)
        self._times = times

    def step(self, action: np.ndarray) -> Tick:
        tick = super().step(action)
        if len(self._actions) == 3:
            for _ in range(self._times):
                signal.raise_signal(signal.SIGINT)
        return tick


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Ctrl-C as in a terminal: a process that was started in the background begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    return formula_bundle(tmp_path_factory.mktemp("loop") / "bundle", per_step=1e-3)


def _interrupted(bundle: PolicyBundle, folder: Path, times: int) -> list[str]:
    words = still(bundle.path, folder, "loop.seconds=60", f"+task.env.times={times}")
    return [word.replace("still_arm.StillArm", "test_loop_ends.Interrupting") for word in words]


def test_ctrl_c_ends_the_loop_between_two_ticks_and_the_figures_are_told(
    bundle: PolicyBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    console = Console(record=True, width=200, quiet=False, file=(tmp_path / "console").open("w"))
    with caplog.at_level(logging.WARNING), console.file:
        report = run(load_config(_interrupted(bundle, tmp_path, 1)), console)
    told = console.export_text()
    assert "ended by Ctrl-C after 0.1 of 60 s: nothing more is commanded" in told  # 3 ticks at 20 Hz
    assert "control loop on `lift`" in told
    assert "lateness p50 / p99 / max [ms]" in told
    assert "3 at 20 Hz" in told
    assert (report.ticks, report.stopped) == (3, None)
    assert len(np.load(tmp_path / "told.npy")) == 3
    assert json.loads((tmp_path / "loop" / "loop.json").read_text())["ticks"] == 3
    assert "motion stopped" not in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_interrupts_at_once_and_stops_motion(
    bundle: PolicyBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        run(load_config(_interrupted(bundle, tmp_path, 2)), Console(quiet=True))
    assert "motion stopped: e-stop: the control loop failed: KeyboardInterrupt" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("seconds", ["-1", "0", "inf", "nan"])
def test_a_time_that_cannot_be_is_refused(bundle: PolicyBundle, tmp_path: Path, seconds: str) -> None:
    with pytest.raises(ConfigError, match=rf"`loop\.seconds` must be above 0 and finite, got {seconds}"):
        run(load_config(still(bundle.path, tmp_path, f"loop.seconds={seconds}")), Console(quiet=True))


def test_a_time_shorter_than_a_tick_is_one_tick(bundle: PolicyBundle, tmp_path: Path) -> None:
    report = run(load_config(still(bundle.path, tmp_path, "loop.seconds=0.001")), Console(quiet=True))
    assert report.ticks == 1
