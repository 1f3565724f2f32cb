"""A checkpoint opened by us gives the actions that LeRobot gives, on the same observations and the same noise."""

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot is not installed here; `make test-lerobot` runs this where it is")

from policies.lerobot_checkpoint import load_lerobot_policy
from tests.lerobot.small_policies import IDENTITY, features, save

TOLERANCE = 1e-5
BATCH = 3


def draw(policy, n_obs, seed=0):
    """Return random observations as a robot gives them, {name: [B, O, ...]}."""
    rng = np.random.default_rng(seed)
    obs = {}
    for name, feature in policy.config.input_features.items():
        if name.startswith("observation.images"):
            obs[name] = rng.integers(0, 256, (BATCH, n_obs, *feature.shape[1:], 3), dtype=np.uint8)
        else:
            obs[name] = rng.standard_normal((BATCH, n_obs, *feature.shape), dtype=np.float32) * 0.5
    return obs


def as_lerobot_has_it(obs):
    """Return observations as LeRobot's data loader gives them: pictures [0, 1], channels first."""
    batch = {}
    for name, value in obs.items():
        tensor = torch.from_numpy(value)
        batch[name] = tensor.movedim(-1, -3).float() / 255 if tensor.dtype == torch.uint8 else tensor
    return batch


def theirs_diffusion(policy, before, after, obs, noise):
    batch = before(as_lerobot_has_it(obs))
    cameras = [name for name in policy.config.image_features]
    if cameras:
        batch["observation.images"] = torch.stack([batch[name] for name in cameras], dim=-4)
    with torch.no_grad():
        cond = policy.diffusion._prepare_global_conditioning(batch)
        actions = policy.diffusion.conditional_sample(len(cond), global_cond=cond, noise=noise)
    return after(actions)


DIFFUSION = {
    "state and environment": dict(inputs=features(0, (0, 0), state=True, env=True)),
    "group norm": dict(inputs=features(1, (96, 96), state=True, env=False), use_group_norm=True, crop_shape=(84, 84)),
    "batch norm, two cameras": dict(
        inputs=features(2, (64, 96), state=True, env=True), use_separate_rgb_encoder_per_camera=True
    ),
    "cameras share, odd crop": dict(
        inputs=features(2, (97, 99), state=True, env=False), use_group_norm=True, crop_shape=(84, 76),
        use_separate_rgb_encoder_per_camera=False,
    ),
    "resize": dict(inputs=features(1, (120, 100), state=True, env=False), resize_shape=(80, 72), crop_ratio=0.9),
    "pictures as they are": dict(
        inputs=features(1, (64, 64), state=True, env=False), normalization_mapping=IDENTITY
    ),
    "other settings": dict(
        inputs=features(0, (0, 0), state=True, env=True), n_obs_steps=3, prediction_type="sample",
        beta_schedule="linear", use_film_scale_modulation=False, n_groups=4, kernel_size=3, clip_sample_range=0.8,
    ),
    "no clipping": dict(inputs=features(0, (0, 0), state=True, env=True), clip_sample=False),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_diffusion_policy_gives_what_lerobot_gives_by_ddim(name, tmp_path):
    settings = {"horizon": 16, "num_inference_steps": 5, "noise_scheduler_type": "DDIM", **DIFFUSION[name]}
    policy, before, after = save("diffusion", tmp_path, **settings)
    ours = load_lerobot_policy(tmp_path, control_hz=10.0)
    obs = draw(policy, ours.model.n_obs)
    noise = torch.randn(BATCH, 16, 4, generator=torch.Generator().manual_seed(3))
    expected = theirs_diffusion(policy, before, after, obs, noise)
    with torch.no_grad():
        got = ours.model.sample({n: torch.from_numpy(v) for n, v in obs.items()}, noise)
    assert (got - expected).abs().max() < TOLERANCE


def test_a_diffusion_policy_gives_what_lerobot_gives_by_ddpm_with_the_same_fresh_noise(tmp_path):
    policy, before, after = save(
        "diffusion", tmp_path, inputs=features(0, (0, 0), state=True, env=True), horizon=16, num_train_timesteps=20
    )
    ours = load_lerobot_policy(tmp_path, control_hz=10.0)
    assert ours.model.noise_shape == (16 * 20, 4)
    obs, first = draw(policy, 2), torch.randn(BATCH, 16, 4, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    fresh = [torch.randn(BATCH, 16, 4) for _ in range(19)]
    torch.manual_seed(4)
    expected = theirs_diffusion(policy, before, after, obs, first)
    with torch.no_grad():
        got = ours.model.sample({n: torch.from_numpy(v) for n, v in obs.items()}, torch.cat([first, *fresh], dim=1))
    assert (got - expected).abs().max() < TOLERANCE


ACT = {
    "state and environment": dict(inputs=features(0, (0, 0), state=True, env=True)),
    "two cameras": dict(inputs=features(2, (96, 128), state=True, env=False)),
    "a camera and the environment": dict(inputs=features(1, (80, 72), state=True, env=True)),
    "norm first, gelu, no latent": dict(
        inputs=features(1, (64, 64), state=True, env=True), pre_norm=True, feedforward_activation="gelu", use_vae=False
    ),
}


@pytest.mark.parametrize("name", ACT)
def test_an_act_policy_gives_what_lerobot_gives(name, tmp_path):
    policy, before, after = save("act", tmp_path, chunk_size=12, n_action_steps=8, **ACT[name])
    ours = load_lerobot_policy(tmp_path, control_hz=10.0)
    assert (ours.model.horizon, ours.n_execute) == (12, 8)
    obs = draw(policy, 1)
    with torch.no_grad():
        expected = after(policy.predict_action_chunk(before(as_lerobot_has_it({n: v[:, 0] for n, v in obs.items()}))))
        got = ours.model.sample({n: torch.from_numpy(v) for n, v in obs.items()}, torch.zeros(BATCH, 12, 4))
    assert (got - expected).abs().max() < TOLERANCE
