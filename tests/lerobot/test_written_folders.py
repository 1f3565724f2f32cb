"""The checkpoint folders that our tests write without lerobot are read by lerobot itself, to the same actions."""

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot is not installed here; `make test-lerobot` runs this where it is")

from lerobot.policies.factory import get_policy_class, make_pre_post_processors

from policies.lerobot_checkpoint import load_lerobot_policy
from tests.lerobot.test_policy_parity import as_lerobot_has_it, theirs_diffusion
from tests.policies.lerobot_folder import noise, observations, write
from tests.policies.test_lerobot_checkpoint import EXPECTED


def theirs(kind, folder, obs, first):
    policy = get_policy_class(kind).from_pretrained(folder, strict=False)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    if kind == "act":
        with torch.no_grad():
            return after(policy.predict_action_chunk(before(as_lerobot_has_it({n: v[:, 0] for n, v in obs.items()}))))
    return theirs_diffusion(policy, before, after, obs, first)


@pytest.mark.parametrize("kind", ["diffusion", "act"])
def test_lerobot_gives_the_actions_that_our_tests_expect(kind, tmp_path):
    folder, obs, first = write(tmp_path / kind, kind), observations(kind), torch.from_numpy(noise(kind))
    expected = theirs(kind, folder, obs, first)
    ours = load_lerobot_policy(folder, control_hz=10.0)
    with torch.no_grad():
        got = ours.model.sample({n: torch.from_numpy(v) for n, v in obs.items()}, first)
    assert (got - expected).abs().max() < 1e-5
    np.testing.assert_allclose(expected[1, -1].numpy(), EXPECTED[kind], atol=1e-5)
