"""The whole way over real topics: a script teleoperates, episodes reach the store, a policy learns from them and lifts.

Every node is a process of its own, started from the same description as `robot-rl up` and the launch files. Nobody but
the script starts an episode while data are collected: that it waits for the cameras, the safety node and the recorder
is part of what is tested.
"""

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from robot_rl_ros.up import Running
from std_srvs.srv import Trigger

from robot_rl.bundle import PolicyBundle
from robot_rl.data.normalizer import fit_stats
from robot_rl.data.relative import fit_relative_stats
from robot_rl.data.store import EpisodeStore
from robot_rl.data.windows import WindowDataset, WindowSpec
from tests.ros.lift_cell import Cell, calm_graph, calm_observations

SEED = 7
N_SUCCESSES = 2
TRIES = 5
OBS = ["joint_position", "gripper_width", "tcp_pose", "cube_pose"]
TRAINING_STEPS = 900
LIFTED_M = 0.11


def saved(url: Path) -> list[str]:
    """Return the outcomes of the episodes in the store that are whole, in their order."""
    if not EpisodeStore.exists(url):
        return []
    store = EpisodeStore.open(url)
    return [store.read(id).meta.outcome for id in store.ids()]


@pytest.fixture(scope="module")
def collected(shared_graph, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store with what the script did by itself, and how many episodes it began."""
    url = tmp_path_factory.mktemp("collected") / "store"
    processes = calm_graph("collect", store=str(url), teleop="scripted", seed=str(SEED), episodes="-1")
    cell = Cell(shared_graph)
    with Running(processes) as running:
        for n in range(1, TRIES + 1):
            cell.wait(lambda n=n: len(list(url.glob("episodes/*/episode.json"))) >= n, f"{n} saved episodes")
            if saved(url).count("success") >= N_SUCCESSES:
                break
        began = cell.says("episode/status")["index"] + 1
        time.sleep(0.2)
        assert running.poll() is None
        assert set(running.names) == {process.name for process in processes}
    store = EpisodeStore.open(url)
    return SimpleNamespace(store=store, outcomes=saved(url), began=began, stops=cell.stops)


@pytest.fixture(scope="module")
def successes(collected) -> list[str]:
    ids = zip(collected.store.ids(), collected.outcomes, strict=True)
    return [id for id, outcome in ids if outcome == "success"]


def test_every_episode_from_the_first_on_reaches_the_store_whole(collected, successes):
    assert len(successes) >= N_SUCCESSES
    assert len(collected.outcomes) >= collected.began  # one may have begun since, and been saved truncated
    assert collected.store.found == ()
    assert not any("never been received" in reason for reason in collected.stops)
    for n, id in enumerate(collected.store.ids()):
        recording = collected.store.read(id)
        assert (recording.meta.task, recording.meta.source) == ("lift the cube", "scripted")
        assert recording.meta.seed in (None, SEED + n)  # the first reset was the robot's own
        assert {"front", "wrist", "joint_position", "cube_pose", "action", "action_executed"} <= set(recording.streams)
        assert recording.streams["front"].data[0].shape == (96, 96, 3)
        for stream in recording.streams.values():
            assert (np.diff(stream.stamp_ns) > 0).all()


def test_an_episode_read_back_is_what_the_operator_did(collected, successes):
    for id in successes:
        episode = collected.store.episode(id)
        assert episode.by_human.all()
        assert episode.terminated
        assert episode.obs["cube_pose"][-1][2] > 0.05  # the cube is up
        assert episode.obs["cube_pose"][0][2] < 0.03
        # The arm follows what was executed, which follows what was asked, within what limits and lag allow.
        lag = np.abs(episode.action_executed - episode.action)[:, :7].max(axis=1)
        assert np.median(lag) < 0.1
        following = np.abs(episode.obs["joint_position"][1:] - episode.action_executed[:-1, :7]).max(axis=1)
        assert np.median(following) < 0.1


def test_the_cameras_saw_the_arm_move(collected, successes):
    streams = collected.store.read(successes[0]).streams
    for camera in ("front", "wrist"):
        first, last = (np.asarray(streams[camera].data[i], np.int16) for i in (0, -1))
        assert np.abs(first - last).mean() > 2.0


def fitted(store: EpisodeStore, ids: list[str], folder: Path) -> PolicyBundle:
    """Return a bundle of a small flow policy that has learned these few episodes by heart."""
    torch = pytest.importorskip("torch", reason="torch is not installed here; pip install 'robot-rl[train]'")
    from policies.encoders import StateEncoder
    from policies.export import export_bundle
    from policies.flow import FlowModel
    from policies.mlp import ResidualMLP
    from robot_rl.imitation.checkpoint import load_model_weights
    from robot_rl.imitation.trainer import Trainer

    torch.manual_seed(0)
    present = OBS[:2]  # the action that would hold the present pose
    windows = WindowDataset([store.episode(id) for id in ids], WindowSpec(n_obs=2, horizon=16), obs_names=OBS)
    stats = {**fit_stats(windows), "action_relative": fit_relative_stats(windows, present)}
    spec = store.spec.select(OBS)
    model = FlowModel(
        spec, stats, encoder=StateEncoder, denoiser=partial(ResidualMLP, width=256, n_blocks=3),
        n_obs=2, horizon=16, n_steps=10, relative_to=present, action_norm="mean_std",
    )  # fmt: skip
    trainer = Trainer(
        model, windows, run_dir=folder / "train", steps=TRAINING_STEPS, batch_size=64, lr=1e-3, warmup_steps=30,
        tensorboard=False, threads=1,
    )  # fmt: skip
    load_model_weights(model, trainer.fit().last)
    return export_bundle(
        model, folder / "bundle", spec=spec, stats=stats, n_execute=8, config={}, data_digest=store.digest(),
        parity_rounds=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(collected, successes, tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    return fitted(collected.store, successes, tmp_path_factory.mktemp("policy"))


@pytest.mark.slow
@pytest.mark.timeout(900)  # it trains
def test_what_was_learned_from_the_store_lifts_the_cube_over_topics(shared_graph, bundle, tmp_path):
    url = tmp_path / "store"
    processes = calm_graph(
        "deploy", store=str(url), bundle=str(bundle.path), seed=str(SEED), policy_seed="0", max_episode_s="15",
        observations=str(calm_observations(tmp_path)),
    )  # fmt: skip
    cell, lifted = Cell(shared_graph), False
    with Running(processes):
        for n in range(1, TRIES + 1):
            cell.start()
            cell.wait(lambda: cell.height_m() > LIFTED_M or not cell.running(), "a lift, or the end of the episode")
            lifted = cell.height_m() > LIFTED_M and shared_graph.call(Trigger, "supervisor/success").success
            cell.wait(lambda n=n: len(saved(url)) >= n, "the saved episode")
            if lifted:
                break
    assert lifted, f"no lift in {n} episodes; stops: {cell.stops}"
    store = EpisodeStore.open(url)
    recording = store.read(store.ids()[-1])
    assert (recording.meta.outcome, recording.meta.source) == ("success", "policy")
    assert recording.streams["cube_pose"].data[-1][2] > 0.1
    assert not store.episode(store.ids()[-1]).by_human.any()
