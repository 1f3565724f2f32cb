"""The recorder under the load of benchmarks/record_load.py, for a few seconds: the accounts must balance."""

import pytest

from benchmarks.record_load import run_load

pytestmark = pytest.mark.realtime


def test_every_message_is_stored_with_its_stamp_or_named(ros_env, ros_domain, tmp_path):
    report = run_load(tmp_path, 5.0, domain=ros_domain)
    assert {a.stream: (a.unaccounted, a.foreign) for a in report.accounts} == {
        name: (0, 0) for name in ("front", "side", "wrist", "joint_position", "action", "action_executed")
    }
    stored = {a.stream: a.stored for a in report.accounts}
    assert stored["front"] > 100
    assert stored["joint_position"] > 1000
    assert report.quality["cpu"]["process_s"] > report.quality["cpu"]["encoding_s"] > 0
