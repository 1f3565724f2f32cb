"""Learning-rate schedule as a pure function of the step, so that resuming has no schedule state to restore."""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, *, steps: int, warmup_steps: int) -> float:
    """Return the factor on the base learning rate for the update after `step` updates.

    Equal to diffusers' `get_cosine_schedule_with_warmup`: linear from 0 to 1 over `warmup_steps`, then half a cosine
    to 0 at `steps`. As there, the very first update of a warm-up has factor 0.

    Args:
        step: How many updates were made before this one.
        steps: Updates of the whole run.
        warmup_steps: Updates of the linear part.
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
