"""RLIF end to end on a point that its base lets drift away: takeovers become rarer, with no reward of a task."""

import numpy as np

from robot_rl.rl.actor import Actor, ActorSettings
from robot_rl.rl.feed import ReplayFeed
from robot_rl.rl.finetune import interleave
from robot_rl.rl.interventions import intervention_starts
from robot_rl.rl.learner import PUBLISHED
from robot_rl.rl.pace import Pace
from robot_rl.rl.rlif import InterventionLabels, value_bounds
from robot_rl.rl.runner import StepRunner
from robot_rl.rl.sampling import SymmetricSampler
from robot_rl.values import ActionChunk
from tests.rl.reach import SPEC, STEP_NS, Reach, make_learner, make_store, residual

GAMMA = 0.9
PACE = Pace(total_steps=1200, warm_up_steps=200, critic_first=200, utd=1.0, actor_every=1)


class Drifting(Reach):
    """Never done; begins near the middle."""

    def __init__(self):
        super().__init__(success=0.0, max_steps=20)

    def reset(self, seed):
        tick = super().reset(seed)
        self._x *= 0.2
        tick.obs["x"][:] = self._x
        return tick


class Outwards:
    """A base that goes 6 cm further out at each step."""

    n_obs, n_execute = 1, 1

    def reset(self):
        pass

    def act(self, policy_input):
        return ActionChunk(policy_input.stamp_ns, STEP_NS, np.full((1, 1), 0.06, np.float32))


class BringsBack:
    """An operator who puts the point back into the middle when it is more than 0.3 away."""

    def reset(self, seed):
        pass

    def act(self, tick, proposed):
        return -tick.obs["x"] if abs(tick.obs["x"][0]) > 0.3 else None


def test_takeovers_become_rare_and_the_tasks_reward_is_never_read(tmp_path):
    algorithm = residual(gamma_bounds=value_bounds(GAMMA), alpha=0.1)
    labels, store = InterventionLabels(), make_store(tmp_path / "store")
    feed = ReplayFeed(
        SPEC, SymmetricSampler(64, 0.0), n_step=1, gamma=GAMMA, streams=algorithm.streams, reward=labels,
        demonstration_reward=labels, keep=labels.kept,
    )  # fmt: skip
    learner = make_learner(tmp_path, algorithm, pace=PACE, feed=feed, every=100)
    runner = StepRunner(SPEC, base=Outwards(), step=algorithm.policy, intervener=BringsBack())
    actor = Actor(
        Drifting(), runner, algorithm.policy, store, pace=PACE, published=tmp_path / PUBLISHED, belongs_to="reach",
        settings=ActorSettings(),
    )  # fmt: skip
    interleave(actor, learner, store.episode)
    learner.close()
    episodes = [store.episode(id) for id in store.ids()]
    assert not any(np.asarray(episode.reward).any() for episode in episodes)
    starts = [int(intervention_starts(np.asarray(episode.by_human)).sum()) for episode in episodes]
    assert np.mean(starts[:10]) > 2
    assert np.mean(starts[-10:]) < 0.5 * np.mean(starts[:10])
