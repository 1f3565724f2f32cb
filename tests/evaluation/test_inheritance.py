"""What a fine-tuned bundle may stand on: a validated parent with the same base, robot and bounds, and nothing else."""

import json
import shutil

import pytest

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.residual import INFO_FILE
from robot_rl.errors import BundleError
from robot_rl.evaluation.inheritance import inherit, inherited_validations
from robot_rl.evaluation.permission import check_hardware_permission, speed_share
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.validation import ValidationRecord
from tests.deploy.conftest import make_bundle as make_bundle
from tests.deploy.corrected import corrected_bundle


def validate(bundle: PolicyBundle, n_success: int = 9) -> None:
    ValidationRecord(
        bundle_id=bundle.id, task="lift", seeds=tuple(range(10)), succeeded=tuple(range(n_success)),
        success=clopper_pearson(n_success, 10), date="2026-03-04T05:06:07+00:00", env={}, code_version="1",
    ).write(bundle.path)  # fmt: skip


@pytest.fixture
def parent(make_bundle, tmp_path) -> PolicyBundle:
    made = corrected_bundle(make_bundle("base"), tmp_path / "parent")
    validate(made)
    return made


@pytest.fixture
def child(make_bundle, parent, tmp_path) -> PolicyBundle:
    return corrected_bundle(PolicyBundle.open(tmp_path / "base"), tmp_path / "child", gain=0.2, parent=parent.id)


def test_newer_weights_move_hardware_on_the_parents_record_at_half_the_speed(parent, child):
    with pytest.raises(BundleError, match="has no validation record"):
        check_hardware_permission(child)
    inherit(child, parent)
    shutil.rmtree(parent.path)  # the proof stands by itself
    assert [record.bundle_id for record in inherited_validations(child)] == [parent.id]
    assert check_hardware_permission(child) == (
        f"its parent {parent.id} was validated on `lift`: 9 of 10 seeds (2026-03-04T05:06:07+00:00)"
    )
    assert speed_share(child) == 0.5
    assert PolicyBundle.open(child.path).id == child.id
    validate(child)
    assert speed_share(child) == 1.0
    assert check_hardware_permission(child).startswith("validated on `lift`")


def test_a_parent_that_failed_lends_nothing(make_bundle, tmp_path):
    base = make_bundle("base")
    parent = corrected_bundle(base, tmp_path / "parent")
    child = corrected_bundle(base, tmp_path / "child", gain=0.2, parent=parent.id)
    with pytest.raises(BundleError, match="has no validation record that"):
        inherit(child, parent)
    validate(parent, n_success=3)
    inherit(child, parent)
    with pytest.raises(BundleError, match="succeeded in 3 of 10 seeds"):
        check_hardware_permission(child)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"told": 0.06, "bound": 0.06}, r"\['bound'\] differ"),
        ({"n_execute": 2}, r"\['n_execute'\] differ"),
        ({"hold": 3}, r"\['hold'\] differ"),
        ({"parent": "another"}, "was fine-tuned from 'another'"),
    ],
)
def test_more_than_other_weights_must_be_validated_by_itself(parent, tmp_path, changes, told):
    base = PolicyBundle.open(tmp_path / "base")
    other = corrected_bundle(base, tmp_path / "other", **{"gain": 0.2, "parent": parent.id, **changes})
    with pytest.raises(BundleError, match=told):
        inherit(other, parent)
    assert not list((other.path / "attestations").iterdir())


def test_a_correction_on_another_base_inherits_nothing(parent, make_bundle, tmp_path):
    other_base = make_bundle("other_base", data_digest="other")
    other = corrected_bundle(other_base, tmp_path / "other", parent=parent.id)
    with pytest.raises(BundleError, match=r"\['base'\] differ, and only a correction's weights may"):
        inherit(other, parent)
    with pytest.raises(BundleError, match="has no correction"):
        inherit(other, other_base)


def test_a_proof_that_was_altered_is_none(parent, child, tmp_path):
    proof = inherit(child, parent)
    manifest = json.loads((proof / "manifest.json").read_text())
    (proof / "manifest.json").write_text(json.dumps({**manifest, "n_execute": 1}))
    with pytest.raises(BundleError, match="or altered; package it again"):
        check_hardware_permission(child)
    shutil.rmtree(proof)
    (inherit(child, parent) / INFO_FILE).write_text("{}")
    with pytest.raises(BundleError, match="does not say what a correction may do"):
        check_hardware_permission(child)
    shutil.rmtree(proof)
    shutil.copytree(inherit(child, parent), tmp_path / "copy")
    stranger = corrected_bundle(PolicyBundle.open(tmp_path / "base"), tmp_path / "stranger", parent="nobody")
    shutil.copytree(tmp_path / "copy", stranger.path / "attestations" / "inherited-nobody")
    with pytest.raises(BundleError, match="was fine-tuned from 'nobody'"):
        check_hardware_permission(stranger)
