"""A policy that runs from a bundle without torch. Only this file and `bound_graph` import onnxruntime."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from robot_rl.bundle import Graph, PolicyBundle
from robot_rl.bundle.residual import STEP
from robot_rl.deploy.bound_graph import BoundGraph
from robot_rl.deploy.consensus import Consensus, due_steps
from robot_rl.deploy.promises import Promise, plain_rows
from robot_rl.deploy.providers import PREFERRED, Providers
from robot_rl.errors import BundleError, ConfigError, SafetyStop, SpecError
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, Obs, PolicyInput

HORIZONS = "horizons"
"""Metadata key of a graph with the output `disagreement`: the horizons of its mixture, a JSON list."""


class OnnxPolicy:
    """Runs a bundle's `sample` graph: stacked observations and noise in, a chunk of physical actions out.

    Implements `robot_rl.interfaces.Policy`. The output is clamped to the action range frozen in the bundle. `act` reads
    and writes buffers made once, so it is for one thread at a time; `chunks` takes batches of any size.

    Args:
        bundle: A verified bundle.
        threads: Threads one operator may use.
        seed: Seed of the noise drawn when a `PolicyInput` brings none; `None` takes entropy from the machine.
        providers: Execution providers in order of preference, or with their settings.
        consensus: Execute of each chunk what the horizons of a mixture agree on, in place of the bundle's `n_execute`.

    Raises:
        BundleError: The graph cannot be loaded, its inputs and outputs are not what the manifest says, or the bundle
            is a base and a correction.
        ConfigError: `threads` is below 1, no listed provider is available, or `consensus` is given for a bundle
            without a mixture of horizons.
    """

    def __init__(
        self,
        bundle: PolicyBundle,
        *,
        threads: int = 1,
        seed: int | None = None,
        providers: Sequence[str] | Providers = PREFERRED,
        consensus: Consensus | None = None,
    ) -> None:
        if STEP in bundle.manifest.graphs:
            raise BundleError(
                f"bundle {bundle.id} corrects its base at every tick, which its chunks alone do not show; run "
                "`base_of(bundle)` and apply `step_policy(bundle)` to each action"
            )
        self.bundle, self._manifest = bundle, bundle.manifest
        self._robot = bundle.manifest.robot
        self._rng = np.random.default_rng(seed)
        self._session = open_session(bundle, "sample", threads=threads, providers=providers)
        self._bound = BoundGraph(self._session, bundle.manifest.graphs["sample"])
        self._low = np.asarray(self._manifest.action_low, dtype=self._robot.action.dtype)
        self._high = np.asarray(self._manifest.action_high, dtype=self._robot.action.dtype)
        self._consensus = consensus
        if consensus is not None:
            consensus.check(self.horizons, self._manifest.horizon + self._manifest.action_offset)

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons of the bundle's mixture, empty if it has none."""
        return tuple(json.loads(self._session.get_modelmeta().custom_metadata_map.get(HORIZONS, "[]")))

    @property
    def spec(self) -> RobotSpec:
        """What it reads and gives."""
        return self._robot

    @property
    def n_obs(self) -> int:
        """O, how many observation steps `act` needs."""
        return self._manifest.n_obs

    @property
    def n_execute(self) -> int:
        """How many actions of a chunk to execute before asking again."""
        return self._manifest.n_execute

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return str(self._session.get_providers()[0])

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise one call takes: [H, A], or more rows for a sampler that adds noise on its way."""
        noise = next(tensor for tensor in self._manifest.graphs["sample"].inputs if tensor.name == "noise")
        return int(noise.shape[1]), int(noise.shape[2])

    @property
    def action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action, [A] each, as frozen in the bundle."""
        return self._low, self._high

    def seed(self, seed: int) -> None:
        """Start the noise over, so that what follows depends on this seed alone."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Forget the last episode; nothing is kept between calls but the noise generator."""

    def act(self, policy_input: PolicyInput) -> ActionChunk:
        """Return a chunk whose row 0 is due at `policy_input.stamp_ns`.

        Raises:
            SpecError: An observation or the noise is not what the bundle's spec says.
            SafetyStop: The network answered NaN or infinity.
        """
        feed = self._observations(policy_input.obs)
        noise = self._noise(policy_input.noise)
        feed["noise"] = noise[None]
        answer = self._bound.run(feed)
        chunk = self._chunk(answer["action"][0], policy_input.stamp_ns)
        if self._consensus is None:
            return chunk
        offset = self._manifest.action_offset
        (n_execute,) = due_steps(self._consensus, answer["disagreement"], self.horizons, action_offset=offset)
        return dataclasses.replace(chunk, n_execute=int(n_execute))

    def chunks(self, obs: Obs, noise: np.ndarray, promise: Promise | None = None) -> np.ndarray:
        """Return actions [B, H, A] for a batch; what was promised makes no difference (a `ChunkSampler`).

        Args:
            obs: {name: [B, O, ...]}.
            noise: [B, *noise_shape], float32.
            promise: Not used.
        """
        feed = {f"obs.{name}": obs[name] for name in self._robot.obs}
        (action,) = self._session.run(["action"], {**feed, "noise": noise})
        due = action[:, -self._manifest.action_offset :].astype(self._robot.action.dtype)
        return np.asarray(np.clip(due, self._low, self._high))

    def warm_up(self, calls: int = 3) -> None:
        """Run the graph on plain inputs, so that the first real call does not pay for allocation."""
        obs = plain_obs(self.bundle)
        for _ in range(calls):
            self._bound.run({**self._observations(obs), "noise": np.zeros((1, *self.noise_shape), np.float32)})

    def _observations(self, obs: Obs) -> dict[str, np.ndarray]:
        if missing := sorted(set(self._robot.obs) - set(obs)):
            raise SpecError(
                f"observation lacks {missing}; got {sorted(obs)}, the bundle reads {sorted(self._robot.obs)}"
            )
        feed = {}
        for name, spec in self._robot.obs.items():
            value = spec.validate(obs[name], leading=1)
            if len(value) != self.n_obs:
                raise SpecError(f"`{name}` must hold {self.n_obs} observation steps, got {len(value)}")
            feed[f"obs.{name}"] = value[None]
        return feed

    def _noise(self, given: np.ndarray | None) -> np.ndarray:
        if given is None:
            return self._rng.standard_normal(self.noise_shape, dtype=np.float32)
        noise = np.asarray(given)
        if noise.shape != self.noise_shape or noise.dtype.kind != "f" or not np.isfinite(noise).all():
            raise SpecError(f"`noise` must be finite float{self.noise_shape}, got {noise.dtype}{noise.shape}")
        return noise.astype(np.float32, copy=False)

    def _chunk(self, action: np.ndarray, stamp_ns: int) -> ActionChunk:
        if not np.isfinite(action).all():
            raise SafetyStop(f"policy {self.bundle.id} answered NaN or infinity; its action was not used")
        due = action[-self._manifest.action_offset :].astype(self._robot.action.dtype)
        return ActionChunk(stamp_ns, self._robot.step_ns, np.clip(due, self._low, self._high))


