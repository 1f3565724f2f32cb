"""One-step regression: contract, error, export."""

import functools

import numpy as np
import pytest
import torch

from policies.export import export_bundle
from policies.flow import FlowModel
from policies.horizons import MixtureOfHorizons
from policies.onnx_graphs import parts_of
from policies.regression import RegressionModel
from policies.torch_policy import TorchPolicy
from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError
from robot_rl.values import PolicyInput
from tests.contracts.chunk_model import check_chunk_model, draws
from tests.policies.helpers import DENOISERS, HORIZON, SPEC, STATS, batch, encoder

EVERY = DENOISERS | {
    "mixture": functools.partial(
        MixtureOfHorizons, horizons=(2, 4, 8), width=16, n_layers=2, n_heads=2, cond_tokens=2, time_dim=8
    )
}


def make(denoiser="transformer", **kwargs):
    torch.manual_seed(0)
    settings = {"encoder": encoder, "n_obs": 2, "horizon": HORIZON, "action_offset": -1} | kwargs
    return RegressionModel(SPEC, STATS, denoiser=EVERY[denoiser], **settings)


@pytest.mark.parametrize("denoiser", list(EVERY))
def test_contract(denoiser):
    obs, target = batch()
    check_chunk_model(make(denoiser), obs, target, deterministic=True)


def test_loss_is_the_mean_absolute_error_of_the_sample_in_normalised_units():
    model, (obs, target) = make(), batch()
    mask = torch.arange(HORIZON) < torch.tensor([8, 5, 2])[:, None]
    noise, u = draws(model, 3)
    error = (model.sample_normalised(obs, noise) - model.normalised(obs, target)).abs()
    torch.testing.assert_close(model.loss(obs, target, noise, u, mask), error[mask].mean())


def test_error_is_least_at_the_median_of_what_was_shown():
    """One observation answered three times with two chunks: the majority's is learned, which squares would not do."""
    model = make()
    obs, target = batch(1)
    obs = {name: value.repeat(3, *[1] * (value.ndim - 1)) for name, value in obs.items()}
    target = target.repeat(3, 1, 1)
    target[2] = target[2].flip(0) * 0 + 30.0
    mask, (noise, u) = torch.ones(3, HORIZON, dtype=torch.bool), draws(model, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    for _ in range(250):
        optimizer.zero_grad()
        model.loss(obs, target, noise, u, mask).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        learned = model.sample(obs, noise)[0]
    scale = target[0].max() - target[0].min()
    assert float((learned - target[0]).abs().max() / scale) < 0.1


def test_chunks_may_be_relative_to_where_the_robot_is():
    reach = np.full((HORIZON, 2), 50.0)
    stats = STATS | {"action_relative": type(STATS["action"])(-reach, reach, 0 * reach, reach / 2, -reach, reach, 100)}
    torch.manual_seed(0)
    model = RegressionModel(
        SPEC, stats, encoder=encoder, denoiser=EVERY["mixture"], n_obs=2, horizon=HORIZON, relative_to=["agent_pos"]
    )
    obs, _ = batch(1)
    noise, _ = draws(model, 1)
    shifted = obs["agent_pos"][:, -1:]
    with torch.no_grad():
        torch.testing.assert_close(
            model.sample(obs, noise), 50 * model.sample_normalised(obs, noise) + shifted, rtol=1e-4, atol=1e-2
        )


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", ["transformer", "mixture"])
def test_bundle_answers_as_torch_does_and_has_nothing_to_step(denoiser, tmp_path):
    model = make(denoiser)
    export_bundle(model, tmp_path / "b", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="")
    bundle = PolicyBundle.open(tmp_path / "b")
    assert bundle.manifest.family == "regression"
    assert bundle.manifest.solver is None
    obs = {name: value[0].numpy() for name, value in batch(1)[0].items()}
    given = PolicyInput(obs=obs, stamp_ns=0)
    got, expected = OnnxPolicy(bundle).act(given), TorchPolicy(model, SPEC, n_execute=4).act(given)
    np.testing.assert_allclose(got.action, expected.action, atol=0.02)  # of 490 px


@pytest.mark.slow
def test_parts_of_a_denoiser_cannot_be_exported(tmp_path):
    with pytest.raises(ConfigError, match="RegressionModel has no `denoise` graph; export `sample` alone"):
        export_bundle(
            make(), tmp_path / "b", spec=SPEC, stats=STATS, n_execute=4, config={}, data_digest="",
            graphs=("sample", "denoise"),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_model_names_the_graphs_it_has():
    assert parts_of(make()) == ("sample",)
    assert parts_of(FlowModel(SPEC, STATS, encoder=encoder, denoiser=EVERY["mlp"], n_obs=2, horizon=HORIZON)) == (
        "sample",
        "encode",
        "denoise",
    )
