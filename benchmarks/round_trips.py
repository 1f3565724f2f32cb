"""Round trips: a store written as another format and read again, and other formats read into a store, array by array.

    python -m benchmarks.round_trips [--data ../shared/data]

What is not the same afterwards must stand in the export's own list of what is lost, or the row says UNTOLD. Formats
without an export are read the other way: every array of the source is looked up in the store.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.progress import track

from benchmarks._results import RESULTS, write_results
from benchmarks._round_trip_compare import compare
from benchmarks._round_trip_stores import MADE, PUBLISHED, SIMULATED
from robot_rl.data.bag_import import import_bag
from robot_rl.data.foreign import import_dataset
from robot_rl.data.formats import open_dataset
from robot_rl.data.lerobot_export import export_lerobot
from robot_rl.data.mcap_io import export_mcap
from robot_rl.data.replay_buffer_io import export_replay_buffer, import_replay_buffer
from robot_rl.data.replay_layout import layout_of, pusht_layout
from robot_rl.data.robomimic_export import export_robomimic
from robot_rl.data.store import EpisodeStore

Trip = Callable[[EpisodeStore, Path], tuple[EpisodeStore, Mapping[str, str]]]
"""Takes a store and an empty folder; returns the store read again and what the export says is lost."""

RAW = Path(__file__).resolve().parents[1] / "outputs" / "benchmarks" / "round_trips" / "raw.json"
OTHER_NAMES = {"final_obs": ("observation after the last action",), "id": ("meta",)}
"""Field -> what else a list of losses may call it."""


def lerobot(store: EpisodeStore, folder: Path) -> tuple[EpisodeStore, Mapping[str, str]]:
    """Through LeRobot v3.0, pictures as PNG in the tables."""
    lost = export_lerobot(store, folder / "out", videos=False)
    import_dataset(open_dataset(folder / "out"), folder / "again")
    return EpisodeStore.open(folder / "again"), lost


def lerobot_videos(store: EpisodeStore, folder: Path) -> tuple[EpisodeStore, Mapping[str, str]]:
    """Through LeRobot v3.0, pictures as videos."""
    lost = export_lerobot(store, folder / "out")
    import_dataset(open_dataset(folder / "out"), folder / "again")
    return EpisodeStore.open(folder / "again"), lost


def robomimic(store: EpisodeStore, folder: Path) -> tuple[EpisodeStore, Mapping[str, str]]:
    """Through robomimic's HDF5."""
    lost = export_robomimic(store, folder / "out.hdf5")
    import_dataset(open_dataset(folder / "out.hdf5"), folder / "again")
    return EpisodeStore.open(folder / "again"), lost


def replay_buffer(store: EpisodeStore, folder: Path) -> tuple[EpisodeStore, Mapping[str, str]]:
    """Through diffusion_policy's Zarr."""
    lost = export_replay_buffer(store, folder / "out.zarr")
    layout = pusht_layout() if store.spec.name == "pusht" else layout_of(store.spec)
    return import_replay_buffer(folder / "out.zarr", folder / "again", layout), lost


def mcap(store: EpisodeStore, folder: Path) -> tuple[EpisodeStore, Mapping[str, str]]:
    """Through one MCAP file an episode."""
    for id in store.ids():
        export_mcap(store, id, folder / f"{id}.mcap")
        import_bag(folder / f"{id}.mcap", folder / "again")
    return EpisodeStore.open(folder / "again"), {}


TRIPS: dict[str, Trip] = {
    "LeRobot v3.0, PNG": lerobot, "LeRobot v3.0, video": lerobot_videos, "robomimic": robomimic,
    "replay buffer": replay_buffer, "MCAP": mcap,
}  # fmt: skip


def untold(differing: Mapping[str, str], lost: Mapping[str, str]) -> list[str]:
    """Return the fields that differ and that no entry of the list of losses is about."""
    said = " ".join([*lost, *lost.values()])
    return [field for field in differing if not any(re.search(rf"\b{re.escape(n)}\b", said) for n in _names(field))]


def _names(field: str) -> list[str]:
    """Return what a list of losses may call a field: a stream by its name, other things by words of their own."""
    head, _, tail = field.partition("/")
    if head in ("obs", "extra"):
        return [tail]
    return [head.split(" ")[0], *OTHER_NAMES.get(head, ())]


def round_trip(store: EpisodeStore, trip: Trip, folder: Path) -> dict[str, Any]:
    """Return what a round trip changed: `differing`, `lost`, `untold`."""
    folder.mkdir(parents=True)
    again, lost = trip(store, folder)
    differing = compare(store, again)
    return {"differing": differing, "lost": dict(lost), "untold": untold(differing, lost), "episodes": len(store)}


