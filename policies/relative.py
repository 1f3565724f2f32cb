"""Where things are from where the hand is: poses in another pose's frame, at several scales.

A network that is given two poses apart has to learn their difference, to a millimetre where the task needs it; with few
episodes, as in reinforcement learning on a robot, that is most of what it learns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from policies.encoders import Encoder, Stats, lookup
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_POSE = 9


class RelativePoseEncoder(Encoder):
    """Objects in the frame of a tool: tanh(position / scale) for each scale, and the rotation as rot6d. No parameters.

    Poses are position [m] and the first two columns of the rotation matrix (rot6d, Zhou et al. 2019).

    Args:
        spec: The robot.
        stats: Not read; poses are scaled by `scales_m`.
        n_obs: O, observation steps.
        frame: Name of the pose that the others are seen from.
        objects: Names of the other poses.
        scales_m: Distances that are told apart, from the finest that matters to the workspace.

    Raises:
        ConfigError: An observation is missing or no pose, no object, or a scale that is not positive.
    """

    def __init__(
        self, spec: RobotSpec, stats: Stats, *, n_obs: int, frame: str, objects: Sequence[str],
        scales_m: Sequence[float] = (0.02, 0.1),
    ) -> None:  # fmt: skip
        if not objects or not scales_m or min(scales_m) <= 0:
            raise ConfigError(
                f"relative poses need `objects` and positive `scales_m`, got {list(objects)} and {list(scales_m)}"
            )
        for name in (frame, *objects):
            if (array := lookup(spec, name, "RelativePoseEncoder")).shape != (_POSE,):
                raise ConfigError(f"`{name}` must be a pose of position and rot6d, ({_POSE},); it is {array.shape}")
        super().__init__(n_obs, len(objects) * (3 * len(scales_m) + 6))
        self._frame, self._objects, self._scales = frame, tuple(objects), tuple(scales_m)

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return each object's position at every scale, then its rotation's first two columns."""
        origin, axes = _split(obs[self._frame].float())
        parts = []
        for name in self._objects:
            position, turned = _split(obs[name].float())
            seen = (axes.mT @ (position - origin)[..., None])[..., 0]
            parts += [torch.tanh(seen / scale) for scale in self._scales]
            parts.append((axes.mT @ turned[..., :2]).mT.flatten(-2))
        return torch.cat(parts, dim=-1)


def _split(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Return position [..., 3] and rotation matrix [..., 3, 3] of poses [..., 9]."""
    first, second = pose[..., 3:6], pose[..., 6:9]
    return pose[..., :3], torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
