"""The laws that the single heads learn by, on closed forms: consistency, shortcut, MeanFlow."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from policies.consistency import ConsistencyModel, boundary
from policies.encoders import StateEncoder
from policies.flow import FlowModel
from policies.mlp import ResidualMLP
from policies.one_step import OneStepModel, distil_loss, teacher_chunk
from policies.one_step_flow import MeanFlowModel, ShortcutModel, split_uniform
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from tests.policies.helpers import DENOISERS, HORIZON, SPEC, STATS, batch, model
from tests.policies.test_one_step import everywhere, head_of, noise, uniform

ONE = RobotSpec(
    name="line",
    obs={"x": ArraySpec(name="x", shape=(1,))},
    action=ActionSpec(name="action", shape=(1,), kind="position", low=-1.0, high=1.0),
    control_hz=10,
)
TINY = functools.partial(ResidualMLP, width=64, n_blocks=1, time_dim=16, context_dim=16)
UNIT = FieldStats(*(np.array([v]) for v in (-1.0, 1.0, 0.0, 0.5, -1.0, 1.0)), 100)


class SlowMLP(ResidualMLP):
    """The residual MLP on a slower time, whose derivative is small before anything is learned."""

    def forward(self, x, t, cond):
        return super().forward(x, t / 25.0, cond)


SLOW = functools.partial(SlowMLP, width=64, n_blocks=1, time_dim=16, context_dim=16)


class Law(nn.Module):
    """A network that puts out a given function of x, t and the last columns of the condition."""

    def __init__(self, law, **sizes):
        super().__init__()
        self.law, self.scale = law, nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x, t, cond):
        return self.scale * self.law(x, t, cond)


def line_flow(spec, stats):
    encoder, denoiser = StateEncoder, functools.partial(Law, lambda x, t, cond: 0.75 * x)
    return FlowModel(spec, stats, encoder=encoder, denoiser=denoiser, n_obs=1, horizon=1)


def line_head(kind, law):
    head = kind(ONE, {"x": UNIT, "action": UNIT}, model=line_flow, denoiser=functools.partial(Law, law))
    return head.double()


def span_of(cond: torch.Tensor) -> torch.Tensor:
    """Return 1e-4 times the scaled span, from its features: the angle of the slowest sine."""
    return cond[:, -9].clamp(-1, 1).asin()[:, None, None]


def number(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def column(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float64)


@pytest.mark.slow
def test_same_noise_learns_a_linear_teacher_and_other_noise_does_not():
    stats, errors = {"x": UNIT, "action": UNIT}, {}
    teacher, obs = line_flow(ONE, stats), {"x": torch.zeros(64, 1, 1)}
    for pairing in ("same", "shuffled"):
        torch.manual_seed(0)
        head = OneStepModel(ONE, stats, model=line_flow, denoiser=TINY)
        head.teach(teacher)
        optimiser, generator = torch.optim.Adam(head.denoiser.parameters()), torch.Generator().manual_seed(1)
        for step in range(400):
            optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 400)
            draw = torch.randn(64, 1, 1, generator=generator)
            wanted = teacher_chunk(teacher, obs, draw if pairing == "same" else draw.roll(1, dims=0))
            loss = torch.square(head.predict(head.encode(obs), draw) - wanted).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            errors[pairing] = float(distil_loss(head, teacher, obs, torch.linspace(-2, 2, 64)[:, None, None]))
    assert errors["same"] < 1e-4
    assert errors["shuffled"] > 100 * errors["same"]


def test_the_consistency_boundary_holds_at_data_for_any_weights():
    skip, out = boundary(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (float(skip[0]), float(out[0])) == (1.0, 0.0)
    assert float(skip[1]) == pytest.approx(0.00249377, abs=1e-8)
    assert float(out[1]) == pytest.approx(0.99875234, abs=1e-8)
    head, x = head_of(ConsistencyModel, "epsilon"), noise()
    cond = head.encode(batch()[0])
    assert torch.equal(head.consistent(head.denoiser, x, torch.zeros(3), cond), x)
    assert not torch.equal(head.consistent(head.denoiser, x, torch.ones(3), cond), x)


def test_a_consistent_head_has_no_loss_on_data_of_one_point():
    """With all data at a, the teacher's denoiser and the head's are a, and f mixes in but a trace of x."""
    head = head_of(ConsistencyModel, "sample")
    obs, target = batch(1)
    point = head.normalised(obs, target)
    for network in (head.denoiser, head.target, head.teacher.denoiser):
        network.forward = lambda x, t, cond: point.expand(len(x), -1, -1)
    obs, target = ({k: v.expand(8, *v.shape[1:]) for k, v in obs.items()}, target.expand(8, -1, -1))
    later = torch.linspace(0.11, 0.99, 8)  # intervals 1 to 9, whose step ends above t = 0, where c_skip is 5e-5 at most
    loss = head.eval().loss(obs, target, noise(8), later, everywhere(8))
    assert float(loss) < 1e-4
    head.denoiser.forward = lambda x, t, cond: point.expand(len(x), -1, -1) + 0.1
    assert float(head.loss(obs, target, noise(8), later, everywhere(8))) == pytest.approx(0.01, rel=0.05)


def test_the_averaged_head_follows_by_its_decay_and_gets_no_gradient():
    for decay in (0.0, 0.95):
        head = head_of(ConsistencyModel, "epsilon", target_decay=decay).train()
        start = [p.clone() for p in head.target.parameters()]
        with torch.no_grad():
            for parameter in head.denoiser.parameters():
                parameter.add_(1.0)
        head.loss(*batch(), noise(), uniform(3), everywhere(3)).backward()
        for average, weight, was in zip(head.target.parameters(), head.denoiser.parameters(), start, strict=True):
            torch.testing.assert_close(average, decay * was + (1 - decay) * weight)
            assert average.grad is None
        before = [p.clone() for p in head.target.parameters()]
        head.eval().loss(*batch(), noise(), uniform(3), everywhere(3))
        assert all(torch.equal(a, b) for a, b in zip(before, head.target.parameters(), strict=True))


def test_a_consistency_head_needs_a_diffusion_teacher_and_even_intervals():
    with pytest.raises(ConfigError, match=r"needs a diffusion teacher \(path vp\), got a flow path"):
        head_of(ConsistencyModel, "flow")
    with pytest.raises(ConfigError, match=r"`n_intervals` must divide the 100 trained steps, got 7"):
        head_of(ConsistencyModel, "epsilon", n_intervals=7)


def test_two_half_spans_of_exponential_growth_make_the_whole_one():
    """dx/ds = x with s = 1 - t: the Euler half steps 1 and 1 + d of x = 1 and d = 0.25 average to 1.125; the exact
    averages (e^d - 1) / d of both halves average to that of the whole, 1.297443."""
    euler = line_head(ShortcutModel, lambda x, t, cond: -x)
    got = euler.two_half_spans(euler.denoiser, column(1.0), number(1.0), number(0.5), torch.zeros(1, 1).double())
    assert float(got) == pytest.approx(-1.125, abs=1e-12)

    def exact(x, t, cond):
        d = span_of(cond) / (100.0 * 1e-4)
        return -x * (d.exp() - 1) / d

    head = line_head(ShortcutModel, exact)
    cond = torch.zeros(1, 1).double()
    halves = head.two_half_spans(head.denoiser, column(1.0), number(1.0), number(0.5), cond)
    whole = head.velocity(head.denoiser, column(1.0), number(1.0), number(0.5), cond)
    assert float(-halves) == pytest.approx(1.297443, abs=1e-6)
    assert float(whole) == pytest.approx(float(halves), abs=1e-9)


def gaussian_average(x, t, cond):
    """Average velocity of the flow from N(0, 1) at t = 1 to N(0, 0.25) at t = 0: x scales as the std along it."""
    d, t = span_of(cond) / (10.0 * 1e-4), t[:, None, None] / 100.0

    def std(s):
        return (0.25 * (1 - s) ** 2 + s**2).sqrt()

    return x * (1 - std(t - d) / std(t)) / d


def test_the_mean_flow_identity_holds_for_the_gaussian_flow():
    head = line_head(MeanFlowModel, gaussian_average)
    cond, z, t, span = torch.zeros(1, 1).double(), column(0.8), number(0.9), number(0.6)
    average = head.velocity(head.denoiser, z, t, span, cond)
    assert float(average) == pytest.approx(0.651456, abs=1e-6)
    v = column(0.8 * (0.9 - 0.25 * 0.1) / (0.25 * 0.1**2 + 0.9**2))
    assert float(v) == pytest.approx(0.861538, abs=1e-6)
    assert float(head.identity(z, t, span, cond, v)) == pytest.approx(float(average), abs=1e-9)
    assert float(head.identity(z, t, number(1e-6), cond, v)) == pytest.approx(float(v), abs=1e-5)
    assert float(head.predict(cond, column(1.0))) == pytest.approx(0.5, abs=1e-9)


def test_mean_flow_spans_end_before_noise_and_half_of_them_are_empty():
    head = head_of(MeanFlowModel, "flow")
    t, span = head.spans(uniform(20000))
    assert float((t - span).min()) >= 0
    assert float(t.max()) <= 1
    assert float((span == 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    both = torch.cat([t, (t - span)[span > 0]])
    assert float(torch.special.logit(t[span == 0]).mean()) == pytest.approx(-0.4, abs=0.03)
    assert float(torch.special.logit(both).std()) == pytest.approx(1.0, abs=0.03)


def test_high_and_low_bits_of_a_uniform_number_are_independent():
    part, rest = split_uniform(uniform(20000), 7)
    assert sorted(part.unique().tolist()) == [0, 1, 2, 3, 4, 5, 6]
    assert 0 <= float(rest.min()) <= float(rest.max()) < 1
    assert abs(float(torch.corrcoef(torch.stack([part, rest]))[0, 1])) < 0.03


@pytest.mark.parametrize("denoiser", ["mlp", "unet"])
@pytest.mark.parametrize("kind", [ShortcutModel, MeanFlowModel])
def test_an_average_velocity_head_starts_as_its_teachers_velocity_whatever_the_span(kind, denoiser):
    made = functools.partial(lambda spec, stats: model("flow", denoiser))
    head = kind(SPEC, STATS, model=made, denoiser=DENOISERS[denoiser])
    assert head.teach(model("flow", denoiser))
    obs, _ = batch()
    cond, t = head.encode(obs), torch.tensor([0.2, 0.6, 1.0])
    with torch.no_grad():
        wanted = head.teacher.denoise(noise(), t, cond)
        for span in (0.0, 0.2):
            got = head.velocity(head.denoiser, noise(), t, torch.full((3,), span), cond)
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [ShortcutModel, MeanFlowModel])
def test_an_average_velocity_head_learns_to_be_nearer_to_its_teacher_than_one_step_of_it(kind):
    """The teacher's flow from N(0, 1) to N(0, 0.25) in closed form: one Euler step of it ends at 0 for any noise."""

    def velocity(x, t, cond):
        s = (t / 100.0)[:, None, None]
        return x * (s - 0.25 * (1 - s)) / (0.25 * (1 - s) ** 2 + s**2)

    def flow(spec, stats):
        return FlowModel(
            spec, stats, encoder=StateEncoder, denoiser=functools.partial(Law, velocity), n_obs=1, horizon=1, n_steps=64
        )

    torch.manual_seed(0)
    head = kind(ONE, {"x": UNIT, "action": UNIT}, model=flow, denoiser=SLOW, **_sooner(kind)).train()
    head.teach(flow(ONE, {"x": UNIT, "action": UNIT}))
    generator, optimiser = torch.Generator().manual_seed(1), torch.optim.Adam(head.denoiser.parameters())
    obs, mask = {"x": torch.zeros(128, 1, 1)}, torch.ones(128, 1, dtype=torch.bool)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        data, draw = 0.5 * torch.randn(128, 1, 1, generator=generator), torch.randn(128, 1, 1, generator=generator)
        loss = head.loss(obs, data, draw, torch.rand(128, generator=generator), mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    draw = torch.linspace(-2, 2, 128)[:, None, None]
    with torch.no_grad():
        error = (head.eval().predict(head.encode(obs), draw) - 0.5 * draw).square().mean().sqrt()
    one_step = float((0.5 * draw).square().mean().sqrt())
    assert float(error) < 0.3 * one_step


def _sooner(kind) -> dict[str, float]:
    return {"bootstrap": 0.5, "target_decay": 0.9} if kind is ShortcutModel else {}


def test_average_velocity_heads_need_a_flow():
    for kind in (ShortcutModel, MeanFlowModel):
        with pytest.raises(ConfigError, match=rf"{kind.__name__} needs a flow teacher .* got a vp path with sample"):
            head_of(kind, "epsilon")


def test_a_shortcut_batch_learns_the_velocity_and_spans_of_every_length():
    head, seen = head_of(ShortcutModel, "flow", bootstrap=0.5), []
    original = head.velocity
    head.velocity = lambda network, x, t, span, cond: (seen.append((t, span)), original(network, x, t, span, cond))[1]
    obs, target = batch(64)
    head.loss(obs, target, noise(64), uniform(64), everywhere(64))
    t, span = seen[-1]  # the last call is the trained one, over the whole batch
    assert torch.all(span[32:] == 1 / 128)
    assert set(span[:32].tolist()) <= {2.0**k / 128 for k in range(1, 8)}
    assert len(set(span[:32].tolist())) >= 5
    assert torch.all((t / span - (t / span).round()).abs() < 1e-4)
    assert torch.all((t >= span) & (t <= 1))
    assert math.isclose(HORIZON * float(span.max()), HORIZON * 1.0)
