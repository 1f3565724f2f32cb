"""`robot-rl ab`: which of two bundles is better, found out blind and interleaved, in simulation or on the robot."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.accepted import POINTER, Accepted, as_accepted, find_bundle, read_accepted, write_accepted
from robot_rl.cli.config import build, plain, simulation
from robot_rl.cli.residual_policy import bundle_policy
from robot_rl.data.files import replace_file
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, TeleopError
from robot_rl.evaluation.ab import AbSession, Comparison, Label, Plan, Trial
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.interfaces import Env
from robot_rl.teleop.keyboard import KeyboardSource
from robot_rl.teleop.source import Event
from robot_rl.values import RecordingMeta

KEYS: dict[Event, Label] = {Event.SUCCESS: "success", Event.FAILURE: "failure", Event.DISCARD: "void"}
BEFORE = "before.json"
"""Who drove before a comparison on the robot, kept until it is put back."""
_POLL_S = 0.02


class Cell(Protocol):
    """Where a trial takes place."""

    def play(self, trial: Trial, bundle_id: str) -> tuple[Label, dict[str, Any]]:
        """Play a trial and return its label and what the sheet shall hold besides."""

    def close(self) -> None:
        """Release what it holds."""


class SimCell:
    """The task's simulation, which labels by itself. Both trials of a pair start from the same seed."""

    def __init__(self, config: DictConfig, bundles: dict[str, PolicyBundle]) -> None:
        self._env: Env = build(simulation(config))
        self._policies = {id: bundle_policy(bundle) for id, bundle in bundles.items()}
        self._config = config
        for bundle in bundles.values():
            bundle.check_fits(self._env.spec)
        self._store = _store(config.ab.store, self._env)

    def play(self, trial: Trial, bundle_id: str) -> tuple[Label, dict[str, Any]]:
        """Play an episode, and store it."""
        seed = int(self._config.ab.first_seed) + trial.pair
        meta = RecordingMeta(
            task=self._config.task.description, source="policy", policy_version=bundle_id,
            extra={"trial": f"{self._config.ab.name}/{trial.id}"},
        )  # fmt: skip
        keep = self._store is not None
        recording, result = run_episode(self._env, self._policies[bundle_id], seed, record=keep, meta=meta)
        stored = [self._store.append(recording)] if self._store is not None and recording is not None else []
        return "success" if result.success else "failure", {"seed": seed, "episodes": stored}

    def close(self) -> None:
        """Release the environment."""
        self._env.close()


class RobotCell:
    """The robot behind the policy node, set up through the bundles' folder; the operator labels by keys."""

    def __init__(self, config: DictConfig, console: Console, keys: KeyboardSource) -> None:
        if config.ab.folder is None:
            raise ConfigError(
                "`ab.where=robot` needs `ab.folder`, the folder of bundles that the policy node drives from"
            )
        self._folder, self._name, self._console, self._keys = Path(config.ab.folder), config.ab.name, console, keys
        self._store = None if config.ab.store is None else EpisodeStore.open(config.ab.store)
        self._kept = Path(config.ab.out) / BEFORE
        self._before = self._who_drove()
        keys.open()

    def _who_drove(self) -> Accepted | None:
        """Return who drove before the comparison, which a session that was killed has left on the disk."""
        if self._kept.is_file():
            kept = json.loads(self._kept.read_bytes())
            return None if kept is None else as_accepted(kept, self._kept)
        before = read_accepted(self._folder)
        replace_file(self._kept, json.dumps(None if before is None else asdict(before)).encode())
        return before

    def play(self, trial: Trial, bundle_id: str) -> tuple[Label, dict[str, Any]]:
        """Let a bundle drive the next episode and wait for the operator's label of it."""
        known = set() if self._store is None else set(self._store.ids())
        self._set(Accepted(bundle=bundle_id, trial=f"{self._name}/{trial.id}", reason="blind comparison"))
        self._keys.poll(time.monotonic_ns())  # keys of the trial before are not of this one
        self._console.print(
            f"trial {trial.slot + 1}, attempt {trial.attempt + 1}: reset the scene, run one episode, then press "
            "2 success, 3 failure or 4 void, and 1 to confirm"
        )
        label = self._label()
        new = [] if self._store is None else sorted(set(self._store.ids()) - known)
        return label, {"episodes": new}

    def close(self) -> None:
        """Give the terminal back, and the arm to who drove before."""
        self._keys.close()
        if self._before is not None:
            write_accepted(self._folder, self._before, verify=False)
        else:
            (self._folder / POINTER).unlink(missing_ok=True)
        self._kept.unlink()

    def _set(self, accepted: Accepted) -> None:
        before = self._before
        refused = () if before is None else before.refused
        write_accepted(self._folder, replace(accepted, refused=refused))

    def _label(self) -> Label:
        """Return the operator's word: the last label before the key that confirms, so that a slip is no trial.

        Raises:
            TeleopError: The terminal went away.
        """
        chosen: Label | None = None
        while not self._keys.gone:
            for event in self._keys.poll(time.monotonic_ns()).events:
                if event is Event.START and chosen is not None:
                    return chosen
                if event in KEYS:
                    chosen = KEYS[event]
                    self._console.print(f"{chosen}: 1 to confirm, or another label")
            time.sleep(_POLL_S)
        raise TeleopError("the terminal was closed; labels so far are kept, give the same command again to go on")


