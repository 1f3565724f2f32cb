"""Fine-tuning on the arm, over real topics and in real processes: play, learn, publish, take up, be corrected, go on.

The base is a formula that holds the pose and drifts; nothing is lifted here. What is tested is that every episode that
ended is in the run's store with who drove it, by which weights, and that neither role needs the other alive.
"""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from robot_rl_ros.conversions import command_to_msg
from robot_rl_ros.qos import COMMAND, LATCHED
from robot_rl_ros.stamps import now_ns
from robot_rl_ros.up import Running
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from robot_rl.data.plan import RecordingPlan
from robot_rl.data.recorder import TickRecorder
from robot_rl.data.store import EpisodeStore
from robot_rl.values import RecordingMeta
from sim.env import ArmEnv
from sim.robots import ARM7
from sim.tasks import Lift
from tests.ros import lift_cell
from tests.ros.conftest import CONFIG
from tests.ros.formula_bundle import ROBOT, formula_bundle
from tests.ros.lift_cell import Cell, calm_graph
from tests.ros.safety_cell import HOME, NAMES

pytestmark = pytest.mark.slow

pytest.importorskip("torch", reason="torch is not installed here; pip install 'robot-rl[train]'")

CONTROL_HZ = 5.0  # slow, so that a busy machine misses no deadline
EPISODE_S = 4.0
FIRST_SEED = 300
SETTINGS = (
    "algo.learner.hidden=[16,16] algo.learner.n_members=2 algo.batch_size=16 algo.n_step=1 "
    "algo.pace.warm_up_steps=10 algo.pace.critic_first=5 finetune.publish_every=10 finetune.log_every=10 "
    "finetune.checkpoint_every=20"
)
TRIES = 4
KEPT = ("success", "failure", "timeout")


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> SimpleNamespace:
    """The recorder's plan without cameras, two demonstrations that fit it, and a base."""
    folder = tmp_path_factory.mktemp("finetune")
    document = yaml.safe_load((CONFIG / "recorder_lift.yaml").read_text())
    parameters = document["/**"]["ros__parameters"]
    parameters["robot"]["control_hz"] = CONTROL_HZ
    for camera in ("front", "wrist"):
        del parameters["streams"][camera]
    (folder / "plan.yaml").write_text(yaml.safe_dump(document))
    store = RecordingPlan.from_yaml(folder / "plan.yaml").open_store(folder / "demonstrations")
    env = ArmEnv(ARM7, Lift(), control_hz=CONTROL_HZ, max_steps=12)
    for seed in range(2):
        recorder, tick = TickRecorder(store.spec), env.reset(seed)
        recorder.start(tick)
        for n in range(12):
            offset = 0.1 * np.sin(0.5 * n) * np.eye(8)[seed]
            tick = env.step((HOME + offset).astype(np.float32))
            recorder.add(tick)
        store.append(recorder.finish(RecordingMeta(task="lift the cube", source="scripted", outcome="failure")))
    env.close()
    base = formula_bundle(folder / "base", per_step=0.002, robot=replace(ROBOT, control_hz=CONTROL_HZ))
    return SimpleNamespace(folder=folder, plan=folder / "plan.yaml", demonstrations=store.url, base=base)


class Run:
    """A running graph, what its supervisor said, and what is in the run's store."""

    def __init__(self, ros, running, out) -> None:
        self.cell, self.running, self.out = Cell(ros), running, out
        self.said = ros.collect(String, "episode/status", LATCHED)

    @property
    def ended(self) -> dict[int, str]:
        """Outcomes of the episodes that are over, by their number."""
        told = [json.loads(msg.data) for msg in self.said.messages]
        return {status["index"]: status["outcome"] for status in told if status["outcome"] is not None}

    @property
    def episodes(self) -> list:
        if not EpisodeStore.exists(self.out / "store"):
            return []
        store = EpisodeStore.open(self.out / "store")
        return [store.episode(id) for id in store.ids()]

    def wait(self, condition, what):
        def holds():
            assert self.running.poll() is None, "the graph ended"
            return condition()

        return self.cell.wait(holds, what)


@pytest.fixture(scope="module")
def run(shared_graph, given):
    out = given.folder / "run"
    processes = calm_graph(
        "finetune", out=str(out), demonstrations=str(given.demonstrations), base=str(given.base.path), cameras="",
        recorder_config=str(given.plan), seed=str(FIRST_SEED), max_episode_s=str(EPISODE_S), max_age_s="1.0",
        steps="100000", settings=SETTINGS,
    )  # fmt: skip
    assert {p.name for p in processes} == {"safety", "sim_robot", "supervisor", "actor", "learner"}
    with pytest.MonkeyPatch.context() as patch, Running(processes) as running:
        patch.setattr(lift_cell, "PATIENCE_S", 400.0)  # torch is imported three times over
        yield Run(shared_graph, running, out)


