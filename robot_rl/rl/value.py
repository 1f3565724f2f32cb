"""What a trained critic says of one action at one observation step: for operators and diagrams, not for learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.actions import ActionScaler
from robot_rl.rl.critic import QEnsemble
from robot_rl.values import Obs


def action_value(critic: QEnsemble, scaler: ActionScaler, names: Sequence[str]) -> Callable[[Obs, np.ndarray], float]:
    """Return Q(obs {name: [...]}, physical action [A]), the mean over members.

    Args:
        critic: Of single actions.
        scaler: Between physical actions and the critic's unit.
        names: Observations that its encoder reads.

    Raises:
        ConfigError: A critic of chunks.
    """
    if critic.horizon != 1:
        raise ConfigError(f"the value of one action needs a critic of single actions, this one's are {critic.horizon}")

    @torch.no_grad()
    def value(obs: Obs, action: np.ndarray) -> float:
        device = next(critic.parameters()).device
        rows = {name: torch.as_tensor(np.array(obs[name])[None, None], device=device) for name in names}
        unit = scaler.to_agent(np.asarray(action, np.float32))
        return float(critic.q(rows, torch.as_tensor(unit, device=device)[None, None]).mean())

    return value
