"""The simulated tasks of robot-rl as a LeRobot environment of type `robot_rl`."""

from dataclasses import dataclass

import gymnasium as gym
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION


@EnvConfig.register_subclass("robot_rl")
@dataclass
class RobotRLEnv(EnvConfig):
    """A task of robot-rl, by the name of its file in `configs/task`.

    Args:
        task: `pusht`, `lift` and so on.
        episode_length: Steps after which an episode ends.
    """

    task: str = "pusht"
    episode_length: int = 300

    def __post_init__(self) -> None:
        from lerobot_policy_robot_rl.env import build_task

        env = build_task(self.task)
        spec = env.spec
        env.close()
        self.fps = round(spec.control_hz)
        self.features = {ACTION: PolicyFeature(FeatureType.ACTION, spec.action.shape)}
        self.features_map = {ACTION: ACTION}
        for name, array in spec.obs.items():
            kind = FeatureType.VISUAL if array.is_image else FeatureType.STATE
            self.features[name] = PolicyFeature(kind, array.shape)
            self.features_map[name] = f"observation.images.{name}" if array.is_image else f"observation.{name}"

    @property
    def gym_kwargs(self) -> dict:
        """Arguments of the environment."""
        return {"task": self.task, "max_steps": self.episode_length}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """Return the environments, side by side in this process."""
        from lerobot_policy_robot_rl.env import TaskEnv

        makers = [lambda: TaskEnv(**self.gym_kwargs) for _ in range(n_envs)]
        return {self.type: {0: gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)}}
