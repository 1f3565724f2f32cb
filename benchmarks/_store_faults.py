"""A store that takes nothing while actor and learner work on it: a full disk, or a lock that another process holds."""

from __future__ import annotations

import fcntl
import resource
import time
from collections.abc import Callable
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robot_rl.cli.finetune_command import prepare
from robot_rl.cli.finetune_roles import EPISODES, online_store, run_both
from robot_rl.data.layout import STORE_LOCK
from robot_rl.errors import RobotRLError

EPISODES_FIRST, HELD_S, FILE_BYTES = 4, 15.0, 2000
Accounts = Callable[[DictConfig, str], list[dict[str, Any]]]
"""Rows on what became of episodes, replay and updates, told of a fault in words."""


def disk_rows(config: DictConfig, accounts: Accounts) -> list[dict[str, Any]]:
    """Let the actor's files grow no further in mid-run, then give it room and run again; return what became of it."""
    prepare(config)
    try:
        run_both(config, _once(config, _no_room))
        ended = False
    except RobotRLError as error:
        ended = "actor ended with an error" in str(error)
    before = len(online_store(config))
    run_both(config, lambda: None)
    what = f"disk full after {before} episodes, then room again"
    return [
        {"claim": "disk full: the actor ends with the store's error", "value": int(ended), "unit": "1 is yes",
         "baseline": 1},
        *accounts(config, what),
    ]  # fmt: skip


def lock_rows(config: DictConfig, accounts: Accounts) -> list[dict[str, Any]]:
    """Have another process hold the store's lock in mid-run; return whether anything was appended behind its back."""
    prepare(config)
    counts: list[int] = []
    holder: list[BaseProcess] = []

    def hold(config: DictConfig) -> None:
        queue = get_context("spawn").Queue()
        lock = Path(config.finetune.out) / EPISODES / STORE_LOCK
        holder.append(get_context("spawn").Process(target=_hold, args=(str(lock), HELD_S, queue), name="holder"))
        holder[0].start()
        queue.get()
        counts.append(len(online_store(config)))
        time.sleep(HELD_S - 2)
        counts.append(len(online_store(config)))

    run_both(config, _once(config, hold))
    holder[0].join()
    what = f"store locked by another process for {HELD_S:g} s"
    return [
        {"claim": f"{what}: episodes appended meanwhile", "value": counts[1] - counts[0], "unit": "episodes",
         "baseline": 0},
        *accounts(config, what),
    ]  # fmt: skip


def _once(config: DictConfig, fault: Callable[[DictConfig], None]) -> Callable[[], None]:
    """Return what is asked now and then in a run, and makes the fault once there are some episodes."""
    done: list[bool] = []

    def look() -> None:
        if not done and len(online_store(config)) >= EPISODES_FIRST:
            done.append(True)
            fault(config)

    return look


def _no_room(config: DictConfig) -> None:
    actor = next(process for process in active_children() if process.name == "actor")
    assert actor.pid is not None
    resource.prlimit(actor.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


def _hold(path: str, seconds: float, queue: Any) -> None:
    with Path(path).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        queue.put(True)
        time.sleep(seconds)
