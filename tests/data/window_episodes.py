"""Episodes whose every value says where it belongs: 1000 * episode + step."""

import numpy as np

from robot_rl.values import Episode, RecordingMeta


def value_of(episode: int, n: int) -> np.ndarray:
    return 1000 * episode + np.arange(n)


def make_episode(episode: int, n: int, *, valid: np.ndarray | None = None, image: bool = False) -> Episode:
    value = value_of(episode, n)
    action = np.stack([value, -value], axis=1).astype(np.float32)
    obs = {"state": value[:, None].astype(np.float64), "keypoint": np.tile(value[:, None, None], (1, 3, 2))}
    if image:
        code = np.stack([value // 1000, value % 1000, value % 7], axis=1).astype(np.uint8)
        obs["camera"] = np.tile(code[:, None, None, :], (1, 4, 5, 1))
    return Episode(
        id=f"e{episode}",
        stamp_ns=np.arange(n, dtype=np.int64),
        obs=obs,
        final_obs=None,
        action=action,
        action_executed=action,
        reward=np.zeros(n, np.float32),
        by_human=np.zeros(n, bool),
        valid=np.ones(n, bool) if valid is None else valid,
        terminated=False,
        truncated=False,
        meta=RecordingMeta(),
    )
