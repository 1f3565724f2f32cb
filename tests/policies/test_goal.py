"""Goals in a policy: absence, guidance, and a point that goes where it is told."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.chain import DenoisingChain
from policies.edm import EDMModel
from policies.encoders import CompositeEncoder, StateEncoder
from policies.export import export_bundle
from policies.flow import FlowModel
from policies.goal import GOAL_DROPPED, GoalEncoder, without_goal
from policies.mlp import ResidualMLP
from policies.torch_policy import TorchPolicy
from robot_rl.chain_step import ChainNoise
from robot_rl.data.goals import HindsightGoals, goal_spec
from robot_rl.data.normalizer import fit_stats
from robot_rl.data.windows import WindowDataset, WindowSpec
from robot_rl.deploy.goal import GivenGoal
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.errors import ConfigError, SpecError
from robot_rl.evaluation.rollouts import run_episode
from robot_rl.values import PolicyInput
from tests.contracts.chunk_model import check_chunk_model, draws
from tests.policies.helpers import DENOISERS, HORIZON, SPEC, STATS, batch
from tests.policies.point_plane import CORNERS, PointInPlane, demonstrations

GOALS = goal_spec(SPEC, ["block_pose"])
GOAL_STATS = STATS | {"goal_block_pose": STATS["block_pose"]}


def encoder(names=("goal_block_pose",), drop=0.1):
    parts = [
        functools.partial(StateEncoder, names=["agent_pos", "block_pose"]),
        functools.partial(GoalEncoder, names=list(names), dim=16, drop=drop),
    ]
    return functools.partial(CompositeEncoder, parts=parts)


def model(family=FlowModel, *, denoiser="mlp", drop=0.1, **kwargs):
    torch.manual_seed(0)
    return family(
        GOALS, GOAL_STATS, encoder=encoder(drop=drop), denoiser=DENOISERS[denoiser], n_obs=2, horizon=HORIZON, **kwargs
    )


def goal_batch(size=3):
    obs, target = batch(size)
    return obs | {"goal_block_pose": obs["block_pose"].flip(0) + 5.0}, target


@pytest.mark.parametrize("family", [FlowModel, EDMModel])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_a_policy_with_goals_meets_the_contract(family, guidance):
    obs, target = goal_batch()
    check_chunk_model(model(family, guidance=guidance), obs, target)


@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_a_policy_that_is_guided_is_no_chain(guidance):
    """A chain's steps are those of the conditional network; guidance would be left out of them silently."""
    with pytest.raises(ConfigError, match=f"`guidance` of a model that becomes a chain must be 1, got {guidance:g}"):
        DenoisingChain(GOALS, GOAL_STATS, model=lambda *_: model(guidance=guidance), noise=ChainNoise())


@pytest.mark.parametrize("family", [FlowModel, EDMModel])
def test_t14_guidance_one_is_conditional_and_zero_unconditional_to_the_bit(family):
    obs, _ = goal_batch()
    noise = draws(model(), 3)[0]
    plain = model(family).eval()
    conditional, unconditional = plain.sample(obs, noise), plain.sample(without_goal(obs), noise)
    assert not torch.equal(conditional, unconditional)
    assert torch.equal(model(family, guidance=1.0).eval().sample(obs, noise), conditional)
    none = model(family, guidance=0.0).eval()
    assert torch.equal(none.sample(obs, noise), unconditional)
    other = obs | {"goal_block_pose": obs["goal_block_pose"] + 50.0}
    assert torch.equal(none.sample(other, noise), unconditional)


@pytest.mark.parametrize("family", [FlowModel, EDMModel])
@pytest.mark.parametrize("denoiser", ["mlp", "transformer"])
def test_guidance_mixes_both_denoisers_in_one_call_of_the_network(family, denoiser):
    net = model(family, denoiser=denoiser, guidance=2.5).eval()
    plain = model(family, denoiser=denoiser).eval()
    obs, _ = goal_batch()
    x, t = draws(net, 3)[0], torch.full((3,), 0.3)
    with torch.no_grad():
        d_c, d_u = (plain.path.denoised(x, t, plain.denoise(x, t, plain.encode(o))) for o in (obs, without_goal(obs)))
        calls = []
        net.denoiser.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
        mixed = net.path.denoised(x, t, net.denoise(x, t, net.encode(obs)))
    torch.testing.assert_close(mixed, d_u + 2.5 * (d_c - d_u), rtol=1e-4, atol=1e-5)
    assert calls == [6]


def test_a_sample_loses_its_whole_goal_or_keeps_it():
    part = encoder(drop=0.3)(GOALS, GOAL_STATS, n_obs=2).parts[1].train()
    obs = {name: value[:1].repeat(4000, *[1] * (value.ndim - 1)) for name, value in goal_batch()[0].items()}
    torch.manual_seed(0)
    features = part.steps(obs)  # [B, O, F]
    assert torch.equal(features[:, 0], features[:, 1])
    lost = (features[:, 0] == part.none).all(dim=1)
    kept = (features[:, 0] == part.eval().steps(obs)[0, 0]).all(dim=1)
    assert bool((lost ^ kept).all())
    assert float(lost.float().mean()) == pytest.approx(0.3, abs=0.03)


def test_nothing_is_dropped_when_not_training_or_when_told():
    part = encoder(drop=0.9)(GOALS, GOAL_STATS, n_obs=2).parts[1]
    obs, _ = goal_batch()
    assert torch.equal(part.eval().steps(obs), part.steps(obs))
    told = torch.tensor([True, False, False])
    features = part.train().steps(obs | {GOAL_DROPPED: told})
    assert torch.equal(features[0, 0], part.none)
    assert torch.equal(features[1:], part.eval().steps(obs)[1:])