@contextmanager
def interfering(ros, wanted: np.ndarray):
    """Somebody at a device who has the arm and asks for one pose, as the teleoperation node would say it."""
    human = ros.publisher(JointTrajectory, "teleop/command", COMMAND)
    intervening = ros.publisher(Bool, "teleop/intervening", COMMAND)
    ros.wait_matched(human)
    ros.wait_matched(intervening)
    enough = threading.Event()

    def say() -> None:
        while not enough.wait(0.05):
            intervening.publish(Bool(data=True))
            human.publish(command_to_msg(now_ns(ros.node), NAMES, wanted, source="human"))
        intervening.publish(Bool(data=False))

    operator = threading.Thread(target=say)
    operator.start()
    try:
        yield
    finally:
        enough.set()
        operator.join()


def versions(episodes) -> list[int]:
    return [int(episode.extras["policy_version"][0]) for episode in episodes]


@pytest.mark.timeout(1500)
def test_the_actor_takes_up_what_the_learner_made_of_its_episodes(run):
    run.wait(lambda: any(version > 0 for version in versions(run.episodes)), "an episode driven by newer weights")
    episodes = run.episodes
    assert versions(episodes) == sorted(versions(episodes))
    for number, episode in enumerate(episodes):
        assert episode.meta.seed == FIRST_SEED + number
        assert episode.meta.policy_version.endswith(f"@{versions(episodes)[number]}")
        assert not episode.by_human.any()
        assert np.isfinite(episode.extras["base_action"][:]).all()
        assert episode.truncated or episode.terminated
        assert len(episode) <= EPISODE_S * CONTROL_HZ + 2
    starts = np.array([episode.obs["cube_pose"][0][:2] for episode in episodes])
    assert np.ptp(starts, axis=0).max() > 0.005, "every episode begins with another scene"
    assert (run.out / "metrics.jsonl").is_file()


@pytest.mark.timeout(1500)
def test_a_person_who_takes_over_is_in_the_episode_with_what_he_asked_for(run, shared_graph):
    wanted, before = HOME + 0.05 * np.eye(8)[2], len(run.episodes)
    driver = shared_graph.collect(String, "control_source", LATCHED)
    human: list = []
    for _ in range(TRIES):
        run.wait(run.cell.running, "an episode")
        n = len(run.episodes)
        with interfering(shared_graph, wanted):
            run.wait(lambda: driver.messages and driver.messages[-1].data == "human", "the handover")
            time.sleep(1.5)
        run.wait(lambda n=n: len(run.episodes) > n, "the end of the episode")
        if human := [episode for episode in run.episodes[before:] if episode.by_human.any()]:
            break
    assert human, "no episode says that a person drove"
    mine = np.asarray(human[-1].by_human)
    asked, proposed = np.asarray(human[-1].action)[mine], human[-1].extras["action_policy"][:][mine]
    nearest = np.abs(asked - wanted).max(axis=1).argmin()
    assert asked[nearest] == pytest.approx(wanted, abs=2e-3)
    assert np.abs(asked - proposed).max() > 1e-3, "the policy would have done something else"
    assert not mine.all(), "the policy drove the rest"


@pytest.mark.timeout(1500)
def test_the_arm_goes_on_without_the_learner_and_the_learner_goes_on_where_it_was(run):
    before, newest, pid = len(run.episodes), max(versions(run.episodes)), run.running.pid("learner")
    os.kill(pid, signal.SIGKILL)  # `nice` has become the learner
    run.wait(lambda: len(run.episodes) > before, "an episode after the learner's death")
    assert run.cell.says("safety/state")["ok"]
    run.wait(lambda: versions(run.episodes)[-1] > newest, "newer weights, of the learner that was started again")
    assert run.running.pid("learner") != pid


@pytest.mark.timeout(1500)
def test_every_episode_that_ended_is_in_the_store(run):
    def all_there() -> bool:
        kept = [outcome for outcome in run.ended.values() if outcome in KEPT]
        return len(kept) == len(run.episodes)

    run.wait(all_there, "all episodes that ended, in the store")
    assert set(run.running.names) == {"safety", "sim_robot", "supervisor", "actor", "learner"}
    lines = (run.out / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line).get("online/steps") or 0 for line in lines) >= len(run.episodes[0])
