from dataclasses import replace
from pathlib import Path

import pytest

from robot_rl.bundle import Graph, Manifest, Parity, PolicyBundle
from robot_rl.errors import BundleError
from robot_rl.evaluation.permission import check_hardware_permission
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.validation import ValidationRecord
from robot_rl.specs import ActionSpec, RobotSpec


@pytest.fixture
def bundle(tmp_path: Path) -> PolicyBundle:
    robot = RobotSpec(name="toy", action=ActionSpec(name="action", shape=(1,)), control_hz=20)
    manifest = Manifest(
        robot=robot, n_obs=1, horizon=4, n_execute=2, action_offset=0, action_low=(0.0,), action_high=(1.0,),
        normaliser={}, data_digest="", family="toy", graphs={"sample": Graph("sample.onnx", (), ())},
        parity=Parity(0.0, 1, 1e-4),
    ).sealed()  # fmt: skip
    return PolicyBundle(tmp_path, manifest)


def validate(bundle: PolicyBundle, *, n_success: int, date: str = "2026-03-04T05:06:07+00:00") -> None:
    record = ValidationRecord(
        bundle_id=bundle.id, task="lift", seeds=tuple(range(10)), succeeded=tuple(range(n_success)),
        success=clopper_pearson(n_success, 10), date=date, env={}, code_version="1",
    )  # fmt: skip
    record.write(bundle.path)


def test_no_record_no_motion(bundle):
    with pytest.raises(BundleError, match=f"bundle {bundle.id} has no validation record, so it must not move hardware"):
        check_hardware_permission(bundle)


def test_a_validated_bundle_may_move_hardware(bundle):
    validate(bundle, n_success=9)
    assert check_hardware_permission(bundle) == ("validated on `lift`: 9 of 10 seeds (2026-03-04T05:06:07+00:00)")


def test_the_newest_record_decides_and_failing_is_no_validation(bundle):
    validate(bundle, n_success=9)
    validate(bundle, n_success=4, date="2026-03-05T05:06:07+00:00")
    with pytest.raises(BundleError, match=r"succeeded in 4 of 10 seeds of `lift`, at least 0.5 is needed"):
        check_hardware_permission(bundle)
    assert check_hardware_permission(bundle, min_success=0.4)


def test_a_record_of_another_bundle_is_refused(bundle):
    validate(PolicyBundle(bundle.path, replace(bundle.manifest, data_digest="x").sealed()), n_success=10)
    with pytest.raises(BundleError, match="this record belongs to another bundle"):
        check_hardware_permission(bundle)


def test_the_operators_word_holds_for_exactly_one_bundle(bundle):
    assert check_hardware_permission(bundle, override=bundle.id) == (
        "allowed by name by the operator, without validation"
    )
    with pytest.raises(BundleError, match=f"the override names bundle '{bundle.id[:8]}', but this is bundle"):
        check_hardware_permission(bundle, override=bundle.id[:8])
