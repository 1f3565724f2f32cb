"""One-step heads: a student that gives in one network call what its teacher gives in K.

A head is built of its teacher's own parts: the same frozen encoder, normaliser and path, and a network of its own. This
file has what all heads share and the default one, which regresses the teacher's chunk on the noise it started from,

    L = || f(x_T, T, c) - sg Psi_K(x_T, c) ||^2,

with Psi_K the teacher's deterministic K-step sampler (RL-100, Lei et al. 2025, arXiv 2510.14830, section on the
consistency head; `action_same_noise` in its code). It follows a moving teacher, and keeps several modes apart as far as
Psi_K is one-to-one.

What a head's network puts out is read the same way in training and when sampling, and is never the noise: at the noisy
end 1 / sqrt(alpha_bar) would amplify its errors (2029 at step 99 of the cosine schedule).

Departures from RL-100: the error is of normalised actions, not physical ones; the head is called at the time its
teacher starts from, not at the schedule's last; a teacher that samples with noise is followed along its noise-free path
(eta = 0). The head is bounded when sampling as its teacher is; in training it is not, where a bound has no gradient.
"""

import abc
import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policies.chunk_network import ChunkNetwork
from policies.denoising import DenoisingModel
from policies.encoders import Stats
from policies.one_step_parts import check_teacher, denoising_of, head_path, noise_free_chunk, warm_start
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import Prediction
from robot_rl.specs import RobotSpec

HeadT = TypeVar("HeadT", bound="OneStepHead")


class _Attached:
    """A teacher beside its student: not among the student's weights, and shared by the student's copies."""

    def __init__(self, model: DenoisingModel) -> None:
        self.model = model

    def __deepcopy__(self, memo: object) -> "_Attached":
        return self


