"""RLDS data sets in TFDS folders (Ramos et al. 2021, arXiv:2111.02767): features.json and TFRecord shards.

An episode is one record; `steps/observation/*` become observations, `steps/action` the action (the parts of a nested
one after another by name). JPEG and PNG pictures keep their bytes. By RLDS the action of a step with `is_last` means
nothing; many robot data sets fill it all the same, so it is kept unless `last_action=drop`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from robot_rl.data.foreign import Defect, refuse
from robot_rl.data.grid import grid_ns
from robot_rl.data.hdf5_env import KIND_ADVICE, known_kind
from robot_rl.data.rlds_episode import RldsRoles, depth_rows, find_roles, image_rows, steps_of
from robot_rl.data.rlds_features import Leaf, guess_features, read_features
from robot_rl.data.rlds_files import RldsFiles, find_files
from robot_rl.data.schema import StoreSchema
from robot_rl.data.tf_example import Values, parse_example
from robot_rl.data.tfrecord import read_record, scan
from robot_rl.errors import ConfigError, DataFormatError
from robot_rl.specs import ActionKind, ActionSpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Rows, Stream

LastAction = Literal["keep", "drop"]


def open_rlds(
    path: str | Path,
    *,
    fps: float | None = None,
    last_action: LastAction = "keep",
    task: str = "",
    action_kind: str | None = None,
) -> RldsDataset:
    """Open an RLDS data set: the folder with features.json, or one of its .tfrecord files.

    Args:
        path: The folder or file.
        fps: Control rate in hertz; RLDS has no place for it, so it must be given.
        last_action: `drop` ends an episode with the observation of its last step, as RLDS defines it.
        task: What was attempted, in words, where the steps hold no instruction.
        action_kind: What the actions command, which RLDS does not say.

    Raises:
        ConfigError: An option that is not one of its values.
        DataFormatError: Nothing of it can be imported; lists every defect.
    """
    if last_action not in get_args(LastAction):
        raise ConfigError(f"`last_action` must be one of {get_args(LastAction)}, got {last_action!r}")
    kind = None if action_kind is None else known_kind(action_kind)
    return RldsDataset(find_files(Path(path)), fps=fps, last_action=last_action, task=task, kind=kind)


class RldsDataset:
    """An RLDS data set seen as recordings; see `open_rlds`."""

    def __init__(
        self, files: RldsFiles, *, fps: float | None, last_action: LastAction, task: str, kind: ActionKind | None
    ) -> None:
        self.format = "rlds"
        self._lost: dict[str, str] = {}
        self.lost: Mapping[str, str] = self._lost
        self.defects: Sequence[Defect] = files.defects
        self._files, self._task, self._kind = files, task, kind
        self._drop = last_action == "drop"
        leaves = self._leaves()
        self._roles = self._find_roles(leaves)
        self._idle_ends: list[bool] = []
        files.scan_all(self._look)
        if not files.places:
            raise self._refuse("*.tfrecord", "there is no episode in it", "copy the data set again")
        if fps is None or not fps > 0:
            raise self._refuse(
                "import.fps", f"RLDS does not say the rate of the steps, got {fps}", "give import.fps=<hz>"
            )
        if self._idle_ends and all(self._idle_ends) and not self._drop:
            files.add(
                "warning", "steps/action", "the last action of every episode is zero; RLDS does not define it",
                "import.options={last_action: drop} leaves it out",
            )  # fmt: skip
        self.schema = self._schema(float(fps))
        self.provenance: Mapping[str, Any] = {
            "format": self.format, "name": files.name or files.root.name,
            "action": " + ".join(leaf.key for leaf in self._roles.action),
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self._files.places)

    def episode_id(self, index: int) -> str:
        """Return the episode's number in the data set, splits one after another, padded."""
        return f"episode_{index:06d}"

    # Opening

    def _refuse(self, where: str, what: str, advice: str) -> DataFormatError:
        self._files.add("fatal", where, what, advice)
        return refuse(self._files.root, self._files.defects)

    def _first(self) -> Mapping[str, Values]:
        """Return the first record that can be read."""
        for _, path, _ in self._files.shards:
            for record, data in scan(path) if path.is_file() else ():
                if not record.problem:
                    try:
                        return parse_example(data)
                    except DataFormatError:
                        continue
        return {}

    def _leaves(self) -> list[Leaf]:
        path = self._files.root / "features.json"
        try:
            if path.is_file():
                return read_features(path)
            leaves = guess_features(self._first())
        except DataFormatError as error:
            raise self._refuse("features.json", str(error), "give the folder that has it") from error
        self._files.add("warning", "features.json", "is missing", "shapes were guessed from the first episode")
        return leaves

    def _find_roles(self, leaves: list[Leaf]) -> RldsRoles:
        roles = find_roles(leaves, self._first(), self._files, self._lost)
        if not roles.action:
            raise self._refuse("steps/action", "no array of numbers", "give a data set with actions")
        if not roles.obs:
            raise self._refuse(
                "steps/observation", "no array of numbers or pictures", "give a data set with observations"
            )
        return roles

    def _look(self, number: int, data: bytes) -> None:
        """Note what is wrong with one episode."""
        where = f"{self._files.name or self._files.root.name} episode {number}"
        try:
            example = parse_example(data)
            n = steps_of(example, self._roles)
            for leaf in self._roles.required():
                if leaf.kind != "image" and not np.isfinite(leaf.rows(example[leaf.key])).all():
                    raise DataFormatError(f"`{leaf.key}` holds NaN or infinity")
            if n - int(self._drop) < 1:
                raise DataFormatError(f"it has {n} steps")
            last = [leaf.rows(example[leaf.key])[-1] for leaf in self._roles.action]
            self._idle_ends.append(n > 1 and not any(part.any() for part in last))
        except DataFormatError as error:
            self._files.add("episode", where, str(error), "leave it out", [number])

    def _schema(self, control_hz: float) -> StoreSchema:
        roles = self._roles
        width = sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in roles.action)
        dtype = np.result_type(*(a.dtype for a in roles.action)).name
        kind: ActionKind = "joint_position" if self._kind is None else self._kind
        action = ActionSpec(name="action", shape=(width,), dtype=dtype, kind=kind)
        if self._kind is None:
            self._files.add("warning", "steps/action", "RLDS does not say what actions command", KIND_ADVICE)
        spec = RobotSpec(
            name=self._files.name or "robot", obs=roles.specs(roles.obs), action=action, control_hz=control_hz
        )
        return StoreSchema(spec=spec, extra=roles.specs(roles.extra), codecs=roles.codecs)

    # Reading

    def episode(self, index: int) -> Recording:
        """Return one episode.

        Raises:
            DataFormatError: It cannot be read.
        """
        place, roles = self._files.places[index], self._roles
        if place is None:
            raise DataFormatError(f"episode {index} of {self._files.root} is in a file that is missing or damaged")
        example = parse_example(read_record(place.path, place.record))
        n = steps_of(example, roles)
        steps = n - int(self._drop)
        stamps = grid_ns(n, self.schema.spec.control_hz)
        data: dict[str, Rows] = {name: self._rows(name, leaf, example) for name, leaf in roles.obs.items()}
        parts = [leaf.rows(example[leaf.key]).reshape(n, -1) for leaf in roles.action]
        data["action"] = np.concatenate(parts, axis=1).astype(self.schema.spec.action.dtype)[:steps]
        for name, leaf in roles.extra.items():
            if leaf.key in example:
                data[name] = self._rows(name, leaf, example)[:steps]
        if roles.reward is not None and roles.reward.key in example:
            data["reward"] = roles.reward.rows(example[roles.reward.key]).astype(np.float32).reshape(n)[:steps]
        streams = {name: Stream(stamps[: len(rows)], rows) for name, rows in data.items()}
        return Recording(streams, self._meta(index, example))

    def _rows(self, name: str, leaf: Leaf, example: Mapping[str, Values]) -> Rows:
        if leaf.kind == "image" and name not in self._roles.codecs:
            return depth_rows(leaf, example[leaf.key], self._roles.shape(leaf))
        if leaf.kind == "image":
            return image_rows(leaf, example[leaf.key], self._roles.codecs[name], self._roles.shape(leaf))
        return np.ascontiguousarray(leaf.rows(example[leaf.key]))

    def _meta(self, index: int, example: Mapping[str, Values]) -> RecordingMeta:
        place = self._files.places[index]
        flag = example.get("steps/is_terminal")
        terminated = isinstance(flag, np.ndarray) and bool(flag[-1:].any())
        about = self._roles.metadata(example)
        split = place.split if place else ""
        extra = {"imported": {**self.provenance, "split": split, "episode": index, "metadata": about}}
        return RecordingMeta(
            task=self._roles.instruction(example) or self._task, source="import", on_grid=True, terminated=terminated,
            truncated=not terminated, extra=extra,
        )  # fmt: skip
