"""A diffusion_policy replay buffer read as recordings, with every array of it in some stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl.data.grid import grid_ns
from robot_rl.data.replay_layout import ObsSource, ReplayLayout
from robot_rl.errors import DataFormatError
from robot_rl.specs import ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream


class ReplaySource:
    """A replay buffer that was checked, seen as streams.

    Args:
        source: Folder of the Zarr v2 group, or a `.zip` of it.
        layout: What the arrays mean.
        allow_missing_chunks: Take a chunk file that is not there as zeros, as Zarr does.

    Raises:
        DataFormatError: A key lacks, lengths disagree, or a chunk file is missing.
    """

    def __init__(self, source: str | Path, layout: ReplayLayout, *, allow_missing_chunks: bool) -> None:
        self._source, self._layout = str(source), layout
        group = _open(source)
        self._arrays = {key: group[f"data/{key}"] for key in sorted(group["data"].array_keys())}
        self.ends = self._read_ends(group)
        wanted = {layout.action_key, *(obs.key for obs in layout.obs.values())}
        if lacking := sorted(wanted - set(self._arrays)):
            raise DataFormatError(f"{source}: data/ lacks arrays {lacking}; it has {sorted(self._arrays)}")
        for key in [*self._arrays]:
            if key in layout.skip:
                del self._arrays[key]
            else:
                self._check_array(key, allow_missing_chunks)
        self.parts = self._parts()
        action = replace(layout.action, **_like(self._arrays[layout.action_key]))
        obs = {name: self._obs_spec(name, about) for name, about in layout.obs.items()}
        self.spec = RobotSpec(name=layout.robot, obs=obs, action=action, control_hz=layout.control_hz)
        self.extra = self._extra()

    def _read_ends(self, group: Any) -> np.ndarray:
        if "meta/episode_ends" not in group:
            raise DataFormatError(f"{self._source}: meta/episode_ends is missing; this is not a replay buffer")
        ends = np.asarray(group["meta/episode_ends"][:])
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0:
            raise DataFormatError(
                f"{self._source}: episode_ends must be integers [episodes], got {ends.dtype}{ends.shape}"
            )
        lengths = np.diff(ends.astype(np.int64), prepend=0)
        if (lengths <= 0).any():
            i = int(np.flatnonzero(lengths <= 0)[0])
            raise DataFormatError(f"{self._source}: episode_ends must grow from above 0, got {ends[i]} at episode {i}")
        return ends

    def _check_array(self, key: str, allow_missing_chunks: bool) -> None:
        array = self._arrays[key]
        if array.shape[0] != self.ends[-1]:
            raise DataFormatError(
                f"{self._source}: data/{key} must have {self.ends[-1]} rows, as episode_ends says, got {array.shape[0]}"
            )
        missing = array.nchunks - array.nchunks_initialized
        if missing and not allow_missing_chunks:
            raise DataFormatError(
                f"{self._source}: data/{key} lacks {missing} of {array.nchunks} chunk files; copy it again, or set "
                "allow_missing_chunks if its writer left out chunks of zeros"
            )
        if getattr(array.metadata.compressor, "codec_id", "") == "blosc":
            self._check_blosc(Path(self._source) / "data" / key)

    def _check_blosc(self, folder: Path) -> None:
        """Raise if a chunk file is shorter than its header says: numcodecs decodes such a file to wrong numbers."""
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.is_dir() or path.name.startswith("."):
                continue
            with path.open("rb") as file:
                expected = int.from_bytes(file.read(16)[12:16], "little")
            got = path.stat().st_size
            if got != expected or got < 16:
                raise DataFormatError(
                    f"{path}: this chunk must be {max(expected, 16)} bytes, as its Blosc header says, got {got}; "
                    "it was cut short, copy it again"
                )

    def _parts(self) -> dict[str, list[tuple[str, int, int]]]:
        """Return, for each source array, the streams that hold it: (stream, first column, one past the last)."""
        layout = self._layout
        parts: dict[str, list[tuple[str, int, int]]] = {}
        for key, array in self._arrays.items():
            width = array.shape[-1] if array.ndim > 1 else 1
            found = [(n, *(o.columns or (0, width))) for n, o in layout.obs.items() if o.key == key]
            if key == layout.action_key:
                found = [("action", 0, width), *found]
            elif key in layout.step_streams:
                found = [(key, 0, width)]
            taken = {*layout.obs, "action", "action_executed", "reward", "by_human"}
            covered = {column for _, start, stop in found for column in range(start, stop)}
            if covered != set(range(width)):
                found = [(f"source_{key}" if key in taken else key, 0, width), *found]
            parts[key] = found
        return parts

    def _obs_spec(self, name: str, about: ObsSource) -> ArraySpec:
        like = _like(self._arrays[about.key])
        shape = like["shape"]
        if about.columns is not None:
            start, stop = about.columns
            if not (len(shape) > 0 and 0 <= start < stop <= shape[-1]):
                raise DataFormatError(
                    f"{self._source}: data/{about.key} has no columns {about.columns}, its rows are {shape}"
                )
            shape = (*shape[:-1], stop - start)
        return ArraySpec(name=name, shape=shape, dtype="uint8" if about.image else like["dtype"], unit=about.unit)

    def _extra(self) -> dict[str, ArraySpec]:
        known = {*self._layout.obs, *self._layout.step_streams, "action"}
        names = {key: part[0] for key, parts in self.parts.items() for part in parts if part[0] not in known}
        return {name: ArraySpec(name=name, **_like(self._arrays[key])) for key, name in names.items()}

    def episode(self, i: int) -> Recording:
        """Return episode `i`.

        Raises:
            DataFormatError: A chunk is damaged, or a picture is not of whole numbers.
        """
        start, stop = int(self.ends[i - 1]) if i else 0, int(self.ends[i])
        stamps = grid_ns(stop - start, self.spec.control_hz)
        streams, about = {}, {}
        for key, array in self._arrays.items():
            rows = self._rows(key, start, stop)
            about[key] = {
                "dtype": array.dtype.str, "shape": list(array.shape[1:]), "chunks": list(array.chunks),
                "streams": [list(part) for part in self.parts[key]],
            }  # fmt: skip
            for name, first, last in self.parts[key]:
                part = rows if rows.ndim == 1 or last - first == rows.shape[-1] else rows[..., first:last]
                image = name in self._layout.obs and self._layout.obs[name].image
                streams[name] = Stream(stamps, self._as_image(key, start, part) if image else part)
        name, ends_dtype = Path(self._source).name, self.ends.dtype.str
        extra = {"replay_buffer": {"name": name, "episode": i, "ends_dtype": ends_dtype, "arrays": about}}
        meta = RecordingMeta(
            task=self._layout.task, source=self._layout.source, on_grid=True, truncated=True, extra=extra
        )
        return Recording(streams, meta)

    def _rows(self, key: str, start: int, stop: int) -> np.ndarray:
        try:
            rows = np.asarray(self._arrays[key][start:stop])
        except Exception as error:  # each compressor raises its own
            raise DataFormatError(
                f"{self._source}: data/{key} rows {start} to {stop} cannot be read ({error}); a chunk is cut short or "
                "damaged, copy it again"
            ) from error
        return np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))

    def _as_image(self, key: str, start: int, rows: np.ndarray) -> np.ndarray:
        if rows.dtype == np.uint8:
            return rows
        pixels = rows.astype(np.uint8) if ((rows >= 0) & (rows <= 255)).all() else np.zeros(0, np.uint8)
        # Compared as bytes, so that -0.0 counts as the loss it would be.
        if pixels.shape != rows.shape or pixels.astype(rows.dtype).tobytes() != rows.tobytes():
            raise DataFormatError(
                f"{self._source}: data/{key} from row {start} on is not whole numbers in 0..255, so 8-bit pictures "
                "would lose something; map it with image=False"
            )
        return pixels


def _open(source: str | Path) -> Any:
    try:
        store = zarr.storage.ZipStore(source, mode="r") if str(source).endswith(".zip") else str(source)
        group = zarr.open_group(store, mode="r", zarr_format=2)
        if "data" in group:
            return group
    except (FileNotFoundError, ValueError) as error:
        raise DataFormatError(f"{source} is not a Zarr v2 group: {error}") from error
    raise DataFormatError(f"{source} has no group data/; this is not a replay buffer")


def _like(array: Any) -> dict[str, Any]:
    """Return the shape of one row and the dtype of a source array."""
    return {"shape": tuple(array.shape[1:]), "dtype": array.dtype.name}
