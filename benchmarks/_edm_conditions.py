"""What `benchmarks.edm_sampling` trains, and the ways in which it samples what was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks._pusht_arms import Arm

ARMS = {
    "edm": Arm("edm", ("policy=edm",)),
    "diffusion": Arm("diffusion", ("policy=diffusion",)),
    "flow": Arm("flow", ("policy=flow",)),
}
STEPS = (1, 2, 3, 5, 10)
BUDGETS = (3, 5)
"""Network evaluations at which samplers are compared; Heun's n steps take 2 n - 1."""


@dataclass(frozen=True)
class Condition:
    """One way to sample one arm.

    Args:
        arm: Key of `ARMS`.
        sampler: Name of the sampler.
        n_steps: Its steps.
        noise_scale: Factor on the noise of sampling; the task's own is 0.5.
    """

    arm: str
    sampler: str
    n_steps: int
    noise_scale: float = 0.5

    @property
    def name(self) -> str:
        return f"{self.arm}_{self.sampler}_{self.n_steps}_noise{self.noise_scale:g}"

    @property
    def overrides(self) -> dict[str, Any]:
        """Return what it changes in the policy's configuration."""
        return {"sampler": self.sampler, "n_steps": self.n_steps, "noise_scale": self.noise_scale}

    @property
    def evaluations(self) -> int:
        """Calls of the network for one chunk."""
        return 2 * self.n_steps - 1 if self.sampler == "heun" else self.n_steps


def headline() -> list[Condition]:
    """Return each family as its paper samples it, at the task's noise and at all of it."""
    families = (("edm", 3), ("diffusion", 16), ("flow", 10))
    return [Condition(arm, "ddim", n, noise) for noise in (0.5, 1.0) for arm, n in families]


def sweep() -> list[Condition]:
    """Return each family at each number of plain steps."""
    return [Condition(arm, "ddim", n) for arm in ARMS for n in STEPS]


def samplers() -> list[Condition]:
    """Return each family with each sampler at each budget of evaluations."""
    ways = ("ddim", "heun", "dpmpp_2m", "ancestral")
    return [Condition(arm, way, (n + 1) // 2 if way == "heun" else n) for arm in ARMS for n in BUDGETS for way in ways]


def every() -> list[Condition]:
    """Return all conditions once, the headline first."""
    return list(dict.fromkeys([*headline(), *sweep(), *samplers()]))
