"""What is wrong with a store, episode by episode: the checks behind `robot-rl check`."""

from robot_rl.data.checks.finding import EpisodeVerdict, Finding, StoreVerdict
from robot_rl.data.checks.run import CheckSettings, check_store
from robot_rl.data.checks.thresholds import Thresholds

__all__ = ["CheckSettings", "EpisodeVerdict", "Finding", "StoreVerdict", "Thresholds", "check_store"]
