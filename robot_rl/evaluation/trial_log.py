"""Trials on disk, one line each, that survive a kill and a power cut, and belong to exactly one question."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_rl.errors import ConfigError
from robot_rl.evaluation.ledger import whole_lines


class TrialLog:
    """A JSONL file: first line what is asked, then one trial a line, synced to the disk as it is added.

    Args:
        path: The file; made if it does not exist.
        identity: What the trials are of; rows of something else are refused.

    Raises:
        ConfigError: The file belongs to something else, or is none of ours.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        wanted = json.loads(json.dumps(dict(identity)))
        lines = whole_lines(self.path)
        if lines:
            self._load(lines, wanted)
        else:
            self._append({"trials_of": wanted})

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one trial; once this returns, neither a kill nor a power cut loses it."""
        self._append(dict(row))
        self.rows.append(json.loads(json.dumps(dict(row))))

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _load(self, lines: list[str], wanted: dict[str, Any]) -> None:
        try:
            found = json.loads(lines[0])["trials_of"]
            self.rows = [json.loads(line) for line in lines[1:]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path} is not a file of trials: {error!r}; move it away") from error
        for key in sorted({*wanted, *found}):
            if found.get(key) != wanted.get(key):
                raise ConfigError(
                    f"{self.path} holds trials of something else: `{key}` is {found.get(key)!r}, expected "
                    f"{wanted.get(key)!r}; choose another output folder: these trials stay as they are"
                )
