"""Grippers as choices: known answers (specs, off-policy: rows 42-44, 50), and a network that learns to choose."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl.data.memory import MemorySink
from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import Algorithm
from robot_rl.rl.feed import Batch, ReplayFeed
from robot_rl.rl.gripper import GripperChoice, GripperPenalty, Opening, double_q_target
from robot_rl.rl.hil import GRASP_PENALTY, HilAlgorithm
from robot_rl.rl.replay import added, recorded_reward
from robot_rl.rl.runner import runner_extras
from robot_rl.rl.sac import SacSettings
from robot_rl.rl.sampling import SymmetricSampler
from tests.contracts.step_policy import check_step_policy
from tests.rl.reach import SPEC, Newest, Reach, make_actor, residual

TERNARY = GripperChoice((-1,))
UNIT = ActionScaler(np.zeros(2), np.ones(2))


@pytest.fixture
def episode(tmp_path):
    sink = MemorySink(SPEC, extra=runner_extras(SPEC))
    played = make_actor(tmp_path, sink, residual(), env=Reach(success=0.0)).episode()
    return sink.episode(played.id)


def commanded(episode, gripper, **obs):
    action = np.stack([np.zeros(5), gripper], axis=1).astype(np.float32)
    return replace(episode, action=action, obs={**episode.obs, **obs})


def test_the_choosing_network_chooses_and_the_target_network_judges():
    y = double_q_target(
        torch.tensor([0.5 - 0.02]), torch.tensor([0.98]), torch.tensor([[1.0, 3.0, 2.0]]),
        torch.tensor([[10.0, 4.0, 7.0]]),
    )  # fmt: skip
    assert y.item() == pytest.approx(4.40)


def test_a_number_means_the_nearest_command_and_the_middle_means_hold():
    assert TERNARY.level_of([-0.9, -0.5, -0.49, 0, 0.49, 0.5, 0.9]).tolist() == [0, 1, 1, 1, 1, 1, 2]
    assert GripperChoice((7,), (-0.9, 0.9)).level_of([-2, -0.1, 0.1, 2]).tolist() == [0, 0, 1, 1]


def test_two_grippers_have_nine_joint_commands_that_round_trip():
    both = GripperChoice((6, 13))
    assert both.n_classes == 9
    joint = np.arange(9)
    levels = both.levels_of(joint)
    assert levels[5].tolist() == [1, 2], "3 left + right"
    assert both.class_of(levels).tolist() == joint.tolist()
    assert both.commands_of(np.array(7)).tolist() == [1.0, 0.0]


def test_a_change_of_the_grippers_state_costs_by_what_was_seen(episode):
    opening = np.array([1, 1, 0.2, 0.2, 1])[:, None] * 0.08
    told = commanded(episode, [-1, 0, -1, 1, 0], width=opening.astype(np.float32))
    penalty = GripperPenalty(TERNARY, UNIT, openings=[Opening("width", closed=0.0, open=0.08)])
    assert penalty(told).tolist() == pytest.approx([-0.02, 0, 0, -0.02, 0])
    with pytest.raises(SpecError, match="`width`, which episode"):
        penalty(commanded(episode, np.zeros(5)))


def test_without_an_observation_a_change_of_the_command_costs_once(episode):
    penalty = GripperPenalty(GripperChoice((1,), (-0.9, 0.9)), UNIT, penalty=0.05)
    told = commanded(episode, [0.9, 0.9, -0.9, -0.9, 0.8])
    assert penalty(told).tolist() == pytest.approx([0, 0, -0.05, 0, -0.05])


def test_the_penalty_can_be_added_to_any_reward(episode):
    penalty = GripperPenalty(GripperChoice((1,), (-0.9, 0.9)), UNIT, penalty=0.05)
    told = replace(commanded(episode, [0.9, 0.9, -0.9, -0.9, 0.8]), reward=np.array([0, 0, 0, 0, 1.0]))
    assert added(recorded_reward, penalty)(told).tolist() == pytest.approx([0, 0, -0.05, 0, 0.95])


def test_what_cannot_be_a_gripper_is_refused():
    with pytest.raises(ConfigError, match="two or more rising `levels`"):
        GripperChoice((0,), (1.0, -1.0))
    with pytest.raises(ConfigError, match=r"distinct places in an action of 2, got \(5,\)"):
        GripperChoice((5,)).places(2)
    with pytest.raises(ConfigError, match="one for each of 1 grippers, got 2"):
        GripperPenalty(TERNARY, UNIT, openings=[Opening("a", 0, 1)] * 2)


def hil(**more):
    torch.manual_seed(0)
    settings = SacSettings(lr=3e-3, temperature=0.01, bounds=(-1.0, 1.0))
    gripper = GripperChoice((1,), (-0.9, 0.9))
    return HilAlgorithm(Newest(), UNIT, ["x"], settings=settings, gripper=gripper, hidden=(32, 32), **more)


def test_its_step_policy_moves_the_arm_freely_and_the_gripper_by_levels():
    policy = hil().policy
    obs = {"x": np.array([0.3], np.float32)}
    check_step_policy(policy, replace(SPEC.action, shape=(2,), low=-2.0, high=2.0), obs, np.zeros(2, np.float32))
    rng = np.random.default_rng(0)
    explored = np.stack([policy.explore(obs, np.zeros(2), rng) for _ in range(20)])
    assert len(np.unique(explored[:, 0])) == 20
    assert len(np.unique(explored[:, 1])) == 1, "the gripper is greedy"
    warm = np.stack([policy.warm_up(obs, np.zeros(2), rng) for _ in range(40)])
    assert np.unique(warm[:, 1]) == pytest.approx([-0.9, 0.9])


def test_the_penalty_is_worked_out_for_the_replay_and_reaches_the_gripper_alone(episode):
    algorithm = hil(penalty=0.5)
    assert isinstance(algorithm, Algorithm)
    prepared = algorithm.prepare(commanded(episode, [0.9, -0.9, -0.9, 0.9, 0.9]))
    assert prepared.extras[GRASP_PENALTY].tolist() == [0, -0.5, 0, -0.5, 0]
    assert prepared.reward.tolist() == episode.reward.tolist()


@pytest.mark.slow
def test_it_learns_to_open_where_that_pays_more_than_it_costs():
    algorithm, generator = hil(), torch.Generator().manual_seed(0)
    feed = _Tasks()
    for _ in range(400):
        values = algorithm.update(feed.sample(generator), generator, actor=True)
    assert {"gripper/loss", "critic/loss", "actor/entropy"} <= set(values)
    act = [algorithm.policy.act({"x": np.array([x], np.float32)}, np.zeros(2)) for x in (0.1, -0.1)]
    assert [a[1] for a in act] == pytest.approx([0.9, -0.9])


class _Tasks:
    def sample(self, generator):
        x = torch.rand(256, 1, 1, generator=generator) * 0.4 - 0.2
        opens = torch.rand(256, generator=generator) < 0.5
        action = torch.stack([torch.rand(256, generator=generator) * 2 - 1, torch.where(opens, 0.9, -0.9)], dim=1)
        reward = torch.where(opens & (x[:, 0, 0] > 0), 0.3, 0.0)
        cost = torch.where(opens, -0.1, 0.0)
        none = torch.zeros(256)
        return Batch(
            {"x": x}, action[:, None], torch.ones(256, 1, dtype=torch.bool), reward, none, {"x": x},
            {GRASP_PENALTY: cost}, {GRASP_PENALTY: cost}, {},
        )  # fmt: skip


def test_human_steps_are_in_both_pools_with_their_own_action_and_reward(episode):
    human = np.array([False, True, True, False, False])
    told = replace(commanded(episode, [0.9, -0.9, -0.9, 0.9, 0.9]), by_human=human)
    wide = replace(SPEC, action=replace(SPEC.action, shape=(2,)))
    algorithm = hil()
    feed = ReplayFeed(
        wide, SymmetricSampler(8, 0.5), n_step=1, gamma=0.97, streams=algorithm.streams, prepare=algorithm.prepare
    )
    assert feed.add(told) == 5
    assert len(feed.demonstrations) == 2
    shown = feed.demonstrations.gather(np.arange(2))
    assert shown.action[:, 0].tolist() == told.action[1:3].tolist()
    assert shown.reward.tolist() == told.reward[1:3].tolist()
    assert shown.extras[GRASP_PENALTY].tolist() == pytest.approx([-0.02, 0.0])
