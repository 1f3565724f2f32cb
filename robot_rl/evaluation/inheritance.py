"""What a bundle of the learner inherits from a validated one: the same base, robot and bounds, only newer weights.

The child holds a proof in `attestations/inherited-<parent>/`: the parent's manifest, `step.json` and validation
records. All are checked against the child's own manifest, which names the parent by its content hash, so the parent
need not be there. A child moves hardware with it at reduced speed (architecture, section 4).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

from robot_rl.bundle import Manifest, PolicyBundle, ResidualInfo, residual_info
from robot_rl.bundle.directory import ATTESTATIONS, MANIFEST
from robot_rl.bundle.manifest import content_id
from robot_rl.bundle.residual import BASE_FILE, INFO_FILE
from robot_rl.errors import BundleError
from robot_rl.evaluation.validation import ValidationRecord, read_validations

SPEED_SHARE = 0.5
"""Share of a policy's speed limits that a bundle may use on an inherited attestation."""


def inherit(child: PolicyBundle, parent: PolicyBundle) -> Path:
    """Write the proof that `child` may stand on what attests `parent`, whole or not at all, and return its folder.

    Raises:
        BundleError: They differ in more than the correction's weights, or the parent was never validated.
    """
    if residual_info(parent) is None:
        raise BundleError(f"bundle {parent.id} has no correction, so {child.id} cannot inherit from it; validate both")
    if not read_validations(parent.path, bundle_id=parent.id):
        raise BundleError(f"bundle {parent.id} has no validation record that {child.id} could inherit; validate it")
    target = _proof_of(child, parent.id)
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    (staging / ATTESTATIONS).mkdir(parents=True)
    try:
        for name in (MANIFEST, INFO_FILE):
            shutil.copyfile(parent.path / name, staging / name)
        for record in (parent.path / ATTESTATIONS).glob("validation-*.json"):
            shutil.copyfile(record, staging / ATTESTATIONS / record.name)
        _check(child, staging)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def inherited_validations(bundle: PolicyBundle) -> list[ValidationRecord]:
    """Return the parent's validation records that a bundle may stand on, oldest first; none without a proof.

    Raises:
        BundleError: The proof does not hold: altered, of another bundle, or the two differ in more than weights.
    """
    parent = bundle.manifest.parent
    proof = _proof_of(bundle, parent)
    return _check(bundle, proof) if parent and proof.is_dir() else []


def _proof_of(child: PolicyBundle, parent: str) -> Path:
    return child.path / ATTESTATIONS / f"inherited-{parent}"


def _check(child: PolicyBundle, proof: Path) -> list[ValidationRecord]:
    """Return the parent's records after checking everything they stand on."""
    try:
        data, step = json.loads((proof / MANIFEST).read_bytes()), (proof / INFO_FILE).read_bytes()
        parent, theirs = Manifest.from_dict(data), ResidualInfo.from_dict(json.loads(step))
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"{proof} is not a proof of inheritance: {error!r}; package the bundle again") from error
    if parent.id != child.manifest.parent or content_id(data) != parent.id:
        raise BundleError(
            f"bundle {child.id} was fine-tuned from {child.manifest.parent!r}, {proof} is of {parent.id!r} or altered; "
            "package it again with its parent"
        )
    mine = residual_info(child)
    if mine is None or hashlib.sha256(step).hexdigest() != parent.files.get(INFO_FILE):
        raise BundleError(f"{proof} does not hold the parent's {INFO_FILE}; package the bundle again with its parent")
    _check_same(child, mine, parent, theirs)
    return read_validations(proof, bundle_id=parent.id)


def _check_same(child: PolicyBundle, mine: ResidualInfo, parent: Manifest, theirs: ResidualInfo) -> None:
    """Raise unless base, robot and bounds are the parent's."""
    ours = child.manifest
    same = {
        "base": ours.files.get(BASE_FILE) == parent.files.get(BASE_FILE) and mine.base_id == theirs.base_id,
        "robot": ours.robot.to_dict() == parent.robot.to_dict(),
        "bound": mine.bound == theirs.bound,
        "action range": (mine.low, mine.high) == (theirs.low, theirs.high),
        "observations": mine.names == theirs.names,
        "delay_steps": mine.delay_steps == theirs.delay_steps,
        "hold": mine.hold == theirs.hold,
        "n_execute": ours.n_execute == parent.n_execute,
    }
    if other := [name for name, is_same in same.items() if not is_same]:
        raise BundleError(
            f"bundle {child.id} cannot inherit from {parent.id}: {other} differ, and only a correction's weights may; "
            "validate it by itself"
        )
