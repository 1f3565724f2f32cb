"""Every encoder configuration builds a policy that computes a loss on observations of its task's environment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policies.bottleneck import BottleneckEncoder
from robot_rl.cli.config import CONFIG_DIR, build, load_config, plain
from robot_rl.data.normalizer import FieldStats

ENCODERS = {
    "planar": ["task=pusht"],
    "state": ["task=lift"],
    "state_relative": ["task=lift"],
    "rgb": ["task=lift", "+task.env.cameras=[front]", "task.obs=[joint_position,gripper_width,front]",
            "task.crop=[84,84]"],
    "rgb_small": ["task=lift", "+task.env.cameras=[front]", "task.obs=[joint_position,gripper_width,front]"],
    "cloud": ["task=lift_cloud", "task.env.point_cloud.n_points=16"],
    "cloud_bottleneck": ["task=lift_cloud", "task.env.point_cloud.n_points=16"],
}  # fmt: skip


def _stats(low: np.ndarray, high: np.ndarray) -> FieldStats:
    return FieldStats(min=low, max=high, mean=(low + high) / 2, std=(high - low) / 4, q01=low, q99=high, count=10)


def test_every_configuration_is_tried() -> None:
    there = {path.stem for path in (CONFIG_DIR / "encoder").glob("*.yaml")}
    assert set(ENCODERS) == there


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_encoder_builds_and_a_loss_is_finite(encoder: str) -> None:
    overrides = ENCODERS[encoder]
    config = load_config([*overrides, f"encoder={encoder}", "denoiser=mlp", "+denoiser.width=16"])
    env = build(config.task.env)
    try:
        names = plain(config.task.obs)
        tick = env.reset(0)
    finally:
        env.close()
    spec, action = env.spec.select(names), env.spec.action.size
    stats = {n: _stats(tick.obs[n] - 1.0, tick.obs[n] + 1.0) for n in names if not spec.obs[n].is_image}
    ones = np.ones(action)
    stats |= {"action": _stats(-ones, ones), "action_relative": _stats(*(np.tile(s * ones, (16, 1)) for s in (-1, 1)))}
    model = build(config.policy, spec, stats).train()
    obs = {n: torch.from_numpy(np.stack([[tick.obs[n]] * model.n_obs] * 2)) for n in names}
    target = torch.zeros(2, 16, action)
    loss = model.loss(obs, target, torch.randn_like(target), torch.rand(2), torch.ones(2, 16, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss)
    bottlenecks = [part for part in model.modules() if isinstance(part, BottleneckEncoder)]
    assert len(bottlenecks) == (2 if encoder == "cloud_bottleneck" else 0)
    assert all(p.grad is not None for part in bottlenecks for p in part.parameters())
