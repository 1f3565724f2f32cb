"""HIL-SERL's learner: soft actor-critic for the arm, a Q-network for the gripper (Luo et al. 2024, arXiv 2410.21845).

Interventions need nothing here: a person's action is what is stored, in the policy's own frame, its reward unchanged,
and the step is in both pools (`robot_rl.rl.feed`). Departures: an episode that was cut off is bootstrapped; the number
of updates a step is bounded (`robot_rl.rl.pace`); the gripper's network reads the critic's features and does not train
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robot_rl.interfaces import Policy
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.algorithm import features_of, return_noise, standard_normal
from robot_rl.rl.critic import QEnsemble, ValueHead, polyak_
from robot_rl.rl.feed import Batch
from robot_rl.rl.gripper import GripperChoice, GripperCritic, GripperPenalty, Opening, chosen, double_q_target
from robot_rl.rl.optimise import step
from robot_rl.rl.sac import GaussianActor, SacAgent, SacBatch, SacSettings
from robot_rl.rl.steps import StepModule
from robot_rl.values import Episode, Obs

GRASP_PENALTY = "grasp_penalty"
"""Name of the extra."""


class ArmAndGripper(nn.Module):
    """A Gaussian over the arm's elements and the best command of the grippers, as one action.

    Args:
        arm: Of the other elements.
        gripper: Values of the grippers' commands.
        choice: The grippers.
        action_dim: A.
    """

    commands: Tensor

    def __init__(self, arm: GaussianActor, gripper: GripperCritic, choice: GripperChoice, action_dim: int) -> None:
        super().__init__()
        self.arm, self.gripper = arm, gripper
        self.grippers = list(choice.places(action_dim))
        self.rest = [i for i in range(action_dim) if i not in self.grippers]
        commands = torch.tensor(choice.commands_of(np.arange(choice.n_classes)), dtype=torch.float32)
        self.register_buffer("commands", commands, persistent=False)  # [K, G]

    def choose(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions [B, A]; standard normal `noise` [B, A] explores with the arm, the grippers stay greedy."""
        arm = self.arm.choose(features, None if noise is None else noise[:, self.rest])
        action = arm.new_zeros(len(arm), len(self.rest) + len(self.grippers))
        action[:, self.rest] = arm
        action[:, self.grippers] = self.commands[self.gripper(features).argmax(1)]
        return action


