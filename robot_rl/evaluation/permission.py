"""Whether a bundle may move a real arm: it was validated in simulation, or a person named it."""

from __future__ import annotations

from robot_rl.bundle import PolicyBundle
from robot_rl.errors import BundleError
from robot_rl.evaluation.inheritance import SPEED_SHARE, inherited_validations
from robot_rl.evaluation.validation import read_validations


def check_hardware_permission(bundle: PolicyBundle, *, override: str = "", min_success: float = 0.5) -> str:
    """Return in words why this bundle may move hardware; `speed_share` says how fast.

    Args:
        bundle: The bundle.
        override: Id of a bundle that a person allows whatever its records say; empty for none.
        min_success: Success rate in simulation that the newest validation record must show.

    Raises:
        BundleError: No sound record, too little success, or the override names another bundle.
    """
    if override:
        if override != bundle.id:
            raise BundleError(
                f"the override names bundle {override!r}, but this is bundle {bundle.id!r}; an override holds for "
                "exactly one bundle, give its whole id"
            )
        return "allowed by name by the operator, without validation"
    own = read_validations(bundle.path, bundle_id=bundle.id)
    records = own if own else inherited_validations(bundle)
    if not records:
        raise BundleError(
            f"bundle {bundle.id} has no validation record, so it must not move hardware; validate it in simulation, "
            "or name its id as override"
        )
    newest = records[-1]
    if not newest.success.value >= min_success:
        raise BundleError(
            f"bundle {bundle.id} succeeded in {len(newest.succeeded)} of {len(newest.seeds)} seeds of "
            f"`{newest.task}`, at least {min_success:g} is needed to move hardware; improve it, or name its id as "
            "override"
        )
    by = "validated" if own else f"its parent {bundle.manifest.parent} was validated"
    return f"{by} on `{newest.task}`: {len(newest.succeeded)} of {len(newest.seeds)} seeds ({newest.date})"


def speed_share(bundle: PolicyBundle) -> float:
    """Return the share of a robot's speed limits that the bundle may use: all, or less on its parent's attestation.

    Raises:
        BundleError: A record, or what it inherits, is not sound.
    """
    own = read_validations(bundle.path, bundle_id=bundle.id)
    return SPEED_SHARE if not own and inherited_validations(bundle) else 1.0
