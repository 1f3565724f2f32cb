from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.robosuite_dataset import open_robosuite
from robot_rl.data.robosuite_model import Kinematics, bare, parse_layout
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, DataFormatError

BOX = '<geom type="box" size="0.02 0.02 0.02" mass="0.1"/>'
MODEL = f"""<mujoco model="small">
  <compiler angle="radian" meshdir="/elsewhere/meshes"/>
  <asset><mesh name="link" file="/elsewhere/meshes/link.stl"/></asset>
  <worldbody>
    <body name="table" pos="0 0 0.4"><geom name="table_collision" type="box" size="0.4 0.4 0.4"/></body>
    <body name="link" pos="0 0 1"><joint name="j0" axis="0 0 1"/><geom type="mesh" mesh="link"/>
      <body name="finger" pos="0 0 0.2"><joint name="slide" type="slide" axis="1 0 0"/>{BOX}</body></body>
    <body name="cube"><joint name="cube" type="free"/>{BOX}</body>
  </worldbody>
  <actuator><motor joint="j0"/></actuator>
</mujoco>"""
NQ, NV, N = 9, 8, 5


def states(n: int = N, *, cube_z: float = 0.9, start_s: float = 0.05, dt: float = 0.05) -> np.ndarray:
    """Return states whose joint 0 tells the row; the cube ends at `cube_z`."""
    rows = np.zeros((n, 1 + NQ + NV))
    rows[:, 0] = start_s + dt * np.arange(n)
    rows[:, 1] = np.arange(n) / 100
    rows[:, 3:6] = [0.3, 0.0, 0.82]
    rows[-1, 5] = cube_z
    rows[:, 6] = 1.0
    rows[:, 10:] = np.arange(n)[:, None] / 10
    return rows


