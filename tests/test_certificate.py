"""A certificate: which figures keep a head from being packaged, and that it belongs to one bundle."""

import dataclasses
import math

import pytest

from robot_rl.bundle import PolicyBundle
from robot_rl.bundle.certificate import Certificate, Latency, Limits, PairedRates, read_certificates
from robot_rl.errors import BundleError, ConfigError
from tests.test_bundle import FILES, MANIFEST

FAST = {name: Latency(0.1, 0.2) for name in ("encode", "denoise", "end_to_end")}
SLOW = {name: Latency(1.0, 2.0) for name in FAST}


def rates(head: int, teacher: int, episodes: int = 100, width: float = 0.05) -> PairedRates:
    apart = (head - teacher) / episodes
    return PairedRates(
        head=head, teacher=teacher, episodes=episodes, difference=apart, low=apart - width, high=apart + width,
        level=0.95, first_seed=0,
    )  # fmt: skip


GOOD = Certificate(
    bundle_id="b", teacher="run-1", teacher_steps=10, parity=1e-6, latency=FAST, teacher_latency=SLOW, calls=300,
    distance=0.02, own_distance=0.001, paired_error=0.03, observations=256, draws=8, success=rates(95, 96),
    simulation=True, date="2026-01-01T00:00:00+00:00", machine="m", limits=Limits(),
)  # fmt: skip


def changed(**values) -> Certificate:
    return dataclasses.replace(GOOD, **values)


def test_a_head_within_its_limits_has_no_failures():
    assert GOOD.failures() == []
    assert GOOD.latency_ratio == pytest.approx(0.1)
    assert changed(success=rates(98, 90)).failures() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"success": rates(93, 96)}, "succeeds on 93 of 100 seeds and its teacher on 96: the difference is -0.030"),
        ({"success": rates(95, 96), "limits": Limits(interval=True)}, "the lower end of the difference is -0.060"),
        ({"success": rates(20, 20, 20)}, "20 seeds were played, at least 50 are asked for"),
        ({"success": None}, "0 seeds were played, at least 50"),
        ({"distance": 0.2}, "the energy distance to the teacher is 0.2 where the teacher's to itself is 0.001"),
        ({"distance": math.nan}, "the energy distance to the teacher is nan"),
        ({"latency": SLOW}, "denoising takes 1.00 of the teacher's median time"),
    ],
)
def test_each_limit_that_is_not_kept_is_a_sentence(values, message):
    (sentence,) = changed(**values).failures()
    assert message in sentence


def test_every_failure_is_named_at_once():
    assert len(changed(success=rates(50, 96), distance=1.0, latency=SLOW).failures()) == 3


def test_a_yardstick_below_zero_gives_no_credit():
    assert changed(distance=0.05, own_distance=-0.01).failures() == []
    assert len(changed(distance=0.051, own_distance=-0.01).failures()) == 1


def test_without_a_simulation_success_is_not_asked_for():
    assert changed(success=None, simulation=False).failures() == []
    assert changed(success=None, limits=Limits(episodes=0)).failures() == []


def test_it_lies_beside_its_bundle_and_comes_back_as_it_was(tmp_path):
    bundle = PolicyBundle.publish(tmp_path / "bundle", MANIFEST, FILES)
    mine = changed(bundle_id=bundle.id)
    path = mine.attest(bundle)
    assert path.parent.name == "attestations"
    assert read_certificates(PolicyBundle.open(bundle.path)) == [mine]


def test_one_of_another_bundle_or_with_failures_is_not_written(tmp_path):
    bundle = PolicyBundle.publish(tmp_path / "bundle", MANIFEST, FILES)
    with pytest.raises(BundleError, match=r"`bundle_id` of the certificate must be"):
        GOOD.attest(bundle)
    with pytest.raises(BundleError, match=r"a certificate that fails proves nothing: .*energy distance"):
        changed(bundle_id=bundle.id, distance=1.0).attest(bundle)
    assert read_certificates(bundle) == []


def test_something_else_is_not_a_certificate():
    with pytest.raises(BundleError, match=r"this is not a certificate"):
        Certificate.from_dict({"format_version": 1})
    with pytest.raises(BundleError, match=r"`format_version` must be 1, got 2"):
        Certificate.from_dict({**GOOD.to_dict(), "format_version": 2})


@pytest.mark.parametrize("name", ["success_loss", "distance", "latency_ratio", "episodes"])
def test_limits_are_not_negative(name):
    with pytest.raises(ConfigError, match=rf"limit `{name}` must be 0 or more"):
        Limits(**{name: -1})