def robosuite_sources(data: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return, for each published robosuite file, how many of its arrays are in the store as they are in the file."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((data / "robosuite_demos").rglob("demo.hdf5")):
        name = "/".join(path.parent.relative_to(data / "robosuite_demos").parts)
        with h5py.File(path) as file:
            recorded = any(key in demo for demo in file["data"].values() for key in ("actions", "joint_velocities"))
            dataset = open_dataset(path, action="recorded" if recorded else "next_qpos")
            import_dataset(dataset, folder / name.replace("/", "-"))
            store = EpisodeStore.open(folder / name.replace("/", "-"))
            demos = sorted(file["data"].values(), key=lambda demo: int(demo.name.rsplit("_", 1)[1]))
            pairs = [
                pair for id, demo in zip(store.ids(), demos, strict=True) for pair in _robosuite_pairs(store, id, demo)
            ]
        wrong = [key for key, a, b in pairs if a.dtype != b.dtype or not np.array_equal(a, b)]
        found[name] = {"arrays": len(pairs), "wrong": wrong, "outcomes": [e.outcome for e in store.entries()]}
    return found


def _robosuite_pairs(store: EpisodeStore, id: str, demo: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (array, as in the file, as in the store); states lie one row before the actions they led to."""
    streams = store.read(id).streams
    about = store.read(id).meta.extra["imported"]
    head = about["before_first_state"]
    times = np.append(streams["sim_time"].data[:], about["final_sim_time"])[:, None]
    states = np.concatenate([times, streams["qpos"].data[:], streams["qvel"].data[:]], axis=1)
    pairs = [("states", demo["states"][:], states)]
    commanded = [key for key in ("actions", "joint_velocities", "gripper_actuations") if key in demo]
    if commanded:
        first = np.concatenate([np.atleast_1d(head[key]) for key in commanded])
        rows = np.concatenate([first[None], streams["action"].data[:]])
        pairs.append(("action", np.concatenate([demo[key][:] for key in commanded], axis=1), rows))
    others = [key for key in demo if key not in ("states", *commanded) and key in streams]
    pairs += [(key, demo[key][:], np.concatenate([np.array([head[key]]), streams[key].data[:]])) for key in others]
    return pairs


def measure(data: Path) -> dict[str, Any]:
    """Return what every round trip changed, by store and format; published data only where it lies in `data`."""
    found: dict[str, Any] = {"trips": {}, "sources": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stores = {name: make(folder / f"store {name}") for name, make in {**SIMULATED, **MADE}.items()}
        if (data / "pusht_cchi_v7").is_dir() and (data / "robosuite_demos").is_dir():
            stores.update({name: make(folder / f"store {name}", data) for name, make in PUBLISHED.items()})
            found["sources"] = robosuite_sources(data, folder / "robosuite")
        for name, store in track(stores.items(), description="round trips"):
            trips = {title: round_trip(store, trip, folder / name / title) for title, trip in TRIPS.items()}
            found["trips"][name] = trips
    return found


def rows(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the result rows of a measurement."""
    found = []
    for store, trips in raw["trips"].items():
        for title, trip in trips.items():
            changed = "; ".join(f"{field}: {how}" for field, how in trip["differing"].items())
            gap = f" UNTOLD: {trip['untold']}" if trip["untold"] else ""
            claim = f"{store} -> {title} -> store: {changed if changed else 'equal'}{gap}"
            found.append(
                {"claim": claim, "value": len(trip["differing"]), "unit": "fields differ", "seeds": trip["episodes"]}
            )
    for name, source in raw["sources"].items():
        claim = f"robosuite {name}: source arrays equal in the store; outcomes {', '.join(source['outcomes'])}"
        value = source["arrays"] - len(source["wrong"])
        found.append({"claim": claim, "value": value, "unit": f"of {source['arrays']} arrays"})
    return found


def table(raw: Mapping[str, Any]) -> str:
    """Return the table of docs/formats.md: a row a store, a column a format."""
    titles = list(next(iter(raw["trips"].values())))
    lines = ["| store | " + " | ".join(titles) + " |", "|" + "---|" * (len(titles) + 1)]
    for store, trips in raw["trips"].items():
        cells = [", ".join(f"`{name}`" for name in _short(trips[title]["differing"])) or "equal" for title in titles]
        lines.append(f"| {store} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(differing: Mapping[str, str]) -> list[str]:
    """Return fields by name, those of the final observation and of meta as one."""
    heads = [field.split("/")[0] if field.startswith(("final_obs/", "meta/")) else field for field in differing]
    return list(dict.fromkeys(heads))


def main() -> None:
    """Measure, keep the raw result, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--again", action="store_true", help="make rows and table from the raw result of the last run")
    options = parser.parse_args()
    if not options.again:
        RAW.parent.mkdir(parents=True, exist_ok=True)
        RAW.write_text(json.dumps(measure(options.data), indent=1))
    raw = json.loads(RAW.read_text())
    print(table(raw))
    write_results("round_trips", rows(raw))
    gaps = sum(bool(trip["untold"]) for trips in raw["trips"].values() for trip in trips.values())
    print(f"{RESULTS / 'round_trips.json'}: {gaps} round trips with losses that no list tells")


if __name__ == "__main__":
    main()
