"""robomimic's HDF5 (robomimic docs, "Dataset structure"): `data/<demo>/{obs, next_obs, actions, rewards, dones, ...}`.

Everything of a demonstration is kept under its own name and with its own dtype. Of `next_obs`, which repeats `obs`
one row on, the last row becomes the observation after the last action. A file without observations is read as a
robosuite file, from its simulator states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.data.foreign import Defect, ForeignDataset
from robot_rl.data.grid import grid_ns
from robot_rl.data.hdf5_demos import Demo, DemoFile, stream_name
from robot_rl.data.hdf5_env import GRIPPER_NOTE, action_spec, instruction, read_environment
from robot_rl.data.hdf5_rows import Hdf5Rows, read_rows
from robot_rl.data.robomimic_own import OWN, OwnExport
from robot_rl.data.robosuite_dataset import RobosuiteDataset
from robot_rl.data.schema import STEP_STREAMS, StoreSchema
from robot_rl.errors import DataFormatError
from robot_rl.specs import RobotSpec
from robot_rl.values import Outcome, Recording, RecordingMeta, Stream

_SAVED = {"action_executed", "by_human"}
"""Reserved streams that an export of ours holds as arrays of a demonstration."""


def open_robomimic(
    path: str | Path, *, fps: float | None = None, task: str = "", action_kind: str | None = None
) -> ForeignDataset:
    """Open a robomimic file.

    Args:
        path: The .hdf5 file.
        fps: Control rate in hertz, where `env_args` does not say.
        task: What was attempted, in words; by default the name of the environment.
        action_kind: What the actions command, where `env_args` does not say.

    Raises:
        ConfigError: An action kind that does not exist.
        MissingExtraError: h5py is not installed.
        DataFormatError: Not such a file, or nothing of it can be imported; lists every defect.
    """
    demos = DemoFile(path)
    demos.survey()
    keys = [key for key in demos.columns if key.startswith("obs/")]
    if not keys and "states" in demos.columns:
        return RobosuiteDataset(demos, fps=fps, task=task, action_kind=action_kind)
    return RobomimicDataset(demos, fps=fps, task=task, action_kind=action_kind)


class RobomimicDataset:
    """A robomimic file seen as recordings; see `open_robomimic`."""

    def __init__(self, demos: DemoFile, *, fps: float | None, task: str, action_kind: str | None) -> None:
        self.format = "robomimic"
        self._lost: dict[str, str] = {}
        self.lost: Mapping[str, str] = self._lost
        self.defects: Sequence[Defect] = demos.defects
        self._file = demos
        self._environment, self._kind = read_environment(demos), action_kind
        self._own = OwnExport.read(demos)
        self._task = task
        self._masks = demos.masks()
        reward = demos.columns.get("rewards")
        self._rewarded = reward is not None and demos.usable("rewards") and reward.shape in ((), (1,))
        self._obs, self._extra = self._roles()
        self._check()
        self.schema = self._schema(self._rate(fps))
        self._sparse, self._any_reward = self._reward_kind()
        attrs = {key: value for key, value in demos.attrs.items() if key not in ("env_args", OWN)}
        self.provenance: Mapping[str, Any] = {
            "format": self.format, "name": demos.path.name, "env_args": self._environment.settings, "attrs": attrs,
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self._file.demos)

    def episode_id(self, index: int) -> str:
        """Return the id an export of ours noted, else the demonstration's name with its number padded."""
        return self._own.id(index, self._file.ids[index]) if self._own else self._file.ids[index]

    # Opening

    def _roles(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the array of each observation and of each optional stream; what is neither goes to `lost`."""
        demos, obs, extra = self._file, dict[str, str](), dict[str, str]()
        for key, column in demos.columns.items():
            if key.split("/")[0] in ("next_obs", "actions") or (key == "rewards" and self._rewarded):
                continue
            if not demos.usable(key):
                self._lost[key] = f"{column.dtype}{column.shape} a row is not numbers"
            elif not key.startswith("obs/"):
                self._add_extra(extra, key)
            elif demos.in_most(key):
                obs[stream_name(key.removeprefix("obs/"), {*STEP_STREAMS, *obs})] = key
            else:
                self._lost[key] = "fewer than half of the demonstrations have it"
        taken = {*STEP_STREAMS, *obs}
        names = {stream_name(key, taken - (_SAVED if self._own else set())): key for key in extra}
        return obs, names

    def _add_extra(self, extra: dict[str, str], key: str) -> None:
        """Keep an array besides actions and observations if it has one row a step in most demonstrations."""
        having = [demo for demo in self._file.demos if key in demo.arrays and demo.steps() is not None]
        fitting = sum(demo.arrays[key].ndim > 0 and len(demo.arrays[key]) == demo.steps() for demo in having)
        if 2 * fitting >= len(having) > 0:
            extra[key] = key
            return
        self._lost[key] = "it does not have one row a step"
        self._file.add("warning", key, "does not have one row a step in most demonstrations", "it was left out")

    def _rate(self, fps: float | None) -> float:
        rates = (fps, self._environment.control_hz, self._own.schema.spec.control_hz if self._own else None)
        found = next((rate for rate in rates if rate is not None), None)
        if found is None or not found > 0:
            raise self._file.refuse(
                "data attribute env_args", f"env_kwargs.control_freq is missing or not positive ({found})",
                "give the rate of the actions in hertz with import.fps=<hz>",
            )  # fmt: skip
        return float(found)

    def _check(self) -> None:
        demos = self._file
        if "actions" not in demos.columns or not demos.usable("actions"):
            raise demos.refuse("data/*/actions", "expected numbers [N, A], no demonstration has them")
        if len(demos.columns["actions"].shape) != 1:
            got = demos.columns["actions"].shape
            raise demos.refuse("data/*/actions", f"expected one vector a step, rows have shape {got}")
        if not self._obs:
            raise demos.refuse("data/*/obs", "no observation that most demonstrations have", "give its observations")
        required = ["actions", *self._obs.values()]
        for demo in demos.demos:
            for key in required:
                if key not in demo.arrays:
                    demos.add(
                        "episode", f"data/{demo.name}", f"`{key}` is missing; most demonstrations have it",
                        "leave that demonstration out", [demo.index],
                    )  # fmt: skip
            if demo.steps():
                known = [*self._obs.values(), *self._extra.values(), "rewards"]
                rows = [*known, *(key.replace("obs/", "next_obs/", 1) for key in self._obs.values())]
                demos.check_rows(demo, rows, int(demo.steps() or 0))
        low = [
            key
            for key in [*required, *(["rewards"] if self._rewarded else [])]
            if key in demos.columns and demos.columns[key].dtype.kind == "f"
        ]
        demos.check_finite(low)
        self._check_next_obs()
        self._check_ends()
        demos.check_foreign_paths({})

    def _check_next_obs(self) -> None:
        """Look whether `next_obs` is `obs` one row on, as it should be; pictures are not compared."""
        differing: dict[str, list[int]] = {}
        for key in self._obs.values():
            following = key.replace("obs/", "next_obs/", 1)
            if following not in self._file.columns:
                continue
            self._lost[following] = "it repeats obs one row on; only its last row is kept, after the last action"
            if self._file.columns[key].spec("x").is_image:
                continue
            for demo in self._file.demos:
                pair = (demo.arrays.get(key), demo.arrays.get(following))
                if pair[0] is not None and pair[1] is not None and not _is_shifted(*pair):
                    differing.setdefault(following, []).append(demo.index)
        for key, which in differing.items():
            self._lost[key] = f"in {len(which)} demonstrations it is not obs one row on; only its last row is kept"
            self._file.add("warning", key, "is not obs one row on", "only its last row is kept", which)

    def _check_ends(self) -> None:
        rounded, endless = 0, []
        for demo in self._file.demos:
            done, reward = self._values(demo, "dones"), self._values(demo, "rewards")
            if done is not None and len(done) and not done.any():
                endless.append(demo.index)
            if reward is not None and self._rewarded:
                rounded += int((reward.astype(np.float32) != reward).any())
        if endless:
            self._file.add(
                "warning", "dones", "is never set", "the episodes count as cut off, not as ended by the task", endless
            )
        if rounded:
            self._lost["rewards"] = f"rounded to float32 in {rounded} demonstrations"

    def _values(self, demo: Demo, key: str) -> np.ndarray | None:
        """Return a small array, `None` where the demonstration lacks it or it cannot be read."""
        array = demo.arrays.get(key)
        if array is None or array.ndim == 0 or array.dtype.kind not in "biuf":
            return None
        try:
            return Hdf5Rows(array)[:]
        except DataFormatError:
            return None

    def _reward_kind(self) -> tuple[bool, bool]:
        """Return whether rewards are only 0 and 1, and whether there is any."""
        found = [self._values(demo, "rewards") for demo in self._file.demos if self._rewarded]
        rewards = [reward for reward in found if reward is not None]
        return all(np.isin(r, (0, 1)).all() for r in rewards), any((r != 0).any() for r in rewards)

    def _schema(self, control_hz: float) -> StoreSchema:
        columns = self._file.columns
        extra = {name: columns[key].spec(name) for name, key in self._extra.items() if name not in _SAVED}
        obs = {name: columns[key].spec(name) for name, key in self._obs.items()}
        images = {name: "png" for name, spec in {**obs, **extra}.items() if spec.is_image}
        if self._own:
            own = self._own.agrees(self._file, {**obs, **extra}, columns["actions"])
            if own is not None:
                self._extra = {name: key for name, key in self._extra.items() if name in {*own.extra, *_SAVED}}
                return StoreSchema(spec=own.spec, extra=own.extra, codecs=images)
            self._own = None
            self._obs, self._extra = self._roles()
        action = action_spec(self._file, columns["actions"], self._environment, self._kind)
        if action.kind == "delta_pose":
            self._lost["actions, gripper"] = GRIPPER_NOTE
        name = _robot_name(self._environment.settings)
        return StoreSchema(
            spec=RobotSpec(name=name, obs=obs, action=action, control_hz=control_hz), extra=extra, codecs=images
        )

    # Reading

    def episode(self, index: int) -> Recording:
        """Return one demonstration.

        Raises:
            DataFormatError: It cannot be read.
        """
        demo = self._file.demos[index]
        n, hz = demo.steps(), self.schema.spec.control_hz
        if n is None:
            raise DataFormatError(f"{self._file.path}: data/{demo.name} has no actions")
        stamps = grid_ns(n + 1, hz)
        note = self._own.demo(index) if self._own else None
        streams = {}
        for name, key in self._obs.items():
            following = demo.arrays.get(key.replace("obs/", "next_obs/", 1))
            parts = [demo.arrays[key]]
            if following is not None and (note is None or note.final_obs):
                parts.append(read_rows(following, len(following) - 1, len(following)))
            rows = Hdf5Rows(*parts)
            streams[name] = Stream(stamps[: len(rows)], rows)
        streams["action"] = Stream(stamps[:n], Hdf5Rows(demo.arrays["actions"]))
        for name, key in self._extra.items():
            if key in demo.arrays:
                streams[name] = Stream(stamps[:n], Hdf5Rows(demo.arrays[key]))
        if self._rewarded and "rewards" in demo.arrays:
            reward = Hdf5Rows(demo.arrays["rewards"])[:].astype(np.float32).reshape(-1)
            streams["reward"] = Stream(stamps[:n], reward)
        if note is None:
            return Recording(streams, self._meta(demo))
        return Recording({name: s for name, s in streams.items() if name in note.streams}, note.meta)

    def _meta(self, demo: Demo) -> RecordingMeta:
        outcome = self._outcome(demo)
        done = self._values(demo, "dones")
        ended = done is not None and bool(done[-1:].any())
        masks = [key for key, names in self._masks.items() if demo.name in names]
        extra = {"imported": {**self.provenance, "demo": demo.name, "attrs": demo.attrs, "mask": masks}}
        terminated = ended and outcome == "success"
        task = self._task or instruction(self._file.attrs, demo.attrs) or self._environment.name
        return RecordingMeta(
            task=task, outcome=outcome, source="import", on_grid=True, terminated=terminated,
            truncated=not terminated, extra=extra,
        )  # fmt: skip

    def _outcome(self, demo: Demo) -> Outcome:
        """Return success where a sparse reward came, failure where it came only to others, else unknown."""
        reward = self._values(demo, "rewards")
        if reward is None or not self._sparse or not self._any_reward:
            return "unknown"
        return "success" if reward.any() else "failure"


def _is_shifted(rows: Any, following: Any) -> bool:
    if len(rows) != len(following) or rows.shape != following.shape or rows.dtype.kind not in "biuf":
        return True  # another defect says so
    return bool(np.array_equal(rows[1:], following[:-1], equal_nan=rows.dtype.kind == "f"))


def _robot_name(settings: Mapping[str, Any]) -> str:
    kwargs = settings.get("env_kwargs", settings)
    robots = kwargs.get("robots", "robot") if isinstance(kwargs, Mapping) else "robot"
    return "-".join(map(str, robots)) if isinstance(robots, list) else str(robots)
