from __future__ import annotations

from pathlib import Path

import pytest

from robot_rl.data.memory import MemorySink
from robot_rl.data.store import EpisodeStore
from tests.contracts.episode_sink import SINK_SPEC, check_episode_sink


@pytest.mark.parametrize("url", ["{tmp}/plain", "file://{tmp}/by_url", "memory://contract"])
def test_episode_store_is_an_episode_sink(tmp_path: Path, url: str):
    store = EpisodeStore.create(url.format(tmp=tmp_path), SINK_SPEC)
    check_episode_sink(store, store.read)
    assert len(store) == 5
    assert len(EpisodeStore.open(url.format(tmp=tmp_path))) == 5
    assert store.found == ()


def test_memory_sink_is_an_episode_sink():
    sink = MemorySink(SINK_SPEC)
    check_episode_sink(sink, sink.read)
    assert len(sink) == 5
