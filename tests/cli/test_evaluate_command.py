"""`robot-rl evaluate` refuses what every worker would fail with, before it starts one."""

from pathlib import Path

import pytest
from rich.console import Console

from robot_rl.bundle import PolicyBundle
from robot_rl.cli import evaluate_command
from robot_rl.cli.config import load_config
from robot_rl.errors import BundleError, ConfigError
from tests.ros.formula_bundle import formula_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    return formula_bundle(tmp_path_factory.mktemp("evaluate") / "bundle", per_step=1e-3)


def test_a_bundle_of_another_robot_is_refused_before_a_worker_starts(
    bundle: PolicyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_command, "evaluate", lambda *a, **k: pytest.fail("a worker was started"))
    config = load_config(["task=pusht", f"bundle={bundle.path}", f"out={tmp_path}"])
    with pytest.raises(BundleError, match=r"\(robot `arm7`\) does not fit robot .*`joint_position`: expected"):
        evaluate_command.run(config, Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_fits_is_taken(bundle: PolicyBundle) -> None:
    evaluate_command.check(load_config(["task=lift", f"bundle={bundle.path}"]))


@pytest.mark.parametrize("given", ["evaluate.episodes=0", "evaluate.episodes=-3", "evaluate.workers=0"])
def test_counts_below_one_are_refused_by_name(given: str) -> None:
    name, _, number = given.partition("=")
    with pytest.raises(ConfigError, match=rf"`{name}` must be at least 1, got {number}"):
        evaluate_command.summarise(load_config([given, "bundle=/nowhere"]), Console(quiet=True))
