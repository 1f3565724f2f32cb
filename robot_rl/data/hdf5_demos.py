"""HDF5 files of demonstrations, `data/<demo>/<array>`, as robosuite and robomimic write them: what is in one.

A `DemoFile` holds no array. It lists the demonstrations, the shape that most of them agree on for each array, and
every defect that can be seen without decoding pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.foreign import Defect, Severity, refuse
from robot_rl.data.hdf5_rows import first_not_finite, leaves, native, open_hdf5, plain
from robot_rl.errors import DataFormatError
from robot_rl.specs import ArraySpec

_FOREIGN_PATH = re.compile(
    r"""(?:file|dir)=["'](/[^"']+|[A-Za-z]:[\\/][^"']+)["']|\A(/[^\n<>]+|[A-Za-z]:[\\/][^\n<>]+)\Z"""
)
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One demonstration: its group's name, its number in the file, its arrays by path and its attributes."""

    name: str
    index: int
    arrays: Mapping[str, Any]
    attrs: Mapping[str, Any]

    def steps(self) -> int | None:
        """Return how many actions it has, `None` without the array `actions`."""
        return len(self.arrays["actions"]) if "actions" in self.arrays else None


@dataclass(frozen=True, kw_only=True)
class Column:
    """An array that most demonstrations have: row shape and dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def spec(self, name: str, unit: str = "") -> ArraySpec:
        """Return it as the spec of a stream."""
        return ArraySpec(name=name, shape=self.shape, dtype=self.dtype.name, unit=unit)


class DemoFile:
    """A file of demonstrations that was opened.

    Args:
        path: The .hdf5 file.

    Raises:
        MissingExtraError: h5py is not installed.
        DataFormatError: It is not HDF5, was cut short, or holds no demonstration.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = open_hdf5(path)
        self.defects: list[Defect] = []
        data = self.file.get("data")
        groups = [name for name in data if hasattr(data.get(name), "keys")] if hasattr(data, "keys") else []
        if not groups:
            have = sorted(self.file)
            raise self.refuse("data", f"expected a group with one group a demonstration, the file has {have}")
        self.attrs = {name: plain(value) for name, value in data.attrs.items()}
        groups.sort(key=lambda name: (_number(name), name))
        self.demos = [
            Demo(
                name=name, index=i, arrays=leaves(data[name]),
                attrs={key: plain(value) for key, value in data[name].attrs.items()},
            )
            for i, name in enumerate(groups)
        ]  # fmt: skip
        self.ids = _ids(groups)
        self.columns: dict[str, Column] = {}

    def refuse(
        self, where: str, what: str, advice: str = "give a file in robosuite's or robomimic's layout"
    ) -> DataFormatError:
        """Return the error for a file of which nothing can be imported, with all that was found before."""
        self.add("fatal", where, what, advice)
        return refuse(self.path, self.defects)

    def add(self, severity: Severity, where: str, what: str, advice: str, episodes: Sequence[int] = ()) -> None:
        """Add a defect."""
        self.defects.append(Defect(where=where, what=what, advice=advice, severity=severity, episodes=tuple(episodes)))

    def survey(self) -> None:
        """Find what most demonstrations agree on, and which of them do not."""
        keys = sorted({key for demo in self.demos for key in demo.arrays})
        for key in keys:
            having = [demo for demo in self.demos if key in demo.arrays]
            kinds = Counter((d.arrays[key].shape[1:], d.arrays[key].dtype) for d in having if d.arrays[key].ndim > 0)
            if not kinds:
                self.columns[key] = Column(shape=(0,), dtype=np.dtype(bool))
                continue
            (shape, dtype), _ = kinds.most_common(1)[0]
            self.columns[key] = Column(shape=tuple(shape), dtype=native(dtype))
            self._check_agreement(key, having)
        for demo in self.demos:
            self._check_lengths(demo)
        total, counted = self.attrs.get("total"), sum(demo.steps() or 0 for demo in self.demos)
        if total is not None and "actions" in self.columns and total != counted:
            self.add("warning", "data attribute total", f"says {total}, there are {counted} actions", "it was not used")

    def usable(self, key: str) -> bool:
        """Whether an array has numbers in it: not text, not width 0."""
        column = self.columns[key]
        return column.dtype.kind in "biuf" and column.dtype.itemsize <= 8 and 0 not in column.shape

    def in_most(self, key: str) -> bool:
        """Whether at least half of the demonstrations have an array."""
        return 2 * sum(key in demo.arrays for demo in self.demos) >= len(self.demos)

    def _check_agreement(self, key: str, having: Sequence[Demo]) -> None:
        column = self.columns[key]
        if 0 in column.shape:
            self.add(
                "warning", key, f"its rows have shape {column.shape}, so there is nothing in it", "it was left out",
                [demo.index for demo in having],
            )  # fmt: skip
            return
        for demo in having:
            array = demo.arrays[key]
            got = (tuple(array.shape[1:]), native(array.dtype))
            if array.ndim == 0 or got != (column.shape, column.dtype):
                self.add(
                    "episode", f"data/{demo.name}/{key}",
                    f"rows must be {column.dtype.name}{column.shape} as in most others, got {got[1].name}{got[0]}",
                    "record that demonstration again or mend the array", [demo.index],
                )  # fmt: skip

    def _check_lengths(self, demo: Demo) -> None:
        n = demo.steps()
        stated = demo.attrs.get("num_samples")
        if n is None:
            return
        if n == 0:
            self.add("episode", f"data/{demo.name}/actions", "it has no step", "leave it out", [demo.index])
        if stated is not None and stated != n:
            self.add(
                "warning", f"data/{demo.name} attribute num_samples", f"says {stated}, its actions are {n}",
                "the arrays were believed", [demo.index],
            )  # fmt: skip

    def check_finite(self, keys: Sequence[str]) -> None:
        """Add a defect for each demonstration with NaN or infinity in one of the arrays, or that cannot be read."""
        for demo in self.demos:
            for key in keys:
                if key not in demo.arrays or demo.arrays[key].ndim == 0:
                    continue
                try:
                    bad = first_not_finite(demo.arrays[key])
                except DataFormatError as error:
                    self.add("episode", f"data/{demo.name}/{key}", str(error), "copy the file again", [demo.index])
                    continue
                if bad is not None:
                    self.add(
                        "episode", f"data/{demo.name}/{key}", f"must be finite, got {bad[1]} in row {bad[0]}",
                        "leave that demonstration out or mend it", [demo.index],
                    )  # fmt: skip

    def check_rows(self, demo: Demo, keys: Sequence[str], n: int) -> None:
        """Add a defect for each array of a demonstration that does not have `n` rows."""
        for key in keys:
            array = demo.arrays.get(key)
            if array is not None and array.ndim > 0 and len(array) != n:
                self.add(
                    "episode", f"data/{demo.name}/{key}", f"must have {n} rows as `actions` has, got {len(array)}",
                    "rows cannot be told apart any more, leave that demonstration out", [demo.index],
                )  # fmt: skip

    def check_foreign_paths(self, texts: Mapping[int, str]) -> None:
        """Warn of absolute paths, in attributes and in models, that are not on this machine.

        Args:
            texts: Number of a demonstration -> its model as XML.
        """
        found: dict[str, list[int]] = {}
        for demo in self.demos:
            every = [texts.get(demo.index, ""), *(v for v in demo.attrs.values() if isinstance(v, str))]
            for match in (m for text in every for m in _FOREIGN_PATH.finditer(text)):
                path = match[1] or match[2]
                if not Path(path).exists():
                    found.setdefault(path, []).append(demo.index)
        if found:
            shown = ", ".join(sorted(found)[:_SHOWN]) + (" ..." if len(found) > _SHOWN else "")
            self.add(
                "warning", "data/*/model_file", f"{len(found)} absolute paths of another machine: {shown}",
                "the import does not need them, playing the demonstrations back in their simulator does",
                sorted({i for which in found.values() for i in which}),
            )  # fmt: skip

    def masks(self) -> dict[str, list[str]]:
        """Return the filter keys: name -> demonstrations, those that are not there named as a defect."""
        group = self.file.get("mask")
        names = {demo.name for demo in self.demos}
        found: dict[str, list[str]] = {}
        for key, array in leaves(group).items() if hasattr(group, "keys") else ():
            listed = [str(plain(item)) for item in np.asarray(array).reshape(-1)]
            if absent := sorted(set(listed) - names):
                shown = absent[:_SHOWN]
                self.add(
                    "warning", f"mask/{key}", f"names {len(absent)} demonstrations that are not there: {shown}",
                    "they were left out of it",
                )  # fmt: skip
            found[key] = [name for name in listed if name in names]
        return found


def _number(name: str) -> float:
    match = re.search(r"(\d+)$", name)
    return int(match[1]) if match else float("inf")


def _ids(names: Sequence[str]) -> list[str]:
    """Return an episode id for each demonstration that sorts as they do: `demo_12` -> `demo_000012`."""
    padded = [re.sub(r"(\d+)$", lambda m: m[1].zfill(6), re.sub(r"[^A-Za-z0-9_.\-]", "_", name)) for name in names]
    unique = len(set(padded)) == len(padded) and not any(name[0] in ".-" for name in padded)
    return padded if unique else [f"demo_{i:06d}" for i in range(len(names))]


def stream_name(key: str, taken: Sequence[str] | set[str]) -> str:
    """Return a name that a stream can have for an array: `/` becomes `.`, a name in `taken` gets `demo_` in front."""
    name = re.sub(r"[^A-Za-z0-9_.\-]", "_", key.replace("/", ".")).lstrip(".-") or "array"
    name = name.removesuffix(".json")
    return f"demo_{name}" if name in taken else name