class HilStep(StepModule):
    """The step policy of arm and gripper; no base is needed."""

    actor: ArmAndGripper

    def warm_up(self, obs: Obs, base_action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a uniform action over the demonstrated range, the grippers at one of their levels."""
        action = rng.uniform(-1, 1, len(self.scaler.half)).astype(np.float32)
        commands = self.actor.commands
        action[self.actor.grippers] = commands[int(rng.integers(len(commands)))].cpu().numpy()
        return np.asarray(self.scaler.to_physical(action))

    @torch.no_grad()
    def _choose(self, obs: Obs, base_action: np.ndarray, noise: Tensor | None) -> Tensor:
        features = self._features(obs)
        return self.actor.choose(features, None if noise is None else noise.to(features.device))


class HilAgent(nn.Module):
    """The arm's agent and the grippers' network with its target.

    Args:
        arm: Soft actor-critic over the elements that are no gripper.
        gripper: Values of the grippers' commands.
    """

    def __init__(self, arm: SacAgent, gripper: GripperCritic) -> None:
        super().__init__()
        self.arm, self.gripper = arm, gripper
        self.target_gripper = deepcopy(gripper).requires_grad_(False)
        self.gripper_optimiser = torch.optim.Adam(gripper.parameters(), lr=arm.settings.lr, fused=True)

    def update_gripper(self, batch: SacBatch, joint: Tensor, penalty: Tensor) -> dict[str, float]:
        """Take one step of the grippers' network, move its target, and return what to log.

        Args:
            batch: Transitions.
            joint: Joint class of the command that was given, int64 [B].
            penalty: What it cost, [B], 0 or negative; added to the reward here alone.

        Raises:
            TrainingError: The loss is not finite; nothing was changed.
        """
        encoder, settings = self.arm.critic.encoder, self.arm.settings
        with torch.no_grad():
            features, following = encoder(batch.obs), encoder(batch.next_obs)
            target = double_q_target(
                batch.reward + penalty, batch.bootstrap, self.gripper(following), self.target_gripper(following)
            )
        loss = functional.mse_loss(chosen(self.gripper(features), joint), target)
        norm = settings.max_grad_norm
        value = step(self.gripper_optimiser, loss, self.gripper.parameters(), what="gripper's critic", max_norm=norm)
        polyak_(self.target_gripper.parameters(), self.gripper.parameters(), settings.tau)
        return {"gripper/loss": value, "gripper/penalised": float((penalty < 0).float().mean())}


class HilAlgorithm:
    """HIL-SERL: the arm by soft actor-critic, the grippers by choice.

    The penalty of a segment is that of its first step; `n_step=1`, the paper's, makes it exact.

    Args:
        encoder: Maps obs {name: [B, 1, ...]} to features [B, out_dim].
        scaler: Between physical actions and the agent's unit.
        names: Observations that the encoder reads.
        settings: How the arm learns.
        gripper: The grippers.
        openings: As of `GripperPenalty`.
        penalty: As of `GripperPenalty`.
        n_members: Critics of the arm.
        hidden: Widths of all hidden layers.
        head: What the arm's critics put out, as of `QEnsemble`.
    """

    driver: Policy | None = None
    horizon = 1

    def __init__(
        self,
        encoder: nn.Module,
        scaler: ActionScaler,
        names: Sequence[str],
        *,
        settings: SacSettings,
        gripper: GripperChoice,
        openings: Sequence[Opening] = (),
        penalty: float = 0.02,
        n_members: int = 2,
        hidden: Sequence[int] = (256, 256),
        head: Callable[[int], ValueHead] | None = None,
    ) -> None:
        a, c = len(scaler.half), features_of(encoder)
        arm_dim = a - len(gripper.places(a))
        critic = QEnsemble(encoder, n_features=c, action_dim=arm_dim, n_members=n_members, hidden=hidden, head=head)
        arm = SacAgent(critic, GaussianActor(c, arm_dim, hidden=hidden, layer_norm=True), settings)
        self._agent = HilAgent(arm, GripperCritic(c, gripper.n_classes, hidden=hidden))
        self.agent: nn.Module = self._agent
        actor = ArmAndGripper(arm.actor, self._agent.gripper, gripper, a)
        self.policy: nn.Module = HilStep(encoder, actor, scaler, names)
        self.streams: Mapping[str, Sequence[int]] = {GRASP_PENALTY: ()}
        self.bounds = settings.bounds
        self.prepare: Callable[[Episode], Episode] | None = self._with_penalty
        self._penalty = GripperPenalty(gripper, scaler, openings=openings, penalty=penalty)
        self._scaler, self._gripper, self._actor = scaler, gripper, actor

    def _with_penalty(self, episode: Episode) -> Episode:
        penalty = self._penalty(episode).astype(np.float32)
        return replace(episode, extras={**episode.extras, GRASP_PENALTY: penalty})

    def update(self, batch: Batch, generator: torch.Generator, *, actor: bool) -> dict[str, float]:
        """Take a critic step; and steps of gripper, actor and temperature if asked."""
        action = self._scaler.to_agent(batch.action[:, 0])
        data = SacBatch(batch.obs, action[:, self._actor.rest], batch.reward, batch.bootstrap, batch.next_obs)
        arm = self._agent.arm
        values = arm.update_critic(
            data, standard_normal(data.action, generator), return_noise(arm.critic, data.reward, generator)
        )
        if actor:
            level = self._gripper.level_of(action[:, self._actor.grippers].cpu().numpy())
            joint = torch.from_numpy(self._gripper.class_of(level)).to(data.reward.device)
            values |= self._agent.update_gripper(data, joint, batch.extras[GRASP_PENALTY])
            values |= arm.update_actor(data, standard_normal(data.action, generator))
        return values

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        arm = self._agent.arm
        return {
            "critic": arm.critic_optimiser,
            "actor": arm.actor_optimiser,
            "gripper": self._agent.gripper_optimiser,
        }
