"""How chunks are executed, chosen by name: what a request tells the policy, and what happens where chunks overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robot_rl.bundle import PolicyBundle, base_of
from robot_rl.deploy.bidirectional import Bidirectional
from robot_rl.deploy.chunks import ChunkExecutor
from robot_rl.deploy.consensus import Consensus
from robot_rl.deploy.ensembling import Aggregate, Combine, TemporalEnsemble
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.promises import ChunkSampler, SampledPolicy
from robot_rl.deploy.providers import PREFERRED, Providers
from robot_rl.deploy.realtime_chunking import BETA, RealtimeChunking
from robot_rl.deploy.stepping import BundleDenoiser
from robot_rl.errors import ConfigError

STRATEGIES = ("receding_horizon", "temporal_ensembling", "async_blend", "realtime_chunking", "bidirectional")
QUEUE_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One strategy and its settings; docs/execution.md says when to use which.

    Args:
        strategy: `receding_horizon`: a new chunk replaces the old one. `temporal_ensembling`: ACT's mean of all
            predictions, one request a tick. `async_blend`: LeRobot's asynchronous client, which asks when half of the
            chunk is left and blends. `realtime_chunking`: the new chunk is guided to continue the old one.
            `bidirectional`: the most coherent of many chunks.
        n_execute: Ticks between requests; `None` leaves it to the strategy and the policy.
        decay: m of temporal ensembling.
        aggregate: How `async_blend` joins: `weighted_average`, `latest_only`, `average`, `conservative`.
        schedule: Weights of real-time chunking: `exp`, `linear`, `ones`, `zeros`.
        beta: Largest guidance gain of real-time chunking.
        n_candidates: Chunks that bidirectional decoding draws.
        rho: Its discount.
        consensus: With `receding_horizon`, execute of each chunk what the horizons of a mixture agree on.
        lead_ns: Send each action this much before it is due, by the measured latency of commands
            (`LatencyCalibration.lead_ns`); for policies trained on actions aligned by the same latency.

    Raises:
        ConfigError: An unknown strategy, a number out of range, or `consensus` with another strategy.
    """

    strategy: str = "receding_horizon"
    n_execute: int | None = None
    decay: float = 0.01
    aggregate: str = "weighted_average"
    schedule: str = "exp"
    beta: float = BETA
    n_candidates: int = 15
    rho: float = 0.5
    consensus: Consensus | None = None
    lead_ns: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"`execution` must be one of {STRATEGIES}, got {self.strategy!r}")
        if self.n_execute is not None and self.n_execute < 1:
            raise ConfigError(f"`n_execute` must be at least 1 or null, got {self.n_execute}")
        if self.lead_ns < 0:
            raise ConfigError(f"`lead_ns` must not be negative, got {self.lead_ns}")
        if self.consensus is not None and self.strategy != "receding_horizon":
            raise ConfigError(f"`consensus` goes with the strategy `receding_horizon`, got {self.strategy!r}")
        self.combine()  # refuses its own settings

    def combine(self) -> Combine | None:
        """Return what happens where a new row meets a planned one."""
        if self.strategy == "temporal_ensembling":
            return TemporalEnsemble(self.decay)
        return Aggregate(self.aggregate) if self.strategy == "async_blend" else None

    def period(self, *, n_execute: int, usable: int) -> int:
        """Return the ticks between requests.

        Args:
            n_execute: The policy's own.
            usable: Actions in a chunk from the newest observation on.
        """
        if self.n_execute is not None:
            return self.n_execute
        if self.strategy == "temporal_ensembling":
            return 1
        return math.ceil(usable * (1 - QUEUE_THRESHOLD)) if self.strategy == "async_blend" else n_execute

    def executor(self, bundle: PolicyBundle) -> ChunkExecutor:
        """Return the executor for a bundle's chunks."""
        manifest = bundle.manifest
        usable = manifest.horizon + manifest.action_offset
        period = self.period(n_execute=manifest.n_execute, usable=usable)
        return ChunkExecutor(n_execute=period, combine=self.combine(), lead_ns=self.lead_ns)

    def policy(
        self,
        bundle: PolicyBundle,
        *,
        threads: int = 1,
        seed: int | None = None,
        providers: Sequence[str] | Providers = PREFERRED,
    ) -> OnnxPolicy | SampledPolicy:
        """Return the policy that answers as the strategy asks; of a bundle with a correction, the base alone.

        `robot_rl.deploy.residual.step_policy` is the correction, which loop and driver apply at every tick.

        Raises:
            BundleError: Real-time chunking with a bundle whose denoiser cannot be stepped.
            ConfigError: `consensus` with a bundle that has no mixture of horizons, or a provider cannot be had.
        """
        bundle = base_of(bundle)
        plain = OnnxPolicy(bundle, threads=threads, seed=seed, providers=providers, consensus=self.consensus)
        sampler: ChunkSampler
        if self.strategy == "realtime_chunking":
            denoiser = BundleDenoiser(bundle, threads=threads, providers=providers)
            sampler = RealtimeChunking(plain, denoiser, schedule=self.schedule, beta=self.beta)
        elif self.strategy == "bidirectional":
            sampler = Bidirectional(plain, n_candidates=self.n_candidates, rho=self.rho)
        else:
            return plain
        return SampledPolicy(sampler, seed=seed)


def open_policy(
    path: str,
    execution: Execution,
    *,
    threads: int = 1,
    seed: int | None = None,
    providers: Sequence[str] | Providers = PREFERRED,
) -> OnnxPolicy | SampledPolicy:
    """Open the bundle at `path` and return `execution.policy` of it; what another process is told to do."""
    return execution.policy(PolicyBundle.open(path), threads=threads, seed=seed, providers=providers)
