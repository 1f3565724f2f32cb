"""What is needed to build a trained model again: its configuration, the robot's spec, the data's statistics.

The training run keeps it as `model.json` beside the weights, so that a checkpoint never depends on today's configs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.cli.config import build
from robot_rl.data.normalizer import FieldStats
from robot_rl.deploy.consensus import Consensus
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

if TYPE_CHECKING:
    from policies.chunk_network import ChunkNetwork
    from policies.torch_policy import TorchPolicy

FILE = "model.json"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model's recipe.

    Args:
        task: The task's name.
        policy: Hydra node of the chunk model, plain values.
        spec: The robot, with only the observations that the model reads.
        stats: Statistics of the training episodes by field.
        n_execute: How many actions of a chunk to execute before asking again.
        data_digest: Digest of the episode store it was trained on.
    """

    task: str
    policy: Mapping[str, Any]
    spec: RobotSpec
    stats: Mapping[str, FieldStats]
    n_execute: int
    data_digest: str

    def build_model(self) -> ChunkNetwork:
        """Return the model with freshly drawn weights."""
        model: ChunkNetwork = build(self.policy, self.spec, self.stats)
        return model

    def save(self, run: str | Path) -> None:
        """Write `model.json` into a training run's folder."""
        data = {
            "task": self.task,
            "policy": dict(self.policy),
            "spec": self.spec.to_dict(),
            "stats": {name: stats.to_dict() for name, stats in self.stats.items()},
            "n_execute": self.n_execute,
            "data_digest": self.data_digest,
        }
        Path(run).mkdir(parents=True, exist_ok=True)
        (Path(run) / FILE).write_text(json.dumps(data, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, run: str | Path) -> ModelCard:
        """Read a training run's `model.json`.

        Raises:
            ConfigError: There is none.
        """
        return cls(**read_card(Path(run) / FILE, expected="the folder of a training run, made by `robot-rl train`"))


def read_card(path: Path, *, expected: str) -> dict[str, Any]:
    """Return what a card's file says, its `spec` and `stats` as the objects they stand for.

    Raises:
        ConfigError: There is none.
    """
    if not path.is_file():
        raise ConfigError(f"no {path.name} in {path.parent}; expected {expected}")
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    stats = {name: FieldStats.from_dict(values) for name, values in data["stats"].items()}
    return {**data, "spec": RobotSpec.from_dict(data["spec"]), "stats": stats}


def trained_model(run: str | Path) -> tuple[ModelCard, ChunkNetwork]:
    """Return a training run's card and its model with the averaged (EMA) weights of the last checkpoint."""
    from robot_rl.imitation.checkpoint import load_model_weights

    card = ModelCard.load(run)
    model = card.build_model()
    load_model_weights(model, Path(run) / "checkpoints" / "last", ema=True)
    return card, model.eval()


def torch_policy(run: str, consensus: Consensus | None = None) -> TorchPolicy:
    """Return the torch policy of a training run (picklable as `functools.partial(torch_policy, run)`).

    Raises:
        ConfigError: `consensus` for a model without a mixture of horizons.
    """
    from policies.torch_policy import TorchPolicy

    card, model = trained_model(run)
    return TorchPolicy(model, card.spec, n_execute=card.n_execute, consensus=consensus)
