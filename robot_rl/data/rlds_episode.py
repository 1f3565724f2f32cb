"""What the arrays of an RLDS episode are to a robot: observation, action, reward, optional stream or metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from robot_rl.data import frame_codec
from robot_rl.data.hdf5_demos import stream_name
from robot_rl.data.rlds_features import STEPS, Leaf
from robot_rl.data.rlds_files import RldsFiles
from robot_rl.data.rows import FrameRows
from robot_rl.data.schema import STEP_STREAMS
from robot_rl.data.tf_example import Values
from robot_rl.errors import DataFormatError, SpecError, StoreError
from robot_rl.specs import ArraySpec
from robot_rl.values import Rows

_OBS, _ACTION = "steps/observation/", "steps/action"
_FLAGS = {"steps/is_first", "steps/is_last", "steps/is_terminal"}
_METADATA_MAX = 64
"""Longest array of episode metadata that is kept."""


@dataclass(kw_only=True)
class RldsRoles:
    """Leaves by what they are; `texts` may hold the instruction, `codecs` are those of the pictures."""

    obs: dict[str, Leaf] = field(default_factory=dict)
    action: list[Leaf] = field(default_factory=list)
    reward: Leaf | None = None
    extra: dict[str, Leaf] = field(default_factory=dict)
    texts: list[Leaf] = field(default_factory=list)
    about: list[Leaf] = field(default_factory=list)
    codecs: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def required(self) -> list[Leaf]:
        """Return the leaves that an episode must have."""
        return [*self.obs.values(), *self.action]

    def shape(self, leaf: Leaf) -> tuple[int, ...]:
        """Return the shape of one step."""
        return self.shapes.get(leaf.key, leaf.shape)

    def specs(self, leaves: Mapping[str, Leaf]) -> dict[str, ArraySpec]:
        """Return leaves as the specs of streams."""
        return {n: ArraySpec(name=n, shape=self.shape(leaf), dtype=leaf.dtype) for n, leaf in leaves.items()}

    def instruction(self, example: Mapping[str, Values]) -> str:
        """Return what the first step's text says, of features called after language or instructions first."""
        for leaf in sorted(self.texts, key=lambda t: ("instruction" not in t.key, "language" not in t.key, t.key)):
            values = example.get(leaf.key)
            if isinstance(values, list) and values and values[0]:
                return values[0].decode("utf-8", "replace")
        return ""

    def metadata(self, example: Mapping[str, Values]) -> dict[str, Any]:
        """Return what is said of the episode as a whole, as plain JSON."""
        found: dict[str, Any] = {}
        for leaf in self.about:
            values = example.get(leaf.key, [])
            if isinstance(values, np.ndarray):
                plain: list[Any] = values.tolist()
            else:
                plain = [value.decode("utf-8", "replace") for value in values]
            if len(plain) <= _METADATA_MAX:
                found[leaf.key] = plain[0] if len(plain) == 1 else plain
        return found


def find_roles(leaves: list[Leaf], first: Mapping[str, Values], files: RldsFiles, lost: dict[str, str]) -> RldsRoles:
    """Return what each leaf is; what is nothing goes to `lost`, what cannot be read to the files' defects too."""
    roles = RldsRoles()
    for leaf in leaves:
        if leaf.kind == "image":
            _find_picture(roles, leaf, first, lost)
        if leaf.kind == "unknown" or leaf.key in lost:
            lost.setdefault(leaf.key, f"features of {leaf.what} cannot be read here")
            files.add("warning", leaf.key, lost[leaf.key], "it was left out")
        elif not leaf.in_steps:
            roles.about.append(leaf)
        elif leaf.kind == "text":
            roles.texts.append(leaf)
            lost[leaf.key] = "the first step's text becomes the task, the other steps' are left behind"
        elif leaf.key in _FLAGS:
            lost[leaf.key] = "where an episode begins and ends says the same; is_terminal becomes `terminated`"
        else:
            _give_role(roles, leaf)
    _settle_action(roles)
    for name, leaf in {**roles.obs, **roles.extra}.items():
        if leaf.key in roles.codecs:
            roles.codecs[name] = roles.codecs.pop(leaf.key)
    return roles


def _give_role(roles: RldsRoles, leaf: Leaf) -> None:
    taken = {*STEP_STREAMS, *roles.obs, *roles.extra}
    if leaf.key.startswith(_OBS) or leaf.key == _OBS[:-1]:
        roles.obs[stream_name(leaf.key.removeprefix(_OBS).removeprefix(STEPS), taken)] = leaf
    elif leaf.key == _ACTION or leaf.key.startswith(f"{_ACTION}/"):
        roles.action.append(leaf)
    elif leaf.key == "steps/reward" and leaf.shape in ((), (1,)):
        roles.reward = leaf
    else:
        roles.extra[stream_name(leaf.key.removeprefix(STEPS), taken)] = leaf


