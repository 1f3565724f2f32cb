"""An environment whose reward is a classifier's vote: what a robot has that nobody tells when the task is done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot_rl.deploy.success import ConsecutiveVote, SuccessClassifier
from robot_rl.errors import SimulationError, SpecError
from robot_rl.interfaces import Env
from robot_rl.specs import RobotSpec
from robot_rl.values import Tick


class ClassifiedEnv:
    """Reward 1 and the episode's end when the vote stands; an `Env`.

    What the environment itself says of success and reward is passed over. If it ends an episode as a success that the
    vote has not seen, the episode counts as cut off; ending one as a failure stays what it is. `info["env_success"]`
    keeps what the environment said.

    Args:
        env: The environment.
        classifier: Says which frames count.

    Raises:
        SpecError: The robot lacks an observation that the classifier reads.
    """

    def __init__(self, env: Env, classifier: SuccessClassifier) -> None:
        if wrong := [name for name, spec in classifier.card.obs.items() if _differs(env.spec, name, spec.shape)]:
            raise SpecError(
                f"the success classifier reads {wrong}, which robot `{env.spec.name}` does not observe in that shape; "
                f"it has {sorted(env.spec.obs)}"
            )
        self._env, self._classifier = env, classifier
        self._vote = ConsecutiveVote(classifier.card.consecutive)
        self._running = False

    @property
    def spec(self) -> RobotSpec:
        """What passes in and out."""
        return self._env.spec

    def reset(self, seed: int) -> Tick:
        """Start an episode; the first frame is not voted on."""
        self._vote.reset()
        self._running = True
        return self._env.reset(seed)

    def step(self, action: np.ndarray) -> Tick:
        """Apply `action` [A] for one control period and vote on what is seen after it.

        Raises:
            SimulationError: No episode is running.
        """
        if not self._running:
            raise SimulationError("no episode is running: the last one ended or none began; call reset(seed) first")
        tick = self._env.step(action)
        won = self._vote.add(self._classifier.counts(tick.obs))
        failed = tick.terminated and not tick.success
        ended = tick.terminated or tick.truncated
        self._running = not (won or ended)
        return replace(
            tick, reward=float(won), success=won, terminated=won or failed, truncated=ended and not (won or failed),
            info={**tick.info, "env_success": tick.success},
        )  # fmt: skip

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [height, width, 3]."""
        return self._env.render()

    def close(self) -> None:
        """Release what the environment holds. Calling it twice is allowed."""
        self._env.close()


def _differs(spec: RobotSpec, name: str, shape: tuple[int, ...]) -> bool:
    return name not in spec.obs or spec.obs[name].shape != shape
