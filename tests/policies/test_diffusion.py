"""The diffusion policy against diffusers' own sampler, with the same network and noise."""

import pytest
import torch

from tests.contracts.chunk_model import draws
from tests.policies.helpers import batch, model


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_sampling_is_ddim(prediction):
    from diffusers import DDIMScheduler

    net = model(prediction).double().eval()
    obs, _ = batch()
    obs = {name: value.double() for name, value in obs.items()}
    noise = draws(net, 3)[0].double()
    theirs = DDIMScheduler(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True,
        prediction_type="v_prediction" if prediction == "v" else prediction,
    )  # fmt: skip
    theirs.set_timesteps(10)
    with torch.no_grad():
        net.encoder.float()  # low-dimensional fields are read as float32, as they are stored
        cond = net.encode(obs).double()
        x = noise
        for k in theirs.timesteps.tolist():
            output = net.denoise(x, torch.full((3,), float(k), dtype=torch.float64), cond)
            x = theirs.step(output, k, x, use_clipped_model_output=True).prev_sample
        net.encode = lambda obs: cond
        torch.testing.assert_close(net.sample_normalised(obs, noise), x, rtol=0, atol=2e-5)


def test_every_step_of_the_schedule_is_trained_alike():
    law = model("epsilon").time_law
    k = law(torch.linspace(0, 1 - 1e-7, 1000))
    assert torch.bincount(k.long(), minlength=100).min() >= 9
    assert (float(k.min()), float(k.max())) == (0.0, 99.0)
    assert float(law(torch.tensor([1 - 2**-24]))) == 99.0
