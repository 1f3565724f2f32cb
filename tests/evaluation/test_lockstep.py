"""Episodes side by side are the episodes one by one."""

import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.evaluation.lockstep import BatchChunks, BatchPolicy, run_lockstep
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.values import ActionChunk
from tests.evaluation.point_mass import PointMass


class Wanderer:
    """Goes towards the origin with noise of its own; as a policy for one, and as one for many."""

    n_obs, n_execute, noise_shape = 2, 3, (4, 1)

    def __init__(self, n_execute=None):
        self.lengths, self.batches = n_execute, []

    def seed(self, seed):
        self._rng = np.random.default_rng(seed)

    def reset(self):
        pass

    def act(self, policy_input):
        noise = self._rng.standard_normal(self.noise_shape, dtype=np.float32)
        chunks = self.act_batch({k: v[None] for k, v in policy_input.obs.items()}, noise[None])
        n = None if chunks.n_execute is None else int(chunks.n_execute[0])
        return ActionChunk(policy_input.stamp_ns, PointMass().spec.step_ns, chunks.action[0], n)

    def act_batch(self, obs, noise):
        self.batches.append(len(noise))
        newest = obs["position"][:, -1]
        action = np.clip(-0.5 * newest[:, None] + 0.2 * noise, -1, 1).astype(np.float32)
        return BatchChunks(action, None if self.lengths is None else np.full(len(noise), self.lengths))


@pytest.mark.parametrize("n_envs", [1, 3, 8])
@pytest.mark.parametrize("n_execute", [None, 2])
def test_results_are_those_of_single_episodes_however_many_run_at_once(n_envs, n_execute):
    policy, seeds = Wanderer(n_execute), [15, 40, 3, 77, 21]
    assert isinstance(policy, BatchPolicy)
    alone = [run_episode(PointMass(max_steps=20), policy, seed, record=False)[1] for seed in seeds]
    seen = []
    together = run_lockstep([PointMass(max_steps=20) for _ in range(n_envs)], policy, seeds, on_done=seen.append)
    assert together == alone
    assert sorted(r.seed for r in seen) == sorted(seeds)
    assert len({r.steps for r in together}) > 1  # episodes of different lengths, or nothing was shown


def test_one_call_serves_all_that_wait():
    policy = Wanderer()
    run_lockstep([PointMass(max_steps=6) for _ in range(4)], policy, [40, 41, 42, 43])
    assert policy.batches[0] == 4


def test_an_episode_is_cut_off_where_asked():
    (result,) = run_lockstep([PointMass(max_steps=20)], Wanderer(), [40], max_steps=5)
    assert (result.steps, result.truncated, result.terminated) == (5, True, False)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="each seed once"):
        run_lockstep([PointMass()], Wanderer(), [1, 1])
    with pytest.raises(ConfigError, match="need an environment"):
        run_lockstep([], Wanderer(), [1])
    with pytest.raises(SpecError, match=r"`n_execute` must be in \[1, 4\], got 9"):
        run_lockstep([PointMass()], Wanderer(9), [1])
