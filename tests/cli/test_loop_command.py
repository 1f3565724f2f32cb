"""`robot-rl loop`: inference in its own process, a rate above the policy's, and settings that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import build, load_config
from robot_rl.cli.loop_command import arm_at, run
from robot_rl.deploy.providers import Providers
from robot_rl.deploy.timing import Timing
from robot_rl.errors import ConfigError
from tests.cli.still_arm import PATIENT, PRESENT, StillArm, still
from tests.ros.formula_bundle import formula_bundle

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    return formula_bundle(tmp_path_factory.mktemp("loop") / "bundle", per_step=1e-3)


@pytest.mark.slow
def test_inference_in_a_process_drives_the_arm(bundle: PolicyBundle, tmp_path: Path) -> None:
    in_a_process = ["loop.seconds=2", "loop.inference=process", "loop.silence_s=60"]
    run(load_config(still(bundle.path, tmp_path, *in_a_process)), QUIET)
    report = json.loads((tmp_path / "loop" / "loop.json").read_text())
    assert report["chunks"]["chunks"] >= 1
    assert report["stopped"] is None
    assert report["scheduling"].endswith("ordinary priority")
    orders = np.load(tmp_path / "told.npy")
    assert (orders[:, 0] > PRESENT[0] + 5e-4).any()  # the formula's rows lie above the pose


def test_a_simulated_arm_at_a_hundred_hertz_follows_a_policy_of_twenty(bundle: PolicyBundle, tmp_path: Path) -> None:
    report = run(
        load_config([f"bundle={bundle.path}", f"out={tmp_path}", "loop.seconds=1", "loop.control_hz=100", *PATIENT]),
        QUIET,
    )
    assert report.control_hz == 100
    assert report.ticks == 100
    assert report.chunks.chunks >= 1


def test_rates_and_places_that_cannot_be_are_refused(bundle: PolicyBundle, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"`loop\.control_hz` must be null or 20, got 100; `StillArm` has no other rate"
    ):
        run(load_config(still(bundle.path, tmp_path, "loop.control_hz=100")), QUIET)
    with pytest.raises(
        ConfigError, match=r"`loop.inference` must be one of \['thread', 'process', 'loop'\], got 'gpu'"
    ):
        run(load_config(still(bundle.path, tmp_path, "loop.inference=gpu")), QUIET)
    arm = StillArm(str(tmp_path / "told.npy"))
    assert arm_at(arm, 20.0) is arm


def test_timing_and_providers_are_read_from_the_configuration() -> None:
    config = load_config(["loop.providers.names=[cuda,cpu]", "loop.timing.cores=[1]", "loop.timing.realtime=true"])
    assert build(config.loop.providers) == Providers(names=["cuda", "cpu"])
    assert build(config.loop.timing) == Timing(cores=[1], realtime=True)
    assert build(load_config([]).loop.timing) == Timing()
    assert build(load_config([]).loop.providers) == Providers()
