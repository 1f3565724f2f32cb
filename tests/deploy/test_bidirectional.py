"""T42 of the specs, and the two losses by hand. The sampler is arithmetic, so that candidates are known."""

import numpy as np
import pytest

from robot_rl.deploy.bidirectional import Bidirectional, backward_loss, forward_loss
from robot_rl.deploy.promises import ChunkSampler, Promise
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

SPEC = RobotSpec(
    name="line",
    obs={"x": ArraySpec(name="x", shape=(1,))},
    action=ActionSpec(name="action", shape=(1,), kind="position", low=-2.0, high=2.0),
    control_hz=10,
)
H = 4


class NoiseSampler:
    """The chunk is the noise, moved to where the robot is, within the range."""

    spec, n_obs, n_execute, noise_shape = SPEC, 1, 2, (H, 1)

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    @property
    def action_range(self):
        return np.array([-2.0], dtype="f4"), np.array([2.0], dtype="f4")

    def chunks(self, obs, noise, promise=None):
        return np.clip(noise + obs["x"][:, -1:] + self.shift, -2, 2).astype("f4")


def inputs(n: int, size: int = 3):
    rng = np.random.default_rng(0)
    return {"x": rng.uniform(-0.5, 0.5, (size, 1, 1)).astype("f4")}, rng.standard_normal((size, n, H, 1), dtype="f4")


def test_t42_one_candidate_is_the_plain_policy():
    obs, noise = inputs(1)
    plain = NoiseSampler()
    assert isinstance(plain, ChunkSampler)
    assert isinstance(Bidirectional(plain), ChunkSampler)
    promise = Promise(np.ones((3, 2, 1)), np.array([2, 1, 0]), np.zeros(3, int))
    got = Bidirectional(plain, n_candidates=1).chunks(obs, noise, promise)
    np.testing.assert_array_equal(got, plain.chunks(obs, noise[:, 0]))


def test_t42_the_candidate_that_is_the_old_plan_loses_nothing_and_wins():
    obs, noise = inputs(6)
    plain = NoiseSampler()
    candidates = np.stack([plain.chunks(obs, noise[:, i]) for i in range(6)], axis=1)
    promised = np.stack([candidates[0, 4, :3], candidates[1, 2, :3], candidates[2, 5, :3]])
    promise = Promise(promised, np.full(3, 3), np.zeros(3, int))
    loss = backward_loss(candidates, promise)
    assert [loss[0, 4], loss[1, 2], loss[2, 5]] == [0, 0, 0]
    assert np.count_nonzero(loss) == 15
    got = Bidirectional(plain, n_candidates=6).chunks(obs, noise, promise)
    np.testing.assert_array_equal(got, candidates[[0, 1, 2], [4, 2, 5]])


def test_backward_loss_by_hand():
    candidate = np.array([[[[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]]]])
    promised = np.zeros((1, 5, 2))
    promised[0, 3:] = 99.0  # beyond the candidate
    assert backward_loss(candidate, Promise(promised, np.array([5]), np.array([0])))[0, 0] == pytest.approx(
        1 + 0.25 * 5
    )
    assert backward_loss(candidate, Promise(promised, np.array([2]), np.array([0])))[0, 0] == pytest.approx(1)
    assert backward_loss(candidate, Promise(promised, np.array([0]), np.array([0])))[0, 0] == 0


def test_forward_loss_by_hand():
    def constant(*values):
        return np.array([[[[float(v)]] * 2 for v in values]])

    # distances to the strong set {0, 2} are 1 and 2 on average, to the weak set {5} 4 and 2
    got = forward_loss(constant(1, 3), constant(0, 2), constant(5))
    np.testing.assert_allclose(got, [[1 - 4, 2 - 2]])


def test_the_forward_contrast_keeps_away_from_the_weak_policy():
    obs, _ = inputs(1, size=1)
    obs["x"][:] = 0
    strong = np.array([0.0, 1.0, -1.0])
    noise = np.zeros((1, 6, H, 1), dtype="f4")
    noise[0, :3] = strong[:, None, None]
    got = Bidirectional(NoiseSampler(), weak=NoiseSampler(shift=1.5), n_candidates=3).chunks(obs, noise)
    np.testing.assert_array_equal(got, np.full((1, H, 1), -1.0))
    assert Bidirectional(NoiseSampler(), weak=NoiseSampler(), n_candidates=3).noise_shape == (6, H, 1)


def test_metres_and_pixels_weigh_alike():
    """Distances are in half widths of the range: 1 of 2 here."""
    promise = Promise(np.zeros((1, 1, 1)), np.array([1]), np.array([0]))
    decoder = Bidirectional(NoiseSampler(), n_candidates=2)
    candidates = np.array([[[[1.0]] * H, [[0.5]] * H]])
    np.testing.assert_allclose(decoder._backward(candidates, promise), [[0.5, 0.25]])


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="`n_candidates` must be 1 or more"):
        Bidirectional(NoiseSampler(), n_candidates=0)
    with pytest.raises(ConfigError, match=r"`n_keep` must be in \[1, n_candidates = 2\], got 3"):
        Bidirectional(NoiseSampler(), weak=NoiseSampler(), n_candidates=2)
