"""Success told from what is seen, on the robot's side: an ONNX graph, a threshold, a vote of consecutive frames.

A classifier is a folder with `classifier.onnx` and `classifier.json`, made by `robot-rl reward`; nothing here needs
torch. A learned reward can be fooled, so it can be held to a region that success must lie in (`Bounds`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.bundle import Graph
from robot_rl.bundle.manifest import TensorInfo
from robot_rl.deploy.onnx_policy import load_graph
from robot_rl.errors import BundleError, ConfigError, SpecError
from robot_rl.specs import ArraySpec
from robot_rl.values import Obs

FORMAT_VERSION = 1
CARD, GRAPH = "classifier.json", "classifier.onnx"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A region outside which nothing counts as success, however it looks.

    Args:
        obs: Name of a low-dimensional observation.
        element: Which of its elements, flattened.
        low: Least value that can be success; `None` for none.
        high: Largest; `None` for none.
    """

    obs: str
    element: int = 0
    low: float | None = None
    high: float | None = None

    def holds(self, obs: Obs) -> bool:
        """Whether an observation lies inside.

        Raises:
            SpecError: It lacks the observation.
        """
        if self.obs not in obs:
            raise SpecError(f"`bounds` are on `{self.obs}`, which is not observed; there is {sorted(obs)}")
        value = float(np.ravel(obs[self.obs])[self.element])
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, kw_only=True)
class ClassifierCard:
    """What a classifier reads and how its answers are used.

    Args:
        obs: Observations that it reads.
        threshold: Probability from which on a frame counts as success.
        consecutive: Frames in a row that must count.
        bounds: Regions that a frame must lie in to count.
        sha256: Of the graph.
        facts: How it was made and how well it did on episodes that it never saw, plain JSON.
    """

    obs: Mapping[str, ArraySpec]
    threshold: float
    consecutive: int
    bounds: Sequence[Bounds] = ()
    sha256: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or self.consecutive < 1:
            raise ConfigError(
                "`threshold` must be in (0, 1) and `consecutive` at least 1, got "
                f"{self.threshold} and {self.consecutive}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format_version": FORMAT_VERSION, "obs": {name: spec.to_dict() for name, spec in self.obs.items()},
            "threshold": self.threshold, "consecutive": self.consecutive,
            "bounds": [asdict(item) for item in self.bounds], "sha256": self.sha256, "facts": dict(self.facts),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassifierCard:
        """Build from `to_dict`'s values.

        Raises:
            BundleError: Another version of the format.
        """
        if data.get("format_version") != FORMAT_VERSION:
            raise BundleError(
                f"{CARD} is of format {data.get('format_version')}, this release reads {FORMAT_VERSION}; train it anew"
            )
        return cls(
            obs={name: ArraySpec.from_dict(spec) for name, spec in data["obs"].items()},
            threshold=float(data["threshold"]), consecutive=int(data["consecutive"]),
            bounds=tuple(Bounds(**item) for item in data["bounds"]), sha256=data["sha256"], facts=data["facts"],
        )  # fmt: skip


class SuccessClassifier:
    """The probability that a frame shows success.

    Args:
        folder: Holds `classifier.onnx` and `classifier.json`.
        threads: Threads one operator may use.

    Raises:
        BundleError: A file is missing, altered, or cannot be loaded.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        root = Path(folder)
        if not (root / CARD).is_file() or not (root / GRAPH).is_file():
            raise BundleError(f"{root} holds no success classifier; make one with `robot-rl reward reward.out={root}`")
        self.card = ClassifierCard.from_dict(json.loads((root / CARD).read_text("utf-8")))
        content = (root / GRAPH).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.card.sha256:
            raise BundleError(f"{root / GRAPH} is not the graph that {CARD} belongs to; train it anew")
        inputs = tuple(TensorInfo(f"obs.{n}", s.dtype, ("B", 1, *s.shape)) for n, s in self.card.obs.items())
        described = Graph(GRAPH, inputs, (TensorInfo("probability", "float32", ("B",)),))
        self._session = load_graph(content, described, threads=threads)

    def probabilities(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the probability [M] of each frame of {name: [M, ...]}.

        Raises:
            SpecError: An observation is missing or not as specified.
        """
        feed = {}
        for name, spec in self.card.obs.items():
            if name not in rows:
                raise SpecError(f"the success classifier reads `{name}`, which is not observed; got {sorted(rows)}")
            feed[f"obs.{name}"] = spec.validate(np.asarray(rows[name]), leading=1)[:, None]
        (probability,) = self._session.run(["probability"], feed)
        return np.asarray(probability)

    def counts(self, obs: Obs) -> bool:
        """Whether one frame {name: [...]} counts as success: above the threshold and inside the bounds.

        Raises:
            SpecError: As of `probabilities` and `Bounds.holds`.
        """
        if not all(item.holds(obs) for item in self.card.bounds):
            return False
        (probability,) = self.probabilities(
            {name: np.asarray(obs[name])[None] for name in self.card.obs if name in obs}
        )
        return bool(probability >= self.card.threshold)


class ConsecutiveVote:
    """True from the moment that so many frames in a row have counted.

    Args:
        needed: How many.

    Raises:
        ConfigError: Fewer than one.
    """

    def __init__(self, needed: int) -> None:
        if needed < 1:
            raise ConfigError(f"a vote needs at least 1 frame, got {needed}")
        self.needed, self._run = needed, 0

    def reset(self) -> None:
        """Begin an episode."""
        self._run = 0

    def add(self, counts: bool) -> bool:
        """Take in a frame and return whether the vote stands."""
        self._run = self._run + 1 if counts else 0
        return self._run >= self.needed


def first_vote(counts: np.ndarray, needed: int) -> int | None:
    """Return the frame at which a vote of `needed` frames in a row first stands in `counts` [M], `None` if never."""
    vote = ConsecutiveVote(needed)
    return next((frame for frame, value in enumerate(np.asarray(counts, bool)) if vote.add(bool(value))), None)
