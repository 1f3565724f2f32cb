"""Which frames of episodes show success: by how an episode ended, and by what operators marked.

Frame t is the observation at tick t, the final one included, so an episode of N steps has N + 1. The last frames of a
successful episode are positive and those shortly before are left out, since nobody can say; every other frame is
negative. Marked frames override both: `meta.extra["frame_labels"] = {"success": [t, ...], "failure": [t, ...]}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.errors import ConfigError, StoreError
from robot_rl.values import Episode, Obs

FRAME_LABELS = "frame_labels"
POSITIVE, NEGATIVE, UNCLEAR = 1, 0, -1
Marks = Mapping[str, Mapping[str, Sequence[int]]]
"""Marked frames by episode id, beside those that recordings carry: {id: {"success": [...], "failure": [...]}}."""


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How frames get their labels where nobody marked them.

    Args:
        positives: Last frames of a successful episode that show success.
        unclear: Frames before those that are left out.

    Raises:
        ConfigError: Fewer than one positive, or a negative number.
    """

    positives: int = 3
    unclear: int = 5

    def __post_init__(self) -> None:
        if self.positives < 1 or self.unclear < 0:
            raise ConfigError(
                f"`positives` must be at least 1 and `unclear` 0 or more, got {self.positives} and {self.unclear}"
            )


@dataclass(frozen=True)
class LabelledEpisode:
    """All frames of one episode.

    Args:
        id: The episode's id.
        frames: {name: [N+1, ...]}, or [N, ...] where no final observation was recorded.
        label: POSITIVE, NEGATIVE or UNCLEAR, int8 [N+1].
    """

    id: str
    frames: Obs
    label: np.ndarray

    @property
    def first_success(self) -> int | None:
        """The first positive frame, `None` if there is none."""
        found = np.flatnonzero(self.label == POSITIVE)
        return int(found[0]) if len(found) else None

    @property
    def first_excusable(self) -> int | None:
        """The first frame from which on a vote is no mistake: the unclear ones right before success count in."""
        first = self.first_success
        while first is not None and first > 0 and self.label[first - 1] == UNCLEAR:
            first -= 1
        return first


def frame_labels(episode: Episode, rule: LabelRule, n_frames: int, marks: Marks | None = None) -> np.ndarray:
    """Return the labels of an episode's frames, int8 [n_frames].

    Args:
        episode: The episode; one whose outcome is not known has no label but those marked.
        rule: How to label the others.
        n_frames: N + 1, or N without a final observation.
        marks: Marked frames beside those that the recording carries.

    Raises:
        StoreError: A mark outside the episode, or one frame marked both ways.
    """
    outcome = episode.meta.outcome
    label = np.full(n_frames, UNCLEAR if outcome == "unknown" else NEGATIVE, np.int8)
    if outcome == "success":
        label[max(0, n_frames - rule.positives - rule.unclear) :] = UNCLEAR
        label[max(0, n_frames - rule.positives) :] = POSITIVE
    for given in (episode.meta.extra.get(FRAME_LABELS, {}), (marks or {}).get(episode.id, {})):
        good, bad = (np.asarray(given.get(key, []), np.int64) for key in ("success", "failure"))
        every = np.concatenate([good, bad])
        if np.any((every < 0) | (every >= n_frames)) or np.intersect1d(good, bad).size:
            raise StoreError(
                f"marked frames of episode {episode.id} must lie in [0, {n_frames - 1}] and be success or failure, not "
                f"both; got {given}"
            )
        label[good], label[bad] = POSITIVE, NEGATIVE
    return label


def labelled_episode(
    episode: Episode, names: Sequence[str], rule: LabelRule, marks: Marks | None = None
) -> LabelledEpisode:
    """Return an episode's frames, read whole, with their labels.

    Raises:
        StoreError: As of `frame_labels`, or the episode lacks an observation.
    """
    if missing := sorted(set(names) - set(episode.obs)):
        raise StoreError(f"episode {episode.id} has no {missing}; it has {sorted(episode.obs)}")
    frames: Obs = {}
    for name in names:
        rows = np.asarray(episode.obs[name][:])
        final = [] if episode.final_obs is None else [np.asarray(episode.final_obs[name])[None]]
        frames[name] = np.concatenate([rows, *final])
    n_frames = len(episode) + (episode.final_obs is not None)
    return LabelledEpisode(episode.id, frames, frame_labels(episode, rule, n_frames, marks))


@dataclass(frozen=True)
class TrainingFrames:
    """Frames of many episodes, at most so many negatives of each.

    Args:
        frames: {name: [M, ...]}.
        label: float32 [M], 1 or 0.
    """

    frames: Obs
    label: np.ndarray

    @classmethod
    def of(cls, episodes: Sequence[LabelledEpisode], *, negatives: int, rng: np.random.Generator) -> TrainingFrames:
        """Return all positive frames and up to `negatives` drawn ones of each episode.

        Raises:
            StoreError: There is no positive frame, or no negative one.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in episodes[0].frames} if episodes else {}
        labels: list[np.ndarray] = []
        for episode in episodes:
            bad = np.flatnonzero(episode.label == NEGATIVE)
            bad = rng.choice(bad, min(negatives, len(bad)), replace=False)
            kept = np.sort(np.concatenate([np.flatnonzero(episode.label == POSITIVE), bad]).astype(np.int64))
            labels.append(episode.label[kept].astype(np.float32))
            for name, rows in episode.frames.items():
                parts[name].append(rows[kept])
        label = np.concatenate(labels) if labels else np.zeros(0, np.float32)
        if label.sum() == 0 or label.sum() == len(label):
            raise StoreError(
                f"a success classifier needs frames of both kinds, got {int(label.sum())} positive ones of "
                f"{len(label)}; record successes and failures, or mark frames"
            )
        return cls({name: np.concatenate(rows) for name, rows in parts.items()}, label)
