from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.robomimic_dataset import open_robomimic
from robot_rl.data.robomimic_export import export_robomimic
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import DataFormatError, StoreError
from tests.data.robomimic_data import ENV_ARGS, LENGTHS, demo_arrays, write_robomimic
from tests.data.store_data import SPEC, recording


def imported(path: Path, store: Path, **options: object) -> EpisodeStore:
    import_dataset(open_dataset(path, **options), store, keep_sound=True)
    return EpisodeStore.open(store)


def test_every_array_of_a_demonstration_is_in_the_store_as_it_was(tmp_path: Path):
    path = write_robomimic(tmp_path / "in.hdf5", mask={"train": ["demo_0", "demo_2"], "valid": ["demo_1"]})
    store = imported(path, tmp_path / "s")
    assert store.ids() == ["demo_000000", "demo_000001", "demo_000002"]
    assert (store.spec.name, store.spec.control_hz, store.spec.action.kind) == ("Panda", 20.0, "delta_pose")
    for i, n in enumerate(LENGTHS):
        arrays, episode = demo_arrays(i, n), store.episode(f"demo_{i:06d}")
        np.testing.assert_array_equal(episode.stamp_ns, np.arange(n) * 50_000_000)
        for name in ("robot0_eef_pos", "agentview_image"):
            np.testing.assert_array_equal(episode.obs[name][:], arrays[f"obs/{name}"])
            np.testing.assert_array_equal(episode.final_obs[name], arrays[f"next_obs/{name}"][-1])
        np.testing.assert_array_equal(episode.action, arrays["actions"])
        np.testing.assert_array_equal(episode.reward, arrays["rewards"])
        for name in ("states", "dones"):
            np.testing.assert_array_equal(episode.extras[name][:], arrays[name])
        assert (episode.meta.outcome, episode.terminated, episode.meta.task) == ("success", True, "Lift")
        about = episode.meta.extra["imported"]
        assert (about["demo"], about["mask"]) == (f"demo_{i}", ["valid" if i == 1 else "train"])
        assert about["env_args"] == ENV_ARGS


def test_dtypes_of_the_source_are_kept_and_pictures_become_png(tmp_path: Path):
    dataset = open_robomimic(write_robomimic(tmp_path / "in.hdf5"))
    streams = dataset.schema.streams
    assert {n: s.spec.dtype for n, s in streams.items() if n in ("robot0_eef_pos", "action", "states", "dones")} == {
        "robot0_eef_pos": "float64", "action": "float64", "states": "float64", "dones": "int64",
    }  # fmt: skip
    assert streams["agentview_image"].codec == "png"
    assert dataset.defects == []


def test_sparse_rewards_tell_success_from_failure_and_others_tell_nothing(tmp_path: Path):
    def fail(demo: int, arrays: dict[str, np.ndarray]) -> None:
        arrays["rewards"] *= demo != 1

    def shaped(demo: int, arrays: dict[str, np.ndarray]) -> None:
        arrays["rewards"] += 0.25

    dataset = open_robomimic(write_robomimic(tmp_path / "a.hdf5", change=fail))
    assert [dataset.episode(i).meta.outcome for i in range(3)] == ["success", "failure", "success"]
    dataset = open_robomimic(write_robomimic(tmp_path / "b.hdf5", change=shaped))
    assert [dataset.episode(i).meta.outcome for i in range(3)] == ["unknown"] * 3


@pytest.mark.parametrize("where", ["file", "demo"])
def test_the_task_in_words_is_taken_from_where_libero_and_robocasa_put_it(tmp_path: Path, where: str):
    path = write_robomimic(tmp_path / "in.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": "open the drawer"})
        if where == "demo":
            file["data/demo_1"].attrs["ep_meta"] = json.dumps({"lang": "close it"})
    assert open_robomimic(path).episode(1).meta.task == ("open the drawer" if where == "file" else "close it")
    assert open_robomimic(path, task="tidy up").episode(1).meta.task == "tidy up"


def drop(key: str, demo: int):
    return lambda i, arrays: arrays.pop(key) if i == demo else None


def cut(key: str, demo: int):
    return lambda i, arrays: arrays.update({key: arrays[key][:-1]}) if i == demo else None


def poison(key: str, value: float):
    def change(i: int, arrays: dict[str, np.ndarray]) -> None:
        if i == 1:
            arrays[key][2, 0] = value

    return change


