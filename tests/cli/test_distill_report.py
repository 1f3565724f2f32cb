"""A comparison that would measure nothing is refused by the name of the setting."""

import pytest
from omegaconf import OmegaConf

from robot_rl.cli.config import load_config
from robot_rl.cli.distill_report import check_counts
from robot_rl.errors import ConfigError


@pytest.mark.parametrize("name", ["calls", "observations"])
def test_nothing_to_measure_is_refused_before_anything_is_trained(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"`distill\.{name}` must be at least 1, got 0"):
        load_config([f"distill.{name}=0"])
    counts = OmegaConf.create({"calls": 1, "observations": 1, name: 0})
    with pytest.raises(ConfigError, match=rf"`distill\.{name}` must be at least 1, got 0"):
        check_counts(counts)
    counts[name] = 1
    check_counts(counts)
