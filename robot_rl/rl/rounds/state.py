"""Which stages of a run of rounds are done, what each one left, and which policy is gone on with, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robot_rl.errors import ConfigError
from robot_rl.imitation.checkpoint import check_same_config
from robot_rl.imitation.summary import write_json

FILE = "state.json"


@dataclass(frozen=True, kw_only=True)
class StageDone:
    """A stage that is over.

    Args:
        name: The stage, such as `round_0/offline`; also its folder in the run's.
        policy: The policy that is gone on with: a training run's folder within the run's, or the path of the base.
        accepted: Whether a gate or a test took what the stage made, so that it is the policy that stands.
        why: What decided, in words.
        facts: Anything else worth telling, plain JSON.
    """

    name: str
    policy: str
    accepted: bool
    why: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class RunState:
    """The stages done so far, oldest first, kept in a run's folder.

    Args:
        folder: The run's folder; made if it does not exist.
        constants: What the run must have been begun with to go on, plain JSON.

    Raises:
        ConfigError: It was begun with other constants; the message names them.
    """

    def __init__(self, folder: str | Path, constants: Mapping[str, Any]) -> None:
        self.folder, self._path = Path(folder), Path(folder) / FILE
        self._constants = dict(constants)
        self.done: list[StageDone] = []
        if self._path.is_file():
            found = json.loads(self._path.read_text("utf-8"))
            check_same_config(found["constants"], self._constants, where=self._path)
            self.done = [StageDone(**stage) for stage in found["done"]]
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write()

    def find(self, name: str) -> StageDone | None:
        """Return a stage if it is done."""
        return next((stage for stage in self.done if stage.name == name), None)

    def policy(self) -> Path | None:
        """Return the policy that is gone on with; `None` before the first stage is done."""
        return self.folder / self.done[-1].policy if self.done else None

    def record(self, stage: StageDone) -> None:
        """Add a stage; once this returns, a kill of the process does not lose it.

        Raises:
            ConfigError: It is done already.
        """
        if self.find(stage.name) is not None:
            raise ConfigError(
                f"stage `{stage.name}` of {self.folder} is done already; give another finetune.out to run it anew"
            )
        self.done.append(stage)
        self._write()

    def _write(self) -> None:
        write_json(self._path, {"constants": self._constants, "done": [asdict(stage) for stage in self.done]})
