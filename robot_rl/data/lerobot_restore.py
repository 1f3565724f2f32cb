"""A LeRobot data set that our own export wrote, as the store that it came from.

The export keeps in `meta/robot_rl.json` what LeRobot has no place for: the schema, which feature each stream went into,
and every episode's id and meta. With it an import gives streams back their names, shapes and bounds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.foreign import Defect, ForeignDataset
from robot_rl.data.schema import StoreSchema, meta_from_dict
from robot_rl.errors import DataFormatError, SpecError, StoreError
from robot_rl.values import Recording, Rows, Stream

ABOUT = "meta/robot_rl.json"


def restored(dataset: ForeignDataset, root: Path) -> ForeignDataset:
    """Return `dataset` as the store it was exported from, or as it is where nothing tells that.

    A data set that was edited since, so that its episodes are not those of `meta/robot_rl.json`, stays as it is too.
    """
    try:
        about = json.loads((root / ABOUT).read_text("utf-8"))
        schema = StoreSchema.from_dict(about["schema"])
        placed, episodes = about["streams"], about["episodes"]
        known = {feature for feature in dataset.provenance["features"]}
    except (OSError, ValueError, KeyError, TypeError, SpecError):
        return dataset
    if len(episodes) != len(dataset) or not {place["feature"] for place in placed.values()} <= known:
        return dataset
    return RestoredDataset(dataset, schema, placed, episodes)


class RestoredDataset:
    """A LeRobot data set under the names and shapes of the store it was exported from; see `ForeignDataset`.

    Args:
        dataset: The data set as LeRobot has it.
        schema: The store's.
        placed: Stream -> its feature, and its columns of that feature if it shares it.
        episodes: Id, length, streams and meta of each episode.
    """

    def __init__(
        self, dataset: ForeignDataset, schema: StoreSchema, placed: Mapping[str, Any], episodes: Sequence[Any]
    ) -> None:
        self._dataset, self._placed, self._episodes = dataset, placed, episodes
        self.schema = replace(schema, codecs={**schema.codecs, **self._exact(schema)})
        self.format: str = dataset.format
        self.defects: Sequence[Defect] = dataset.defects
        self.lost: Mapping[str, str] = {}
        self.provenance: Mapping[str, Any] = dataset.provenance

    def _exact(self, schema: StoreSchema) -> dict[str, str]:
        """Return the cameras that LeRobot holds as PNG: as JPEG, which they were, they would lose once more."""
        streams = self._dataset.schema.streams
        return {
            name: "png" for name, place in self._placed.items()
            if schema.stream(name).spec.is_image and streams[self._source(place)].codec == "png"
        }  # fmt: skip

    def _source(self, place: Mapping[str, Any]) -> str:
        return str(self._dataset.provenance["streams"].get(place["feature"], place["feature"]))

    def __len__(self) -> int:
        return len(self._episodes)

    def episode_id(self, index: int) -> str:
        """Return the id that the episode had in the store."""
        return str(self._episodes[index]["id"])

    def episode(self, index: int) -> Recording:
        """Return one episode under the store's names.

        Raises:
            DataFormatError: It cannot be read, or is not the episode that `meta/robot_rl.json` describes.
        """
        about, recording = self._episodes[index], self._dataset.episode(index)
        n = len(recording.streams["action"])
        if n != about["length"]:
            raise DataFormatError(f"{ABOUT} says that episode {index} has {about['length']} frames, it has {n}")
        try:
            meta = meta_from_dict(about["meta"])
        except (StoreError, SpecError) as error:
            raise DataFormatError(f"{ABOUT}, episode {index}: {error}") from error
        streams = {name: self._stream(name, recording) for name in about["streams"] if name in self._placed}
        extra = {"imported": dict(self.provenance), **meta.extra}
        return Recording(streams, replace(meta, on_grid=True, extra=extra))

    def _stream(self, name: str, recording: Recording) -> Stream:
        place, spec = self._placed[name], self.schema.stream(name).spec
        found = recording.streams[self._source(place)]
        if spec.is_image:
            return found
        rows: Rows = found.data
        columns = slice(None) if place["columns"] is None else slice(*place["columns"])
        values = np.asarray(rows[:]).reshape(len(found), -1)[:, columns]
        return Stream(found.stamp_ns, values.astype(spec.dtype, copy=False).reshape(-1, *spec.shape))
