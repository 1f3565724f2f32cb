"""Episodes in memory: what simulation uses in place of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from robot_rl.data.align import Alignment, to_episode
from robot_rl.data.schema import StoreSchema
from robot_rl.errors import StoreError
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Episode, Recording, Stream


class MemorySink:
    """An `EpisodeSink` that keeps recordings in RAM.

    Args:
        spec: The robot whose recordings it takes.
        extra: Optional streams, as for `EpisodeStore.create`.
    """

    def __init__(self, spec: RobotSpec, *, extra: Mapping[str, ArraySpec] | None = None) -> None:
        self.schema = StoreSchema(spec=spec, extra=extra or {})
        self._recordings: dict[str, Recording] = {}

    @property
    def spec(self) -> RobotSpec:
        """The robot whose attempts are kept."""
        return self.schema.spec

    def append(self, recording: Recording) -> str:
        """Keep a copy of a recording and return its id.

        Raises:
            SpecError: The recording is not what the schema says.
        """
        self.schema.check(recording)
        self.schema.check_values(recording)
        id = f"memory-{len(self._recordings):06d}"
        streams = {n: Stream(s.stamp_ns.copy(), np.array(s.data[:])) for n, s in recording.streams.items()}
        self._recordings[id] = replace(recording, streams=streams)
        return id

    def ids(self) -> list[str]:
        """Return the ids in the order of arrival."""
        return list(self._recordings)

    def __len__(self) -> int:
        return len(self._recordings)

    def read(self, id: str) -> Recording:
        """Return a recording.

        Raises:
            StoreError: There is none with this id.
        """
        if id not in self._recordings:
            raise StoreError(f"there is no episode {id!r} in memory; there are {len(self)}")
        return self._recordings[id]

    def episode(self, id: str, alignment: Alignment | None = None) -> Episode:
        """Return a recording seen from the control clock.

        Raises:
            StoreError: There is none with this id.
            SpecError: The streams do not overlap in time.
        """
        return to_episode(self.read(id), self.spec, alignment or Alignment(), id=id)
