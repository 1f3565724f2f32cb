"""What an export of ours writes into a robomimic file besides what robomimic reads, so that nothing else is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robot_rl.data.hdf5_demos import Column, DemoFile
from robot_rl.data.schema import StoreSchema, check_id, meta_from_dict
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec
from robot_rl.values import RecordingMeta

OWN = "robot_rl"
"""Name of the attribute, on `data` and on each demonstration."""


@dataclass(frozen=True, kw_only=True)
class OwnDemo:
    """What is noted of an episode: its id, its meta, its streams, and whether it ends with an observation."""

    id: str
    meta: RecordingMeta
    streams: Sequence[str]
    final_obs: bool


@dataclass(frozen=True, kw_only=True)
class OwnExport:
    """The notes of a file that an export of ours wrote.

    Args:
        schema: Of the store it came from.
        demos: Notes by number of the demonstration.
    """

    schema: StoreSchema
    demos: Mapping[int, OwnDemo]

    @classmethod
    def read(cls, file: DemoFile) -> OwnExport | None:
        """Return a file's notes, `None` for a file of others; notes that cannot be read become a defect."""
        if OWN not in file.attrs:
            return None
        try:
            schema = StoreSchema.from_dict(json.loads(file.attrs[OWN])["schema"])
            return cls(schema=schema, demos={demo.index: _read_demo(demo.attrs[OWN]) for demo in file.demos})
        except (KeyError, TypeError, ValueError, SpecError, StoreError) as error:
            file.add(
                "warning", f"attribute {OWN}", f"the notes of the export cannot be read ({error!r})",
                "the file was read as one of others: units, ids and labels are lost",
            )  # fmt: skip
            return None

    def agrees(self, file: DemoFile, streams: Mapping[str, ArraySpec], action: Column) -> StoreSchema | None:
        """Return the noted schema if the arrays still are what it says, else `None` and a defect."""
        noted = {**self.schema.spec.obs, **self.schema.extra}
        same = set(self.schema.spec.obs) <= set(streams) and all(
            (spec.shape, spec.dtype) == (noted[name].shape, noted[name].dtype)
            for name, spec in streams.items()
            if name in noted
        )
        wanted = self.schema.spec.action
        if same and (wanted.shape, wanted.dtype) == (action.shape, action.dtype.name):
            return self.schema
        file.add(
            "warning", f"attribute {OWN}", "the arrays are not those the notes of the export are about",
            "the file was read as one of others: units, ids and labels are lost",
        )  # fmt: skip
        return None

    def demo(self, index: int) -> OwnDemo:
        """Return the notes of a demonstration."""
        return self.demos[index]

    def id(self, index: int, otherwise: str) -> str:
        """Return the id an episode had, or another where two had the same."""
        ids = [demo.id for demo in self.demos.values()]
        return self.demos[index].id if len(set(ids)) == len(ids) else otherwise


def _read_demo(text: str) -> OwnDemo:
    note: dict[str, Any] = json.loads(text)
    check_id(note["id"])
    meta = replace(meta_from_dict(note["meta"]), on_grid=True)
    return OwnDemo(id=note["id"], meta=meta, streams=tuple(note["streams"]), final_obs=bool(note["final_obs"]))