def narrow(i: int, arrays: dict[str, np.ndarray]) -> None:
    if i == 1:
        arrays["actions"] = arrays["actions"][:, :1]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (drop("actions", 1), "data/demo_1", "`actions` is missing"),
        (drop("obs/robot0_eef_pos", 1), "data/demo_1", "`obs/robot0_eef_pos` is missing; most demonstrations have it"),
        (cut("obs/agentview_image", 1), "data/demo_1/obs/agentview_image", "must have 6 rows as `actions` has, got 5"),
        (cut("states", 1), "data/demo_1/states", "must have 6 rows as `actions` has, got 5"),
        (poison("actions", np.nan), "data/demo_1/actions", "must be finite, got nan in row 2"),
        (poison("obs/robot0_eef_pos", np.inf), "data/demo_1/obs/robot0_eef_pos", "must be finite, got inf in row 2"),
        (narrow, "data/demo_1/actions", "rows must be float64(2,) as in most others, got float64(1,)"),
    ],
)
def test_a_broken_demonstration_is_named_and_the_others_can_be_imported(tmp_path: Path, change, where: str, what: str):
    dataset = open_robomimic(write_robomimic(tmp_path / "in.hdf5", change=change))
    found = [d for d in dataset.defects if d.severity == "episode"]
    assert found
    assert (found[0].where, found[0].episodes) == (where, (1,))
    assert what in found[0].what
    with pytest.raises(DataFormatError, match="nothing was imported"):
        import_dataset(dataset, tmp_path / "refused")
    report = import_dataset(dataset, tmp_path / "s", keep_sound=True)
    assert (report.imported, list(report.skipped)) == (2, [1])
    assert EpisodeStore.open(tmp_path / "s").ids() == ["demo_000000", "demo_000002"]


def test_all_defects_of_a_file_are_told_at_once(tmp_path: Path):
    def change(i: int, arrays: dict[str, np.ndarray]) -> None:
        poison("actions", np.nan)(i, arrays)
        cut("obs/robot0_eef_pos", 2)(i, arrays)
        arrays["dones"][:] = 0
        arrays["left_dpos"] = np.zeros((len(arrays["actions"]), 0))

    path = write_robomimic(tmp_path / "in.hdf5", change=change, mask={"train": ["demo_0", "demo_7"]})
    with h5py.File(path, "a") as file:
        file["data/demo_0"].attrs["num_samples"] = 44
        file["data"].attrs["total"] = 99
        file["data/demo_0"].attrs["model_file"] = '<mujoco><mesh file="/elsewhere/arm/base.stl"/></mujoco>'
    dataset = open_robomimic(path)
    said = "\n".join(map(str, dataset.defects))
    for expected in (
        "mask/train: names 1 demonstrations that are not there: ['demo_7']",
        "attribute num_samples (episode 0): says 44, its actions are 4",
        "data attribute total: says 99, there are 13 actions",
        "1 absolute paths of another machine: /elsewhere/arm/base.stl",
        "dones (episode 0, 1, 2): is never set",
        "left_dpos (episode 0, 1, 2): its rows have shape (0,), so there is nothing in it",
        "data/demo_1/actions (episode 1): must be finite",
        "data/demo_2/obs/robot0_eef_pos (episode 2): must have 3 rows",
    ):
        assert expected in said
    assert "left_dpos" in dataset.lost
    assert "left_dpos" not in dataset.schema.extra
    assert dataset.episode(0).meta.truncated


def test_next_obs_that_is_not_the_next_row_is_told(tmp_path: Path):
    def change(i: int, arrays: dict[str, np.ndarray]) -> None:
        arrays["next_obs/robot0_eef_pos"] = arrays["next_obs/robot0_eef_pos"] + (i == 2)

    dataset = open_robomimic(write_robomimic(tmp_path / "in.hdf5", change=change))
    assert [(d.where, d.severity, d.episodes) for d in dataset.defects] == [
        ("next_obs/robot0_eef_pos", "warning", (2,))
    ]


@pytest.mark.parametrize(
    ("env_args", "message"),
    [
        (None, "give the rate of the actions in hertz with import.fps"),
        ({"env_name": "Lift", "type": 1, "env_kwargs": {}}, "control_freq is missing or not positive"),
        ("{broken", "must be a JSON object"),
    ],
)
def test_a_file_without_a_rate_asks_for_it(tmp_path: Path, env_args, message: str):
    path = write_robomimic(tmp_path / "in.hdf5", env_args=env_args)
    with pytest.raises(DataFormatError, match=message):
        open_robomimic(path)
    assert open_robomimic(path, fps=10.0).schema.spec.control_hz == 10.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [("text", "does not start as an HDF5 file does"), ("cut", "it was cut short"), ("empty", "has")],
)
def test_what_is_not_a_whole_file_of_demonstrations_is_refused(tmp_path: Path, damage: str, message: str):
    path = write_robomimic(tmp_path / "in.hdf5")
    if damage == "text":
        path.write_bytes(b"not HDF5 at all" * 50)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "w") as file:
            file.create_group("data")
    with pytest.raises(DataFormatError, match=message):
        open_robomimic(path)