def open_session(
    bundle: PolicyBundle, graph: str, *, threads: int = 1, providers: Sequence[str] | Providers = PREFERRED
) -> ort.InferenceSession:
    """Load one graph of a bundle.

    Raises:
        BundleError: No such graph, it was altered, or `load_graph` refuses it.
        ConfigError: `threads` is below 1, or a provider cannot be had (`Providers`).
    """
    if graph not in bundle.manifest.graphs:
        raise BundleError(f"bundle {bundle.id} has no graph `{graph}`; it has {sorted(bundle.manifest.graphs)}")
    described = bundle.manifest.graphs[graph]
    return load_graph(bundle.content(described.file), described, threads=threads, providers=providers)


def load_graph(
    content: bytes, described: Graph, *, threads: int = 1, providers: Sequence[str] | Providers = PREFERRED
) -> ort.InferenceSession:
    """Load a graph from its bytes and check it against its description.

    Raises:
        BundleError: ONNX Runtime refuses it, or its inputs and outputs are named otherwise.
        ConfigError: `threads` is below 1, or a provider cannot be had (`Providers`).
    """
    if threads < 1:
        raise ConfigError(f"`threads` must be at least 1, got {threads}")
    wanted = Providers.of(providers)
    usable = wanted.choose(ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if wanted.spinning else "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(content, options, providers=usable)
    except Exception as error:  # onnxruntime's own errors have no common base but this one
        raise BundleError(f"{described.file}: ONNX Runtime cannot load it: {error}; export the bundle again") from error
    wanted.check(session.get_providers(), [name for name, _ in usable])
    for side, got in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        expected, names = sorted(t.name for t in getattr(described, side)), sorted(t.name for t in got)
        if expected != names:
            raise BundleError(f"{described.file}: expected {side} {expected}, got {names}; export the bundle again")
    return session


def plain_obs(bundle: PolicyBundle) -> Obs:
    """Return a stacked observation [O, ...] in the middle of each spec's bounds, zero where it has none."""
    return plain_rows(bundle.manifest.robot, bundle.manifest.n_obs)


def smoke_run(bundle: PolicyBundle) -> None:
    """Raise unless the bundle's policy answers a plain observation with finite actions.

    Raises:
        BundleError: It cannot be loaded, or answers with NaN.
    """
    policy = OnnxPolicy(bundle, seed=0, providers=("CPUExecutionProvider",))
    try:
        policy.act(PolicyInput(obs=plain_obs(bundle), stamp_ns=0))
    except (SafetyStop, SpecError) as error:
        raise BundleError(f"bundle {bundle.id} failed its smoke run: {error}") from error
