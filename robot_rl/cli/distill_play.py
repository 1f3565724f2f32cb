"""A head and its teacher on the same seeds; every episode is kept on disk and none is played twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from robot_rl.cli.compose_parents import weights_digest
from robot_rl.cli.config import build, plain
from robot_rl.cli.progress import bar
from robot_rl.evaluation.ledger import Ledger
from robot_rl.evaluation.lockstep import BatchChunks, BatchPolicy, run_lockstep
from robot_rl.evaluation.rollouts import EpisodeResult
from robot_rl.evaluation.statistics import Interval, wilson
from robot_rl.evaluation.summary import EvaluationMeta
from robot_rl.interfaces import Env
from robot_rl.values import Obs

if TYPE_CHECKING:
    from policies.chunk_network import ChunkNetwork
    from robot_rl.deploy.onnx_policy import OnnxPolicy


class OnnxBatch:
    """A bundle's policy as a `BatchPolicy`: what runs on the robot, for many episodes at once."""

    def __init__(self, policy: OnnxPolicy) -> None:
        self._policy = policy
        self.n_obs, self.n_execute, self.noise_shape = policy.n_obs, policy.n_execute, policy.noise_shape

    def act_batch(self, obs: Obs, noise: np.ndarray) -> BatchChunks:
        """Return chunks for obs {name: [B, O, ...]} and noise [B, *noise_shape]."""
        return BatchChunks(self._policy.chunks(obs, noise))


class Arena:
    """Plays policies on `distill.episodes` consecutive seeds.

    Args:
        config: The command's configuration.
        folder: Where results are kept, one file a policy.
        console: Where to show progress.
    """

    def __init__(self, config: DictConfig, folder: Path, console: Console) -> None:
        self.config, self._folder, self._console = config, folder, console
        first = int(config.distill.first_seed)
        self.seeds = range(first, first + int(config.distill.episodes))
        self._envs: list[Env] = []

    @property
    def is_open(self) -> bool:
        """Whether there is a simulation and something to play."""
        return self.config.task.env is not None and len(self.seeds) > 0

    def play(self, name: str, policy: BatchPolicy, identity: Sequence[Any]) -> list[EpisodeResult]:
        """Return one result a seed.

        Args:
            name: What to call it.
            policy: Who acts.
            identity: Plain values that tell this policy from others.
        """
        key = hashlib.sha256(json.dumps([*identity, policy.n_execute]).encode()).hexdigest()[:32]
        meta = EvaluationMeta(task=self.config.task.name, policy_id=key, env=plain(self.config.task.env))
        ledger = Ledger(self._folder / f"{key[:16]}.jsonl", meta)
        waiting = [seed for seed in self.seeds if seed not in ledger.results]
        if waiting:
            with bar(self._console) as progress:
                shown = progress.add_task(name, total=len(waiting))

                def keep(result: EpisodeResult) -> None:
                    ledger.add(result)
                    progress.advance(shown)

                run_lockstep(self._lanes(len(waiting)), policy, waiting, on_done=keep)
        return [ledger.results[seed] for seed in self.seeds]

    def play_model(self, name: str, model: ChunkNetwork, policy: Callable[[], BatchPolicy]) -> list[EpisodeResult]:
        """Return one result a seed of a torch model, told from others by its weights and steps."""
        times = [float(t) for t in getattr(model, "times", [])]
        return self.play(name, policy(), [weights_digest(model), type(model).__name__, times])

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _lanes(self, wanted: int) -> list[Env]:
        for _ in range(len(self._envs), min(wanted, int(self.config.distill.lanes))):
            self._envs.append(build(self.config.task.env))
        return self._envs[:wanted]


def paired_difference(first: Sequence[bool], second: Sequence[bool], *, level: float = 0.95) -> Interval:
    """Return success of the first minus the second on the same seeds, with Newcombe's interval from two of Wilson's.

    Newcombe 1998, method 10 (doi 10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C). It has a width
    where both always succeed, which a bootstrap has not.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    n = len(a)
    both, only_a, only_b, none = (int(x.sum()) for x in (a & b, a & ~b, b & ~a, ~a & ~b))
    one, two = wilson(both + only_a, n, level=level), wilson(both + only_b, n, level=level)
    spread = math.sqrt((both + only_a) * (only_b + none) * (both + only_b) * (only_a + none))
    excess = float(both * none - only_a * only_b)
    excess = excess if excess < 0 else max(excess - n / 2, 0.0)
    phi, difference = (excess / spread if spread else 0.0), (only_a - only_b) / n

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(down * down - 2 * phi * down * up + up * up, 0.0))

    low = difference - reach(one.value - one.low, two.high - two.value)
    high = difference + reach(two.value - two.low, one.high - one.value)
    return Interval(difference, low, high, level, "wilson")
