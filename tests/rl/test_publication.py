"""Weights reach the actor whole or not at all."""

import json

import pytest
import torch

from robot_rl.errors import BundleError, TrainingError
from robot_rl.rl.publication import KEPT, Publication, newest, publish, read, retract


def weights(value, version=1):
    return Publication(version, {"layer.weight": torch.full((2, 3), float(value))}, {"steps": 10 * version})


def test_what_was_published_is_what_is_read(tmp_path):
    publish(tmp_path, weights(3, 7), belongs_to="base")
    found = newest(tmp_path, belongs_to="base")
    assert (found.version, found.facts) == (7, {"steps": 70})
    assert torch.equal(found.tensors["layer.weight"], torch.full((2, 3), 3.0))
    assert newest(tmp_path, belongs_to="base", current=found.digest) is None


def test_the_newest_is_taken_and_old_ones_go(tmp_path):
    for version in range(6):
        publish(tmp_path, weights(version, version), belongs_to="base")
    assert newest(tmp_path, belongs_to="base").version == 5
    assert len(list(tmp_path.iterdir())) == KEPT


def test_an_altered_version_is_refused_and_the_one_before_taken(tmp_path, caplog):
    publish(tmp_path, weights(1, 1), belongs_to="base")
    path = publish(tmp_path, weights(2, 2), belongs_to="base")
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "weights.safetensors").write_bytes(content)
    assert newest(tmp_path, belongs_to="base").version == 1
    assert "it was altered" in caplog.text


@pytest.mark.parametrize(
    ("change", "told"),
    [({"format_version": 9}, "format_version must be 1, got 9"), ({"version": None}, "is damaged")],
)
def test_a_manifest_that_is_not_ours_is_refused(tmp_path, change, told):
    path = publish(tmp_path, weights(1), belongs_to="base")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BundleError, match=told):
        read(path, belongs_to="base")


def test_weights_for_another_base_are_refused(tmp_path):
    path = publish(tmp_path, weights(1), belongs_to="base")
    with pytest.raises(BundleError, match="belongs to 'base', expected 'other'"):
        read(path, belongs_to="other")


def test_weights_that_are_not_finite_are_never_published(tmp_path):
    with pytest.raises(TrainingError, match=r"\['layer.weight'\] of version 1 are not finite; nothing was published"):
        publish(tmp_path, weights(float("nan")), belongs_to="base")
    assert list(tmp_path.iterdir()) == []


def test_a_version_half_written_when_its_writer_was_killed_is_not_seen(tmp_path):
    publish(tmp_path, weights(1, 1), belongs_to="base")
    path = publish(tmp_path, weights(2, 2), belongs_to="base")
    path.rename(tmp_path / ".staging-dead")
    assert newest(tmp_path, belongs_to="base").version == 1


def test_a_learner_that_went_back_takes_back_what_came_after(tmp_path):
    for version in (0, 50, 100):
        publish(tmp_path, weights(version, version), belongs_to="base")
    in_use = newest(tmp_path, belongs_to="base")
    assert retract(tmp_path, after=50) == [100]
    publish(tmp_path, weights(-1, 100), belongs_to="base")  # the same number, learned anew
    assert newest(tmp_path, belongs_to="base", current=in_use.digest).tensors["layer.weight"][0, 0] == -1
