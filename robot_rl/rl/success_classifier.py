"""Success as a classifier of frames (HIL-SERL: Luo et al. 2024, arXiv 2410.21845), and the threshold of its vote.

Training, choice of the threshold and judgement are on three disjoint sets of whole episodes: frames of one episode are
so alike that frames held out of it would say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robot_rl.deploy.success import first_vote
from robot_rl.errors import ConfigError, TrainingError
from robot_rl.rl.augment import draw_shift, random_shift
from robot_rl.rl.optimise import step
from robot_rl.rl.success_frames import NEGATIVE, POSITIVE, LabelledEpisode, TrainingFrames
from robot_rl.values import Obs

_ROWS = 256  # frames judged in one call


class SuccessNetwork(nn.Module):
    """Encoder, a hidden layer with dropout, and one logit.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, out_dim].
        names: Observations that it reads.
        hidden: Width of the hidden layer.
        dropout: Share of it left out in training.
        freeze: Leave the encoder as it is, as with a pretrained trunk.
    """

    def __init__(
        self,
        encoder: nn.Module,
        names: Sequence[str],
        *,
        hidden: int = 256,
        dropout: float = 0.1,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.encoder = encoder.requires_grad_(not freeze)
        width = int(cast(Any, encoder).out_dim)
        self.head = nn.Sequential(
            nn.Linear(width, hidden), nn.Dropout(dropout), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Return logits [B] for frames {name: [B, 1, ...]}."""
        out: Tensor = self.head(self.encoder(obs))
        return out[:, 0]


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """How a classifier learns.

    Args:
        steps: Updates.
        batch_size: Frames of an update, half of them positive.
        lr: Learning rate.
        weight_decay: Of AdamW.
        shift: Pixels by which pictures are moved at random.
        seed: Of everything drawn.
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 1e-4
    shift: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2 or self.shift < 0:
            raise ConfigError(
                "`steps` must be at least 1, `batch_size` at least 2 and `shift` 0 or more, got "
                f"{self.steps}, {self.batch_size} and {self.shift}"
            )


def train_classifier(
    model: SuccessNetwork,
    data: TrainingFrames,
    how: ClassifierTraining,
    *,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Fit a network in place by cross-entropy on balanced batches and return the loss of each step.

    Dropout draws from torch's global generator, everything else from `how.seed`.

    Raises:
        TrainingError: The loss is not finite.
    """
    rng, generator = np.random.default_rng(how.seed), torch.Generator().manual_seed(how.seed)
    device = next(model.head.parameters()).device
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=how.lr, weight_decay=how.weight_decay)
    good, bad = np.flatnonzero(data.label == 1), np.flatnonzero(data.label == 0)
    model.train()
    losses = []
    for i in range(how.steps):
        n = how.batch_size // 2
        index = np.concatenate([rng.choice(good, n), rng.choice(bad, how.batch_size - n)])
        obs = _frames(data.frames, index, device, shift=how.shift, generator=generator)
        wanted = torch.from_numpy(data.label[index]).to(device)
        loss = functional.binary_cross_entropy_with_logits(model(obs), wanted)
        losses.append(step(optimiser, loss, trained, what="success classifier"))
        if on_step is not None:
            on_step(i + 1, losses[-1])
    model.eval()
    return losses


def _frames(
    frames: Obs, index: np.ndarray, device: torch.device, *, shift: int = 0, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    obs = {}
    for name, rows in frames.items():
        value = torch.from_numpy(rows[index])
        if value.dtype == torch.uint8 and value.ndim == 4 and shift and generator is not None:
            value = random_shift(value, draw_shift(len(value), generator, pad=shift), pad=shift)
        obs[name] = value[:, None].to(device)
    return obs


@torch.no_grad()
def frame_probabilities(model: SuccessNetwork, episode: LabelledEpisode) -> np.ndarray:
    """Return the probability of each of an episode's frames, float32 [N+1]."""
    device = next(model.head.parameters()).device
    parts = []
    for start in range(0, len(episode.label), _ROWS):
        index = np.arange(start, min(start + _ROWS, len(episode.label)))
        parts.append(torch.sigmoid(model(_frames(episode.frames, index, device))).cpu().numpy())
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True)
class VoteCounts:
    """How a vote did on episodes.

    Args:
        fired: Episodes in which it stood.
        right: Those in which it first stood at a successful frame, or an unclear one right before.
        successes: Episodes that hold a successful frame.
        episodes: All.
        delay: Frames from the first successful one to the vote, of those that were right; may be negative.
    """

    fired: int
    right: int
    successes: int
    episodes: int
    delay: tuple[int, ...]

    @property
    def precision(self) -> float:
        """Share of votes that were right, NaN without any."""
        return self.right / self.fired if self.fired else float("nan")

    @property
    def recall(self) -> float:
        """Share of successful episodes with a right vote, NaN without any."""
        return self.right / self.successes if self.successes else float("nan")


def count_votes(
    episodes: Sequence[LabelledEpisode], probabilities: Sequence[np.ndarray], *, threshold: float, consecutive: int
) -> VoteCounts:
    """Return how a vote would have done on episodes whose frames have the given probabilities."""
    fired = right = successes = 0
    delay: list[int] = []
    for episode, probability in zip(episodes, probabilities, strict=True):
        first, excusable = episode.first_success, episode.first_excusable
        successes += first is not None
        at = first_vote(probability >= threshold, consecutive)
        if at is None:
            continue
        fired += 1
        if first is not None and excusable is not None and at >= excusable:
            right += 1
            delay.append(at - first)
    return VoteCounts(fired, right, successes, len(episodes), tuple(delay))


def vote_curve(
    episodes: Sequence[LabelledEpisode], probabilities: Sequence[np.ndarray], *, consecutive: int
) -> Mapping[float, VoteCounts]:
    """Return how the vote does at each threshold of 0.01, 0.02, ..., 0.99."""
    grid = [round(0.01 * i, 2) for i in range(1, 100)]
    return {t: count_votes(episodes, probabilities, threshold=t, consecutive=consecutive) for t in grid}


def choose_threshold(curve: Mapping[float, VoteCounts], *, precision: float) -> float:
    """Return the threshold with the best recall among those with at least the given precision.

    Of equally good ones the middle one is taken, which is farthest from where they stop being good.

    Raises:
        ConfigError: A precision outside (0, 1].
        TrainingError: No threshold reaches it with any recall.
    """
    if not 0 < precision <= 1:
        raise ConfigError(f"`precision` must be in (0, 1], got {precision}")
    able = {t: counts for t, counts in curve.items() if counts.right and counts.precision >= precision}
    if not able:
        best = max((c.precision for c in curve.values() if c.fired), default=float("nan"))
        raise TrainingError(
            f"no threshold reaches a precision of {precision} on held-out episodes (best {best:.3f}); record more "
            "failures that look like success, mark frames, raise `consecutive`, or lower `precision`"
        )
    top = max(counts.recall for counts in able.values())
    equal = sorted(t for t, counts in able.items() if counts.recall == top)
    return equal[len(equal) // 2]


def frame_accuracy(
    episodes: Sequence[LabelledEpisode], probabilities: Sequence[np.ndarray], *, threshold: float
) -> dict[str, tuple[int, int]]:
    """Return (right, all) of the positive and of the negative frames, each frame by itself."""
    label = np.concatenate([episode.label for episode in episodes])
    says = np.concatenate(list(probabilities)) >= threshold
    return {
        "positive": (int((says & (label == POSITIVE)).sum()), int((label == POSITIVE).sum())),
        "negative": (int((~says & (label == NEGATIVE)).sum()), int((label == NEGATIVE).sum())),
    }
