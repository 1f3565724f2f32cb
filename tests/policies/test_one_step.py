"""One-step heads: what every head keeps of its teacher, and that the default one learns its chunk."""

import copy
import functools

import pytest
import torch

from policies.chain import DenoisingChain
from policies.consistency import ConsistencyModel
from policies.one_step import OneStepHead, OneStepModel, chunk_from, distil_loss, teacher_chunk
from policies.one_step_flow import MeanFlowModel, ShortcutModel
from policies.one_step_parts import noise_free_chunk
from robot_rl.chain_step import ChainNoise
from robot_rl.errors import ConfigError
from tests.contracts.chunk_model import check_chunk_model
from tests.policies.helpers import DENOISERS, HORIZON, SPEC, STATS, batch, model

HEADS = {
    "same_noise": (OneStepModel, "epsilon"),
    "same_noise_flow": (OneStepModel, "flow"),
    "same_noise_edm": (OneStepModel, "edm"),
    "consistency": (ConsistencyModel, "epsilon"),
    "shortcut": (ShortcutModel, "flow"),
    "mean_flow": (MeanFlowModel, "flow"),
}


def head_of(kind: type[OneStepHead], family: str, denoiser: str = "mlp", *, taught: bool = True, **settings):
    made = functools.partial(lambda spec, stats: model(family, denoiser))
    head = kind(SPEC, STATS, model=made, denoiser=DENOISERS[denoiser], **settings)
    if taught:
        head.teach(model(family, denoiser))
    return head


def noise(size: int = 3, seed: int = 5) -> torch.Tensor:
    return torch.randn(size, HORIZON, 2, generator=torch.Generator().manual_seed(seed))


def uniform(size: int, seed: int = 6) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def everywhere(size: int) -> torch.Tensor:
    return torch.ones(size, HORIZON, dtype=torch.bool)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_fulfils_the_contract_of_a_chunk_model(name):
    head = head_of(*HEADS[name])
    with torch.no_grad():  # away from its teacher, where some start with no loss at all
        for parameter in head.denoiser.parameters():
            parameter.mul_(1.1)
    check_chunk_model(head, *batch())


@pytest.mark.parametrize("name", HEADS)
def test_a_chunk_takes_one_call_of_the_network(name):
    head, calls = head_of(*HEADS[name]), []
    head.denoiser.register_forward_hook(lambda *_: calls.append(1))
    head.sample(batch()[0], noise())
    assert len(calls) == 1


@pytest.mark.parametrize("name", HEADS)
def test_learning_leaves_teacher_encoder_and_normaliser_as_they_are(name):
    kind, family = HEADS[name]
    teacher, head = model(family), head_of(kind, family, taught=False)
    with torch.no_grad():
        for parameter in teacher.denoiser.parameters():
            parameter.mul_(1.3)
    head.teach(teacher)
    before = {key: value.clone() for key, value in head.teacher.state_dict().items()}
    outside = copy.deepcopy(teacher.state_dict())
    optimiser = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=0.1)
    obs, target = batch(16)
    head.train()
    for _ in range(2):
        optimiser.zero_grad()
        head.loss(obs, target, noise(16), uniform(16), everywhere(16)).backward()
        optimiser.step()
    assert all(p.grad is None for p in head.teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in head.teacher.state_dict().items())
    assert all(torch.equal(value, outside[key]) for key, value in teacher.state_dict().items())
    for part in ("encoder", "normalizer"):
        for key, value in getattr(head, part).state_dict().items():
            assert torch.equal(value, getattr(teacher, part).state_dict()[key])


@pytest.mark.parametrize("family", ["flow", "edm", "sample", "v"])
def test_a_head_that_predicts_as_its_teacher_starts_as_the_teachers_one_step(family):
    made = functools.partial(lambda spec, stats: model(family, n_steps=1))
    head = OneStepModel(SPEC, STATS, model=made, denoiser=DENOISERS["mlp"])
    assert head.path.prediction == head.inner.path.prediction
    assert head.teach(model(family, n_steps=1))
    obs, _ = batch()
    with torch.no_grad():
        torch.testing.assert_close(head.sample(obs, noise()), model(family, n_steps=1).sample(obs, noise()))


def test_the_head_of_an_epsilon_teacher_predicts_the_sample_and_starts_fresh():
    head = head_of(OneStepModel, "epsilon", taught=False)
    assert head.path.prediction == "sample"
    assert not head.teach(model("epsilon"))
    output = head.denoiser(noise(), torch.full((3,), head.inner.times[0]), head.encode(batch()[0]))
    assert torch.equal(head.predict(head.encode(batch()[0]), noise()), output)