def run(config: DictConfig, console: Console, *, keys: Callable[[], KeyboardSource] = KeyboardSource) -> int:
    """Go on with a comparison until it is over, then open the key.

    Args:
        config: The configuration.
        console: Where to write.
        keys: Makes the operator's keyboard.

    Raises:
        ConfigError: Not two bundles, or another comparison in `ab.out`.
    """
    if len(config.ab.bundles) != 2 or config.ab.where not in ("sim", "robot"):
        raise ConfigError(
            f"`ab.bundles` must name two bundles and `ab.where` be sim or robot, got {plain(config.ab.bundles)} and "
            f"{config.ab.where!r}"
        )
    bundles = {bundle.id: bundle for bundle in map(PolicyBundle.open, plain(config.ab.bundles))}
    plan: Plan = build(config.ab.plan)
    where = f"{config.ab.where} {config.task.name}"
    first, *rest = bundles
    session = AbSession(config.ab.out, (first, rest[0] if rest else first), plan, seed=config.ab.seed, where=where)
    if config.ab.where == "robot" and config.ab.folder is not None:
        for id in bundles:
            find_bundle(config.ab.folder, id)
    if session.next() is not None:
        cell: Cell = SimCell(config, bundles) if config.ab.where == "sim" else RobotCell(config, console, keys())
        try:
            with ended_by_signals():
                _play(session, cell, console)
        finally:
            cell.close()
    _show(session, session.compare(), Path(config.ab.out), console)
    return 0


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a closed terminal (SIGHUP) and SIGTERM end like Ctrl-C, so that what is set up is put back."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _play(session: AbSession, cell: Cell, console: Console) -> None:
    while (trial := session.next()) is not None:
        label, facts = cell.play(trial, session.bundle(trial.arm))
        session.record(trial, label, **facts)
        done, total = session.done
        console.print(f"{done} of {total} trials labelled")  # the label itself is the operator's, nothing else is told


def _show(session: AbSession, found: Comparison, out: Path, console: Console) -> None:
    table = Table("", "bundle", "success", "exact 95 % interval", title="A against B", title_justify="left")
    for arm, rate in (("A", found.a), ("B", found.b)):
        name = session.bundle("A" if arm == "A" else "B")
        table.add_row(arm, name, f"{100 * rate.value:.1f} %", f"{100 * rate.low:.1f} to {100 * rate.high:.1f} %")
    console.print(table)
    if found.progress is not None:
        says = {"accept": "A is better", "reject": "B is better"}.get(found.progress.verdict, "no difference was found")
        console.print(f"sequential test: {says} after {found.counts.n} pairs (alpha {session.plan.alpha:g}, two-sided)")
    else:
        p, fisher = min(1.0, 2 * found.tests.barnard), min(1.0, 2 * found.tests.fisher)
        console.print(f"two-sided p: Barnard {p:.4f}, Fisher {fisher:.4f} (twice the one-sided)")
    names = {"A": session.bundle("A"), "B": session.bundle("B")}
    replace_file(out / "comparison.json", json.dumps({"bundles": names, **found.to_dict()}, indent=1).encode())


def _store(url: str | None, env: Env) -> EpisodeStore | None:
    if url is None:
        return None
    return EpisodeStore.open(url) if EpisodeStore.exists(url) else EpisodeStore.create(url, env.spec)
