"""A bundle whose base is corrected at every control step: what the graph `step` stands on, and the base by itself.

Such a bundle holds all files of a frozen base's bundle unaltered, the base's own manifest (`base.json`), the graph
`step` and its bounds (`step.json`). So what it stands on is proven by hashes, and the base runs as it ran alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robot_rl.bundle.directory import MANIFEST, PolicyBundle
from robot_rl.bundle.manifest import Manifest, content_id
from robot_rl.errors import BundleError

STEP = "step"
"""The graph: one observation {obs.<name>: [B, ...]} and `base_action` [B, A] in, the total `action` [B, A] out."""
BASE_FILE, INFO_FILE, STEP_WEIGHTS = "base.json", "step.json", "step.safetensors"


@dataclass(frozen=True, kw_only=True)
class ResidualInfo:
    """What a correction may do, and to whom.

    Args:
        base_id: Id of the base's bundle.
        bound: [A], how far the correction may leave the base, in the action's unit.
        low: [A], least total action.
        high: [A], largest.
        names: Observations that the correction reads.
        delay_steps: Ticks that the base's inference took where the correction was learned.
        hold: Ticks that a correction lasts.
    """

    base_id: str
    bound: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...]
    delay_steps: int
    hold: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResidualInfo:
        """Build from `to_dict`'s values.

        Raises:
            BundleError: A missing or unknown key.
        """
        try:
            tuples = {key: tuple(data[key]) for key in ("bound", "low", "high", "names")}
            return cls(**{**data, **tuples})
        except (KeyError, TypeError) as error:
            raise BundleError(f"{INFO_FILE} does not say what a correction may do ({error!r}); export again") from error


def residual_info(bundle: PolicyBundle) -> ResidualInfo | None:
    """Return what the bundle's correction may do, `None` for a bundle without one.

    Raises:
        BundleError: `step.json` is missing or damaged.
    """
    if STEP not in bundle.manifest.graphs:
        return None
    return ResidualInfo.from_dict(json.loads(bundle.content(INFO_FILE)))


def manifest_bytes(base: PolicyBundle) -> bytes:
    """Return a bundle's manifest as it was written; of a base inside a bundle, its own.

    Raises:
        BundleError: It is not there any more.
    """
    for path in (base.path / MANIFEST, base.path / BASE_FILE):
        if path.is_file() and json.loads(content := path.read_bytes())["id"] == base.id:
            return content
    raise BundleError(f"{base.path} no longer holds the manifest of {base.id}; copy or export the bundle again")


def base_of(bundle: PolicyBundle) -> PolicyBundle:
    """Return the frozen base inside a bundle, or the bundle itself if it has no correction.

    Raises:
        BundleError: The base that the correction was learned on is not the one whose graphs are here.
    """
    info = residual_info(bundle)
    if info is None:
        return bundle
    data = json.loads(bundle.content(BASE_FILE))
    base = Manifest.from_dict(data)
    if base.id != info.base_id or content_id(data) != info.base_id:
        raise BundleError(
            f"bundle {bundle.id} corrects base {info.base_id}, {BASE_FILE} is the manifest of {base.id}; package the "
            "run again with the base that it was fine-tuned on"
        )
    mine = bundle.manifest.files
    if wrong := sorted(name for name, digest in base.files.items() if mine.get(name) != digest):
        raise BundleError(
            f"bundle {bundle.id} corrects base {info.base_id}, but its {wrong} are not that base's; package the run "
            "again with the base that it was fine-tuned on"
        )
    return PolicyBundle(bundle.path, base)
