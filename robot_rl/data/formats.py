"""The data set formats that can be imported: how each is told from its files, and which reader opens it."""

from __future__ import annotations

import importlib
import inspect
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.data.foreign import ForeignDataset
from robot_rl.errors import ConfigError, DataFormatError, MissingExtraError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that data sets come in.

    Args:
        name: What `import.format` calls it.
        signs: By what it is told, for messages.
        detect: Whether a path looks like it; reads a file's head at most.
        reader: `module:function` of the reader, imported when first used.
    """

    name: str
    signs: str
    detect: Callable[[Path], bool]
    reader: str

    def load(self) -> Callable[..., ForeignDataset]:
        """Return the reader's function `(path, **options) -> ForeignDataset`."""
        module, function = self.reader.split(":")
        found: Callable[..., ForeignDataset] = getattr(importlib.import_module(module), function)
        return found

    def options(self) -> tuple[str, ...]:
        """Return the names of the options that the reader takes: its keyword-only arguments."""
        parameters = inspect.signature(self.load()).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    def open(self, path: str | Path, **options: Any) -> ForeignDataset:
        """Open a data set.

        Raises:
            ConfigError: An option that this format does not have.
            DataFormatError: It is not there, or nothing of it can be understood.
            MissingExtraError: Reading the format needs a library that is not installed.
        """
        known = self.options()
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(f"import from {self.name} has no option {unknown}; it takes {list(known)}")
        if not Path(path).exists():
            raise DataFormatError(f"there is nothing at {path}; give the folder or file of a {self.name} data set")
        return self.load()(path, **options)


def _is_lerobot(path: Path) -> bool:
    meta = path / "meta"
    return meta.is_dir() and (
        any((meta / name).exists() for name in ("info.json", "episodes.jsonl", "tasks.jsonl", "tasks.parquet"))
        or (meta / "episodes").is_dir()
    )


def _is_hdf5(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def _demo_attributes(path: Path) -> Mapping[str, Any] | None:
    """Return the attributes of group `data`, or `None` where the file has none or is damaged."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "hdf5") from error
    try:
        with h5py.File(path, "r") as file:
            return dict(file["data"].attrs) if "data" in file else None
    except OSError:
        return None


def _is_robosuite(path: Path) -> bool:
    file = path / "demo.hdf5" if path.is_dir() else path
    if not _is_hdf5(file):
        return False
    attributes = _demo_attributes(file)
    return (
        attributes is not None and "env_args" not in attributes and bool({"env", "repository_version"} & {*attributes})
    )


def _is_robomimic(path: Path) -> bool:
    return _is_hdf5(path) and not _is_robosuite(path)


def _is_rlds(path: Path) -> bool:
    if path.is_file():
        return ".tfrecord" in path.name
    if not path.is_dir():
        return False
    return (path / "features.json").exists() or any(".tfrecord" in child.name for child in path.iterdir())


def _is_replay_buffer(path: Path) -> bool:
    if path.is_dir():
        return (
            any((path / name).exists() for name in (".zgroup", ".zmetadata", "meta/episode_ends"))
            and (path / "data").is_dir()
        )
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.strip("/").startswith("meta/episode_ends") for name in archive.namelist())


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            name="lerobot",
            signs="a folder with meta/info.json (or meta/episodes*, meta/tasks*)",
            detect=_is_lerobot,
            reader="robot_rl.data.lerobot_dataset:open_lerobot",
        ),
        Format(
            name="robosuite",
            signs="an HDF5 file, or a folder with demo.hdf5, whose group `data` has attribute `env` or "
            "`repository_version` and no `env_args`",
            detect=_is_robosuite,
            reader="robot_rl.data.robosuite_dataset:open_robosuite",
        ),
        Format(
            name="robomimic",
            signs="any other HDF5 file",
            detect=_is_robomimic,
            reader="robot_rl.data.robomimic_dataset:open_robomimic",
        ),
        Format(
            name="rlds",
            signs="a folder with features.json or *.tfrecord*, or one such file",
            detect=_is_rlds,
            reader="robot_rl.data.rlds_dataset:open_rlds",
        ),
        Format(
            name="replay_buffer",
            signs="a Zarr v2 group, folder or zip, with data/ and meta/episode_ends",
            detect=_is_replay_buffer,
            reader="robot_rl.data.replay_dataset:open_replay_buffer",
        ),
    )
}
"""Every format by name, in the order in which they are looked for."""


def find_format(path: str | Path, name: str | None = None) -> Format:
    """Return the format called `name`, or the one that `path` looks like.

    Raises:
        ConfigError: No format has that name.
        DataFormatError: There is nothing at `path`, or it looks like none of them; says what was looked for.
    """
    if name is not None:
        if name not in FORMATS:
            raise ConfigError(f"`import.format` must be one of {sorted(FORMATS)}, got {name!r}")
        return FORMATS[name]
    if not Path(path).exists():
        raise DataFormatError(f"there is nothing at {path}; give the folder or file of a data set")
    for candidate in FORMATS.values():
        if candidate.detect(Path(path)):
            return candidate
    looked = "\n".join(f"  {f.name}: {f.signs}" for f in FORMATS.values())
    raise DataFormatError(
        f"{path} ({_contents(Path(path))}) looks like none of the formats that can be imported:\n{looked}\n"
        "give the data set's own folder, or name its format with import.format=<name>"
    )


def open_dataset(path: str | Path, format: str | None = None, **options: Any) -> ForeignDataset:
    """Open a data set and look at all of it, pictures apart.

    Args:
        path: Its folder or file.
        format: One of `FORMATS`; `None` tells it by looking.
        options: What the format's reader takes.

    Raises:
        ConfigError: An unknown format or option.
        DataFormatError: No data set can be made out.
        MissingExtraError: Reading the format needs a library that is not installed.
    """
    return find_format(path, format).open(path, **options)


def _contents(path: Path) -> str:
    if path.is_file():
        return f"a file of {path.stat().st_size} bytes"
    names = sorted(child.name for child in path.iterdir())
    return (
        f"a folder with {json.dumps(names[:6])}{' and more' if len(names) > 6 else ''}" if names else "an empty folder"
    )
