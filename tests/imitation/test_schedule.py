"""Learning-rate schedule against closed form and diffusers."""

import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup

from robot_rl.imitation.schedule import cosine_with_warmup


def test_values_at_the_corners():
    values = [cosine_with_warmup(s, steps=110, warmup_steps=10) for s in (0, 5, 10, 60, 110)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


@pytest.mark.parametrize(("steps", "warmup"), [(40, 7), (40, 0), (5, 4)])
def test_equals_diffusers_at_every_step(steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(steps):
        assert theirs.get_last_lr()[0] == pytest.approx(
            2.0 * cosine_with_warmup(step, steps=steps, warmup_steps=warmup), abs=1e-12
        )
        optimizer.step()
        theirs.step()
