"""A bundle as a folder of LeRobot's: its configuration, with the features the bundle reads, and the processors."""

from pathlib import Path

from lerobot.configs.types import FeatureType, PolicyFeature

from lerobot_policy_robot_rl.configuration_robot_rl import RobotRLConfig
from lerobot_policy_robot_rl.inputs import STATE
from lerobot_policy_robot_rl.modeling_robot_rl import RobotRLPolicy
from lerobot_policy_robot_rl.processor_robot_rl import make_robot_rl_pre_post_processors
from robot_rl.bundle import PolicyBundle


def features(bundle: PolicyBundle) -> dict[str, PolicyFeature]:
    """Return what the bundle reads as LeRobot calls it, by the rules of our data sets' export."""
    found, width = {}, 0
    for name, spec in bundle.manifest.robot.obs.items():
        if spec.is_image:
            feature = name if name.startswith("observation.") else f"observation.images.{name}"
            found[feature] = PolicyFeature(FeatureType.VISUAL, (spec.shape[-1], *spec.shape[:2]))
        elif name.startswith("observation."):
            found[name] = PolicyFeature(FeatureType.STATE, spec.shape)
        elif len(spec.shape) == 1 and spec.dtype == "float32":
            width += spec.size
        else:
            found[f"observation.{name}"] = PolicyFeature(FeatureType.STATE, spec.shape)
    return found | ({STATE: PolicyFeature(FeatureType.STATE, (width,))} if width else {})


def save_bundle(bundle: str | Path, folder: str | Path) -> RobotRLPolicy:
    """Write a folder that LeRobot opens with `--policy.path`; the bundle stays where it is, named by its full path."""
    opened = PolicyBundle.open(bundle)
    config = RobotRLConfig(
        bundle=str(Path(bundle).resolve()),
        device="cpu",
        push_to_hub=False,
        n_obs_steps=opened.manifest.n_obs,
        input_features=features(opened),
        output_features={"action": PolicyFeature(FeatureType.ACTION, opened.manifest.robot.action.shape)},
    )
    policy = RobotRLPolicy(config)
    for part in (policy, *make_robot_rl_pre_post_processors(config)):
        part.save_pretrained(Path(folder))
    return policy
