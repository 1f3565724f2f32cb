"""Weights on their way from learner to actor: a folder for each version, whole or absent, verified before it is used.

A version is `v<number>/` with `weights.safetensors` and `manifest.json`, which holds the version, what it belongs to
and the sha256 of the weights. It is written under another name and renamed once, as policy bundles are. The graph does
not change while a policy is fine-tuned, only its numbers do; so numbers alone are published.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from robot_rl.errors import BundleError, TrainingError

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
KEPT = 3
"""Versions that stay in the folder; an actor may be reading the one before the newest."""


@dataclass(frozen=True)
class Publication:
    """One version of the weights.

    Args:
        version: The learner's update count.
        tensors: Weights by name.
        facts: What the learner said with it, plain JSON.
        digest: sha256 of the weights; set by `read`.
    """

    version: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str = ""


def publish(folder: str | Path, publication: Publication, *, belongs_to: str) -> Path:
    """Write a version and delete old ones; one that is there already stays as it is.

    Args:
        folder: Where versions lie; made if absent.
        publication: What to write.
        belongs_to: What the weights fit: base policy, networks and bounds, as one name.

    Raises:
        TrainingError: A weight is not finite; nothing was published.
    """
    root, version = Path(folder), publication.version
    bad = [name for name, value in publication.tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise TrainingError(
            f"weights {bad[:3]} of version {version} are not finite; nothing was published, and actors keep the last "
            "version. Lower the learning rate and resume from the last checkpoint"
        )
    target = root / f"v{version:010d}"
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    content = save({name: value.detach().cpu().contiguous() for name, value in publication.tensors.items()})
    manifest = {
        "format_version": FORMAT_VERSION, "version": version, "belongs_to": belongs_to,
        "sha256": hashlib.sha256(content).hexdigest(), "facts": dict(publication.facts),
    }  # fmt: skip
    staging = root / f".staging-{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    _write(staging / WEIGHTS, content)
    _write(staging / MANIFEST, json.dumps(manifest, indent=1).encode())
    os.rename(staging, target)
    for old in sorted(root.glob("v*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def retract(folder: str | Path, *, after: int) -> list[int]:
    """Take back versions later than `after` and return them: a learner that went back to a checkpoint disowns them."""
    later = [path for path in sorted(Path(folder).glob("v*")) if int(path.name[1:]) > after]
    for path in later:
        shutil.rmtree(path, ignore_errors=True)
    return [int(path.name[1:]) for path in later]


def newest(
    folder: str | Path,
    *,
    belongs_to: str,
    current: str = "",
    accept: Callable[[Publication], None] | None = None,
) -> Publication | None:
    """Return the newest version that verifies and is accepted, or `None` if there is none or it is in use already.

    One that is refused is logged and the next older one tried, so that a bad publication never stops an actor.

    Args:
        folder: Where versions lie.
        belongs_to: What they must fit.
        current: Digest of the one in use.
        accept: Raises `BundleError` to refuse, for instance after loading the weights into a copy and trying them.
    """
    for path in sorted(Path(folder).glob("v*"), reverse=True):
        try:
            found = read(path, belongs_to=belongs_to)
            if found.digest == current:
                return None
            if accept is not None:
                accept(found)
        except FileNotFoundError:  # taken back or pruned while we looked
            continue
        except BundleError as error:
            log.warning("weights refused: %s", error)
        else:
            return found
    return None


def read(path: str | Path, *, belongs_to: str) -> Publication:
    """Return one version after verifying it.

    Raises:
        BundleError: Altered, not finite, of another format, or made for something else.
    """
    folder = Path(path)
    content = (folder / WEIGHTS).read_bytes()
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        version, owner, wanted = int(manifest["version"]), manifest["belongs_to"], manifest["sha256"]
        written, facts = manifest["format_version"], manifest["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} is damaged: {error!r}; publish again") from error
    if written != FORMAT_VERSION:
        raise BundleError(f"{folder}: format_version must be {FORMAT_VERSION}, got {written}; use that release")
    if (got := hashlib.sha256(content).hexdigest()) != wanted:
        raise BundleError(f"{folder / WEIGHTS}: expected sha256 {wanted}, got {got}; it was altered, publish again")
    if owner != belongs_to:
        raise BundleError(f"{folder} belongs to {owner!r}, expected {belongs_to!r}; use another folder for each run")
    tensors = load(content)
    if bad := [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]:
        raise BundleError(f"{folder / WEIGHTS}: {bad[:3]} are not finite; publish again")
    return Publication(version, tensors, facts, got)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
