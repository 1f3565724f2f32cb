"""A run that was trained with other settings is refused with keys that the command line has."""

from pathlib import Path

import pytest

from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import check_same_config


def test_another_setting_is_refused_with_the_keys_of_the_output_folder() -> None:
    check_same_config({"lr": 0.1}, {"lr": 0.1}, where=Path("runs/x"))
    with pytest.raises(ConfigError, match=r"cannot resume from runs/x: `lr` was 0\.1 and is now 0\.2\. Set it") as told:
        check_same_config({"lr": 0.1}, {"lr": 0.2}, where=Path("runs/x"))
    assert "`out` for all commands, or the command's own (`run` of train, `finetune.out`, `distill.out`)" in str(
        told.value
    )
    assert "run_dir" not in str(told.value)