def test_at_the_noisy_end_a_sample_head_is_finite_where_epsilon_would_be_amplified():
    path = model("epsilon").path
    alpha, _ = path.coefficients(99.0)
    assert 1 / alpha == pytest.approx(2029.2, abs=0.1)  # squared cosine, 100 steps
    made = functools.partial(lambda spec, stats: model("epsilon", spacing="trailing"))
    head = OneStepModel(SPEC, STATS, model=made, denoiser=DENOISERS["mlp"])
    assert head.inner.times[0] == 99.0
    assert float(head.predict(head.encode(batch()[0]), noise()).detach().abs().max()) < 10.0
    with pytest.raises(ConfigError, match=r"`prediction` of a one-step head must not be epsilon"):
        head_of(OneStepModel, "epsilon", prediction="epsilon")


def test_distilling_against_a_live_policy_moves_the_head_alone_and_sees_the_policy_move():
    live, head = model("flow"), head_of(OneStepModel, "flow")
    obs, _ = batch()
    loss = distil_loss(head, live, obs, noise())
    loss.backward()
    assert all(p.grad is None for p in live.parameters())
    assert any(p.grad is not None for p in head.denoiser.parameters())
    with torch.no_grad():
        for parameter in live.denoiser.parameters():
            parameter.add_(0.05)
    assert not torch.equal(distil_loss(head, live, obs, noise()), loss)


def test_only_the_rows_that_count_are_compared():
    live, head = model("flow"), head_of(OneStepModel, "flow")
    obs, _ = batch()
    with torch.no_grad():
        apart = torch.square(head.predict(head.encode(obs), noise()) - teacher_chunk(live, obs, noise()))
        torch.testing.assert_close(distil_loss(head, live, obs, noise(), rows=slice(1, 5)), apart[:, 1:5].mean())


def test_a_chain_is_distilled_along_its_noise_free_path():
    inner = functools.partial(lambda spec, stats: model("epsilon", n_steps=4))
    chain = DenoisingChain(SPEC, STATS, model=inner, noise=ChainNoise())
    head = OneStepModel(SPEC, STATS, model=inner, denoiser=DENOISERS["mlp"])
    head.teach(chain)
    obs, _ = batch()
    with torch.no_grad():
        expected = chain.model.sample_normalised(obs, noise())
    assert torch.equal(teacher_chunk(chain, obs, noise()), expected)
    assert torch.equal(teacher_chunk(head.teacher, obs, noise()), expected)


def test_a_teacher_that_adds_noise_is_distilled_without_it():
    noisy, plain, (obs, _) = model("epsilon", sampler="ancestral"), model("epsilon"), batch()
    with torch.no_grad():
        torch.testing.assert_close(
            noise_free_chunk(noisy, noisy.encode(obs), noise()), plain.sample_normalised(obs, noise())
        )


def test_a_head_is_bounded_as_its_teacher_is_but_not_while_it_learns():
    head = head_of(OneStepModel, "epsilon")
    with torch.no_grad():
        for parameter in head.denoiser.parameters():
            parameter.mul_(5.0)
        cond = head.encode(batch()[0])
        assert float(head.predict(cond, noise()).abs().max()) > 1.0
        assert float(chunk_from(head, cond, noise()).abs().max()) == 1.0


def test_a_head_without_a_teacher_says_so():
    head = head_of(OneStepModel, "flow", taught=False)
    with pytest.raises(ConfigError, match=r"OneStepModel has no teacher to learn from; call `teach"):
        head.loss(*batch(), noise(), uniform(3), everywhere(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action_offset": 0}, r"`action_offset` is -1 for the head and 0 for its teacher"),
        ({"action_norm": "mean_std"}, r"`normalizer.scale` differs between head and teacher"),
        ({"n_obs": 1}, r"`n_obs` is 2 for the head and 1 for its teacher"),
        ({"family": "edm"}, r"the head is of a flow path and its teacher of a ve path"),
    ],
)
def test_a_teacher_whose_chunks_mean_something_else_is_refused(settings, message):
    head = head_of(OneStepModel, "flow", taught=False)
    with pytest.raises(ConfigError, match=message):
        head.teach(model(**settings))


def test_a_policy_without_a_denoiser_is_no_teacher():
    head = head_of(OneStepModel, "flow", taught=False)
    with pytest.raises(ConfigError, match=r"distilled from a model that denoises .* got OneStepModel"):
        head.teach(head_of(OneStepModel, "flow"))


def test_copies_of_a_head_share_its_teacher():
    head = head_of(OneStepModel, "flow")
    assert copy.deepcopy(head).teacher is head.teacher
    assert not any(name.startswith("teacher") for name in head.state_dict())
