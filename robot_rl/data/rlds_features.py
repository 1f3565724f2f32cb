"""What features.json of a TFDS data set says: one leaf for each array of an episode, by the key it has in records."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robot_rl.data.tf_example import Values
from robot_rl.errors import DataFormatError

Kind = Literal["numbers", "image", "text", "unknown"]
STEPS = "steps/"

_CLASSES: dict[str, Kind] = {
    "Tensor": "numbers", "Scalar": "numbers", "ClassLabel": "numbers", "BBoxFeature": "numbers",
    "Image": "image", "Text": "text",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One array of an episode.

    Args:
        key: Name of the feature in a record; those of steps start with `steps/`.
        kind: What it holds; `unknown` for feature classes that cannot be read here.
        shape: Of one step, or of the whole for what is not in steps.
        dtype: numpy dtype name.
        encoding: How tensors are stored: `none`, `bytes` or `zlib`; for pictures `jpeg`, `png` or empty.
        what: The feature's class, for messages.
    """

    key: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    encoding: str = "none"
    what: str = ""

    @property
    def in_steps(self) -> bool:
        """Whether it has one entry a step."""
        return self.key.startswith(STEPS)

    def rows(self, values: Values) -> np.ndarray:
        """Return the numbers of a feature as [steps, ...].

        Raises:
            DataFormatError: They do not make whole steps of this shape.
        """
        size = int(np.prod(self.shape, dtype=np.int64))
        if isinstance(values, list) and self.encoding in ("bytes", "zlib"):
            try:
                parts = [zlib.decompress(v) if self.encoding == "zlib" else v for v in values]
                values = np.frombuffer(b"".join(parts), np.dtype(self.dtype).newbyteorder("<"))
            except (zlib.error, ValueError) as error:
                raise DataFormatError(
                    f"`{self.key}` does not decode as {self.encoding} {self.dtype}: {error}"
                ) from error
        if isinstance(values, list) or len(values) % size:
            got = f"{len(values)} byte strings" if isinstance(values, list) else f"{len(values)} numbers"
            raise DataFormatError(f"`{self.key}` must be {self.dtype}{self.shape} a step, the record has {got}")
        return values.astype(self.dtype).reshape(-1, *self.shape)


def read_features(path: Path) -> list[Leaf]:
    """Return the leaves that a features.json names.

    Raises:
        DataFormatError: It is not JSON, or not a features.json of TFDS.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found: list[Leaf] = []
        _walk(document, "", found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFormatError(f"{path} cannot be read as TFDS features ({error!r}); copy the data set again") from error
    return found


def _walk(node: Mapping[str, Any], key: str, found: list[Leaf]) -> None:
    name = str(node["pythonClassName"]).rsplit(".", 1)[-1]
    if "featuresDict" in node:
        for child, feature in sorted(node["featuresDict"]["features"].items()):
            _walk(feature, f"{key}/{child}" if key else child, found)
    elif "sequence" in node and key == "steps":
        _walk(node["sequence"]["feature"], key, found)
    else:
        found.append(_leaf(node, name, key))


def _leaf(node: Mapping[str, Any], name: str, key: str) -> Leaf:
    kind = _CLASSES.get(name, "unknown")
    body: Mapping[str, Any] = next(
        (node[part] for part in ("tensor", "image", "text", "classLabel") if part in node), {}
    )
    shape = tuple(int(n) for n in body.get("shape", {}).get("dimensions", ()))
    dtype = str(body.get("dtype", "int64" if name == "ClassLabel" else "string" if kind == "text" else "uint8"))
    if kind == "image":
        return Leaf(
            key=key, kind=kind, shape=shape, dtype=dtype, encoding=str(body.get("encodingFormat", "")), what=name
        )
    if dtype in ("string", "object"):
        kind = "text" if kind != "unknown" else kind
    elif kind == "numbers" and (not _known(dtype) or any(n <= 0 for n in shape)):
        kind = "unknown"
    encoding = str(body.get("encoding", "none")).lower().removeprefix("encoding.")
    return Leaf(
        key=key, kind=kind, shape=shape, dtype=dtype, encoding=encoding or "none", what=f"{name} {dtype}{shape}"
    )


def _known(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def guess_features(example: Mapping[str, Values]) -> list[Leaf]:
    """Return leaves from a record alone: `steps/is_first` or another flag counts the steps, the rest are vectors.

    Raises:
        DataFormatError: Nothing says how many steps there are.
    """
    flags = [example[key] for key in _COUNTERS if key in example and len(example[key])]
    if not flags:
        raise DataFormatError(
            f"without features.json one of {list(_COUNTERS)} must count the steps; got {sorted(example)}"
        )
    n, found = len(flags[0]), []
    for key, values in sorted(example.items()):
        count = n if key.startswith(STEPS) else 1
        if isinstance(values, list):
            image = bool(values) and values[0][:2] in (b"\xff\xd8", b"\x89P")
            kind: Kind = "image" if image else "text"
            found.append(Leaf(key=key, kind=kind, shape=(), dtype="uint8" if image else "string", encoding=""))
        else:
            width = max(len(values) // count, 1)
            scalar = len(values) == count
            found.append(Leaf(key=key, kind="numbers", shape=() if scalar else (width,), dtype=values.dtype.name))
    return found


_COUNTERS = ("steps/is_first", "steps/is_last", "steps/is_terminal", "steps/reward", "steps/discount")
