"""PushT seen by range sensors: a noisy point cloud of the block's and the pusher's visible outlines, in place of poses.

A second modality for a task whose simulator knows the pose. Sensors stand beside the table and see an outline point
when nothing lies between: the far sides of the T, its inner corners and what the pusher hides are missing. Points carry
a height, by which block and pusher can be told apart, as they could be on a real table.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_rl.errors import ConfigError
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Episode, Obs, Tick
from sim import pusht_augment
from sim.pusht import PushTEnv

NAME = "point_cloud"
OUTLINE = np.array(
    [[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], dtype=np.float64
)
"""Corners of gym-pusht's T in the block's frame [px], in order."""
PUSHER_RADIUS_PX = 15.0
BLOCK_HEIGHT_PX = 10.0
PUSHER_HEIGHT_PX = 30.0
_SPACING_PX = 4.0
_CLEARANCE_PX = 0.5  # candidates stand so far off their outline, so that they do not hide themselves


@dataclass(frozen=True)
class CloudScanner:
    """Range sensors around the table.

    Args:
        n_points: P, points of a cloud; visible ones are drawn at random, several times where there are fewer.
        noise_px: Standard deviation of the error of each point in the table's plane [px].
        sensors: Position of each sensor in the table's plane [px], outside the arena.

    Raises:
        ConfigError: No point, negative noise, or a sensor that is not x, y.
    """

    n_points: int = 48
    noise_px: float = 2.0
    sensors: Sequence[Sequence[float]] = ((-40.0, -40.0), (552.0, -40.0))

    def __post_init__(self) -> None:
        if self.n_points < 1 or not self.noise_px >= 0:
            raise ConfigError(f"need `n_points` >= 1 and `noise_px` >= 0, got {self.n_points} and {self.noise_px}")
        if not self.sensors or any(len(sensor) != 2 for sensor in self.sensors):
            raise ConfigError(f"`sensors` must hold an x, y for each sensor, got {self.sensors!r}")

    @property
    def spec(self) -> ArraySpec:
        """What a cloud looks like: x, y and height of each point."""
        return ArraySpec(name=NAME, shape=(self.n_points, 3), unit="px")

    def scan(self, agent_pos: np.ndarray, block_pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a cloud, float32 [P, 3].

        Args:
            agent_pos: Pusher position [px].
            block_pose: x, y [px], angle [rad].
            rng: Where sampling and noise come from.
        """
        points, heights = self.visible(agent_pos, block_pose)
        chosen = rng.choice(len(points), self.n_points, replace=len(points) < self.n_points)
        seen = points[chosen] + self.noise_px * rng.standard_normal((self.n_points, 2))
        return np.column_stack([seen, heights[chosen]]).astype(np.float32)

    def visible(self, agent_pos: np.ndarray, block_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the outline points that some sensor sees, [V, 2] [px], and their heights [V]."""
        agent = np.asarray(agent_pos, dtype=np.float64)
        corners = _in_table(OUTLINE, block_pose)
        block, pusher = _in_table(_BLOCK_POINTS, block_pose), agent + _PUSHER_POINTS
        seen_block, seen_pusher = np.zeros(len(block), bool), np.zeros(len(pusher), bool)
        outward = _in_table(_BLOCK_NORMALS, np.array([0.0, 0.0, block_pose[2]]))
        for sensor in np.asarray(self.sensors, dtype=np.float64):
            facing = ((sensor - block) * outward).sum(axis=1) > 0
            seen_block |= facing & ~_hidden_by_block(sensor, block, corners) & ~_hidden_by_disc(sensor, block, agent)
            facing = ((sensor - pusher) * _PUSHER_POINTS).sum(axis=1) > 0
            seen_pusher |= facing & ~_hidden_by_block(sensor, pusher, corners)
        points = np.concatenate([block[seen_block], pusher[seen_pusher]])
        heights = np.repeat([BLOCK_HEIGHT_PX, PUSHER_HEIGHT_PX], [seen_block.sum(), seen_pusher.sum()])
        return points, heights


def _outline_points() -> tuple[np.ndarray, np.ndarray]:
    """Return points along the T's outline, just outside it, and their outward normals, [n, 2] in the block's frame."""
    found, normals = [], []
    for a, b in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        along, length = (b - a) / np.linalg.norm(b - a), float(np.linalg.norm(b - a))
        outward = np.array([along[1], -along[0]])  # the corners run anticlockwise
        at = (np.arange(round(length / _SPACING_PX)) + 0.5) / round(length / _SPACING_PX)
        found.append(a + at[:, None] * (b - a) + _CLEARANCE_PX * outward)
        normals.append(np.tile(outward, (len(at), 1)))
    return np.concatenate(found), np.concatenate(normals)


def _pusher_points() -> np.ndarray:
    """Return points around the pusher, [n, 2] from its centre."""
    angle = np.linspace(0, 2 * np.pi, round(2 * np.pi * PUSHER_RADIUS_PX / _SPACING_PX), endpoint=False)
    return PUSHER_RADIUS_PX * np.column_stack([np.cos(angle), np.sin(angle)])


(_BLOCK_POINTS, _BLOCK_NORMALS), _PUSHER_POINTS = _outline_points(), _pusher_points()


def _in_table(points: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
    """Return points of the block's frame in the table's."""
    x, y, angle = np.asarray(block_pose, dtype=np.float64)
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[c, s], [-s, c]]) + np.array([x, y]))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _hidden_by_block(sensor: np.ndarray, points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return whether an edge of the block crosses the line of sight to each point, bool [n]."""
    sight = (points - sensor)[:, None]  # [n, 1, 2]
    start, edge = corners[None], (np.roll(corners, -1, axis=0) - corners)[None]  # [1, 8, 2]
    with np.errstate(divide="ignore", invalid="ignore"):  # a line of sight along an edge crosses it nowhere
        along_sight = _cross(start - sensor, edge) / _cross(sight, edge)
        along_edge = _cross(start - sensor, sight) / _cross(sight, edge)
    crosses = (along_sight > 0) & (along_sight < 1) & (along_edge >= 0) & (along_edge <= 1)
    return np.asarray(crosses.any(axis=1))


def _hidden_by_disc(sensor: np.ndarray, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return whether the pusher covers the line of sight to each point, bool [n]."""
    sight = points - sensor
    nearest = np.clip(((centre - sensor) * sight).sum(axis=1) / (sight**2).sum(axis=1), 0.0, 1.0)
    return np.asarray(np.linalg.norm(sensor + nearest[:, None] * sight - centre, axis=1) < PUSHER_RADIUS_PX)


class PushTCloudEnv:
    """PushT that also observes `point_cloud` [P, 3]; an `Env`. The seed of an episode also seeds its sensors.

    Args:
        max_steps: Control steps after which an episode is truncated.
        scanner: Arguments of `CloudScanner`.
    """

    def __init__(self, *, max_steps: int = 300, **scanner: object) -> None:
        self._env = PushTEnv(max_steps=max_steps)
        self._scanner = CloudScanner(**scanner)  # type: ignore[arg-type]
        inner = self._env.spec
        self._spec = RobotSpec(
            name=inner.name, obs={**inner.obs, NAME: self._scanner.spec}, action=inner.action,
            control_hz=inner.control_hz,
        )  # fmt: skip
        self._rng = np.random.default_rng(0)

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return self._spec

    def reset(self, seed: int) -> Tick:
        """Start the episode that `PushTEnv` starts for `seed`."""
        self._rng = np.random.default_rng(seed)
        return self._seen(self._env.reset(seed))

    def step(self, action: np.ndarray) -> Tick:
        """As `PushTEnv.step`."""
        return self._seen(self._env.step(action))

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [480, 480, 3]."""
        return self._env.render()

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()

    def _seen(self, tick: Tick) -> Tick:
        cloud = self._scanner.scan(tick.obs["agent_pos"], tick.obs["block_pose"], self._rng)
        return replace(tick, obs={**tick.obs, NAME: cloud})


def scan_rows(agent_pos: np.ndarray, block_pose: np.ndarray, scanner: CloudScanner, name: str) -> np.ndarray:
    """Return the clouds of a recording, float32 [N, P, 3]; `name` seeds the sensors, so that it always gives the same.

    Args:
        agent_pos: [N, 2].
        block_pose: [N, 3].
        scanner: The sensors.
        name: Any text that names the recording.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.stack([scanner.scan(agent, block, rng) for agent, block in zip(agent_pos, block_pose, strict=True)])


def hindsight_and_mirror(episode: Episode) -> list[Episode]:
    """Return what `pusht_augment.hindsight_and_mirror` makes of a demonstration, scanned again where it has been moved.

    The sensors stay where they are, so a moved scene hides other parts. Their number of points is the episode's.

    Raises:
        ConfigError: The episode has no `point_cloud`.
    """
    if NAME not in episode.obs:
        raise ConfigError(f"needs the observation `{NAME}`, the episode has {sorted(episode.obs)}")
    scanner = CloudScanner(n_points=episode.obs[NAME].shape[1])
    return [_scanned(moved, scanner) for moved in pusht_augment.hindsight_and_mirror(episode)]


def _scanned(episode: Episode, scanner: CloudScanner) -> Episode:
    agent, block = (np.asarray(episode.obs[name][:]) for name in ("agent_pos", "block_pose"))
    obs = {**episode.obs, NAME: scan_rows(agent, block, scanner, episode.id)}
    final: Obs | None = episode.final_obs
    if final is not None:
        cloud = scan_rows(final["agent_pos"][None], final["block_pose"][None], scanner, f"{episode.id} end")[0]
        final = {**final, NAME: cloud}
    return replace(episode, obs=obs, final_obs=final)
