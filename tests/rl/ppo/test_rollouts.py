"""Episodes played with a chain's noise on: what is recorded of them, and what becomes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError, SpecError
from robot_rl.rl.ppo.decisions import decisions
from robot_rl.rl.ppo.rollouts import chain_extras
from tests.rl.ppo.parts import HORIZON, N_EXECUTE, N_STEPS, make_chain, make_player, make_sink
from tests.rl.reach import SPEC, Reach

OPTIONS = {"n_obs": 2, "n_execute": N_EXECUTE, "gamma": 0.9}


class Taken(Reach):
    """A person takes over at the second step of every episode."""

    def step(self, action):
        return replace(super().step(action), by_human=self._n == 2)


def played(chain, seeds, **settings):
    sink = make_sink(chain)
    found = make_player(chain, sink, **settings).play(list(seeds), "reach@3", 3)
    return [sink.episode(one.id) for one in found], found


def test_a_chain_is_recorded_at_each_decision_and_the_chunk_is_executed_row_by_row():
    chain = make_chain()
    episodes, found = played(chain, range(6))
    assert [one.seed for one in found] == list(range(6))
    for episode, one in zip(episodes, found, strict=True):
        offset = episode.extras["chunk_offset"][:]
        assert offset.tolist() == [i % N_EXECUTE for i in range(len(episode))]
        recorded = np.isfinite(episode.extras["chain"][:]).reshape(len(episode), -1)
        assert recorded.all(axis=1).tolist() == (offset == 0).tolist()
        assert not recorded[offset > 0].any()
        assert set(episode.extras["policy_version"][:].tolist()) == {3}
        assert (episode.meta.seed, episode.meta.policy_version, one.version) == (one.seed, "reach@3", 3)
        for step in np.flatnonzero(offset == 0):
            states = torch.as_tensor(episode.extras["chain"][step])
            chunk = chain.physical({}, states[None, -1]).clamp(chain.action_low, chain.action_high)[0]
            rows = min(N_EXECUTE, len(episode) - step)
            np.testing.assert_allclose(episode.action[step : step + rows], chunk[:rows], atol=1e-6)


def test_an_episode_does_not_depend_on_those_beside_it():
    chain = make_chain()
    beside = played(chain, range(6))[0][4]
    alone = played(chain, [4], envs=[Reach()])[0][0]
    other = played(chain, [4], envs=[Reach()], seed=1)[0][0]
    np.testing.assert_allclose(beside.extras["chain"][0], alone.extras["chain"][0], atol=1e-5)
    assert np.abs(other.extras["chain"][0] - alone.extras["chain"][0]).max() > 0.01


def test_what_is_recorded_has_the_density_it_was_drawn_with():
    chain = make_chain()
    episode = played(chain, [7])[0][0]
    batch = decisions([episode], SPEC, **OPTIONS)
    rng = np.random.default_rng([0, 7, 0])
    drawn = rng.standard_normal(chain.noise_shape, dtype=np.float32).reshape(1 + N_STEPS, HORIZON, 1)[1:]
    std = np.array(chain.std)[:, None, None]
    expected = -0.5 * drawn**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    with torch.no_grad():
        found = chain.transition_log_prob(chain.encode({"x": batch.obs["x"][:1]}), batch.chain[:1])[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_decisions_keep_every_number_where_it_was_through_a_store(tmp_path):
    chain = make_chain()
    store = EpisodeStore.create(tmp_path / "store", SPEC, extra=chain_extras(chain))
    ids = [one.id for one in make_player(chain, store, max_steps=5).play([11, 12, 13])]
    episodes = [store.episode(id) for id in ids]
    batch = decisions(episodes, SPEC, **OPTIONS)
    assert (batch.steps, batch.episodes) == (sum(map(len, episodes)), 3)
    at = 0
    for episode in episodes:
        xs = np.concatenate([episode.obs["x"][:], episode.final_obs["x"][None]])[:, 0]
        starts = np.arange(0, len(episode), N_EXECUTE)
        for start in starts:
            end = min(start + N_EXECUTE, len(episode))
            row = batch.row[at]
            assert batch.obs["x"][row, :, 0].tolist() == [xs[max(0, start - 1)], xs[start]]
            assert batch.obs["x"][row + 1, 1, 0] == xs[end]
            assert batch.continues[at] == (start != starts[-1])
            assert batch.executed[at].tolist() == [i < end - start for i in range(N_EXECUTE)]
            discount = 0.9 ** np.arange(end - start)
            assert batch.reward[at] == pytest.approx(float(episode.reward[start:end] @ discount))
            ended = end == len(episode) and episode.terminated
            assert batch.bootstrap[at] == pytest.approx(0.0 if ended else 0.9 ** (end - start))
            np.testing.assert_array_equal(batch.chain[at], episode.extras["chain"][start])
            at += 1
    assert at == len(batch)
    assert batch.by_policy.all()


def test_a_person_who_takes_over_ends_the_chunk_and_owns_the_decision():
    chain = make_chain()
    sink = make_sink(chain)
    episode = sink.episode(make_player(chain, sink, envs=[Taken(success=0.0)], n_execute=3).play([0])[0].id)
    assert episode.extras["chunk_offset"][:].tolist() == [0, 1, 0, 1, 2]
    batch = decisions([episode], SPEC, n_obs=2, n_execute=3, gamma=0.9)
    assert batch.by_policy.tolist() == [False, True]
    assert batch.executed.tolist() == [[True, True, False], [True, True, True]]
    assert batch.bootstrap == pytest.approx([0.81, 0.729])


def test_what_cannot_be_played_or_learned_from_is_refused():
    chain = make_chain()
    with pytest.raises(ConfigError, match="needs at least one environment"):
        make_player(chain, envs=[])
    with pytest.raises(ConfigError, match=r"`n_execute` must be in \[1, 3\]"):
        make_player(chain, n_execute=4)
    with pytest.raises(ConfigError, match="needs at least one episode, got none"):
        decisions([], SPEC, **OPTIONS)
    episode = played(chain, [0])[0][0]
    with pytest.raises(SpecError, match=r"lacks the streams \['chain', 'chunk_offset'\]"):
        decisions([replace(episode, extras={})], SPEC, **OPTIONS)
    late = {**episode.extras, "chunk_offset": np.ones(len(episode), np.int64)}
    with pytest.raises(SpecError, match="starts at row 1 of a chunk"):
        decisions([replace(episode, extras=late)], SPEC, **OPTIONS)
    with torch.no_grad():
        next(chain.denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(SpecError, match="`action`"):
        played(chain, [0])
