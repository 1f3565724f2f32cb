"""The adapter from a chunk model to a robot."""

import numpy as np
import pytest
import torch

from policies.torch_policy import TorchPolicy
from robot_rl.errors import ConfigError
from robot_rl.values import PolicyInput
from tests.contracts.policy import check_policy, observation
from tests.policies.helpers import HORIZON, SPEC, model


@pytest.mark.parametrize("family", ["flow", "epsilon"])
def test_contract(family):
    check_policy(lambda: TorchPolicy(model(family), SPEC, n_execute=4), SPEC, noise_shape=(HORIZON, 2))


@pytest.mark.parametrize(("offset", "first"), [(0, 0), (-1, 1), (-3, 3)])
def test_t34_slice_starts_at_the_newest_observation(offset, first):
    """A model whose row h is the number h: the chunk starts with the row due now, O - 1 for a chunk from the oldest."""
    net = model(action_offset=offset)
    ramp = torch.arange(HORIZON).float()[:, None].expand(1, HORIZON, 2) + 100
    net.sample = lambda obs, noise: ramp
    chunk = TorchPolicy(net, SPEC, n_execute=2).act(PolicyInput(obs=observation(SPEC, 2, 0), stamp_ns=700))
    np.testing.assert_array_equal(chunk.action[:, 0], np.arange(first, HORIZON) + 100)
    assert (chunk.start_ns, chunk.step_ns) == (700, 100_000_000)


def test_actions_are_clamped_to_the_range_of_the_training_data():
    net = model()
    net.sample = lambda obs, noise: torch.tensor([[-1e4, 1e4]]).expand(1, HORIZON, 2)
    action = TorchPolicy(net, SPEC, n_execute=2).act(PolicyInput(obs=observation(SPEC, 2, 0), stamp_ns=0)).action
    np.testing.assert_array_equal(action, np.tile(np.float32([10, 400]), (HORIZON - 1, 1)))


def test_the_model_is_put_into_evaluation_mode():
    assert not TorchPolicy(model().train(), SPEC, n_execute=2).model.training


def test_noise_is_drawn_from_the_seed_and_runs_on():
    given = PolicyInput(obs=observation(SPEC, 2, 0), stamp_ns=0)
    policy = TorchPolicy(model(), SPEC, n_execute=2, seed=3)
    first, second = policy.act(given).action, policy.act(given).action
    drawn = np.random.default_rng(3).standard_normal((2, HORIZON, 2), dtype=np.float32)
    for action, noise in ((first, drawn[0]), (second, drawn[1])):
        again = policy.act(PolicyInput(obs=given.obs, stamp_ns=0, noise=noise)).action
        np.testing.assert_array_equal(action, again)
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize("n_execute", [0, HORIZON])
def test_executing_more_than_the_chunk_holds_is_refused(n_execute):
    with pytest.raises(ConfigError, match=rf"`n_execute` must be in \[1, 7\].*got {n_execute}"):
        TorchPolicy(model(), SPEC, n_execute=n_execute)
