"""What every family with every denoiser must do."""

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from tests.contracts.chunk_model import check_chunk_model, draws
from tests.policies.helpers import DENOISERS, FAMILIES, HORIZON, SPEC, STATS, batch, encoder, field_stats, model

EVERY = [(family, denoiser) for family in FAMILIES for denoiser in DENOISERS]


@pytest.mark.parametrize(("family", "denoiser"), EVERY)
def test_contract(family, denoiser):
    obs, target = batch()
    check_chunk_model(model(family, denoiser), obs, target)


@pytest.mark.parametrize(("family", "denoiser"), EVERY)
def test_gradient_reaches_every_parameter(family, denoiser):
    net = model(family, denoiser)
    obs, target = batch()
    net.loss(obs, target, *draws(net, 3), torch.ones(3, HORIZON, dtype=torch.bool)).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert idle == []


def fit(net, steps, draw):
    """Train on what `draw(step)` returns and return the losses."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for i in range(steps):
        optimizer.zero_grad()
        loss = net.loss(*draw(i))
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("family", "denoiser"), EVERY)
def test_overfits_one_batch(family, denoiser):
    net = model(family, denoiser)
    obs, target = batch(4)
    fixed = (obs, target, *draws(net, 4), torch.ones(4, HORIZON, dtype=torch.bool))
    losses = fit(net, 160 if denoiser == "transformer" else 80, lambda _: fixed)
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize(
    "family", ["flow", "sample", "v", "edm"]
)  # epsilon amplifies early errors by sigma_e = 7 at k = 90
def test_learns_to_sample_the_chunk_that_belongs_to_an_observation(family):
    """Two observations with one chunk each, every noise and time: sampling returns each its own chunk."""
    net = model(family)
    obs, target = batch(2)
    wide = {name: value.repeat(16, *[1] * (value.ndim - 1)) for name, value in obs.items()}
    mask = torch.ones(32, HORIZON, dtype=torch.bool)
    fit(net, 300, lambda i: (wide, target.repeat(16, 1, 1), *draws(net, 32, i), mask))
    with torch.no_grad():
        found = net.eval().sample(obs, draws(net, 2, 999)[0])
    between = (target[0] - target[1]).abs().mean()
    assert (found - target).abs().mean() < 0.25 * between


def test_loss_is_the_mean_over_the_steps_that_count():
    """With a denoiser of ones, the loss is the mean of (1 - (noise - data))^2 over the unmasked steps."""

    class Ones(torch.nn.Module):
        def __init__(self, **_):
            super().__init__()

        def forward(self, x, t, cond):
            return torch.ones_like(x)

    net = type(model())(
        SPEC, STATS, encoder=model().encoder.__class__, denoiser=Ones, n_obs=2, horizon=HORIZON, action_norm="min_max"
    )
    obs, target = batch()
    noise, u = draws(net, 3)
    mask = torch.rand(3, HORIZON, generator=torch.Generator().manual_seed(1)) < 0.6
    data = (target - torch.tensor([10.0, 20.0])) / torch.tensor([490.0, 380.0]) * 2 - 1
    error = (1 - (noise - data)).square()
    assert float(net.loss(obs, target, noise, u, mask)) == pytest.approx(float(error[mask].mean()), rel=1e-5)
    net.mask_padding = False
    assert float(net.loss(obs, target, noise, u, mask)) == pytest.approx(float(error.mean()), rel=1e-5)


@pytest.mark.parametrize("family", ["flow", "epsilon", "sample", "v"])  # edm: tests/policies/test_edm.py
def test_sampling_with_the_exact_denoiser_of_a_point_returns_the_point(family):
    net = model(family, clip=1.0)
    point = torch.tensor([0.25, -0.5]).expand(2, HORIZON, 2)

    class Exact(torch.nn.Module):
        def forward(self, x, t, cond):
            return net.path.native(x, t / net.time_scale, point)

    net.denoiser = Exact()
    obs, _ = batch(2)
    torch.testing.assert_close(net.sample_normalised(obs, draws(net, 2)[0]), point, rtol=0, atol=1e-5)
    physical = torch.tensor([10 + 490 * 0.625, 20 + 380 * 0.25]).expand(2, HORIZON, 2)
    torch.testing.assert_close(net.sample(obs, draws(net, 2)[0]), physical, rtol=1e-5, atol=0)


def test_training_and_sampling_use_one_time_scale():
    """The network sees the same time for flow's t in the loss and in the solver."""
    net, seen = model("flow"), []
    net.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[1].clone()))
    obs, target = batch(2)
    net.loss(obs, target, draws(net, 2)[0], torch.tensor([0.0, 0.5]), torch.ones(2, HORIZON, dtype=torch.bool))
    net.sample(obs, draws(net, 2)[0])
    torch.testing.assert_close(seen[0], torch.tensor([0.1, 100 * (0.001 + 0.999 * 0.5 ** (2 / 3))]))
    expected = torch.arange(100, 0, -10).float()
    torch.testing.assert_close(torch.stack(seen[1:])[:, 0], expected)


