"""Steps the denoiser of a bundle on the robot, in numpy and without torch: for guidance, composition, other solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from robot_rl.bundle import PolicyBundle, SolverInfo
from robot_rl.deploy.onnx_policy import open_session
from robot_rl.deploy.providers import PREFERRED, Providers
from robot_rl.deploy.realtime_chunking import solve_guided
from robot_rl.errors import BundleError
from robot_rl.gaussian_path import GaussianPath, Kind, Prediction
from robot_rl.samplers import n_step_noise, sampler
from robot_rl.values import Obs


def path_of(solver: SolverInfo) -> GaussianPath:
    """Return the Gaussian path that a bundle's denoiser was trained on."""
    alpha_bar = np.asarray(solver.alpha_bar) if solver.alpha_bar else None
    return GaussianPath(cast(Kind, solver.kind), cast(Prediction, solver.prediction), alpha_bar)


class BundleDenoiser:
    """The parts of a bundle's policy: what it sees, one call of its network, and the units of its chunks.

    Batches throughout: observations {name: [B, O, ...]} in physical units, chunks [B, H, A], float32. `horizon` and
    `action_offset` are those of the model: row 0 is due `action_offset` steps from the newest observation.

    Args:
        bundle: A bundle with the graphs `encode` and `denoise`.
        threads: Threads one operator may use.
        providers: Execution providers in order of preference.

    Raises:
        BundleError: The bundle has no `solver`, lacks a graph, or a graph cannot be loaded.
        ConfigError: `threads` is below 1, or no listed provider is available.
    """

    def __init__(
        self, bundle: PolicyBundle, *, threads: int = 1, providers: Sequence[str] | Providers = PREFERRED
    ) -> None:
        manifest = bundle.manifest
        if manifest.solver is None:
            raise BundleError(
                f"bundle {bundle.id} does not say how to step its denoiser (format version {manifest.format_version}, "
                f"family `{manifest.family}`); package the policy again with package.graphs=[sample,encode,denoise]"
            )
        self.bundle, self.solver, self.spec = bundle, manifest.solver, manifest.robot
        self.n_obs, self.horizon, self.action_offset = manifest.n_obs, manifest.horizon, manifest.action_offset
        self.action_dim = manifest.robot.action.size
        self.path = path_of(manifest.solver)
        self.times, self.clip = list(manifest.solver.times), manifest.solver.clip
        self.noise_scale = manifest.solver.noise_scale
        self._encode = open_session(bundle, "encode", threads=threads, providers=providers)
        self._denoise = open_session(bundle, "denoise", threads=threads, providers=providers)
        self._scale = np.asarray(manifest.solver.scale, dtype=np.float32)
        self._offset = np.asarray(manifest.solver.offset, dtype=np.float32)

    def encode(self, obs: Obs) -> np.ndarray:
        """Return the condition [B, C]."""
        (cond,) = self._encode.run(["cond"], {f"obs.{name}": obs[name] for name in self.spec.obs})
        return np.asarray(cond)

    def denoise(self, x: np.ndarray, t: float | np.ndarray, cond: np.ndarray) -> np.ndarray:
        """Return the network's native output [B, H, A] at the normalised noisy chunk `x` and the path's time `t`."""
        times = np.broadcast_to(np.asarray(t, dtype=np.float32), (len(x),))
        feed = {"x": np.asarray(x, dtype=np.float32), "t": np.ascontiguousarray(times), "cond": cond}
        (output,) = self._denoise.run(["output"], feed)
        return np.asarray(output)

    def denoised(self, x: np.ndarray, t: float, cond: np.ndarray) -> np.ndarray:
        """Return the denoiser D(x, t) [B, H, A], normalised and not clipped."""
        return np.asarray(self.path.denoised(x, t, self.denoise(x, t, cond)))

    def reference(self, obs: Obs) -> np.ndarray:
        """Return what chunks are relative to, [B, 1, A], or zero, [1, 1, 1]."""
        names = self.solver.relative_to
        if not names:
            return np.zeros((1, 1, 1), dtype=np.float32)
        newest = [obs[name][:, -1].reshape(len(obs[name]), -1) for name in names]
        return np.concatenate(newest, axis=1)[:, None].astype(np.float32)

    def physical(self, obs: Obs, normalised: np.ndarray) -> np.ndarray:
        """Return a normalised chunk in physical units."""
        return np.asarray((normalised - self._offset) / self._scale + self.reference(obs), dtype=np.float32)

    def normalised(self, obs: Obs, action: np.ndarray) -> np.ndarray:
        """Return a physical chunk as the network sees it; the inverse of `physical`."""
        relative = action - self.reference(obs)
        return np.asarray(relative * self._scale + self._offset, dtype=np.float32)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise of one sample: H rows to start from, and H more for each step that adds fresh noise."""
        return self.horizon * (1 + n_step_noise(self.solver.sampler, self.path, self.times)), self.action_dim

    def initial(self, noise: np.ndarray) -> np.ndarray:
        """Return the state [B, H, A] that sampling starts from, given standard normal `noise` of that shape."""
        return np.asarray(self.path.initial(np.float32(self.noise_scale) * noise, self.times[0]))

    def sample_normalised(self, obs: Obs, noise: np.ndarray) -> np.ndarray:
        """Return the normalised chunk that the bundle's sampler reaches from `noise` [B, *noise_shape]."""
        cond = self.encode(obs)
        first, *fresh = np.split(noise, noise.shape[1] // self.horizon, axis=1)
        scale = np.float32(self.solver.step_noise_scale)
        step_noise = {"step_noise": [scale * z for z in fresh]} if fresh else {}
        return np.asarray(
            sampler(self.solver.sampler).run(
                self.path,
                lambda x, t: self.denoise(x, t, cond),
                self.initial(first),
                self.times,
                clip=self.clip,
                **step_noise,
            )
        )

    def sample(self, obs: Obs, noise: np.ndarray) -> np.ndarray:
        """Return the chunk [B, H, A] in physical units."""
        return self.physical(obs, self.sample_normalised(obs, noise))

    def sample_guided(
        self, obs: Obs, noise: np.ndarray, *, target: np.ndarray, weights: np.ndarray, beta: float
    ) -> np.ndarray:
        """Return normalised chunks guided towards `target` with the identity for the Jacobian (real-time chunking).

        Args:
            obs: Observations.
            noise: Standard normal [B, H, A].
            target: Normalised actions [B, H, A].
            weights: How much each step is held to them, [B, H].
            beta: Largest guidance gain.
        """
        cond = self.encode(obs)

        def guide(x: np.ndarray, t: float) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
            return self.denoised(x, t, cond), lambda error: error

        start = self.initial(noise)
        return np.asarray(
            solve_guided(self.path, guide, start, self.times, target=target, weights=weights, beta=beta, clip=self.clip)
        )
