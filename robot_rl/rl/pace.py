"""How many updates belong to how many environment steps: what binds learner and actor in time, however each is run."""

from __future__ import annotations

from dataclasses import dataclass

from robot_rl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The schedule of a run.

    Args:
        total_steps: Environment steps of the run.
        warm_up_steps: Environment steps before the first update.
        critic_first: Updates of the critic alone that come before the actor's first one.
        utd: Updates per environment step from then on (update-to-data ratio).
        actor_every: Critic updates per actor update.
        actor_anneal: Share of the actor's learning rate that is left at the end; it falls in a straight line.

    Raises:
        ConfigError: A number out of range.
    """

    total_steps: int
    warm_up_steps: int = 1000
    critic_first: int = 2000
    utd: float = 1.0
    actor_every: int = 2
    actor_anneal: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up_steps <= self.total_steps or self.total_steps < 1:
            raise ConfigError(
                f"need 0 <= warm_up_steps <= total_steps, got {self.warm_up_steps} and {self.total_steps}"
            )
        if not 0 <= self.actor_anneal <= 1:
            raise ConfigError(f"`actor_anneal` must be a share from 0 to 1, got {self.actor_anneal}")
        if self.critic_first < 0 or self.utd < 0 or self.actor_every < 1:
            raise ConfigError(
                "need critic_first >= 0, utd >= 0 and actor_every >= 1, got "
                f"{self.critic_first}, {self.utd} and {self.actor_every}"
            )

    def allowed(self, steps: int) -> int:
        """Return how many updates may have been made once `steps` environment steps are in the replay."""
        if steps < max(1, self.warm_up_steps):
            return 0
        return self.critic_first + int(self.utd * (steps - self.warm_up_steps))

    def trains_actor(self, update: int) -> bool:
        """Whether update number `update`, from 0, is one of the actor too."""
        return update >= self.critic_first and (update - self.critic_first) % self.actor_every == 0

    def actor_rate(self, update: int) -> float:
        """Return the share of the actor's learning rate that update number `update` has."""
        of = self.allowed(self.total_steps) - self.critic_first
        done = min(1.0, max(0, update - self.critic_first) / of) if of > 0 else 0.0
        return 1.0 + (self.actor_anneal - 1.0) * done

    def effective_utd(self, updates: int, steps: int) -> float:
        """Return updates made per environment step so far, without those that come first; NaN before there are any."""
        after = steps - self.warm_up_steps
        return max(0, updates - self.critic_first) / after if after > 0 else float("nan")
