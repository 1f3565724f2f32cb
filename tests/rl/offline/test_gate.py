"""The gate: its arithmetic, that nothing passes against itself, and that a rejection leaves no trace."""

import dataclasses
from pathlib import Path

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.offline.dynamics_fit import fit_dynamics
from robot_rl.rl.offline.gate import Gate, GateSettings, Incumbent, read_log, worst_member
from robot_rl.rl.offline.iql import fit_critic
from robot_rl.rl.offline.ope import Rollouts, Scores, choose_starts
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.rl.offline.support import Check, Support
from tests.rl.offline.small import DYNAMICS, IQL, chain, choices, imitate


@pytest.fixture(scope="module")
def parts():
    data = choices(800)
    dynamics = fit_dynamics(data, DYNAMICS, seed=0)
    return data, dynamics, fit_critic(data, IQL, seed=1), imitate(chain(), data, steps=150)


def make(parts, *, seed=0, **settings):
    data, dynamics, critic, policy = parts
    starts = choose_starts(data, 128, seed=seed)
    rollouts = Rollouts(starts, dynamics, critic, horizon=1, gamma=0.9, seed=seed)
    support = Support(data, starts, dynamics, critic, policy, kl=1e9, seed=seed)
    return Gate(rollouts, support, GateSettings(**settings))


def shifted(policy: OfflinePolicy, by: float) -> OfflinePolicy:
    """Return the policy with all that the network puts out moved: actions move by `by` over a chain."""
    moved = chain()
    moved.load_state_dict(policy.chain.state_dict())
    with torch.no_grad():
        moved.denoiser.out.bias -= by
    return OfflinePolicy(moved, 1)


@pytest.mark.parametrize(("new", "accepted"), [(10.5, True), (10.6, True), (10.3, False), (10.0, False)])
def test_a_twentieth_better_is_enough_and_less_is_not(new, accepted):
    assert (new - 10 >= GateSettings().margin(10.0)) == accepted


def test_a_score_of_nought_needs_the_absolute_margin_and_noise_two_standard_errors():
    settings = GateSettings(absolute=0.02)
    assert settings.margin(0.0) == 0.02
    assert settings.margin(0.0, se=0.05) == 0.1
    assert settings.margin(-10.0) == 0.5
    with pytest.raises(ConfigError, match="need `absolute` > 0"):
        GateSettings(absolute=0.0)


def test_a_policy_never_passes_against_itself(parts):
    *_, policy = parts
    decisions = [make(parts, seed=seed).judge(policy, policy, update=0) for seed in range(100)]
    assert not any(d.accepted for d in decisions)
    assert {d.difference.mean for d in decisions} == {0.0}
    assert {d.reasons for d in decisions} == {("lower bound below margin",)}, "it passes every support check"


def test_a_better_policy_is_accepted_and_a_worse_one_rejected_by_every_score(parts):
    *_, policy = parts
    for score in ("value", "am_q"):
        better = make(parts, score=score).judge(shifted(policy, 0.1), policy, update=0)
        assert better.accepted, better
        assert better.worst_member > 0
        worse = make(parts, score=score).judge(shifted(policy, -0.2), policy, update=0)
        assert not worse.accepted
        assert worse.j_new < worse.j_old


def test_the_strict_rule_takes_any_gain_and_none_for_the_same_and_off_takes_everything(parts):
    *_, policy = parts
    tiny, worse = shifted(policy, 0.002), shifted(policy, -0.2)
    assert not make(parts).judge(tiny, policy, update=0).accepted
    assert make(parts, rule="strict").judge(tiny, policy, update=0).accepted
    assert not make(parts, rule="strict").judge(policy, policy, update=0).accepted
    assert make(parts, rule="off").judge(worse, policy, update=0).accepted


def test_a_policy_that_leaves_the_data_or_moves_too_far_at_once_is_rejected_whatever_it_scores(parts):
    data, dynamics, critic, policy = parts
    gate = make(parts, relative=0.0, absolute=1e-9)
    far = gate.judge(shifted(policy, 6.0), policy, update=0)
    assert "action_distance" in far.reasons
    strict = Support(data, gate.rollouts.starts, dynamics, critic, policy, kl=0.02)
    checks = strict.checks(shifted(policy, 0.2), policy)
    assert not checks["kl"].passed
    assert checks["action_distance"].passed
    assert strict.checks(policy, policy)["kl"].value == 0.0


def test_a_check_that_is_not_a_number_fails():
    assert not Check(float("nan"), 1.0).passed
    assert Check(1.0, 1.0).passed


def test_one_member_that_sees_a_loss_is_told():
    old = Scores(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([0, 0, 3, 3]))
    value = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -1.5]])
    assert worst_member(old, Scores(value, value, old.member), "value") == -0.25


def test_without_calibration_the_gate_says_so_and_judges_nothing(parts):
    data, dynamics, critic, policy = parts
    rollouts = make(parts).rollouts
    before = {name: value.clone() for name, value in policy.chain.state_dict().items()}
    with pytest.raises(ConfigError, match="the gate has no calibration data"):
        Gate(rollouts, None, GateSettings())
    one = data.of_episodes(torch.tensor([0]))
    with pytest.raises(ConfigError, match="the gate has no calibration data: 2 starts and 1 episodes"):
        Support(one, one, dynamics, critic, policy)
    assert all(torch.equal(before[name], value) for name, value in policy.chain.state_dict().items())


def test_a_rejection_restores_weights_and_optimiser_bit_by_bit(parts):
    *_, policy = parts
    model = shifted(policy, 0.0).chain
    optimiser = torch.optim.AdamW(model.denoiser.parameters(), lr=1e-2)

    def learn(n):
        for _ in range(n):
            optimiser.zero_grad()
            loss = model.denoiser(torch.ones(4, 1, 1), torch.ones(4), torch.ones(4, 1)).square().sum()
            loss.backward()
            optimiser.step()

    learn(3)
    incumbent = Incumbent(model, optimiser)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = {i: {k: v.clone() for k, v in s.items()} for i, s in optimiser.state_dict()["state"].items()}
    learn(5)
    assert not all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    for _ in range(2):  # going back twice is going back once
        incumbent.revert()
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
        found = optimiser.state_dict()["state"]
        assert all(torch.equal(state[i][k], found[i][k]) for i in state for k in state[i])
        learn(2)


def test_the_log_tells_every_decision_and_forgets_those_of_after_a_checkpoint(parts, tmp_path):
    *_, policy = parts
    gate = make(parts)
    logged = Gate(gate.rollouts, gate.support, dataclasses.replace(gate.settings), log=tmp_path / "gate.jsonl")
    for update in (50, 100):
        logged.judge(policy, policy, update=update)
    lines = read_log(tmp_path / "gate.jsonl")
    assert [line["update"] for line in lines] == [50, 100]
    assert set(lines[0]["support"]) == {"kl", "action_distance", "critic_std", "model_disagreement"}
    assert lines[0]["difference"]["mean"] == 0.0
    assert lines[0]["scores"]["value_old"] == lines[0]["scores"]["value_new"]
    logged.go_on_after(50)
    assert [line["update"] for line in read_log(tmp_path / "gate.jsonl")] == [50]


def test_a_log_that_needs_no_change_is_not_written_anew(parts, tmp_path):
    *_, policy = parts
    path, gate = tmp_path / "gate.jsonl", make(parts)
    logged = Gate(gate.rollouts, gate.support, gate.settings, log=path)
    logged.go_on_after(0)
    assert not path.exists()
    logged.judge(policy, policy, update=50)
    before = path.stat()
    logged.go_on_after(50)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_log_that_cannot_be_replaced_keeps_all_its_lines(parts, tmp_path, monkeypatch):
    *_, policy = parts
    path, gate = tmp_path / "gate.jsonl", make(parts)
    logged = Gate(gate.rollouts, gate.support, gate.settings, log=path)
    for update in (50, 100):
        logged.judge(policy, policy, update=update)

    def killed(part, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        logged.go_on_after(50)
    assert [line["update"] for line in read_log(path)] == [50, 100]
