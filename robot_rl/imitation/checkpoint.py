"""Training checkpoints: whole or absent, verified when read, and without pickles.

A checkpoint is a folder `checkpoints/step-<n>/` with `model`, `ema` and `optimizer` as safetensors and `state.json`
(step, generator states, data position, settings, sha256 of every file and of itself). It is written under a
temporary name and renamed once. `last`, `previous` and `best` are links that are replaced by rename as well, so that
a kill at any moment leaves them pointing at whole checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from robot_rl.errors import CheckpointError, ConfigError

FORMAT_VERSION = 1
STATE_FILE = "state.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
Which = Literal["last", "previous", "best"]
LINKS: tuple[Which, ...] = ("last", "previous", "best")


@dataclass(frozen=True)
class CheckpointTensors:
    """What of a checkpoint are tensors."""

    model: nn.Module
    ema: nn.Module
    optimizer: Mapping[str, Tensor]


class CheckpointFolder:
    """The checkpoints of one run; keeps the last two and the best one.

    Args:
        path: `<run_dir>/checkpoints`; made when the first one is saved.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def find(self, which: Which) -> Path | None:
        """Return the folder that `which` names, or `None` if there is none."""
        link = self.path / which
        return self.path / os.readlink(link) if link.is_symlink() else None

    def save(self, tensors: CheckpointTensors, state: Mapping[str, Any], *, best: bool) -> Path:
        """Write one checkpoint and return its folder.

        Args:
            tensors: Weights and optimiser state.
            state: Plain JSON; must hold `step`.
            best: Make it the best one as well as the last.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".writing-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write(temporary, tensors, state)
        final = self._free_name(int(state["step"]))
        temporary.rename(final)
        _sync(self.path)
        before = self.find("last")
        if before is not None:
            self._link("previous", before)
        if best:
            self._link("best", final)
        self._link("last", final)
        self._prune()
        return final

    def fall_back(self) -> bool:
        """Make the previous checkpoint the last one; return whether the one given up was the best one too.

        The one given up is deleted with the next save.
        """
        last, previous, best = (self.find(which) for which in LINKS)
        if previous is not None:
            self._link("last", previous)
        if best is None or best != last or best == previous:
            return False
        (self.path / "best").unlink()
        return True

    def _free_name(self, step: int) -> Path:
        """Return a name not in use; a step is saved again when a run falls back behind it."""
        path, n = self.path / f"step-{step:08d}", 1
        while path.exists():
            path, n = self.path / f"step-{step:08d}-{n}", n + 1
        return path

    def _link(self, which: Which, target: Path) -> None:
        temporary = self.path / f".link-{which}-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        temporary.replace(self.path / which)
        _sync(self.path)

    def _prune(self) -> None:
        """Delete what no link names, and what killed writers left."""
        kept = {path for which in LINKS if (path := self.find(which)) is not None}
        for path in self.path.iterdir():
            if path.is_symlink() or path in kept or not path.name.startswith(("step-", ".writing-")):
                continue
            shutil.rmtree(path)


def read_state(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's JSON state after verifying every file of it.

    Raises:
        CheckpointError: A file is missing, truncated or altered; the message names it and says what can be done.
    """
    folder = Path(path)
    state_file = folder / STATE_FILE
    if not state_file.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {STATE_FILE}. {_ADVICE}")
    try:
        state: dict[str, Any] = json.loads(state_file.read_bytes())
        seal, version, files = state.pop("sha256"), state["format_version"], state["files"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{state_file} is truncated or altered: {error!r}. {_ADVICE}") from error
    if _seal(state) != seal:
        raise CheckpointError(f"{state_file} was altered: sha256 is {_seal(state)}, expected {seal}. {_ADVICE}")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{state_file}: format_version must be {FORMAT_VERSION}, got {version}; use that release")
    for name, expected in files.items():
        file = folder / name
        actual = _digest(file) if file.is_file() else "missing"
        if actual != expected:
            raise CheckpointError(
                f"{file} was truncated or altered: sha256 is {actual}, expected {expected}. {_ADVICE}"
            )
    return state


def load_checkpoint(
    path: str | Path, *, model: nn.Module, ema: nn.Module, expected_config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fill `model` and `ema` from a checkpoint and return its JSON state and its optimiser tensors.

    Nothing is filled unless the checkpoint is whole and was trained with the expected configuration.

    Raises:
        CheckpointError: As `read_state`, or the weights belong to another network.
        ConfigError: Its `config` differs from the expected one; the message names every key that does.
    """
    state = read_state(path)
    check_same_config(state["config"], expected_config, where=Path(path))
    _load(model, Path(path) / MODEL_FILE)
    _load(ema, Path(path) / EMA_FILE)
    return state, load_file(Path(path) / OPTIMIZER_FILE)


def load_model_weights(model: nn.Module, checkpoint_path: str | Path, ema: bool = True) -> None:
    """Fill a model from a checkpoint folder, such as `runs/x/checkpoints/best`.

    Args:
        model: Network of the same shape as the trained one.
        checkpoint_path: The checkpoint's folder, or one of the links to it.
        ema: Take the averaged weights (the ones that are evaluated), else the trained ones.

    Raises:
        CheckpointError: The checkpoint is incomplete or altered, or belongs to another network.
    """
    read_state(checkpoint_path)
    _load(model, Path(checkpoint_path) / (EMA_FILE if ema else MODEL_FILE))


def check_same_config(old: Mapping[str, Any], new: Mapping[str, Any], *, where: Path) -> None:
    """Raise unless two configurations, as plain JSON, are equal.

    Raises:
        ConfigError: Names every key that differs, with its old and new value.
    """
    was, now = _flat(old), _flat(json.loads(json.dumps(new)))
    absent = "(absent)"
    changes = [
        f"`{key}` was {was.get(key, absent)!r} and is now {now.get(key, absent)!r}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key, absent) != now.get(key, absent)
    ]
    if changes:
        raise ConfigError(
            f"cannot resume from {where}: {'; '.join(changes)}. Set it back, or give another output folder: `out` for "
            "all commands, or the command's own (`run` of train, `finetune.out`, `distill.out`)"
        )


_ADVICE = "Restore it from a copy, continue from the checkpoint before it with resume='previous', or delete it"


def _write(folder: Path, tensors: CheckpointTensors, state: Mapping[str, Any]) -> None:
    save_model(tensors.model, str(folder / MODEL_FILE))
    save_model(tensors.ema, str(folder / EMA_FILE))
    save_file({name: tensor.contiguous() for name, tensor in tensors.optimizer.items()}, folder / OPTIMIZER_FILE)
    files = {name: _digest(folder / name) for name in (MODEL_FILE, EMA_FILE, OPTIMIZER_FILE)}
    for name in files:
        _sync(folder / name)
    body = json.loads(json.dumps({**state, "format_version": FORMAT_VERSION, "files": files}))
    with (folder / STATE_FILE).open("w", encoding="utf-8") as file:
        json.dump({**body, "sha256": _seal(body)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _load(model: nn.Module, file: Path) -> None:
    try:
        load_model(model, file)
    except RuntimeError as error:
        raise CheckpointError(
            f"{file} holds the weights of another network than {type(model).__name__}: {error}"
        ) from error


def _seal(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
