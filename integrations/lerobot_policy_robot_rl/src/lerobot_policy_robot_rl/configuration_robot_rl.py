"""What LeRobot is told about a bundle of robot-rl."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode


def _as_it_is() -> dict[str, NormalizationMode]:
    return dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.IDENTITY)


@PreTrainedConfig.register_subclass("robot_rl")
@dataclass
class RobotRLConfig(PreTrainedConfig):
    """A policy bundle; whatever it reads and gives is in physical units, so LeRobot normalises nothing.

    Args:
        bundle: Folder of the bundle.
        obs: The bundle's observation -> where it is in LeRobot's: a feature (`observation.state`), or columns of one
            (`observation.state[0:7]`). What is not named here is found by its name (`inputs.py`).
        n_execute: Actions to execute of a chunk before the bundle is asked again; its own number if `None`.
        seed: Of the noise that chunks are drawn from.
        threads: Threads of ONNX Runtime.
    """

    bundle: str = ""
    obs: dict[str, str] = field(default_factory=dict)
    n_execute: int | None = None
    seed: int = 0
    threads: int = 1
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_as_it_is)

    def validate_features(self) -> None:
        """Nothing to say before the bundle is opened, which checks what it is given."""

    @property
    def observation_delta_indices(self) -> None:
        """None: the policy keeps its own history."""

    @property
    def action_delta_indices(self) -> None:
        """None: it is not trained here."""

    @property
    def reward_delta_indices(self) -> None:
        """None: it is not trained here."""

    def get_optimizer_preset(self) -> Any:
        """Raise: a bundle is trained by robot-rl, not here."""
        raise NotImplementedError("a bundle is not trained by LeRobot; use robot-rl train, then robot-rl package")

    def get_scheduler_preset(self) -> None:
        """None: it is not trained here."""
