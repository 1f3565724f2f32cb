"""Denoising as a Markov chain with known log-probabilities: what policy-gradient fine-tuning needs of a policy.

Ren et al. 2024 (DPPO, arXiv 2409.00588) and Lei et al. 2025 (RL-100, arXiv 2510.14830), for every Gaussian path. Each
step's mean and std come from `robot_rl.chain_step` by way of `DenoisingChain.mean_std`, and only from there.

Departure from DPPO: where all steps are tuned the frozen copy of the network is neither kept nor run.
"""

import copy
import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from policies.encoders import Stats
from robot_rl.chain_step import ChainNoise, step_mean
from robot_rl.errors import ConfigError
from robot_rl.specs import RobotSpec

_LOG_2PI = math.log(2 * math.pi)


class DenoisingChain(ChunkNetwork):
    """A denoising model sampled by stochastic steps (a `robot_rl.interfaces.ChainModel`).

    It is the model it was made of: same encoder, denoiser and normaliser, by the same names in the weights. Of its K
    steps the last `n_tuned` run the denoiser; earlier ones run a frozen copy from when the chain was made.

    Args:
        spec: The robot.
        stats: Statistics of `action` and of the observations that are normalised.
        model: Called as model(spec, stats).
        noise: How much each step adds.
        n_tuned: K', how many of the last steps are fine-tuned; `None` for all.

    Raises:
        ConfigError: A model that does not denoise or has a goal to be guided to, or `n_tuned` out of 1 ... K.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        noise: ChainNoise,
        n_tuned: int | None = None,
    ) -> None:
        inner = model(spec, stats)
        if not isinstance(inner, DenoisingModel):
            raise ConfigError(f"a chain is made of a model that denoises, got {type(inner).__name__}")
        if inner.guidance != 1.0:
            raise ConfigError(f"`guidance` of a model that becomes a chain must be 1, got {inner.guidance:g}")
        super().__init__(
            spec, stats, measure=inner.measure, encoder=lambda *_, **__: inner.encoder,
            denoiser=lambda **_: inner.denoiser, n_obs=inner.n_obs, horizon=inner.horizon,
            action_offset=inner.action_offset, relative_to=inner.relative_to, mask_padding=inner.mask_padding,
        )  # fmt: skip
        self.normalizer = inner.normalizer
        self.n_steps = len(inner.times) - 1
        self.n_tuned = self.n_steps if n_tuned is None else n_tuned
        if not 1 <= self.n_tuned <= self.n_steps:
            raise ConfigError(f"`n_tuned` must be in 1 ... {self.n_steps}, the steps of the model, got {n_tuned}")
        self._model = (inner,)  # not as a module: its parts stand in the weights once
        self._before = (inner,)
        if self.n_tuned < self.n_steps:
            self._before = (copy.deepcopy(inner),)
            self.frozen = self._before[0].denoiser.requires_grad_(False)
        self.use_noise(noise)

    @property
    def model(self) -> DenoisingModel:
        """The model, which samples deterministically and holds the imitation loss; it shares all weights."""
        return self._model[0]

    def use_noise(self, noise: ChainNoise) -> None:
        """Change how much each step adds from here on."""
        self.noise = noise
        self._natural, self._std = noise.table(self.model.path, self.model.times)

    def refreeze(self) -> None:
        """Take the present denoiser for the steps that are not tuned; for a model whose weights were loaded since."""
        if self.n_tuned < self.n_steps:
            self.frozen.load_state_dict(self.denoiser.state_dict())

    @property
    def std(self) -> list[float]:
        """Std of each of the K steps, in the unit of normalised actions."""
        return list(self._std)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of the noise of one sample: H rows to start from, and H more for each step, as of `chain`."""
        return self.horizon * (1 + self.n_steps), self.action_dim

    def mean_std(
        self, x: Float[Tensor, "B H A"], k: int | Tensor, cond: Float[Tensor, "B C"]
    ) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B 1 1"]]:
        """Return mean and std of the state after step `k`.

        Args:
            x: Normalised state before it.
            k: Step, 0 the noisiest; one number for all samples, or one each, int64 [B], of tuned steps alone.
            cond: From `encode`.
        """
        if isinstance(k, int):  # plain numbers: exported graphs then hold constants, not look-ups
            model = self._before[0] if k < self.n_steps - self.n_tuned else self.model
            t, after, natural, std = (table[k] for table in self._tables())
            denoised = model.denoised(x, t, x.new_full((x.shape[0],), t), cond)
            return step_mean(model.path, x, denoised, t, after, natural), x.new_full((x.shape[0], 1, 1), std)
        times, afters, naturals, stds = (x.new_tensor(table)[k] for table in self._tables())
        denoised = self.model.denoised(x, times, times, cond)
        mean = step_mean(self.model.path, x, denoised, times, afters, naturals[:, None, None])
        return mean, stds[:, None, None]

    def _tables(self) -> tuple[list[float], ...]:
        """Return for each step its time, the next one, and its natural and clipped std."""
        return self.model.times[:-1], self.model.times[1:], self._natural, self._std

    def states(
        self, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"], step_noise: Float[Tensor, "B K H A"]
    ) -> Float[Tensor, "B S H A"]:
        """Return the states before, between and after the tuned steps, S = K' + 1; the last is the normalised chunk.

        Args:
            cond: From `encode`.
            noise: Standard normal, to start from.
            step_noise: Standard normal, for each of all K steps.
        """
        x = self.model.path.initial(self.model.noise_scale * noise, self.model.times[0])
        kept = [x]
        for k in range(self.n_steps):
            mean, std = self.mean_std(x, k, cond)
            x = mean + std * step_noise[:, k]
            kept.append(x)
        return torch.stack(kept[-1 - self.n_tuned :], dim=1)

    def chain(
        self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B H A"], step_noise: Float[Tensor, "B K H A"]
    ) -> Float[Tensor, "B S H A"]:
        """Return `states` for obs {name: [B, O, ...]}."""
        return self.states(self.encode(obs), noise, step_noise)

    def transition_log_prob(
        self, cond: Float[Tensor, "B C"], chain: Float[Tensor, "B S H A"]
    ) -> Float[Tensor, "B T H A"]:
        """Return the log-density of each element of the K' = S - 1 tuned transitions, T = K'.

        Raises:
            ConfigError: A tuned step without noise, which has no density.
        """
        first = self.n_steps - self.n_tuned
        if bare := [k for k in range(first, self.n_steps) if self._std[k] == 0.0]:
            raise ConfigError(f"steps {bare} of the chain add no noise and so have no density; set `std_min` above 0")
        b, s = chain.shape[:2]
        k = torch.arange(first, self.n_steps, device=chain.device).repeat(b)
        mean, std = self.mean_std(chain[:, :-1].flatten(0, 1), k, cond.repeat_interleave(s - 1, dim=0))
        z = (chain[:, 1:].flatten(0, 1) - mean) / std
        return (-0.5 * z.square() - std.log() - 0.5 * _LOG_2PI).unflatten(0, (b, s - 1))

    def log_prob(self, obs: Mapping[str, Tensor], chain: Float[Tensor, "B S H A"]) -> Float[Tensor, "B T"]:
        """Return the joint log-probability of each tuned transition: the sum over all elements of the chunk."""
        return self.transition_log_prob(self.encode(obs), chain).flatten(2).sum(dim=-1)

    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk at the end of the chain for standard normal `noise`, [B, *noise_shape]."""
        first, *fresh = noise.split(self.horizon, dim=1)
        return self.chain(obs, first, torch.stack(fresh, dim=1))[:, -1]

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Tensor,
    ) -> Float[Tensor, ""]:
        """Return the imitation loss of the model; see `ChunkNetwork.loss`."""
        return self.model.loss(obs, target, noise, u, mask)
