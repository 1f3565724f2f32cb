"""`evaluate.consensus`: a mixture of horizons evaluated by the rule it would be executed by."""

import functools

import numpy as np
import pytest
import torch

from policies.export import export_bundle
from policies.horizons import MixtureOfHorizons
from robot_rl.bundle import PolicyBundle
from robot_rl.cli.config import load_config
from robot_rl.cli.evaluate_command import _subject
from robot_rl.deploy.onnx_policy import plain_obs
from robot_rl.errors import ConfigError
from robot_rl.values import PolicyInput
from tests.policies.helpers import FAMILIES, HORIZON, SPEC, STATS, encoder

RULE = "{_target_: robot_rl.deploy.consensus.Consensus, n_min: 2, min_active: 2, ratio: 0.0}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    small = {"width": 16, "n_layers": 1, "n_heads": 2, "cond_tokens": 2, "time_dim": 8, "horizons": (2, 4, 6, 8)}
    model = FAMILIES["flow"](
        SPEC, STATS, encoder=encoder, denoiser=functools.partial(MixtureOfHorizons, **small), n_obs=2, horizon=HORIZON,
        action_offset=-1, n_steps=2,
    ).eval()  # fmt: skip
    folder = tmp_path_factory.mktemp("moh") / "bundle"
    export_bundle(model, folder, spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="", parity_rounds=1)
    return PolicyBundle.open(folder)


def test_the_rule_decides_how_much_is_executed_and_is_part_of_what_was_evaluated(bundle):
    given = PolicyInput(obs=plain_obs(bundle), stamp_ns=0, noise=np.ones((HORIZON, 2), np.float32))
    plain, make_plain = _subject(load_config([f"bundle={bundle.path}"]))
    ruled, make_ruled = _subject(load_config([f"bundle={bundle.path}", f"evaluate.consensus={RULE}"]))
    assert plain == bundle.id
    assert ruled.startswith(f"{bundle.id} by Consensus(n_min=2, min_active=2, ratio=0.0")
    one, other = make_plain().act(given), make_ruled().act(given)
    np.testing.assert_array_equal(one.action, other.action)
    assert one.n_execute is None
    assert other.n_execute == 2  # a ratio of zero executes no more than the first steps


def test_a_rule_that_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError, match="`n_min` must be at least 1, got 0"):
        _subject(load_config([f"evaluate.consensus={RULE.replace('n_min: 2', 'n_min: 0')}"]))
