"""Planar manipulation seen from the object and the goal: poses in the plane as the quantities that decide what to do.

A network fed raw coordinates must learn the object's frame by itself, and needs precision of a pixel in a range of
hundreds. Here the pusher stands in the object's frame, the error to the goal appears in both frames, once on its own
scale and once saturating (tanh) on the scale of the last pixels, and motion is given as differences.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from policies.encoders import Encoder, Stats, lookup
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

N_FEATURES = 22


class PlanarEncoder(Encoder):
    """A point (the pusher) and a body (x, y, angle) that is to be brought to a fixed goal pose.

    Features of one step: point and body in the arena (4), the body's sine and cosine (2), the point in the body's
    frame (2), the goal's position in the body's frame (2), sine and cosine of the angle error (2), position error
    saturating in both frames (4), sine of the angle error saturating (1), and since the step before: the
    point's motion (2), the body's (2) and its turn (1).

    Args:
        spec: The robot.
        stats: Not used: the scales are the task's.
        n_obs: O, observation steps.
        point: Observation (2,) of the point.
        body: Observation (3,) of the body: x, y, angle [rad].
        goal: Goal pose of the body: x, y, angle [rad].
        arena: Half the arena's width, which is also its centre's coordinate.
        size: Size of the body.
        near: Position error below which precision matters.
        near_rad: Angle error below which precision matters [rad].
        speed: Motion of the point in one step that counts as fast.

    Raises:
        ConfigError: An observation is missing or has another shape, or a scale is not positive.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        n_obs: int,
        point: str,
        body: str,
        goal: Sequence[float],
        arena: float,
        size: float,
        near: float,
        near_rad: float,
        speed: float,
    ) -> None:
        for name, shape in ((point, (2,)), (body, (3,))):
            if lookup(spec, name, "PlanarEncoder").shape != shape:
                raise ConfigError(f"PlanarEncoder needs `{name}` of shape {shape}, got {spec.obs[name].shape}")
        scales = {"arena": arena, "size": size, "near": near, "near_rad": near_rad, "speed": speed}
        if wrong := sorted(name for name, value in scales.items() if not value > 0):
            raise ConfigError(
                f"scales of PlanarEncoder must be positive, got {[(name, scales[name]) for name in wrong]}"
            )
        if len(goal) != 3:
            raise ConfigError(f"`goal` must be x, y, angle, got {list(goal)}")
        super().__init__(n_obs, N_FEATURES)
        self.point, self.body, self.goal = point, body, tuple(map(float, goal))
        self.arena, self.size, self.near, self.near_rad, self.speed = map(float, scales.values())

    def steps(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B O F"]:
        """Return the features of each observation step."""
        point, body = obs[self.point].float(), obs[self.body].float()
        place, angle = body[..., :2], body[..., 2:]
        x, y, turn = self.goal
        error = torch.cat([x - place[..., :1], y - place[..., 1:]], dim=-1)
        error_in_body = _turned_back(error, angle)
        off = angle - turn
        features = [
            (point - self.arena) / self.arena, (place - self.arena) / self.arena, angle.sin(), angle.cos(),
            _turned_back(point - place, angle) / self.size, error_in_body / self.size, off.sin(), off.cos(),
            torch.tanh(error / self.near), torch.tanh(error_in_body / self.near),
            torch.tanh(off.sin() / self.near_rad),
            _motion(point) / self.speed, _motion(place) / (self.speed / 2), _motion(angle).sin() * 10.0,
        ]  # fmt: skip
        return torch.cat(features, dim=-1)


def _turned_back(vector: Float[Tensor, "B O 2"], angle: Float[Tensor, "B O 1"]) -> Float[Tensor, "B O 2"]:
    """Return a vector of the arena in a frame that is turned by `angle`."""
    c, s = angle.cos(), angle.sin()
    x, y = vector[..., :1], vector[..., 1:]
    return torch.cat([c * x + s * y, c * y - s * x], dim=-1)


def _motion(value: Float[Tensor, "B O D"]) -> Float[Tensor, "B O D"]:
    """Return the change since the step before, zero for the oldest."""
    return torch.cat([torch.zeros_like(value[:, :1]), value[:, 1:] - value[:, :-1]], dim=1)