def test_state_dict_round_trip_samples_the_same_and_carries_the_normaliser():
    one, other = model(), model()
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.01)
    other.load_state_dict(one.state_dict(), strict=True)
    obs, _ = batch()
    noise = draws(one, 3)[0]
    assert torch.equal(one.sample(obs, noise), other.sample(obs, noise))
    assert {"normalizer.scale", "normalizer.offset", "action_low", "action_high"} <= set(one.state_dict())


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"action_offset": 1}, r"`action_offset` must be in \(-horizon, 0\]"),
        ({"action_offset": -8}, "got -8"),
        ({"n_obs": 0}, "must be at least 1, got 0"),
        ({"clip": 1.0, "action_norm": "mean_std"}, "`clip` 1.0 would cut normalised actions, which reach 2"),
        ({"time_law": "cosine"}, "`time_law` must be one of"),
    ],
)
def test_bad_settings_say_what_was_expected(kwargs, text):
    with pytest.raises(ConfigError, match=text):
        model("flow", **kwargs)


def test_missing_action_statistics_are_named():
    with pytest.raises(ConfigError, match=r"`stats` lacks \['action'\], got \['agent_pos'\]"):
        FAMILIES["flow"](
            SPEC,
            {"agent_pos": STATS["agent_pos"]},
            encoder=encoder,
            denoiser=DENOISERS["mlp"],
            n_obs=2,
            horizon=HORIZON,
        )


def test_the_solver_starts_where_the_path_says():
    assert model("flow").times[0] == 1.0
    assert model("epsilon").times == [*range(90, -1, -10), -1]
    assert model("flow").path.kind == GaussianPath.flow().kind


def relative(family, **kwargs):
    """A model whose chunks are relative to the agent's position, with one scale per step."""
    steps = torch.arange(1.0, HORIZON + 1)[:, None].expand(HORIZON, 2).numpy()
    stats = STATS | {"action_relative": field_stats(-100 * steps, 100 * steps)}
    torch.manual_seed(0)
    settings = {"encoder": encoder, "n_obs": 2, "horizon": HORIZON, "relative_to": ["agent_pos"]} | kwargs
    return FAMILIES[family](SPEC, stats, denoiser=DENOISERS["mlp"], **settings)


@pytest.mark.parametrize("family", ["flow", "epsilon"])
def test_relative_chunks_meet_the_contract_and_are_absolute_at_both_ends(family):
    net = relative(family)
    obs, target = batch()
    check_chunk_model(net, obs, target)
    noise, u = draws(net, 3)
    mask = torch.ones(3, HORIZON, dtype=torch.bool)
    newest = obs["agent_pos"][:, -1:]
    scale = 100 * torch.arange(1.0, HORIZON + 1)[:, None]
    torch.testing.assert_close(net.sample(obs, noise), net.sample_normalised(obs, noise) * scale + newest)
    net.encoder.forward = lambda obs: torch.zeros(3, 12)  # then only the difference from the newest position can matter
    moved = obs | {"agent_pos": obs["agent_pos"] + 64.0}
    torch.testing.assert_close(net.loss(obs, target, noise, u, mask), net.loss(moved, target + 64.0, noise, u, mask))


def test_noise_scale_is_a_factor_on_the_first_state():
    net, half = model(), model(noise_scale=0.5)
    obs, _ = batch()
    noise = draws(net, 3)[0]
    torch.testing.assert_close(half.sample(obs, noise), net.sample(obs, 0.5 * noise))


def test_a_reference_that_is_no_action_is_refused():
    with pytest.raises(ConfigError, match=r"`relative_to` \['block_pose'\] joins to 3 elements, the action has 2"):
        relative("flow", relative_to=["block_pose"])
    with pytest.raises(ConfigError, match=r"`relative_to` names \['pose'\]"):
        relative("flow", relative_to=["pose"])
