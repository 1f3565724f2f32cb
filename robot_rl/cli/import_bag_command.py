"""`robot-rl import-bag`: a rosbag2 folder or MCAP file into an episode store, one episode a bag."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from robot_rl.data.bag_import import BagImport, import_bag
from robot_rl.data.plan import RecordingPlan
from robot_rl.errors import ConfigError


def run(config: DictConfig, console: Console) -> BagImport:
    """Import `bag` into `store`, its topics read as `plan` says."""
    if config.bag is None:
        raise ConfigError("`bag` is missing; give a rosbag2 folder or an MCAP file: robot-rl import-bag bag=<path>")
    plan = None if config.plan is None else RecordingPlan.from_yaml(config.plan)
    done = import_bag(config.bag, config.store, plan)
    console.print(f"episode {done.id} in {config.store}: {dict(done.samples)} samples, skipped {dict(done.skipped)}")
    return done