def test_absence_is_learned():
    net = model(drop=0.5).train()
    obs, target = goal_batch()
    torch.manual_seed(1)
    net.loss(obs, target, *draws(net, 3), torch.ones(3, HORIZON, dtype=torch.bool)).backward()
    assert bool((net.encoder.parts[1].none.grad != 0).any())


def test_only_the_newest_row_of_a_goal_is_read():
    net = model().eval()
    obs, _ = goal_batch()
    noise = draws(net, 3)[0]
    older = obs["goal_block_pose"].clone()
    older[:, 0] += 100.0
    assert torch.equal(net.sample(obs | {"goal_block_pose": older}, noise), net.sample(obs, noise))


@pytest.mark.slow
def test_a_guided_policy_is_the_same_from_its_bundle(tmp_path):
    net = model(EDMModel, guidance=2.0)
    bundle = export_bundle(
        net, tmp_path / "bundle", spec=GOALS, stats=GOAL_STATS, n_execute=4, config={}, data_digest="",
        graphs=("sample", "encode", "denoise"), parity_rounds=1,
    )  # fmt: skip
    obs = {name: value[0].numpy() for name, value in goal_batch()[0].items()}
    goal = {"goal_block_pose": obs.pop("goal_block_pose")[-1]}
    asked = PolicyInput(obs=obs, stamp_ns=7, noise=draws(net, 1)[0][0].numpy())
    chunks = [GivenGoal(p, goal).act(asked).action for p in (OnnxPolicy(bundle), TorchPolicy(net, GOALS, n_execute=4))]
    np.testing.assert_allclose(chunks[0], chunks[1], atol=0.02)  # of 490 px


def misled(episodes):
    """Return the episodes, one in ten with the goal of another."""
    rng, out = np.random.default_rng(1), []
    for one in episodes:
        other = episodes[int(rng.integers(len(episodes)))].obs["goal_position"][:1].repeat(len(one), 0)
        out.append(replace(one, obs={**one.obs, "goal_position": other}) if rng.random() < 0.1 else one)
    return out


@functools.cache
def trained():
    """A policy for the point, whose demonstrations name a wrong goal now and then; and what it was built from."""
    episodes = misled([made for one in demonstrations(1000, seed=0) for made in HindsightGoals(["position"])(one)])
    windows = WindowDataset(episodes, WindowSpec(n_obs=1, horizon=4), threads=1)
    spec, stats = goal_spec(PointInPlane.SPEC, ["position"]), fit_stats(windows)

    def build(guidance):
        torch.manual_seed(0)
        parts = [
            functools.partial(StateEncoder, names=["position"]),
            functools.partial(GoalEncoder, names=["goal_position"], dim=32, drop=0.2),
        ]
        return EDMModel(
            spec, stats, encoder=functools.partial(CompositeEncoder, parts=parts), n_obs=1, horizon=4, n_steps=8,
            denoiser=functools.partial(ResidualMLP, width=96, n_blocks=2), guidance=guidance,
        )  # fmt: skip

    net, draw = build(1.0), np.random.default_rng(2)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 700)
    generator = torch.Generator().manual_seed(3)
    for _ in range(700):
        rows = windows.gather(draw.integers(len(windows), size=256))
        obs = {name: torch.as_tensor(value) for name, value in rows.obs.items()}
        target, mask = torch.as_tensor(rows.action), torch.as_tensor(rows.mask)
        noise, u = torch.randn(target.shape, generator=generator), torch.rand(256, generator=generator)
        optimizer.zero_grad()
        net.loss(obs, target, noise, u, mask).backward()
        optimizer.step()
        schedule.step()
    return build, net.state_dict(), spec


def reached(guidance, episodes=10):
    """Return how often the point ends at the corner that it was given."""
    build, weights, spec = trained()
    net = build(guidance)
    net.load_state_dict(weights)
    successes = []
    for corner in CORNERS:
        policy = GivenGoal(TorchPolicy(net, spec, n_execute=4), {"goal_position": corner})
        successes += [
            run_episode(PointInPlane(corner), policy, seed, record=False)[1].success for seed in range(episodes)
        ]
    return float(np.mean(successes))


@pytest.mark.slow
def test_the_point_goes_to_the_goal_it_is_given_and_guidance_makes_it_surer():
    """One in ten demonstrations names a goal at random, and the policy is small: guidance makes up for both."""
    without, plain, guided = reached(0.0), reached(1.0), reached(3.0)
    assert without < 0.45  # a quarter by chance
    assert plain > 0.55
    assert guided > max(0.8, plain + 0.1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: encoder(names=())(GOALS, GOAL_STATS, n_obs=2), "must name observations `goal_<name>`, got"),
        (lambda: encoder(names=("block_pose",))(GOALS, GOAL_STATS, n_obs=2), r"got \['block_pose'\]"),
        (lambda: encoder(names=("goal_cube",))(GOALS, GOAL_STATS, n_obs=2), "needs the observation `goal_cube`"),
        (lambda: encoder(drop=1.0)(GOALS, GOAL_STATS, n_obs=2), r"`drop` must be a probability in \[0, 1\), got 1.0"),
        (lambda: model(drop=0.0, guidance=2.0), "`guidance` 2.0 needs an encoder with a GoalEncoder whose `drop`"),
    ],
)
def test_bad_settings_say_what_was_expected(call, text):
    with pytest.raises(ConfigError, match=text):
        call()


def test_a_given_goal_has_a_goals_name():
    with pytest.raises(SpecError, match=r"goals must be called `goal_<name>`, got \['cube'\]"):
        GivenGoal(TorchPolicy(model(), GOALS, n_execute=4), {"cube": np.zeros(3)})
