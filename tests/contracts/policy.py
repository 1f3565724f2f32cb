"""Contract of `robot_rl.interfaces.Policy`: call `check_policy` from the test of any implementation."""

import copy

import numpy as np
import pytest

from robot_rl.errors import SpecError
from robot_rl.interfaces import Policy
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, PolicyInput


def observation(spec: RobotSpec, n_obs: int, seed: int) -> dict[str, np.ndarray]:
    """Return a random stack of O observations within the bounds of a spec."""
    rng, obs = np.random.default_rng(seed), {}
    for name, array in spec.obs.items():
        low = np.broadcast_to(np.reshape(-1.0 if array.low is None else array.low, (-1,)), array.size)
        high = np.broadcast_to(np.reshape(1.0 if array.high is None else array.high, (-1,)), array.size)
        if array.is_image:
            low, high = np.zeros(array.size), np.full(array.size, 255.0)
        value = low + (high - low) * rng.random((n_obs, array.size))
        obs[name] = value.reshape(n_obs, *array.shape).astype(array.dtype)
    return obs


def check_policy(make, spec: RobotSpec, *, noise_shape: tuple[int, int] | None = None) -> None:
    """Check all the contract.

    Args:
        make: Called without arguments; returns a fresh policy, alike each time (same weights, same seed).
        spec: The robot with exactly the observations that the policy reads.
        noise_shape: (H, A) of the noise the policy takes; `None` for one that takes none.
    """
    policy = make()
    assert isinstance(policy, Policy)
    assert policy.n_obs >= 1
    check_chunk(policy, spec)
    check_input_is_left_alone(policy, spec)
    check_fresh_ones_agree(make, spec)
    check_bad_observations_are_refused(policy, spec)
    if noise_shape is not None:
        check_noise_decides(policy, spec, noise_shape)


def check_chunk(policy: Policy, spec: RobotSpec) -> None:
    """The chunk starts at the newest observation's tick, in the robot's own step, finite and long enough."""
    policy.reset()
    for stamp in (0, 1_234_567_890_123):
        chunk = policy.act(PolicyInput(obs=observation(spec, policy.n_obs, 0), stamp_ns=stamp))
        assert isinstance(chunk, ActionChunk)
        assert (chunk.start_ns, chunk.step_ns) == (stamp, spec.step_ns)
        assert chunk.action.shape[1:] == spec.action.shape
        assert chunk.action.dtype == np.dtype(spec.action.dtype)
        assert 1 <= policy.n_execute <= len(chunk)
        assert np.isfinite(chunk.action).all()


def check_input_is_left_alone(policy: Policy, spec: RobotSpec) -> None:
    """Acting changes nothing in what was handed in."""
    obs = observation(spec, policy.n_obs, 1)
    before = copy.deepcopy(obs)
    policy.act(PolicyInput(obs=obs, stamp_ns=5))
    for name, value in obs.items():
        np.testing.assert_array_equal(value, before[name])


def check_fresh_ones_agree(make, spec: RobotSpec) -> None:
    """Two policies made alike act alike, call after call."""
    one, other = make(), make()
    one.reset()
    other.reset()
    for seed in range(3):
        given = PolicyInput(obs=observation(spec, one.n_obs, seed), stamp_ns=seed)
        np.testing.assert_array_equal(one.act(given).action, other.act(given).action)


def check_bad_observations_are_refused(policy: Policy, spec: RobotSpec) -> None:
    """A missing observation, a wrong shape and a NaN are errors that name the observation."""
    for name, array in spec.obs.items():
        good = observation(spec, policy.n_obs, 2)
        bad = [{key: value for key, value in good.items() if key != name}, {**good, name: good[name][..., None]}]
        if array.dtype.startswith("float"):
            bad.append({**good, name: np.full_like(good[name], np.nan)})
        for obs in bad:
            with pytest.raises(SpecError, match=name):
                policy.act(PolicyInput(obs=obs, stamp_ns=0))


def check_noise_decides(policy: Policy, spec: RobotSpec, noise_shape: tuple[int, int]) -> None:
    """Given noise makes a call repeatable, whatever was called before, and other noise gives another chunk."""
    obs = observation(spec, policy.n_obs, 3)
    noise = np.random.default_rng(0).standard_normal((2, *noise_shape)).astype(np.float32)

    def act(draw):
        return policy.act(PolicyInput(obs=obs, stamp_ns=0, noise=draw)).action

    first = act(noise[0])
    act(None)
    np.testing.assert_array_equal(act(noise[0]), first)
    assert np.abs(act(noise[1]) - first).max() > 0