class OneStepHead(ChunkNetwork, abc.ABC):
    """Abstract head.

    Args:
        spec: The robot.
        stats: Statistics its teacher was built with.
        model: Builds the teacher's model, called as model(spec, stats); its encoder, normaliser and path are taken.
        denoiser: Builds the head's network, as of `ChunkOptions`; the teacher's own constructor, or a smaller network.
        prediction: What the network puts out: `sample` on every path, `velocity` on a flow, `v` on a diffusion. `None`
            takes the teacher's where it is one of these, so that its weights are a start, and else `sample`.
        extra: Width of what the head adds to the condition.
        target_decay: Decay of a second, averaged network that the head's own targets come from; `None` has none. Its
            weights are among the head's, so that training resumes exactly.

    Raises:
        ConfigError: A model that does not denoise, or a prediction that the path does not have or that amplifies.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        denoiser: Callable[..., nn.Module],
        prediction: Prediction | None = None,
        extra: int = 0,
        target_decay: float | None = None,
    ) -> None:
        inner = denoising_of(model(spec, stats))
        super().__init__(
            spec, stats, measure=inner.measure, encoder=lambda *_, **__: inner.encoder,
            denoiser=lambda *, cond_dim, **size: denoiser(cond_dim=cond_dim + extra, **size), n_obs=inner.n_obs,
            horizon=inner.horizon, action_offset=inner.action_offset, relative_to=inner.relative_to,
            mask_padding=inner.mask_padding,
        )  # fmt: skip
        if target_decay is not None and not 0 <= target_decay <= 1:
            raise ConfigError(f"`target_decay` must lie within [0, 1], got {target_decay}")
        self.normalizer = inner.normalizer
        self.encoder.requires_grad_(False)
        self.path = head_path(inner.path, prediction)
        self.extra, self.target_decay = extra, target_decay
        self._inner = (inner,)  # not as a module: the parts that are used stand in the weights once
        self._teacher: _Attached | None = None
        self.target = None if target_decay is None else copy.deepcopy(self.denoiser).requires_grad_(False)

    @property
    def inner(self) -> DenoisingModel:
        """The model that the head's encoder, normaliser and path are of; its own network is not used."""
        return self._inner[0]

    @property
    def teacher(self) -> DenoisingModel:
        """The teacher it learns from.

        Raises:
            ConfigError: None was attached.
        """
        if self._teacher is None:
            raise ConfigError(f"{type(self).__name__} has no teacher to learn from; call `teach(teacher)` first")
        return self._teacher.model.to(self.action_low.device)

    @property
    def averaged(self) -> nn.Module:
        """The network that the head's own targets come from: the averaged one, or its own where there is none."""
        return self.denoiser if self.target is None else self.target

    @torch.no_grad()
    def conditions(self, obs: Mapping[str, Tensor]) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B D"]]:
        """Return the condition of the head and of its attached teacher, whose encoder is the same."""
        cond = self.encode(obs)
        return cond, self.teacher.encode(obs) if self.inner.is_guided else cond

    def teach(self, teacher: ChunkNetwork) -> bool:
        """Attach a frozen copy of a teacher, take over its encoder and normaliser, and start from its network.

        Args:
            teacher: A denoising model or a chain of one, with the weights to be learned from.

        Returns:
            Whether the network could start from the teacher's: it predicts the same and has the same layers, apart
            from inputs for `extra`, which start at zero.

        Raises:
            ConfigError: The teacher is not one this head can follow.
        """
        model = copy.deepcopy(denoising_of(teacher)).eval().requires_grad_(False)
        self.adopt(model)
        self._teacher = _Attached(model)
        started = model.path.prediction == self.path.prediction and warm_start(
            self.denoiser, model.denoiser, grown=self.extra
        )
        if self.target is not None:
            self.target.load_state_dict(self.denoiser.state_dict())
        return started

    @torch.no_grad()
    def adopt(self, teacher: ChunkNetwork) -> None:
        """Take over a teacher's encoder, normaliser and action range bit for bit.

        Raises:
            ConfigError: They mean something else than the head's.
        """
        model = denoising_of(teacher)
        check_teacher(self.inner, model)
        self.encoder.load_state_dict(model.encoder.state_dict())
        self.normalizer.load_state_dict(model.normalizer.state_dict())
        self.action_low.copy_(model.action_low)
        self.action_high.copy_(model.action_high)

    def train(self: HeadT, mode: bool = True) -> HeadT:
        """Set training mode for the head's own network; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        if self.target is not None:
            self.target.eval()
        return self

    def encode(self, obs: Mapping[str, Tensor]) -> Float[Tensor, "B C"]:
        """Return the condition vector; of a teacher with guidance, the half that knows the goal."""
        return self.inner.encoder(obs) if self.inner.is_guided else self.inner.encode(obs)

    def start(self, noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the state that the teacher starts from for standard normal noise."""
        return self.inner.path.initial(self.inner.noise_scale * noise, self.inner.times[0])

    @abc.abstractmethod
    def predict(self, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk for standard normal noise by one call of the network, not bounded."""

    def solve(self, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return `predict`, bounded as the teacher is."""
        chunk, clip = self.predict(cond, noise), self.inner.clip
        return chunk if clip is None else chunk.clip(-clip, clip)

    def sample_normalised(self, obs: Mapping[str, Tensor], noise: Float[Tensor, "B M A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk for standard normal `noise`, [B, H, A]."""
        return self.solve(self.encode(obs), noise)

    @torch.no_grad()
    def move_target(self) -> None:
        """Move the averaged network one step towards the trained one, while training; there may be none.

        It is called at the beginning of a loss and so follows the update of the step before.
        """
        if self.target is None or self.target_decay is None or not self.training:
            return
        average: list[Tensor] = list(self.target.parameters())
        weights = [weight.detach() for weight in self.denoiser.parameters()]
        torch._foreach_lerp_(average, weights, 1.0 - self.target_decay)


class OneStepModel(OneStepHead):
    """The same-noise head: regression on the teacher's chunk for the same noise; arguments as of `OneStepHead`.

    Args:
        spec: The robot.
        stats: Statistics its teacher was built with.
        model: See `OneStepHead`.
        denoiser: See `OneStepHead`.
        prediction: See `OneStepHead`.
    """

    def __init__(
        self,
        spec: RobotSpec,
        stats: Stats,
        *,
        model: Callable[[RobotSpec, Stats], ChunkNetwork],
        denoiser: Callable[..., nn.Module],
        prediction: Prediction | None = None,
    ) -> None:
        super().__init__(spec, stats, model=model, denoiser=denoiser, prediction=prediction)

    def predict(self, cond: Float[Tensor, "B C"], noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """Return the normalised chunk: the denoiser that the network's one output stands for."""
        return denoised_by(self, self.denoiser, self.start(noise), self.inner.times[0], cond)

    def loss(
        self,
        obs: Mapping[str, Tensor],
        target: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B H A"],
        u: Float[Tensor, "B"],
        mask: Bool[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        """Return `distil_loss` to the attached teacher; recorded actions, `u` and `mask` make no difference to it."""
        cond, theirs = self.conditions(obs)
        with torch.no_grad():
            wanted = noise_free_chunk(self.teacher, theirs, noise)
        return torch.square(self.predict(cond, noise).float() - wanted).mean()


def distil_loss(
    student: OneStepHead,
    teacher: ChunkNetwork,
    obs: Mapping[str, Tensor],
    noise: Float[Tensor, "B H A"],
    *,
    rows: slice = slice(None),
) -> Float[Tensor, ""]:
    """Return the mean squared error of any head's chunk to its teacher's for the same noise, in normalised actions.

    It may be added to another loss of the teacher, weighted by lambda_CD, after each of its updates: the teacher is
    used as it is at this moment and no gradient reaches it. Where that loss trains the teacher's encoder too, call
    `student.adopt(teacher)` before.

    Args:
        student: The head.
        teacher: A denoising model or chain; a live one.
        obs: Observations {name: [B, O, ...]} in physical units.
        noise: Standard normal, the same for both.
        rows: Rows of the chunk that count, such as the executed ones.
    """
    wanted = teacher_chunk(teacher, obs, noise)
    with torch.no_grad():
        cond = student.encode(obs)
    return torch.square(student.predict(cond, noise).float() - wanted)[:, rows].mean()


@torch.no_grad()
def teacher_chunk(
    teacher: ChunkNetwork, obs: Mapping[str, Tensor], noise: Float[Tensor, "B H A"]
) -> Float[Tensor, "B H A"]:
    """Return Psi_K, the normalised chunk that a teacher's noise-free sampler reaches, without gradient."""
    model = denoising_of(teacher)
    return noise_free_chunk(model, model.encode(obs), noise)


def chunk_from(model: ChunkNetwork, cond: Tensor, noise: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
    """Return the normalised chunk of a head, or of a model's noise-free sampler; `cond` is of its own `encode`."""
    if isinstance(model, OneStepHead):
        return model.solve(cond, noise)
    return noise_free_chunk(denoising_of(model), cond, noise)


def denoised_by(
    head: OneStepHead, network: nn.Module, x: Float[Tensor, "B H A"], t: float | Tensor, cond: Float[Tensor, "B C"]
) -> Float[Tensor, "B H A"]:
    """Return the denoiser at (x, t) that the output of one of a head's networks stands for.

    Args:
        head: The head.
        network: Its own network or its averaged one.
        x: Noisy normalised chunk.
        t: The path's own time, one number or [B].
        cond: From `encode`.
    """
    times = t if isinstance(t, Tensor) else x.new_full((x.shape[0],), t)
    output = network(*head.inner.network_inputs(x, times), cond)
    return head.path.denoised(x, t, head.inner.native(x, times, output))
