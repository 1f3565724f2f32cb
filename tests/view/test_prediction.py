"""A policy's chunks along a recorded episode, and their error."""

import numpy as np
import pytest

from robot_rl.data.align import Alignment, to_episode
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError, SpecError
from robot_rl.values import ActionChunk, Episode, PolicyInput, RecordingMeta
from robot_rl.view.prediction import predict
from tests.deploy.conftest import make_bundle  # noqa: F401 - a fixture
from tests.view.view_data import SPEC, N, recording


class Off:
    """Answers what was recorded, `by` too high, and remembers what it was asked."""

    n_obs, n_execute = 2, 4

    def __init__(self, episode, by, width=2):
        self.episode, self.by, self.width, self.asked = episode, by, width, []

    def reset(self):
        self.asked.clear()

    def act(self, policy_input):
        self.asked.append(policy_input)
        n = int(np.searchsorted(self.episode.stamp_ns, policy_input.stamp_ns))
        rows = np.minimum(np.arange(n, n + 8), len(self.episode) - 1)
        action = self.episode.action[rows] + np.asarray(self.by)
        return ActionChunk(policy_input.stamp_ns, 50_000_000, np.resize(action, (8, self.width)))


@pytest.fixture
def episode():
    return to_episode(recording(), SPEC, Alignment(), id="e")


def test_the_error_is_how_far_each_element_is_off(episode):
    found = predict(Off(episode, [0.5, -0.25]), episode, obs_names=["q"])
    np.testing.assert_allclose(found.error, np.tile([0.5, 0.25], (len(found.chunks), 1)), atol=1e-6)
    np.testing.assert_allclose(found.mean_error, [0.5, 0.25], atol=1e-6)


def test_it_is_asked_every_few_ticks_with_the_recorded_observations_the_first_repeated(episode):
    policy = Off(episode, 0.0)
    found = predict(policy, episode, obs_names=["q", "force"], every=7)
    assert found.step.tolist() == list(range(0, len(episode), 7))
    for n, asked in zip(found.step, policy.asked, strict=True):
        rows = [max(0, n - 1), n]
        assert set(asked.obs) == {"q", "force"}
        np.testing.assert_array_equal(asked.obs["q"], np.stack([episode.obs["q"][i] for i in rows]))
        assert asked.stamp_ns == episode.stamp_ns[n]


def test_ticks_that_are_not_valid_are_passed_over(episode):
    valid = np.ones(len(episode), bool)
    valid[:10] = False
    found = predict(Off(episode, 0.0), Episode(**{**vars(episode), "valid": valid}), obs_names=["q"], every=5)
    assert found.step.tolist() == list(range(10, len(episode), 5))


def test_a_bundles_policy_predicts_its_formula_and_repeats_with_the_seed(make_bundle):  # noqa: F811
    n, stamps = 20, 50_000_000 * np.arange(20, dtype=np.int64)
    q = np.linspace(-1, 1, 2 * n, dtype=np.float32).reshape(n, 2)
    flags = {"reward": np.zeros(n, np.float32), "by_human": np.zeros(n, bool), "valid": np.ones(n, bool)}
    still = Episode(
        id="e", stamp_ns=stamps, obs={"q": q}, final_obs=None, action=q, action_executed=q, terminated=True,
        truncated=False, meta=RecordingMeta(), **flags,
    )  # fmt: skip
    policy = OnnxPolicy(make_bundle())
    first, again = (predict(policy, still, obs_names=["q"], seed=3) for _ in range(2))
    assert first.step.tolist() == list(range(0, n, 3))
    for a, b in zip(first.chunks, again.chunks, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
    policy.seed(3)
    wanted = policy.act(PolicyInput(obs={"q": q[[0, 0]]}, stamp_ns=0))
    np.testing.assert_array_equal(first.chunks[0].action, wanted.action)


def test_what_cannot_be_predicted_from_is_refused_by_name(episode):
    with pytest.raises(ConfigError, match=r"reads \['gripper'\], which this store lacks; it has \['force'"):
        predict(Off(episode, 0.0), episode, obs_names=["gripper"])
    with pytest.raises(ConfigError, match=r"`view\.every` must be at least 1 tick, got 0"):
        predict(Off(episode, 0.0), episode, obs_names=["q"], every=0)
    with pytest.raises(SpecError, match="actions have 3 elements, the episode's 2"):
        predict(Off(episode, 0.0, width=3), episode, obs_names=["q"])
    nothing = Episode(**{**vars(episode), "valid": np.zeros(len(episode), bool)})
    with pytest.raises(SpecError, match="no valid tick"):
        predict(Off(episode, 0.0), nothing, obs_names=["q"])
    assert len(episode) <= N
