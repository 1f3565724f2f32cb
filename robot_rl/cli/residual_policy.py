"""A bundle as a policy that answers at every tick, in simulation: its base's chunks, corrected where it corrects."""

from __future__ import annotations

from robot_rl.bundle import PolicyBundle, base_of
from robot_rl.deploy.consensus import Consensus
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.residual import step_policy
from robot_rl.errors import ConfigError
from robot_rl.interfaces import Policy
from robot_rl.rl.runner import StepwisePolicy


def bundle_policy(bundle: PolicyBundle, *, consensus: Consensus | None = None) -> Policy:
    """Return what a bundle does: chunks, or one corrected action a tick, with the delay it was learned with.

    Args:
        bundle: The bundle.
        consensus: Execute of each chunk what the horizons of a mixture agree on.

    Raises:
        BundleError: It cannot be loaded, or corrects another base than the one it holds.
        ConfigError: `consensus` for a bundle without a mixture of horizons, or for one that corrects at every tick.
    """
    base, step = OnnxPolicy(base_of(bundle), consensus=consensus), step_policy(bundle)
    if step is None:
        return base
    if consensus is not None:
        raise ConfigError(
            f"`consensus` must be null for bundle {bundle.id}: it was learned with its base's own lengths"
        )
    return StepwisePolicy(bundle.manifest.robot, base=base, step=step, delay_steps=step.info.delay_steps)
