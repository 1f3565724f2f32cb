"""What `robot-rl compose` composes: training runs and bundles, read back as torch models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robot_rl.bundle import PolicyBundle
from robot_rl.cli.model_card import ModelCard, trained_model
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from policies.agreement import Parent
    from policies.chunk_network import ChunkNetwork


@dataclass(frozen=True)
class LoadedParent:
    """A parent and where it came from.

    Args:
        parent: The parent.
        id: Its bundle's id, or the digest of its weights.
        n_execute: Actions it executes before it is asked again.
        data_digest: Digest of its training data.
    """

    parent: Parent
    id: str
    n_execute: int
    data_digest: str


def load_parents(paths: Sequence[str]) -> list[LoadedParent]:
    """Return the parents of a composition, named by as much of their path as tells them apart.

    Raises:
        ConfigError: Fewer than two, a path that holds neither run nor bundle, or a policy without a denoiser.
    """
    if len(paths) < 2:
        raise ConfigError(
            "`parents` must name at least two training runs or bundles: robot-rl compose parents=[runA,runB], "
            f"got {list(paths)}"
        )
    return [_load(Path(path), name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[str]) -> list[str]:
    """Return the last parts of each path, as few as tell them apart; the same path twice is numbered."""
    parts = [Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{Path(path).name} {i}" for i, path in enumerate(paths, start=1)]


def _load(path: Path, name: str) -> LoadedParent:
    from policies.agreement import Parent
    from policies.denoising import DenoisingModel

    card, model, id = _from_bundle(path) if (path / "manifest.json").is_file() else _from_run(path)
    if not isinstance(model, DenoisingModel):
        raise ConfigError(
            f"`{name}` is a {type(model).__name__}, which has no denoiser; diffusion, flow and EDM policies can be "
            "composed"
        )
    return LoadedParent(Parent(name, model, card.spec, card.stats), id, card.n_execute, card.data_digest)


def _from_run(path: Path) -> tuple[ModelCard, ChunkNetwork, str]:
    card, model = trained_model(path)
    return card, model, weights_digest(model)


def _from_bundle(path: Path) -> tuple[ModelCard, ChunkNetwork, str]:
    import torch

    bundle = PolicyBundle.open(path)
    manifest, config = bundle.manifest, json.loads(bundle.content("config.yaml"))
    if "policy" not in config:
        raise ConfigError(f"{path}: its config.yaml names no `policy` to build; compose from the training runs instead")
    card = ModelCard(
        task=config.get("task", ""), policy=config["policy"], spec=manifest.robot, n_execute=manifest.n_execute,
        stats={name: FieldStats.from_dict(field) for name, field in manifest.normaliser.items()},
        data_digest=manifest.data_digest,
    )  # fmt: skip
    model = card.build_model()
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in bundle.weights().items()})
    return card, model.eval(), bundle.id


def weights_digest(model: ChunkNetwork) -> str:
    """Return 32 hex digits that change with any weight of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
