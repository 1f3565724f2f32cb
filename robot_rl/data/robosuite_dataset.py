"""robosuite's raw demonstrations: `data/<demo>/states` of the simulator and what was commanded, in both old layouts.

0.3.0 has `joint_velocities` and `gripper_actuations` at nominally 100 Hz (its clock shows 90 to 93), 1.0.0 `actions`
at 20 Hz. Both save the state *after* each action (`DataCollectionWrapper.step`), so row i of the states is what action
i+1 was decided on: the first action has no state before it and goes to `meta.extra`, and the last state is the one
after the last action. Later versions save the state before; the simulator's clock in the states tells which it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from robot_rl.data.foreign import Defect
from robot_rl.data.grid import grid_ns
from robot_rl.data.hdf5_demos import Demo, DemoFile, stream_name
from robot_rl.data.hdf5_env import GRIPPER_NOTE, action_spec, read_environment
from robot_rl.data.hdf5_rows import Hdf5Rows, blocks
from robot_rl.data.robosuite_clock import pair
from robot_rl.data.robosuite_model import Kinematics, StateLayout, parse_layout, read_models
from robot_rl.data.robosuite_success import has_rule, outcome
from robot_rl.data.schema import STEP_STREAMS, StoreSchema
from robot_rl.errors import ConfigError, DataFormatError, MissingExtraError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Outcome, Recording, RecordingMeta, Stream

ActionSource = Literal["recorded", "next_qpos"]
_COMMANDED = (("actions",), ("joint_velocities", "gripper_actuations"))


def open_robosuite(
    path: str | Path,
    *,
    fps: float | None = None,
    task: str = "",
    action: ActionSource = "recorded",
    action_kind: str | None = None,
) -> RobosuiteDataset:
    """Open a file of robosuite's raw demonstrations.

    Args:
        path: demo.hdf5, or its folder.
        fps: Control rate in hertz; by default what the file says, else the simulator's clock.
        task: What was attempted, in words; by default the name of the environment.
        action: `next_qpos` takes the joint positions of the next state, for files that hold no actions.
        action_kind: What the actions command, where the file does not say.

    Raises:
        ConfigError: An action source or kind that does not exist.
        MissingExtraError: h5py is not installed.
        DataFormatError: Not such a file, or nothing of it can be imported; lists every defect.
    """
    if action not in get_args(ActionSource):
        raise ConfigError(f"`import.action` must be one of {get_args(ActionSource)}, got {action!r}")
    path = Path(path)
    demos = DemoFile(path / "demo.hdf5" if path.is_dir() else path)
    demos.survey()
    return RobosuiteDataset(demos, fps=fps, task=task, action=action, action_kind=action_kind)


class RobosuiteDataset:
    """A file of raw demonstrations seen as recordings; see `open_robosuite`."""

    def __init__(
        self, demos: DemoFile, *, fps: float | None, task: str, action: ActionSource = "recorded",
        action_kind: str | None = None,
    ) -> None:  # fmt: skip
        self.format = "robosuite"
        self._lost: dict[str, str] = {}
        self.lost: Mapping[str, str] = self._lost
        self.defects: Sequence[Defect] = demos.defects
        self._file, self._from_qpos, self._kind = demos, action == "next_qpos", action_kind
        self._environment = read_environment(demos)
        self._task = task or self._environment.name
        self._masks = demos.masks()
        self._models = read_models(demos)
        self._commanded = self._find_commanded()
        self._times = {demo.index: self._read_times(demo) for demo in demos.demos}
        self._pairing = pair(demos, self._times, fps if fps is not None else self._environment.control_hz)
        self._first = 0 if self._from_qpos else self._pairing.first
        self._check_rows()
        self._layout = self._find_layout()
        self._extra = self._find_extra()
        self.schema = self._schema()
        self.provenance: Mapping[str, Any] = {
            "format": self.format, "name": demos.path.name, "attrs": demos.attrs,
            "action": "qpos of the next state" if self._from_qpos else " + ".join(self._commanded),
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self._file.demos)

    def episode_id(self, index: int) -> str:
        """Return the demonstration's name with its number padded."""
        return self._file.ids[index]

    # Opening

    def _find_commanded(self) -> tuple[str, ...]:
        """Return the arrays that make up the action, empty where it is to be the next state."""
        columns = self._file.columns
        if "states" not in columns or not self._file.usable("states") or len(columns["states"].shape) != 1:
            raise self._file.refuse("data/*/states", "expected simulator states [N, width], no demonstration has them")
        if self._from_qpos:
            return ()
        for keys in _COMMANDED:
            if keys[0] in columns and self._file.usable(keys[0]):
                return tuple(key for key in keys if key in columns and self._file.usable(key))
        raise self._file.refuse(
            "data/*/actions", "no demonstration has `actions` or `joint_velocities`, only states",
            "import.action=next_qpos takes the joint positions of the next state as the action",
        )  # fmt: skip

    def _read_times(self, demo: Demo) -> np.ndarray:
        """Return the simulator's clock at each state of a demonstration, in seconds [N]."""
        column = self._file.columns["states"]
        array = demo.arrays.get("states")
        if array is None or tuple(array.shape[1:]) != column.shape:
            return np.empty(0)
        try:
            return np.concatenate([np.empty(0), *(rows[:, 0] for _, rows in blocks(array))])
        except DataFormatError as error:
            self._file.add("episode", f"data/{demo.name}/states", str(error), "copy the file again", [demo.index])
            return np.empty(0)

    def _steps(self, demo: Demo) -> int:
        """Return how many steps an episode will have."""
        states, first = len(self._times[demo.index]), self._first
        if self._from_qpos:
            return max(states - 1, 0)
        return max(min(len(demo.arrays[self._commanded[0]]) - first, states), 0)

    def _check_rows(self) -> None:
        demos = self._file
        required = ["states", *self._commanded]
        demos.check_finite(required)
        for demo in demos.demos:
            if missing := [key for key in required if key not in demo.arrays]:
                demos.add(
                    "episode", f"data/{demo.name}", f"{missing} missing", "leave that demonstration out", [demo.index]
                )
                continue
            n = len(self._times[demo.index])
            actions = n if self._from_qpos else len(demo.arrays[self._commanded[0]])
            if n != actions and not (self._first == 0 and n == actions + 1):
                demos.add(
                    "episode", f"data/{demo.name}/states", f"must have {actions} rows as the actions have, got {n}",
                    "leave that demonstration out", [demo.index],
                )  # fmt: skip
            demos.check_rows(demo, self._commanded, actions)
            if self._steps(demo) == 0:
                what = f"{n} states and {actions} actions make no step"
                demos.add("episode", f"data/{demo.name}", what, "leave that demonstration out", [demo.index])

    def _find_layout(self) -> StateLayout | None:
        """Return the columns of the states, `None` where no model explains them; other models are defects."""
        width, found = self._file.columns["states"].shape[0], None
        for index, xml in self._models.items():
            name = self._file.demos[index].name
            try:
                layout = parse_layout(xml)
            except DataFormatError as error:
                self._file.add("warning", f"data/{name}/model_file", str(error), "success stays unknown", [index])
                del self._models[index]
                return self._find_layout()
            if 1 + layout.nq + layout.nv > width:
                what = f"has {layout.nq} + {layout.nv} joint numbers, a state {width} with the time"
                self._file.add(
                    "warning", f"data/{name}/model_file", what, "the states were kept as one vector", [index]
                )
                return None
            if found is not None and layout != found:
                self._file.add(
                    "episode", f"data/{name}/model_file", "its joints are not those of the demonstrations before it",
                    "import it into a store of its own", [index],
                )  # fmt: skip
            found = layout if found is None else found
        return found

    def _find_extra(self) -> dict[str, str]:
        taken, extra = {*STEP_STREAMS, "sim_time", "qpos", "qvel", "state"}, dict[str, str]()
        for key in self._file.columns:
            if key == "states" or key in self._commanded:
                continue
            if self._file.usable(key) and not self._from_qpos:
                extra[stream_name(key, taken)] = key
            else:
                self._lost[key] = "its rows are empty or not numbers" if not self._file.usable(key) else "see `action`"
        return extra

    def _schema(self) -> StoreSchema:
        columns = self._file.columns
        dtype, width = columns["states"].dtype.name, columns["states"].shape[0]
        if self._layout is None:
            obs = {"state": ArraySpec(name="state", shape=(width - 1,), dtype=dtype)}
        else:
            sizes = {"qpos": (self._layout.nq, "rad, m"), "qvel": (self._layout.nv, "rad/s, m/s")}
            sizes.update({_pose(body): (7, "m, quaternion wxyz") for body in self._layout.bodies()})
            obs = {name: ArraySpec(name=name, shape=(n,), dtype=dtype, unit=unit) for name, (n, unit) in sizes.items()}
            if width > 1 + self._layout.nq + self._layout.nv:
                self._lost["states, last columns"] = (
                    "what follows qpos and qvel (actuator states, user data) is not named"
                )
        extra = {name: columns[key].spec(name) for name, key in self._extra.items()}
        extra["sim_time"] = ArraySpec(name="sim_time", shape=(), dtype=dtype, unit="s")
        hz = self._pairing.control_hz
        robot = str(self._environment.settings.get("robots") or self._environment.name or "robot")
        images = {name: "png" for name, spec in extra.items() if spec.is_image}
        return StoreSchema(
            spec=RobotSpec(name=robot, obs=obs, action=self._action(), control_hz=hz), extra=extra, codecs=images
        )

    def _action(self) -> ActionSpec:
        columns = self._file.columns
        if self._from_qpos:
            if self._layout is None or not self._layout.single():
                raise self._file.refuse("data/*/model_file", "no model tells which columns are joints", "give models/")
            shape = (len(self._layout.single()),)
            self._file.add("warning", "action", "made from the states, not recorded", "it is qpos of the next state")
            return ActionSpec(name="action", shape=shape, dtype=columns["states"].dtype.name, unit="rad, m")
        widths = [columns[key].shape[0] if columns[key].shape else 1 for key in self._commanded]
        self._lost["action, gripper"] = GRIPPER_NOTE
        first = columns[self._commanded[0]]
        column = type(first)(shape=(sum(widths),), dtype=first.dtype)
        return action_spec(self._file, column, self._environment, self._kind)

    # Reading

    def episode(self, index: int) -> Recording:
        """Return one demonstration.

        Raises:
            DataFormatError: It cannot be read.
        """
        demo, first = self._file.demos[index], self._first
        if "states" not in demo.arrays:
            raise DataFormatError(f"{self._file.path}: data/{demo.name} has no states")
        states, n = Hdf5Rows(demo.arrays["states"])[:], self._steps(demo)
        stamps = grid_ns(n + 1, self.schema.spec.control_hz)
        data: dict[str, np.ndarray] = dict(self._observations(states[: n + 1]))
        data["action"] = self._actions(demo, states)[first : first + n]
        data["sim_time"] = states[:n, 0]
        dropped: dict[str, Any] = {}
        for name, key in self._extra.items():
            if key in demo.arrays:
                data[name] = Hdf5Rows(demo.arrays[key])[first : first + n]
        for key in (*self._commanded, *self._extra.values()) if first else ():
            if key in demo.arrays:
                dropped[key] = Hdf5Rows(demo.arrays[key])[0].tolist()
        streams = {name: Stream(stamps[: len(rows)], np.ascontiguousarray(rows)) for name, rows in data.items()}
        return Recording(streams, self._meta(demo, states, dropped))

    def _observations(self, states: np.ndarray) -> dict[str, np.ndarray]:
        if self._layout is None:
            return {"state": states[:, 1:]}
        nq, nv = self._layout.nq, self._layout.nv
        obs = {"qpos": states[:, 1 : 1 + nq], "qvel": states[:, 1 + nq : 1 + nq + nv]}
        obs.update({_pose(body): states[:, 1 + at : 8 + at] for body, at in self._layout.bodies().items()})
        return obs

    def _actions(self, demo: Demo, states: np.ndarray) -> np.ndarray:
        if self._from_qpos and self._layout is not None:
            return states[1:, [1 + at for at in self._layout.single()]]
        parts = [Hdf5Rows(demo.arrays[key])[:] for key in self._commanded]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def _meta(self, demo: Demo, states: np.ndarray, dropped: Mapping[str, Any]) -> RecordingMeta:
        ended, rule = self._outcome(demo, states[-1])
        masks = [key for key, names in self._masks.items() if demo.name in names]
        imported: dict[str, Any] = {
            **self.provenance, "demo": demo.name, "attrs": demo.attrs, "mask": masks, "outcome_rule": rule,
            "final_sim_time": float(states[-1, 0]), "before_first_state": dict(dropped),
        }  # fmt: skip
        if demo.index in self._models:
            imported["model"] = self._models[demo.index]
        human = "repository_version" in self._file.attrs
        return RecordingMeta(
            task=self._task, outcome=ended, source="human" if human else "import", on_grid=True,
            terminated=ended == "success", truncated=ended != "success", extra={"imported": imported},
        )  # fmt: skip

    def _outcome(self, demo: Demo, last: np.ndarray) -> tuple[Outcome, str]:
        """Return how it ended, from its last state, and by which rule."""
        known = self._layout is not None and demo.index in self._models and has_rule(self._environment.name)
        if self._layout is None or not known:
            return "unknown", ""
        try:
            state = Kinematics(self._models[demo.index], last[1 : 1 + self._layout.nq])
        except (MissingExtraError, DataFormatError) as error:
            return "unknown", f"not computed: {error}"
        return outcome(self._environment.name, state)


def _pose(body: str) -> str:
    return f"{stream_name(body, set())}_pose"