def test_a_damaged_picture_fails_its_episode_and_no_other(tmp_path: Path):
    path = write_robomimic(tmp_path / "plain.hdf5")
    with h5py.File(path, "a") as file:
        pictures = file["data/demo_1/obs/agentview_image"][:]
        del file["data/demo_1/obs/agentview_image"]
        coded = file.create_dataset(
            "data/demo_1/obs/agentview_image", data=pictures, chunks=(1, 8, 10, 3), compression="gzip"
        )
        at = coded.id.get_chunk_info(3).byte_offset
    with path.open("r+b") as raw:
        raw.seek(at)
        raw.write(b"\xff" * 20)
    report = import_dataset(open_robomimic(path), tmp_path / "s", keep_sound=True)
    assert list(report.skipped) == [1]
    assert "data/demo_1/obs/agentview_image rows 3 to 4 cannot be read" in report.skipped[1]


def test_export_and_import_give_the_same_episodes_with_units_and_labels(tmp_path: Path):
    store = imported(write_robomimic(tmp_path / "in.hdf5", mask={"train": ["demo_0"]}), tmp_path / "a")
    store.relabel("demo_000001", outcome="failure", task="lift the red cube")
    lost = export_robomimic(store, tmp_path / "out.hdf5")
    assert json.loads((tmp_path / "out.lost.json").read_text()) == lost
    dataset = open_robomimic(tmp_path / "out.hdf5")
    assert dataset.defects == []
    import_dataset(dataset, tmp_path / "b")
    again = EpisodeStore.open(tmp_path / "b")
    assert again.schema.to_dict() == store.schema.to_dict()
    assert again.digest() == store.digest()
    assert again.read("demo_000001").meta == store.read("demo_000001").meta


def test_an_export_has_what_robomimic_looks_for(tmp_path: Path):
    path = write_robomimic(tmp_path / "in.hdf5", mask={"train": ["demo_0", "demo_2"], "valid": ["demo_1"]})
    export_robomimic(imported(path, tmp_path / "s"), tmp_path / "out.hdf5")
    with h5py.File(tmp_path / "out.hdf5") as got, h5py.File(path) as wanted:
        assert got["data"].attrs["total"] == sum(LENGTHS)
        assert json.loads(got["data"].attrs["env_args"]) == ENV_ARGS
        assert {k: list(v[:]) for k, v in got["mask"].items()} == {k: list(v[:]) for k, v in wanted["mask"].items()}
        for i, n in enumerate(LENGTHS):
            assert got[f"data/demo_{i}"].attrs["num_samples"] == n
            for key in demo_arrays(i, n):
                there, want = got[f"data/demo_{i}/{key}"], wanted[f"data/demo_{i}/{key}"]
                np.testing.assert_array_equal(there[:], want[:])
                assert there.dtype == (np.float32 if key == "rewards" else want.dtype)


def test_an_off_grid_store_is_exported_from_the_control_clock_and_says_so(tmp_path: Path):
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    id = store.append(recording())
    lost = export_robomimic(store, tmp_path / "out.hdf5", val_fraction=0.0)
    assert "seen from the 20 Hz control clock" in lost["samples between ticks"]
    wanted = store.episode(id)
    import_dataset(open_robomimic(tmp_path / "out.hdf5"), tmp_path / "b")
    got = EpisodeStore.open(tmp_path / "b").episode(id)
    np.testing.assert_array_equal(got.action, wanted.action)
    for name in SPEC.obs:
        np.testing.assert_array_equal(got.obs[name][:], wanted.obs[name][:])
    with pytest.raises(StoreError, match="needs a new file"):
        export_robomimic(store, tmp_path / "out.hdf5")


def test_a_share_for_validation_makes_filter_keys_that_cover_every_demonstration(tmp_path: Path):
    store = imported(write_robomimic(tmp_path / "in.hdf5"), tmp_path / "s")
    export_robomimic(store, tmp_path / "out.hdf5", val_fraction=0.34, seed=1)
    with h5py.File(tmp_path / "out.hdf5") as file:
        train, valid = ({name.decode() for name in file[f"mask/{key}"][:]} for key in ("train", "valid"))
    assert (len(train), len(valid), train | valid) == (2, 1, {"demo_0", "demo_1", "demo_2"})


def test_notes_that_no_longer_fit_the_arrays_are_not_believed(tmp_path: Path):
    store = imported(write_robomimic(tmp_path / "in.hdf5"), tmp_path / "s")
    export_robomimic(store, tmp_path / "out.hdf5")
    with h5py.File(tmp_path / "out.hdf5", "a") as file:
        for demo in file["data"].values():
            actions = demo["actions"][:, :1]
            del demo["actions"]
            demo["actions"] = actions
    dataset = open_robomimic(tmp_path / "out.hdf5")
    assert any("not those the notes of the export are about" in d.what for d in dataset.defects)
    assert dataset.schema.spec.action.shape == (1,)