def _settle_action(roles: RldsRoles) -> None:
    """Of a nested action, take the parts of floating point; flags and counters among them are optional streams."""
    floats = [leaf for leaf in roles.action if np.dtype(leaf.dtype).kind == "f"]
    if floats:
        for leaf in (leaf for leaf in roles.action if leaf not in floats):
            roles.extra[stream_name(leaf.key.removeprefix(STEPS), {*STEP_STREAMS, *roles.obs, *roles.extra})] = leaf
        roles.action = floats


def _find_picture(roles: RldsRoles, leaf: Leaf, first: Mapping[str, Values], lost: dict[str, str]) -> None:
    """Find codec and size of a picture feature from the first episode's first picture."""
    values = first.get(leaf.key)
    head = values[0] if isinstance(values, list) and values else b""
    codec = "jpeg" if head[:2] == b"\xff\xd8" else "png"
    shape = leaf.shape
    if len(shape) != 3 or any(n <= 0 for n in shape):
        shape = _size(head, codec)
    if leaf.dtype == "uint16" and len(shape) == 3 and shape[-1] == 1:
        roles.shapes[leaf.key] = shape
        return
    if leaf.dtype != "uint8" or len(shape) != 3 or shape[-1] not in (1, 3):
        lost[leaf.key] = (
            f"pictures of {leaf.dtype}{shape} are neither 8-bit with one or three channels nor 16-bit with one"
        )
        return
    roles.codecs[leaf.key], roles.shapes[leaf.key] = codec, shape


def _size(data: bytes, codec: str) -> tuple[int, ...]:
    if codec == "png":
        if len(data) < 26:
            return ()
        return (*(int.from_bytes(data[i : i + 4]) for i in (20, 16)), {0: 1, 2: 3}.get(data[25], 0))
    try:
        import simplejpeg

        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        return height, width, 1 if space == "Gray" else 3
    except ValueError:
        return ()


def steps_of(example: Mapping[str, Values], roles: RldsRoles) -> int:
    """Return how many steps an episode has.

    Raises:
        DataFormatError: An array lacks, or they disagree on it.
    """
    counts: dict[str, int] = {}
    optional = [*roles.extra.values(), *([roles.reward] if roles.reward else [])]
    for leaf in [*roles.required(), *(leaf for leaf in optional if leaf.key in example)]:
        if leaf.key not in example:
            raise DataFormatError(f"`{leaf.key}` is missing; the record has {sorted(example)}")
        values = example[leaf.key]
        counts[leaf.key] = len(values) if leaf.kind == "image" else len(leaf.rows(values))
    if len(set(counts.values())) > 1:
        raise DataFormatError(f"its arrays have different numbers of steps: {counts}")
    return next(iter(counts.values()))


class _Bytes:
    """Bytes in memory as a blob."""

    def __init__(self, data: bytes) -> None:
        self._data = np.frombuffer(data, np.uint8)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return bytes [start, stop)."""
        return self._data[start:stop]


def depth_rows(leaf: Leaf, values: Values, shape: tuple[int, ...]) -> np.ndarray:
    """Return 16-bit PNG pictures as uint16 [steps, height, width, 1].

    Raises:
        DataFormatError: One is damaged or of another size.
    """
    frames = np.empty((len(values), *shape), np.uint16)
    for i, value in enumerate(values):
        found = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16 or found.size != frames[i].size:
            raise DataFormatError(f"`{leaf.key}` of step {i} is not a 16-bit PNG of {shape}")
        frames[i] = found.reshape(shape)
    return frames


def image_rows(leaf: Leaf, values: Values, codec: str, shape: tuple[int, ...]) -> Rows:
    """Return pictures as rows; those of the stream's codec and size keep their bytes, others are decoded.

    Raises:
        DataFormatError: One is damaged or of another size.
    """
    if not isinstance(values, list):
        raise DataFormatError(f"`{leaf.key}` must be encoded pictures, the record has {len(values)} numbers")
    spec = ArraySpec(name=leaf.key, shape=shape, dtype="uint8")
    try:
        for value in values:
            frame_codec.check_encoded(value, codec, spec)
        offset = np.cumsum([0, *(len(value) for value in values)], dtype=np.int64)
        return FrameRows(_Bytes(b"".join(values)), offset, codec, shape)
    except (SpecError, ValueError):
        frames = np.empty((len(values), *shape), np.uint8)
    for i, value in enumerate(values):
        try:
            frames[i] = frame_codec.decode(value, "jpeg" if value[:2] == b"\xff\xd8" else "png", shape)
        except (StoreError, ValueError) as error:
            raise DataFormatError(f"`{leaf.key}` of step {i}: {error}") from error
    return frames
