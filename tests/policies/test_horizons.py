"""The mixture of horizons: what it mixes, what it is trained on, and its controls."""

import functools

import pytest
import torch

from policies.chunk_network import OwnLoss, counted_mean
from policies.horizons import (
    HorizonWeightedTransformer,
    MixtureOfHorizons,
    balance_loss,
    disagreement,
    fuse,
    step_weights,
)
from policies.transformer import ChunkTransformer
from robot_rl.errors import ConfigError
from tests.contracts.chunk_model import check_chunk_model, draws
from tests.policies.helpers import FAMILIES, HORIZON, SPEC, STATS, batch, encoder

H, HORIZONS = 8, (2, 4, 8)
SMALL = {"width": 16, "n_layers": 2, "n_heads": 2, "cond_tokens": 2, "time_dim": 8}
ACTIVE = torch.tensor([[k < h for h in HORIZONS] for k in range(H)])  # [H, N]


def make(**kwargs):
    torch.manual_seed(0)
    return MixtureOfHorizons(2, H, 6, **(SMALL | {"horizons": HORIZONS} | kwargs)).eval()


def inputs(size=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(size, H, 2, generator=g), torch.rand(size, generator=g) * 100, torch.randn(size, 6, generator=g)


def loss_of(net, *, size=3, counted=None, measure=torch.square):
    target = torch.randn(size, H, 2, generator=torch.Generator().manual_seed(9))
    counted = torch.ones(size, H, dtype=torch.bool) if counted is None else counted
    return net.loss(*inputs(size), target=target, counted=counted, measure=measure), target


@torch.no_grad()
def test_packed_horizons_give_what_padded_ones_folded_into_the_batch_give():
    """The paper's arrangement, written out: copies of x cut to each horizon, with a mask over the padding."""
    net, (x, t, cond) = make(), inputs()
    got, _ = net.per_horizon(x, t, cond)
    valid = ACTIVE.T.repeat(3, 1)  # [B N, H]
    padded = x.repeat_interleave(len(HORIZONS), 0) * valid[..., None]
    t, cond = t.repeat_interleave(len(HORIZONS), 0), cond.repeat_interleave(len(HORIZONS), 0)
    folded = net.base(padded, t, cond, valid).unflatten(0, (3, -1))
    torch.testing.assert_close(got, folded * ACTIVE.T[..., None], rtol=0, atol=1e-5)


@torch.no_grad()
def test_t25_a_single_horizon_is_the_plain_transformer_with_twice_its_loss():
    net = make(horizons=[H])
    plain = net.base(*inputs())
    torch.testing.assert_close(net(*inputs()), plain)
    loss, target = loss_of(net)
    torch.testing.assert_close(loss, 2 * torch.nn.functional.mse_loss(plain, target))
    _, gate = net.per_horizon(*inputs())
    assert float(balance_loss(gate, net.horizons)) == 0.0


@torch.no_grad()
@pytest.mark.parametrize("kwargs", [{}, {"gate": "uniform"}, {"fusion": "mean"}])
def test_t26_weights_sum_to_one_over_the_horizons_that_reach_a_step(kwargs):
    _, gate = make(**kwargs).per_horizon(*inputs())
    torch.testing.assert_close(gate.sum(dim=-1), torch.ones(3, H))
    assert bool((gate[:, ~ACTIVE] == 0).all())
    assert bool((gate[:, ACTIVE] > 0).all())
    assert bool((gate[:, 4:, 2] == 1).all())
    if kwargs:
        torch.testing.assert_close(gate[0], ACTIVE / ACTIVE.sum(dim=1, keepdim=True))


def test_t27_balance_of_a_uniform_and_of_a_one_hot_gate():
    horizons = (3, 6, 9)
    active = torch.tensor([[k < h for h in horizons] for k in range(9)]).double()
    uniform = (active / active.sum(dim=1, keepdim=True)).expand(5, -1, -1)
    assert float(balance_loss(uniform, horizons)) == pytest.approx(0.0, abs=1e-12)
    one_hot = torch.zeros(5, 9, 3, dtype=torch.double)
    one_hot[..., 2] = 1.0
    assert float(balance_loss(one_hot, horizons)) == pytest.approx(1.5, abs=1e-6)


def test_t28_weight_of_a_step_in_the_sum_of_the_horizons_own_errors():
    weight = step_weights(range(3, 31, 3))
    assert weight.shape == (30,)
    assert float(weight[0]) == pytest.approx(0.976323, abs=1e-6)
    assert float(weight[29]) == pytest.approx(0.033333, abs=1e-6)


@torch.no_grad()
def test_t30_a_batch_of_two_gives_what_two_batches_of_one_give():
    net, (x, t, cond) = make(), inputs(2)
    for i in (0, 1):
        alone = net.per_horizon(x[i : i + 1], t[i : i + 1], cond[i : i + 1])
        for one, both in zip(alone, net.per_horizon(x, t, cond), strict=True):
            torch.testing.assert_close(one[0], both[i], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("i", [0, 1, 2])
def test_t31_what_lies_beyond_a_horizon_changes_nothing_in_its_output(i):
    net, (x, t, cond) = make(), inputs()
    altered = x.clone()
    altered[:, HORIZONS[i] :] += 10.0
    before, after = net.per_horizon(x, t, cond)[0], net.per_horizon(altered, t, cond)[0]
    assert torch.equal(before[:, : i + 1], after[:, : i + 1])
    assert not any(torch.equal(before[:, j], after[:, j]) for j in range(i + 1, 3))
    assert bool((before[:, ~ACTIVE.T] == 0).all())


@torch.no_grad()
def test_t32_horizons_that_agree_are_their_own_mixture_whatever_the_gate():
    same = torch.randn(3, 1, H, 2, generator=torch.Generator().manual_seed(1))
    outputs = same * ACTIVE.T[None, ..., None]
    _, gate = make().per_horizon(*inputs())
    mixed = fuse(outputs, gate)
    torch.testing.assert_close(mixed, same[:, 0])
    assert float(disagreement(outputs, gate, mixed).max()) < 1e-5


@torch.no_grad()
def test_loss_is_the_sum_that_the_paper_writes():
    """Recomputed sample by sample from the outputs, with padding that does not count."""
    net = make(lambda_ind=0.5, lambda_bal=0.1)
    counted = torch.arange(H) < torch.tensor([8, 5, 3])[:, None]
    loss, target = loss_of(net, counted=counted, measure=torch.abs)
    outputs, gate = net.per_horizon(*inputs())
    expected = (fuse(outputs, gate) - target).abs()[counted].mean() + 0.1 * balance_loss(gate, HORIZONS)
    for i, h in enumerate(HORIZONS):
        expected += 0.5 * (outputs[:, i, :h] - target[:, :h]).abs()[counted[:, :h]].mean()
    torch.testing.assert_close(loss, expected)


def test_the_gate_learns_which_horizon_to_trust():
    """With one horizon's output spoilt, the gate's weight moves away from it where it has a choice."""
    net, (x, t, cond) = make(lambda_ind=0.0, lambda_bal=0.0), inputs()
    with torch.no_grad():
        target = net.per_horizon(x, t, cond)[0][:, 2].clone()
    optimizer = torch.optim.Adam(net.gate.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        net.loss(x, t, cond, target=target, counted=torch.ones(3, H, dtype=torch.bool), measure=torch.square).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(net.per_horizon(x, t, cond)[1][:, :4, 2].mean()) > 0.5


def test_gate_noise_acts_in_training_alone_and_follows_torchs_seed():
    net = make(gate_noise=True)
    assert torch.equal(net(*inputs()), net(*inputs()))
    net.train()
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(loss_of(net)[0].detach()))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("kwargs", [{}, {"gate": "uniform"}, {"gate_noise": True}])
def test_every_parameter_is_trained(kwargs):
    net = make(**kwargs).train()
    loss_of(net)[0].backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool((p.grad != 0).any())] == []


def test_mean_fusion_samples_with_equal_weights_and_trains_with_the_gate():
    net, mean = make(), make(fusion="mean")
    assert float(loss_of(net)[0].detach()) == float(loss_of(mean)[0].detach())
    assert not torch.equal(net(*inputs()), mean(*inputs()))


def test_reweighted_control_weighs_the_plain_error_and_nothing_else():
    torch.manual_seed(0)
    net = HorizonWeightedTransformer(2, H, 6, horizons=HORIZONS, **SMALL)
    loss, target = loss_of(net)
    weight = step_weights(HORIZONS)
    error = (net(*inputs()) - target).square().mean(dim=(0, 2))
    torch.testing.assert_close(loss.double(), (error * weight).mean() / weight.mean())
    plain = ChunkTransformer(2, H, 6, **SMALL)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(plain(*inputs()), net(*inputs()))


DENOISERS = {
    "mixture": functools.partial(MixtureOfHorizons, horizons=HORIZONS, **SMALL),
    "reweighted": functools.partial(HorizonWeightedTransformer, horizons=HORIZONS, **SMALL),
}


def chunk_model(family, denoiser):
    torch.manual_seed(0)
    make_denoiser = DENOISERS[denoiser]
    return FAMILIES[family](
        SPEC, STATS, encoder=encoder, denoiser=make_denoiser, n_obs=2, horizon=HORIZON, action_offset=-1
    )


@pytest.mark.parametrize("denoiser", list(DENOISERS))
@pytest.mark.parametrize("family", ["flow", "epsilon", "sample"])
def test_contract_under_flow_and_diffusion(family, denoiser):
    obs, target = batch()
    model = chunk_model(family, denoiser)
    assert isinstance(model.denoiser, OwnLoss)
    check_chunk_model(model, obs, target)


@torch.no_grad()
def test_models_train_on_the_denoisers_own_loss():
    """The policy's loss is the mixture's: more than the plain error, by the horizons' own."""
    model, (obs, target) = chunk_model("flow", "mixture"), batch()
    noise, u = draws(model, 3)
    mask = torch.ones(3, HORIZON, dtype=torch.bool)
    whole = model.loss(obs, target, noise, u, mask)
    model.denoiser.lambda_ind = model.denoiser.lambda_bal = 0.0
    mixed = model.loss(obs, target, noise, u, mask)
    t, data = model.time_law(u), model.normalised(obs, target)
    output = model.denoiser(*model.network_inputs(model.path.mix(data, noise, t), t), model.encode(obs))
    error = (output - model.network_target(data, noise, t)).square()
    torch.testing.assert_close(mixed, counted_mean(error, mask))
    assert float(whole) > 1.5 * float(mixed)


def test_overfits_one_batch():
    model, (obs, target) = chunk_model("flow", "mixture"), batch(4)
    fixed = (obs, target, *draws(model, 4), torch.ones(4, HORIZON, dtype=torch.bool))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(250):
        optimizer.zero_grad()
        loss = model.loss(*fixed)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.03 * losses[0]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"horizons": [4, 2, 8]}, r"`horizons` must rise from at least 1 to the chunk's horizon 8, got \[4, 2, 8\]"),
        ({"horizons": [2, 4]}, r"must rise from at least 1 to the chunk's horizon 8, got \[2, 4\]"),
        ({"horizons": []}, r"got \[\]"),
        ({"gate": "top"}, r"`gate` must be one of \('learned', 'uniform'\), got 'top'"),
        ({"fusion": "max"}, r"`fusion` must be one of \('gate', 'mean'\), got 'max'"),
        ({"disagreement": "last"}, r"`disagreement` must be one of \('final', 'accumulated'\), got 'last'"),
        ({"lambda_bal": -1.0}, r"`lambda_bal` must be 0 or more, got -1.0"),
    ],
)
def test_bad_settings_say_what_was_expected(kwargs, text):
    with pytest.raises(ConfigError, match=text):
        make(**kwargs)
