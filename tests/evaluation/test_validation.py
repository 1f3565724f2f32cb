from __future__ import annotations

import json
from dataclasses import replace

import pytest

from robot_rl.errors import BundleError
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.summary import EvaluationMeta, summarise
from robot_rl.evaluation.validation import ValidationRecord, read_validations
from tests.evaluation.test_summary import result

META = EvaluationMeta(task="lift cube/red", policy_id="b1", env={"max_steps": 3}, code_version="9")


@pytest.fixture
def record() -> ValidationRecord:
    summary = summarise([result(i) for i in range(10)], META, wall_s=1.0)
    return ValidationRecord.from_summary(replace(summary, date="2026-03-04T05:06:07+00:00"), "b1")


def test_a_record_comes_back_from_the_bundle(tmp_path, record):
    path = record.write(tmp_path)
    assert path == tmp_path / "attestations" / "validation-lift_cube_red-20260304T050607Z.json"
    assert ValidationRecord.read(path, bundle_id="b1") == record
    assert record.succeeded == tuple(range(9))
    assert record.success == clopper_pearson(9, 10)


def test_records_are_listed_by_date_and_task(tmp_path, record):
    later = replace(record, date="2026-03-05T00:00:00+00:00")
    other = replace(record, task="push", date="2026-01-01T00:00:00+00:00")
    for each in (later, record, other):
        each.write(tmp_path)
    assert read_validations(tmp_path, bundle_id="b1") == [other, record, later]
    assert read_validations(tmp_path, bundle_id="b1", task="push") == [other]
    assert read_validations(tmp_path / "none", bundle_id="b1") == []


def test_a_record_of_another_bundle_is_refused(tmp_path, record):
    path = record.write(tmp_path)
    with pytest.raises(BundleError, match=r"`bundle_id` must be 'b2', got 'b1'; this record belongs to another bundle"):
        ValidationRecord.read(path, bundle_id="b2")


def test_an_evaluation_of_another_policy_is_no_validation():
    summary = summarise([result(1)], META, wall_s=1.0)
    with pytest.raises(BundleError, match=r"`policy_id` must be the bundle's id 'b2', got 'b1'"):
        ValidationRecord.from_summary(summary, "b2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"succeeded": list(range(10))}, r"`success.value` must be 1.000000 for 10 of 10 seeds, got 0.900000"),
        ({"succeeded": [0, 99]}, r"`succeeded` must be distinct members of `seeds`, got \[99\]"),
        ({"seeds": []}, r"`seeds` must be distinct and not empty, got 0 seeds"),
        ({"format_version": 2}, r"`format_version` must be 1, got 2"),
        ({"success": None}, r"is not a validation record"),
    ],
)
def test_an_altered_record_is_refused(tmp_path, record, change, message):
    path = record.write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError, match=message):
        ValidationRecord.read(path, bundle_id="b1")


def test_a_file_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "v.json").write_text("{")
    with pytest.raises(BundleError, match=r"v.json is not a validation record: JSONDecodeError"):
        ValidationRecord.read(tmp_path / "v.json", bundle_id="b1")


def test_a_bundle_must_be_there(tmp_path, record):
    with pytest.raises(BundleError, match="no such bundle folder"):
        record.write(tmp_path / "gone")
