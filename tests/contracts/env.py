"""What every `Env` must hold: call `check_env` with a function that makes one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from robot_rl.errors import SimulationError, SpecError
from robot_rl.interfaces import Env
from robot_rl.values import Obs, Tick


def check_env(make: Callable[[], Env], *, seed: int = 3, n_steps: int = 12, longest: int = 400) -> None:
    """Assert the contract of an environment.

    Args:
        make: Returns a new environment, always the same one.
        seed: Episode to play; its first `n_steps` steps must not end it under random actions.
        n_steps: Steps to compare two runs over.
        longest: Every episode must end within so many steps.
    """
    env = make()
    assert isinstance(env, Env)
    actions = random_actions(env, n_steps)
    with pytest.raises(SimulationError, match=r"call reset\(seed\)"):
        env.step(actions[0])
    ticks = play(env, seed, actions)
    check_ticks(env, ticks, actions)
    _check_determinism(env, make, seed, actions, ticks)
    check_refusals(env, seed, actions)
    _check_end(env, seed, longest)
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.std() > 0, "a picture for people shows something"
    env.close()
    env.close()


def random_actions(env: Env, n: int) -> np.ndarray:
    """Return actions [n, A] drawn from the middle half of the action's range (of -1..1 where it has none)."""
    spec = env.spec.action
    low = np.full(spec.shape, -1.0) if spec.low is None else np.broadcast_to(spec.low, spec.shape)
    high = np.full(spec.shape, 1.0) if spec.high is None else np.broadcast_to(spec.high, spec.shape)
    share = np.random.default_rng(7).uniform(0.25, 0.75, size=(n, *spec.shape))
    return (low + share * (high - low)).astype(np.float32)


def play(env: Env, seed: int, actions: np.ndarray) -> list[Tick]:
    """Return the ticks of one episode, the reset's first, having watched that none changes afterwards."""
    ticks = [env.reset(seed)]
    seen = [{name: value.copy() for name, value in ticks[0].obs.items()}]
    for action in actions:
        ticks.append(env.step(action))
        seen.append({name: value.copy() for name, value in ticks[-1].obs.items()})
    assert all(same(tick.obs, obs) for tick, obs in zip(ticks, seen, strict=True)), "a later step changed a tick"
    return ticks


def same(a: Obs, b: Obs) -> bool:
    """Return whether two observations are bit-equal."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def check_ticks(env: Env, ticks: list[Tick], actions: np.ndarray) -> None:
    spec = env.spec
    assert ticks[0].action is None
    assert ticks[0].action_executed is None
    assert not ticks[0].terminated
    assert not ticks[0].truncated
    for n, tick in enumerate(ticks):
        assert list(tick.obs) == list(spec.obs), "observations come as the spec names and orders them"
        spec.validate_obs(tick.obs)
        assert tick.stamp_ns - ticks[0].stamp_ns == n * spec.step_ns, "stamps advance by the control period"
        assert type(tick.reward) is float
        assert type(tick.terminated) is type(tick.truncated) is type(tick.success) is bool
        assert not tick.by_human
    for tick, action in zip(ticks[1:], actions, strict=True):
        assert tick.action is not None
        assert tick.action_executed is not None
        assert np.array_equal(tick.action, action), "`action` is what was commanded"
        assert not np.shares_memory(tick.action, action), "a tick owns its arrays"
        spec.action.validate(tick.action_executed)
        spec.action.check_bounds(tick.action_executed)


def _check_determinism(env: Env, make: Callable[[], Env], seed: int, actions: np.ndarray, ticks: list[Tick]) -> None:
    other = env.reset(seed + 1)
    assert not same(other.obs, ticks[0].obs), "another seed starts another episode"
    for run in (env, make()):
        again = play(run, seed, actions)
        for first, second in zip(ticks, again, strict=True):
            assert same(first.obs, second.obs), "a seed and the actions fix everything"
            assert (first.reward, first.success) == (second.reward, second.success)
        if run is not env:
            run.close()


def check_refusals(env: Env, seed: int, actions: np.ndarray) -> None:
    first, good = env.reset(seed), actions[0]
    broken = good.copy()
    broken[0] = np.nan
    with pytest.raises(SpecError, match="`action` must be finite"):
        env.step(broken)
    with pytest.raises(SpecError, match="`action` must be float32"):
        env.step(np.append(good, good[:1]))
    with pytest.raises(SpecError, match="`action` must be float32"):
        env.step(good.astype(np.float64))
    assert env.step(good).stamp_ns - first.stamp_ns == env.spec.step_ns, "a refused action moves nothing"


def _check_end(env: Env, seed: int, longest: int) -> None:
    env.reset(seed)
    for action in random_actions(env, longest):
        tick = env.step(action)
        assert not (tick.terminated and tick.truncated), "an episode ends for one reason"
        if tick.terminated or tick.truncated:
            break
    else:
        pytest.fail(f"the episode did not end within {longest} steps")
    with pytest.raises(SimulationError, match=r"call reset\(seed\)"):
        env.step(action)
    env.reset(seed)
