"""Train and validation parts of a data set, by whole episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from robot_rl.errors import ConfigError


class Split(NamedTuple):
    """Positions of the episodes on each side, ascending."""

    train: tuple[int, ...]
    val: tuple[int, ...]


def split_episodes(ids: Sequence[str], *, val_fraction: float, seed: int) -> Split:
    """Split episodes so that none has windows on both sides.

    Episodes are ranked by a hash of (seed, id), so the split depends on neither their order nor the machine, and adding
    an episode moves at most one other across.

    Args:
        ids: Ids of the episodes, unique.
        val_fraction: Share of validation, in [0, 1); rounded to whole episodes. With two episodes or more and a share
            above zero, each side gets at least one.
        seed: Chooses another split.

    Raises:
        ConfigError: A fraction outside [0, 1), or an id twice.
    """
    if not 0.0 <= val_fraction < 1.0:
        raise ConfigError(f"`val_fraction` must lie within [0, 1), got {val_fraction}")
    if len(set(ids)) != len(ids):
        raise ConfigError(f"`ids` must be unique, got {len(ids)} ids of which {len(set(ids))} differ")
    n_val = round(val_fraction * len(ids))
    if len(ids) >= 2 and val_fraction > 0.0:
        n_val = min(max(n_val, 1), len(ids) - 1)
    elif len(ids) < 2:
        n_val = 0
    ranked = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}:{ids[i]}".encode()).digest())
    return Split(train=tuple(sorted(ranked[n_val:])), val=tuple(sorted(ranked[:n_val])))
