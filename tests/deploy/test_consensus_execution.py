"""Consensus as a setting of execution."""

import pytest

from robot_rl.cli.config import build, load_config
from robot_rl.deploy.consensus import Consensus
from robot_rl.deploy.execution import Execution
from robot_rl.errors import ConfigError

NODE = "{_target_: robot_rl.deploy.consensus.Consensus, n_min: 4, min_active: 2, ratio: 1.4}"


def test_the_command_line_can_ask_for_it():
    config = load_config([f"execution.consensus={NODE}"])
    execution = build(config.execution)
    assert execution.consensus == Consensus(n_min=4, min_active=2, ratio=1.4)
    assert build(load_config([]).execution).consensus is None


def test_it_goes_with_receding_horizon_alone():
    with pytest.raises(ConfigError, match="`consensus` goes with the strategy `receding_horizon`, got 'bidirectional'"):
        Execution(strategy="bidirectional", consensus=Consensus())
