"""A store larger than the memory a process may have trains, in a process whose data segment the kernel limits."""

import subprocess
import sys

import numpy as np
import pytest

from robot_rl.data.store import EpisodeStore
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec
from robot_rl.values import Recording, RecordingMeta, Stream

EPISODES, STEPS, WIDTH = 10, 16384, 128  # 84 MB of observations
ALLOWANCE_MB = 60

TRAIN = f"""
import resource, sys
import numpy as np
from robot_rl.data.dataset import LazyEpisodes
from robot_rl.data.loader import BatchLoader
from robot_rl.data.normalizer import fit_stats
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec

store = EpisodeStore.open(sys.argv[1])
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
limit = used + {ALLOWANCE_MB} * 10**6
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
episodes = LazyEpisodes(store.ids(), store.episode)
data = WindowDataset(episodes, WindowSpec(2, 8), max_memory_bytes=int(sys.argv[2]), max_open=4, threads=1)
mean = fit_stats(data)["state"].mean
assert np.allclose(mean, ({EPISODES} * {STEPS} - 1) / 2), mean
total = 0
with BatchLoader(data, 256, prefetch=2) as loader:
    for _ in range(30):
        batch = next(loader)
        np.testing.assert_array_equal(batch.obs["state"][:, -1, 5], batch.action[:, 0, 0])
        total += len(batch)
print(total)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    state = ArraySpec(name="state", shape=(WIDTH,))
    spec = RobotSpec(name="r", obs={"state": state}, action=ActionSpec(name="action", shape=(1,)), control_hz=20)
    store = EpisodeStore.create(tmp_path_factory.mktemp("large") / "store", spec)
    stamp_ns = np.arange(STEPS, dtype=np.int64) * spec.step_ns
    for e in range(EPISODES):
        value = (e * STEPS + np.arange(STEPS, dtype=np.float32))[:, None]
        streams = {"state": Stream(stamp_ns, np.repeat(value, WIDTH, axis=1)), "action": Stream(stamp_ns, value)}
        store.append(Recording(streams, RecordingMeta(on_grid=True)))
    return store


def train(store, budget):
    command = [sys.executable, "-c", TRAIN, str(store.url), str(budget)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds all data on Linux only")
def test_a_store_larger_than_memory_trains(store):
    done = train(store, budget=2**22)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(30 * 256)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds all data on Linux only")
def test_the_limit_bites_without_the_budget(store):
    done = train(store, budget=2**30)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr
