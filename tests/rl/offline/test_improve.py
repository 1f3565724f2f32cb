"""The offline loop: it gains where the critic is right, a gate holds what a wrong actor would lose."""

import dataclasses
import json

import pytest
import torch

from robot_rl.errors import TrainingError
from robot_rl.rl.offline.data import halves
from robot_rl.rl.offline.dynamics_fit import fit_dynamics
from robot_rl.rl.offline.gate import Gate, GateSettings
from robot_rl.rl.offline.improve import Improver, ImproveSettings
from robot_rl.rl.offline.iql import fit_critic
from robot_rl.rl.offline.ope import Rollouts, choose_starts
from robot_rl.rl.offline.policy import OfflinePolicy
from robot_rl.rl.offline.support import Support
from robot_rl.rl.ppo.objective import ChainClip
from tests.rl.offline.small import DYNAMICS, IQL, chain, choices, imitate, true_returns

SETTINGS = ImproveSettings(updates=80, gate_every=10, batch_size=128, lr=1e-3, max_norm=10.0)
GATE = GateSettings(relative=0.02, absolute=0.002, resamples=200, halve_after=3, stop_after=100)


class Flipped(torch.nn.Module):
    """A critic that is wrong about everything."""

    def __init__(self, critic) -> None:
        super().__init__()
        self.critic, self.settings = critic, critic.settings

    def q(self, cond, action):
        return -self.critic.q(cond, action)

    def advantage(self, cond, action):
        return -self.critic.advantage(cond, action)


@pytest.fixture(scope="module")
def parts():
    data = choices(800)
    mine, the_gates = (data.of_episodes(side) for side in halves(data, 0))
    policy = imitate(chain(), data, steps=150)
    dynamics = fit_dynamics(data, DYNAMICS, seed=0)
    return data, dynamics, fit_critic(mine, IQL, seed=1), fit_critic(the_gates, IQL, seed=2), policy


def copied(policy: OfflinePolicy) -> OfflinePolicy:
    made = chain()
    made.load_state_dict(policy.chain.state_dict())
    return OfflinePolicy(made, 1)


def improver(parts, *, gate=GATE, settings=SETTINGS, gate_critic=None, kl=1e9, score="am_q", folder=None):
    data, dynamics, critic, other, base = parts
    policy, judge = copied(base), other if gate_critic is None else gate_critic
    starts = choose_starts(data, 256, seed=0)
    rollouts = Rollouts(starts, dynamics, judge, horizon=1, gamma=0.9, seed=0)
    support = Support(data, starts, dynamics, judge, base, kl=kl)
    log = None if folder is None else folder / "gate.jsonl"
    made = Gate(rollouts, support, dataclasses.replace(gate, score=score), log=log)
    return Improver(
        policy, data, critic, made, settings=settings, clip=ChainClip(epsilon=0.2),
        folder=None if folder is None else folder / "checkpoints",
    )  # fmt: skip


def mean_return(policy, parts):
    return float(true_returns(policy, parts[0]).mean())


def standard_error(policy, parts):
    returns = true_returns(policy, parts[0])
    return float(returns.std() / len(returns) ** 0.5)


def test_the_gated_loop_earns_more_than_imitation(parts):
    run = improver(parts)
    assert run.run() == "finished"
    accepted = [d for d in run.gate.decisions if d.accepted]
    assert accepted
    base = parts[-1]
    assert mean_return(run.policy, parts) > mean_return(base, parts) + 5 * standard_error(base, parts)


def test_a_wrong_actor_is_held_at_imitation_by_a_right_gate_and_falls_without_one(parts):
    base, wrong = parts[-1], dataclasses.replace(SETTINGS, advantage_sign=-1)
    held = improver(parts, settings=wrong)
    held.run()
    assert not any(d.accepted for d in held.gate.decisions)
    assert abs(mean_return(held.policy, parts) - mean_return(base, parts)) <= standard_error(base, parts)
    free = improver(parts, settings=wrong, gate=dataclasses.replace(GATE, rule="off"))
    free.run()
    assert mean_return(free.policy, parts) < mean_return(base, parts) - 5 * standard_error(base, parts)


def test_a_gate_that_shares_the_actors_error_is_fooled_and_the_support_checks_stop_it(parts):
    base, wrong = parts[-1], dataclasses.replace(SETTINGS, advantage_sign=-1, updates=150)
    flipped = Flipped(parts[2])
    fooled = improver(parts, settings=wrong, gate=dataclasses.replace(GATE, rule="strict"), gate_critic=flipped)
    fooled.run()
    assert any(d.accepted for d in fooled.gate.decisions), "the score alone accepts what makes it worse"
    assert mean_return(fooled.policy, parts) < mean_return(base, parts) - 5 * standard_error(base, parts)
    checked = improver(parts, settings=wrong, gate_critic=flipped)
    checked.run()
    stopped = [d for d in checked.gate.decisions if set(d.reasons) & {"action_distance", "model_disagreement"}]
    assert stopped, "it is accepted until it acts where there are no data"
    assert mean_return(checked.policy, parts) > mean_return(fooled.policy, parts)


def test_every_few_rejections_halve_the_learning_rate_and_enough_of_them_end_the_stage(parts):
    wrong = dataclasses.replace(SETTINGS, advantage_sign=-1)
    run = improver(parts, settings=wrong, gate=dataclasses.replace(GATE, halve_after=3, stop_after=6))
    assert run.run() == "stopped"
    assert run.updates == 6 * SETTINGS.gate_every
    assert run.lr == SETTINGS.lr / 4
    assert all(
        torch.equal(a, b)
        for a, b in zip(run.policy.chain.state_dict().values(), parts[-1].chain.state_dict().values(), strict=True)
    )


def test_advantages_that_are_not_numbers_leave_the_incumbent_and_say_why(parts):
    data, dynamics, _, other, base = parts
    broken = fit_critic(data, dataclasses.replace(IQL, steps=1), seed=0)
    run = improver((data, dynamics, broken, other, base))

    def break_it(updates, _):
        if updates == 3:
            broken.value.layers[-1].bias.fill_(torch.nan)

    with pytest.raises(TrainingError, match="advantages are not finite"):
        run.run(on_update=break_it)
    for name, value in base.chain.state_dict().items():
        assert torch.equal(run.policy.chain.state_dict()[name], value), name


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(parts, tmp_path):
    short = dataclasses.replace(SETTINGS, updates=40)

    def die(updates, _):
        if updates == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        improver(parts, settings=short, folder=tmp_path).run(on_update=die)
    again = improver(parts, settings=short, folder=tmp_path)
    assert again.updates == 20
    again.run()
    whole = improver(parts, settings=short)
    whole.run()
    assert [d.to_dict() for d in whole.gate.decisions] == [
        json.loads(line) for line in (tmp_path / "gate.jsonl").read_text().splitlines()
    ]
    for name, value in whole.policy.chain.state_dict().items():
        assert torch.equal(again.policy.chain.state_dict()[name], value), name


def test_the_first_step_after_an_accept_has_ratio_one_and_no_divergence(parts):
    values = improver(parts).update()
    assert values["policy/ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert values["policy/kl"] == pytest.approx(0.0, abs=1e-8)
    assert values["policy/clip_fraction"] == 0.0


def test_a_pull_to_imitation_keeps_a_policy_nearer(parts):
    moved = []
    for weight in (0.0, 3.0):
        settings = dataclasses.replace(SETTINGS, updates=60, gate_every=30, imitation=weight)
        run = improver(parts, settings=settings, gate=dataclasses.replace(GATE, rule="off"))
        run.run()
        pairs = zip(run.policy.chain.denoiser.parameters(), parts[-1].chain.denoiser.parameters(), strict=True)
        moved.append(sum(float((a - b).detach().square().sum()) for a, b in pairs))
    assert moved[1] < moved[0]
