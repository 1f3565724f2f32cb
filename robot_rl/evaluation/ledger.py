"""Results on disk, one line a seed, so that a killed evaluation goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robot_rl.errors import ConfigError
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.summary import EvaluationMeta


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file that were written whole, after cutting off one that a kill has torn."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.decode().splitlines()


class Ledger:
    """The file `results.jsonl`: first line what is evaluated, then one result a line, in order of completion.

    Args:
        path: The file; made if it does not exist.
        meta: What is evaluated; results of another task, policy or environment are refused.

    Raises:
        ConfigError: The file belongs to another evaluation or is not one of ours.
    """

    def __init__(self, path: str | Path, meta: EvaluationMeta) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.results: dict[int, EpisodeResult] = {}
        identity = json.loads(json.dumps(meta.identity()))
        lines = whole_lines(self.path)
        if lines:
            self._load(lines, identity)
        else:
            self._append({"evaluation": identity})

    def add(self, result: EpisodeResult) -> None:
        """Append one result; once this returns, a kill of the process does not lose it."""
        self._append(result.to_dict())
        self.results[result.seed] = result

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def _load(self, lines: list[str], identity: dict[str, Any]) -> None:
        try:
            found = json.loads(lines[0])["evaluation"]
            rows = [EpisodeResult.from_dict(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path} is not a results file of this version: {error}; move it away") from error
        for key, expected in identity.items():
            if found.get(key) != expected:
                raise ConfigError(
                    f"{self.path} holds results of another evaluation: `{key}` is {found.get(key)!r}, expected "
                    f"{expected!r}; choose another output folder (`evaluate.out=<folder>` of `robot-rl evaluate`): "
                    "these results stay as they are"
                )
        self.results = {row.seed: row for row in rows}
