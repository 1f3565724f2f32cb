"""A diffusion_policy replay buffer whose task nobody has described: its arrays guessed, or taken by a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl.data.foreign import Defect
from robot_rl.data.replay_layout import ObsSource, ReplayLayout
from robot_rl.data.replay_source import ReplaySource
from robot_rl.data.schema import StoreSchema
from robot_rl.errors import ConfigError, DataFormatError
from robot_rl.specs import ActionSpec
from robot_rl.values import Recording


def open_replay_buffer(
    path: str | Path, *, fps: float | None = None, task: str = "", layout: ReplayLayout | None = None,
    allow_missing_chunks: bool = False,
) -> ReplayDataset:  # fmt: skip
    """Open a replay buffer: folder or zip of a Zarr v2 group with data/ and meta/episode_ends.

    Args:
        path: The folder or .zip.
        fps: Rate of the rows in hertz, which a replay buffer does not say.
        task: What was attempted, in words.
        layout: What the arrays mean; by default `action` is the action, and every other array an observation.
        allow_missing_chunks: Take a chunk file that is not there as zeros, as Zarr does.

    Raises:
        ConfigError: Neither `fps` nor `layout` is given.
        DataFormatError: It is no replay buffer, or arrays are damaged or disagree.
    """
    if layout is None:
        if fps is None:
            raise ConfigError("a replay buffer does not say its rate; give import.fps=<Hz>, or task=<its task>")
        layout = guess_layout(path, fps=fps, task=task)
    return ReplayDataset(path, ReplaySource(path, layout, allow_missing_chunks=allow_missing_chunks), layout)


class ReplayDataset:
    """An opened replay buffer; `open_replay_buffer` makes it."""

    def __init__(self, path: str | Path, source: ReplaySource, layout: ReplayLayout) -> None:
        self.format = "replay_buffer"
        self.defects: Sequence[Defect] = ()
        self.lost: Mapping[str, str] = {key: "the layout skips it" for key in layout.skip}
        self.provenance: Mapping[str, Any] = {"format": self.format, "name": Path(path).name}
        codecs = {name: "png" for name, spec in source.spec.obs.items() if spec.is_image}
        self.schema = StoreSchema(spec=source.spec, extra=source.extra, codecs=codecs)
        self._source, self._robot = source, layout.robot

    def __len__(self) -> int:
        return len(self._source.ends)

    def episode_id(self, index: int) -> str:
        """Return the id that `import_replay_buffer` gives too."""
        return f"{self._robot}-{index:06d}"

    def episode(self, index: int) -> Recording:
        """Return one episode.

        Raises:
            DataFormatError: A chunk is damaged, or a picture is not of whole numbers.
        """
        return self._source.episode(index)


def guess_layout(path: str | Path, *, fps: float, task: str = "") -> ReplayLayout:
    """Return the layout that the arrays suggest: `action`, pictures by their shape and values, observations.

    Raises:
        DataFormatError: There is no array `action`.
    """
    try:
        store = zarr.storage.ZipStore(path, mode="r") if str(path).endswith(".zip") else str(path)
        data: Any = zarr.open_group(store, mode="r", zarr_format=2)["data"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise DataFormatError(f"{path} has no Zarr v2 group data/: {error}") from error
    keys = sorted(data.array_keys())
    if "action" not in keys:
        raise DataFormatError(f"{path}: data/ has no array `action`, it has {keys}; describe it by a task's `import`")
    obs = {key: ObsSource(key=key, image=_is_picture(data[key])) for key in keys if key != "action"}
    width = int(data["action"].shape[-1])
    action = ActionSpec(name="action", shape=(width,), kind="position")
    return ReplayLayout(robot="replay_buffer", control_hz=fps, obs=obs, action=action, task=task)


def _is_picture(array: Any) -> bool:
    """Whether rows are height, width, channels, and the first one holds whole numbers of 8 bits."""
    if len(array.shape) != 4 or array.shape[-1] not in (1, 3) or not array.shape[0]:
        return False
    first = np.asarray(array[0], np.float64)
    return bool(((first >= 0) & (first <= 255) & (first == np.round(first))).all())
