"""Delays are exact: the sampler's answer says which tick it was asked at, so every executed action tells its age."""

import numpy as np
import pytest

from robot_rl.deploy.ensembling import Aggregate, TemporalEnsemble, ensemble
from robot_rl.deploy.promises import ChunkSampler
from robot_rl.errors import ConfigError, SimulationError
from robot_rl.evaluation.delayed import DelaySetting, run_delayed
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Tick

SPEC = RobotSpec(
    name="clock",
    obs={"tick": ArraySpec(name="tick", shape=(1,))},
    action=ActionSpec(name="action", shape=(2,), kind="position"),
    control_hz=10,
)
H, LENGTH = 8, 20


class ClockEnv:
    """Shows the tick and remembers what was commanded; the seed shifts the length."""

    spec = SPEC

    def __init__(self) -> None:
        self.log: list[list[float]] = []
        self.logs: dict[int, list[list[float]]] = {}

    def reset(self, seed: int) -> Tick:
        self.n, self.length, self.log = 0, LENGTH + seed % 3, []
        self.logs[seed] = self.log
        return Tick(stamp_ns=0, obs={"tick": np.zeros(1, "f4")})

    def step(self, action: np.ndarray) -> Tick:
        if self.n >= self.length:
            raise SimulationError("the episode ended; call reset(seed) first")
        self.log.append(action.tolist())
        self.n += 1
        return Tick(
            stamp_ns=self.n * SPEC.step_ns, obs={"tick": np.full(1, self.n, "f4")}, action=action,
            action_executed=action, truncated=self.n == self.length,
        )  # fmt: skip

    def render(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def close(self) -> None:
        """Nothing to release."""


class AgeSampler:
    """Row h of a chunk asked for at tick n is (n, n + h); promises are kept for the test to look at."""

    spec, n_obs, n_execute, noise_shape = SPEC, 1, 4, (H, 2)

    def __init__(self) -> None:
        self.promises = []
        self.calls = 0

    @property
    def action_range(self):
        return np.full(2, -100, "f4"), np.full(2, 100, "f4")

    def chunks(self, obs, noise, promise=None):
        self.calls += 1
        asked = obs["tick"][:, -1]  # [B, 1]
        self.promises.append((asked.ravel().tolist(), promise))
        rows = np.broadcast_to(asked[:, None], (len(asked), H, 1))
        return np.concatenate([rows, rows + np.arange(H, dtype="f4")[:, None]], axis=2)


def play(delay: int, *, n_execute: int = 4, seeds=(0,), n_envs: int = 1, **options):
    envs, sampler = [ClockEnv() for _ in range(n_envs)], AgeSampler()
    assert isinstance(sampler, ChunkSampler)
    setting = DelaySetting(delay_steps=delay, n_execute=n_execute, **options)
    results = run_delayed(envs, sampler, seeds, setting=setting, rest=lambda obs: np.array([-1.0, -1.0]))
    logs = {seed: np.array(log) for env in envs for seed, log in env.logs.items()}
    return results, logs, sampler


@pytest.mark.parametrize("delay", [0, 1, 2, 4])
def test_a_chunk_is_executed_from_the_row_that_its_delay_leaves(delay):
    (result,), logs, _ = play(delay)
    log = logs[0]
    assert (log[:delay] == -1).all(), "the robot holds until its first chunk"
    ticks = np.arange(delay, LENGTH)
    np.testing.assert_array_equal(log[delay:, 1], ticks)  # every action is the one meant for its tick
    asked = log[delay:, 0]
    age = ticks - asked
    assert age.min() == delay
    assert age.max() == delay + 3  # asked for every fourth tick
    assert result.held == delay
    assert result.requests == len(np.unique(np.arange(0, LENGTH, 4)))
    assert result.late_chunks == 0


def test_a_delay_longer_than_the_period_means_one_request_at_a_time():
    (result,), logs, _ = play(5, n_execute=2)
    asked = np.unique(logs[0][5:, 0])
    np.testing.assert_array_equal(asked, [0, 5, 10])
    assert result.requests == 4


def test_a_pausing_robot_executes_from_the_first_row_and_late():
    (result,), logs, _ = play(3, pause=True)
    log = logs[0]
    np.testing.assert_array_equal(log[3:7], [[0, 0], [0, 1], [0, 2], [0, 3]])
    np.testing.assert_array_equal(log[7:10], [[0, 3]] * 3)  # waiting, with the last action
    np.testing.assert_array_equal(log[10:14], [[7, 7], [7, 8], [7, 9], [7, 10]])
    assert result.held == 9
    without, logs_without, _ = play(0, pause=True)
    _, logs_naive, _ = play(0)
    np.testing.assert_array_equal(logs_without[0], logs_naive[0])
    assert without[0].held == 0


def test_the_policy_is_told_what_is_promised_and_for_how_long():
    _, logs, sampler = play(2)
    (asked, first), (_, second), *_ = sampler.promises
    assert (asked, first) == ([0.0], None)
    assert (second.length.tolist(), second.delay.tolist()) == ([4], [2])
    np.testing.assert_array_equal(second.action[0], [[0, 4], [0, 5], [0, 6], [0, 7]])
    np.testing.assert_array_equal(second.action[0, :2], logs[0][4:6])  # the first two are executed while it computes


def test_overlaps_are_combined_as_asked():
    _, logs, _ = play(2, combine=Aggregate("average"))
    # Tick 6 is predicted by the chunks asked for at 0 and at 4.
    assert logs[0][6].tolist() == [2.0, 6.0]
    _, logs, _ = play(0, n_execute=1, combine=TemporalEnsemble(0.1))
    rows = np.arange(3.0, 11.0)[:, None]  # at tick 10 all chunks asked for at 3 to 10 cover it
    assert logs[0][10][0] == pytest.approx(ensemble(rows, np.ones(8, bool), decay=0.1).item(), rel=1e-6)


def test_an_episode_does_not_depend_on_those_beside_it():
    alone = {seed: play(3, seeds=[seed])[1][seed] for seed in range(5)}
    results, together, sampler = play(3, seeds=range(5), n_envs=3)
    assert [result.episode.seed for result in results] == list(range(5))
    for seed in range(5):
        np.testing.assert_array_equal(together[seed], alone[seed])
    assert sampler.calls < sum(result.requests for result in results)


def test_smoothness_by_hand():
    (result,), logs, _ = play(2)
    log = np.concatenate([[[-1.0, -1.0]], logs[0]])
    kinks = [np.linalg.norm(log[i] - 2 * log[i - 1] + log[i - 2]) for i in (3, 7, 11, 15, 19)]
    assert result.boundary_kink == pytest.approx(np.mean(kinks))
    assert result.jerk == pytest.approx(np.sqrt(np.mean((np.diff(log, n=3, axis=0) * 1000) ** 2)))
    assert result.boundary_jump == pytest.approx(4.0)  # plans differ by the ticks between their requests
    assert result.to_dict()["episode"]["seed"] == 0


class Newest:
    """Adds a hundred times the tick that it sees to the second element; every second tick it repeats what it added."""

    def __init__(self):
        self.renewed, self.held, self._added = 0, 0, 0.0

    def renew(self):
        self.renewed, self.held = self.renewed + 1, 0

    def act(self, obs, base_action):
        if self.held % 2 == 0:
            self._added = 100.0 * float(obs["tick"][0])
        self.held += 1
        return base_action + np.array([0.0, self._added], base_action.dtype)


def test_a_correction_reads_what_is_seen_now_however_late_the_chunk_is():
    made = []

    def make() -> Newest:
        made.append(Newest())
        return made[-1]

    envs, setting = [ClockEnv(), ClockEnv()], DelaySetting(delay_steps=2, n_execute=4)
    plain = play(2, seeds=(0, 3, 6), n_envs=2)[1]
    run_delayed(
        envs, AgeSampler(), (0, 3, 6), setting=setting, rest=lambda obs: np.array([-1.0, -1.0]), make_correction=make
    )
    assert len(made) == 2
    assert sum(one.renewed for one in made) == 3, "each episode begins with a fresh one"
    for seed, rows in {seed: np.array(log) for env in envs for seed, log in env.logs.items()}.items():
        ticks = np.arange(len(rows))
        chosen = np.where(ticks < 2, 0, ticks - ticks % 2)  # rest is not corrected: the first choice is made at tick 2
        np.testing.assert_array_equal(rows[:, 0], plain[seed][:, 0])
        np.testing.assert_array_equal(rows[:, 1] - plain[seed][:, 1], 100 * chosen)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="`delay_steps` must be 0 or more"):
        DelaySetting(delay_steps=-1, n_execute=1)
    with pytest.raises(ConfigError, match="need an environment and each seed once, got 1 and 2 seeds"):
        play(0, seeds=(1, 1))