def write(
    path: Path,
    *,
    arrays: dict[str, np.ndarray] | None = None,
    change: Callable[[int, dict[str, Any]], None] = lambda demo, arrays: None,
    env: str = "Lift",
    model: str | None = MODEL,
    attrs: dict[str, Any] | None = None,
) -> Path:
    """Write two demonstrations of 1.0.0's layout, with models beside the file as in its package."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"env": env, "repository_version": "1.0.0", **(attrs or {})})
        for i in (1, 2):
            group, of = data.create_group(f"demo_{i}"), dict(arrays or {"states": states()})
            if arrays is None:
                of["actions"] = np.arange(N * 2, dtype=float).reshape(N, 2) + 100 * i
            change(i, of)
            group.attrs["model_file"] = f"model_{i}.xml"
            for name, values in of.items():
                group.create_dataset(name, data=values)
            if model is not None:
                (path.parent / "models").mkdir(exist_ok=True)
                (path.parent / "models" / f"model_{i}.xml").write_text(model)
    return path


def test_states_saved_after_each_action_are_paired_with_the_action_decided_on_them(tmp_path: Path):
    path = write(tmp_path / "demo.hdf5")
    report = import_dataset(open_dataset(path), tmp_path / "s")
    assert report.imported == 2
    store = EpisodeStore.open(tmp_path / "s")
    episode = store.episode("demo_000002")
    wanted = states()
    assert len(episode) == N - 1
    np.testing.assert_array_equal(episode.action[:, 0], 200 + 2 * np.arange(1, N))
    np.testing.assert_array_equal(episode.obs["qpos"][:], wanted[:-1, 1 : 1 + NQ])
    np.testing.assert_array_equal(episode.obs["qvel"][:], wanted[:-1, 1 + NQ :])
    np.testing.assert_array_equal(episode.obs["cube_pose"][:], wanted[:-1, 3:10])
    np.testing.assert_array_equal(episode.final_obs["qpos"], wanted[-1, 1 : 1 + NQ])
    np.testing.assert_array_equal(episode.extras["sim_time"][:], wanted[:-1, 0])
    about = episode.meta.extra["imported"]
    assert about["before_first_state"] == {"actions": [200.0, 201.0]}
    assert (about["final_sim_time"], about["model"]) == (wanted[-1, 0], MODEL)
    assert (store.spec.control_hz, episode.meta.source, episode.terminated) == (20.0, "human", True)


def test_states_saved_before_each_action_are_paired_row_by_row(tmp_path: Path):
    path = write(tmp_path / "demo.hdf5", change=lambda i, of: of.update(states=states(start_s=0.0)))
    recording = open_robosuite(path).episode(0)
    assert len(recording.streams["action"]) == len(recording.streams["qpos"]) == N
    np.testing.assert_array_equal(recording.streams["action"].data[:, 0], 100 + 2 * np.arange(N))


def test_the_old_layout_joins_velocities_and_gripper_and_drops_what_is_empty(tmp_path: Path):
    velocity, gripper = np.arange(N * 3.0).reshape(N, 3), -np.arange(N * 1.0).reshape(N, 1)
    arrays = {
        "states": states(dt=0.01, start_s=0.01), "joint_velocities": velocity, "gripper_actuations": gripper,
        "left_dpos": np.zeros((N, 0)), "right_dpos": velocity / 8,
    }  # fmt: skip
    dataset = open_robosuite(write(tmp_path / "demo.hdf5", arrays=arrays, env="SawyerLift"))
    recording = dataset.episode(0)
    np.testing.assert_array_equal(recording.streams["action"].data, np.concatenate([velocity, gripper], 1)[1:])
    np.testing.assert_array_equal(recording.streams["right_dpos"].data, velocity[1:] / 8)
    assert dataset.schema.spec.control_hz == pytest.approx(100.0)
    assert set(dataset.schema.extra) == {"right_dpos", "sim_time"}
    assert any(d.where == "left_dpos" and "shape (0,)" in d.what for d in dataset.defects)
    assert recording.meta.outcome == "success"


def test_what_actions_command_can_be_said_and_must_exist(tmp_path: Path):
    path = write(tmp_path / "demo.hdf5")
    assert any("import.action_kind" in d.advice for d in open_robosuite(path).defects)
    dataset = open_robosuite(path, action_kind="position")
    assert dataset.schema.spec.action.kind == "position"
    assert not any("import.action_kind" in d.advice for d in dataset.defects)
    with pytest.raises(ConfigError, match=r"`import\.action_kind` must be one of"):
        open_robosuite(path, action_kind="push")
    with pytest.raises(ConfigError, match=r"`import\.action` must be one of \('recorded', 'next_qpos'\), got 'states'"):
        open_robosuite(path, action="states")


def test_without_actions_the_next_joint_positions_are_taken_only_when_asked(tmp_path: Path):
    path = write(tmp_path / "demo.hdf5", arrays={"states": states()})
    with pytest.raises(DataFormatError, match=r"import\.action=next_qpos takes the joint positions"):
        open_robosuite(path)
    dataset = open_robosuite(path, action="next_qpos")
    recording = dataset.episode(0)
    np.testing.assert_array_equal(recording.streams["action"].data, states()[1:, 1:3])
    assert (len(recording.streams["qpos"]), len(recording.streams["action"])) == (N, N - 1)
    assert any("not recorded" in d.what for d in dataset.defects)


@pytest.mark.parametrize(("cube_z", "wanted"), [(0.845, "success"), (0.835, "failure")])
def test_lifting_is_judged_by_the_last_state(tmp_path: Path, cube_z: float, wanted: str):
    path = write(tmp_path / "demo.hdf5", change=lambda i, of: of.update(states=states(cube_z=cube_z)))
    meta = open_robosuite(path).episode(0).meta
    assert (meta.outcome, meta.terminated) == (wanted, wanted == "success")
    assert meta.extra["imported"]["outcome_rule"] == "the cube is 4 cm above the table"


def test_a_task_without_a_rule_stays_unknown(tmp_path: Path):
    meta = open_robosuite(write(tmp_path / "demo.hdf5", env="Wipe")).episode(0).meta
    assert (meta.outcome, meta.truncated) == ("unknown", True)


def test_paths_of_another_machine_and_an_uneven_clock_are_warned_of(tmp_path: Path):
    late = states()
    late[3:, 0] += 0.1
    dataset = open_robosuite(write(tmp_path / "demo.hdf5", change=lambda i, of: of.update(states=late)))
    said = "\n".join(map(str, dataset.defects))
    assert "2 absolute paths of another machine: /elsewhere/meshes, /elsewhere/meshes/link.stl" in said
    assert "2 of 8 states come over 1.5 periods after the last" in said
    assert all(d.severity == "warning" for d in dataset.defects)


def bad_rows(i: int, of: dict[str, Any]) -> None:
    if i == 2:
        of["states"] = of["states"][:-2]


def bad_nan(i: int, of: dict[str, Any]) -> None:
    if i == 2:
        of["states"] = states()
        of["states"][3, 4] = np.nan


def no_actions(i: int, of: dict[str, Any]) -> None:
    if i == 2:
        del of["actions"]


def one_state(i: int, of: dict[str, Any]) -> None:
    if i == 2:
        of["states"], of["actions"] = of["states"][:1], of["actions"][:1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (bad_rows, "must have 5 rows as the actions have, got 3"),
        (bad_nan, "must be finite, got nan in row 3"),
        (no_actions, r"\['actions'\] missing"),
        (one_state, "1 states and 1 actions make no step"),
    ],
)
def test_a_broken_demonstration_is_named_and_the_others_can_be_imported(tmp_path: Path, change, what: str):
    dataset = open_robosuite(write(tmp_path / "demo.hdf5", change=change))
    with pytest.raises(DataFormatError, match=what):
        import_dataset(dataset, tmp_path / "refused")
    report = import_dataset(dataset, tmp_path / "s", keep_sound=True)
    assert (report.imported, list(report.skipped)) == (1, [1])


@pytest.mark.parametrize(
    "model", [None, "<mujoco", MODEL.replace("</worldbody>", f"<body><freejoint/>{BOX}</body></worldbody>")]
)
def test_without_a_model_that_explains_them_the_states_stay_one_vector(tmp_path: Path, model: str | None):
    dataset = open_robosuite(write(tmp_path / "demo.hdf5", model=model))
    recording = dataset.episode(0)
    np.testing.assert_array_equal(recording.streams["state"].data, states()[:, 1:])
    assert recording.meta.outcome == "unknown"
    assert any("model_file" in d.where and d.severity == "warning" for d in dataset.defects)


def test_a_clock_that_stands_asks_for_the_rate_and_settings_win_over_the_clock(tmp_path: Path):
    path = write(tmp_path / "demo.hdf5", change=lambda i, of: of.update(states=states(dt=0.0)))
    with pytest.raises(DataFormatError, match=r"give the rate of the actions in hertz with import\.fps"):
        open_robosuite(path)
    assert open_robosuite(path, fps=20.0).schema.spec.control_hz == 20.0
    path = write(tmp_path / "set.hdf5", attrs={"env_info": '{"control_freq": 10, "robots": "Panda"}'})
    dataset = open_robosuite(path)
    assert (dataset.schema.spec.control_hz, dataset.schema.spec.name) == (10.0, "Panda")
    assert any("the clock gives 20 Hz, the settings 10 Hz" in d.what for d in dataset.defects)


def test_a_robomimic_file_with_states_only_is_read_from_its_states(tmp_path: Path):
    path = write(tmp_path / "demo.hdf5", attrs={"env_args": '{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}'})
    dataset = open_dataset(path)
    assert (dataset.format, dataset.episode(0).meta.outcome) == ("robosuite", "success")


def test_columns_follow_the_order_of_the_joints_in_the_document():
    layout = parse_layout(MODEL)
    assert [(j.name, j.kind, j.qpos, j.qvel) for j in layout.joints] == [
        ("j0", "hinge", 0, 0), ("slide", "slide", 1, 1), ("cube", "free", 2, 2),
    ]  # fmt: skip
    assert (layout.nq, layout.nv, layout.bodies(), layout.single()) == (NQ, NV, {"cube": 2}, [0, 1])
    assert "mesh" not in bare(MODEL)
    assert Kinematics(MODEL, np.array([0, 0, 1, 2, 3, 1, 0, 0, 0.0])).data.body("cube").xpos.tolist() == [1, 2, 3]


REAL = {
    "v0.3.0/SawyerLift": ("recorded", "success success"), "v0.3.0/SawyerStack": ("recorded", "success success"),
    "v0.3.0/SawyerNutAssembly": ("recorded", "success success"),
    "v0.3.0/SawyerPickPlace": ("recorded", "success success"),
    "v0.3.0/BaxterLift": ("next_qpos", "success success"), "v0.3.0/BaxterPegInHole": ("next_qpos", "success failure"),
    "v1.0.0/lift/panda": ("recorded", "success"), "v1.0.0/stack/panda": ("recorded", "success"),
    "v1.0.0/nut-assembly/panda": ("recorded", "success"), "v1.0.0/pick-place/panda": ("recorded", "success"),
    "v1.0.0/door/panda": ("recorded", "success"), "v1.0.0/wipe/panda": ("recorded", "unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REAL))
def test_published_demonstrations_import_and_their_last_state_tells_success(
    shared_data: Path, tmp_path: Path, name: str
):
    action, outcomes = REAL[name]
    folder = shared_data / "robosuite_demos" / name
    dataset = open_dataset(folder, action=action)
    report = import_dataset(dataset, tmp_path / "s")
    store = EpisodeStore.open(tmp_path / "s")
    assert report.imported == len(outcomes.split())
    assert " ".join(entry.outcome for entry in store.entries()) == outcomes
    with h5py.File(folder / "demo.hdf5") as file:
        for i, id in enumerate(store.ids(), start=1):
            wanted, streams = file[f"data/demo_{i}/states"][:], store.read(id).streams
            got = np.concatenate([streams["qpos"].data[:], streams["qvel"].data[:]], axis=1)
            np.testing.assert_array_equal(got, wanted[:, 1:])
            np.testing.assert_array_equal(streams["sim_time"].data[:], wanted[:-1, 0])
            if "actions" in file[f"data/demo_{i}"]:
                np.testing.assert_array_equal(streams["action"].data[:], file[f"data/demo_{i}/actions"][1:])
