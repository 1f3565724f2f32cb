"""Who may take over, from the configuration to the store; on the simulated arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli.config import CONFIG_DIR, build, load_config
from robot_rl.cli.finetune_command import prepare
from robot_rl.cli.finetune_intervener import make_intervener, run_value
from robot_rl.cli.finetune_roles import make_actor, make_learner, online_store
from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import ConfigError
from robot_rl.rl.interventions import intervention_starts
from robot_rl.rl.runner import Intervener
from robot_rl.teleop import TeleopSource

SIMULATED = sorted({path.stem for path in (CONFIG_DIR / "intervener").glob("*.yaml")} - {"none", "value", "spacemouse"})
TINY = ["task=insert", "collect.episodes=2", "algo=rlif_scratch", "algo.batch_size=8", "finetune.workers=0"]


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interveners")
    assert main(["collect", f"out={out}", *TINY]) == 0
    return out


@pytest.mark.parametrize("name", SIMULATED)
@pytest.mark.parametrize("task", ["lift", "insert"])
def test_every_simulated_operator_builds_and_can_be_worse(name: str, task: str) -> None:
    config = load_config([f"task={task}", f"intervener={name}", "intervener.script.quality=0.5"])
    env = build(config.task.env)
    intervener = make_intervener(config, env.spec)
    assert isinstance(intervener, Intervener)
    tick = env.reset(0)
    intervener.reset(0)
    rest = np.concatenate([tick.obs[key] for key in config.task.rest])
    taken = intervener.act(tick, rest)
    assert taken is None or taken.shape == env.spec.action.shape
    env.close()


def test_a_persons_device_is_built_without_being_there() -> None:
    assert isinstance(build(load_config(["intervener=spacemouse"]).intervener.source), TeleopSource)


def test_nobody_is_the_default_and_other_robots_are_refused() -> None:
    config = load_config(["task=insert"])
    env = build(config.task.env)
    assert make_intervener(config, env.spec) is None
    env.close()
    config = load_config(["task=intercept", "intervener=random"])
    env = build(config.task.env)
    with pytest.raises(ConfigError, match="drives arms by joint positions; `intercept` is commanded by `position`"):
        make_intervener(config, env.spec)
    env.close()


def test_a_run_with_an_operator_stores_who_drove_and_learns_from_that_alone(demonstrated: Path) -> None:
    config = load_config([
        f"out={demonstrated}", *TINY, "intervener=schedule", "intervener.rule.after_steps=6", "intervener.n_steps=4",
        "finetune.steps=60", "task.env.max_steps=30", "algo.pace.warm_up_steps=20",
    ])  # fmt: skip
    card = prepare(config)
    learner = make_learner(config, card)
    actor = make_actor(config, card, online_store(config), learner.algorithm)
    for _ in range(2):
        learner.feed.add(actor.sink.episode(actor.episode().id))
    store = online_store(config)
    for id in store.ids():
        episode = store.episode(id)
        human = np.asarray(episode.by_human)
        assert human.tolist() == ([False] * 6 + [True] * 4) * 3
        proposed, action = episode.extras["action_policy"][:], np.asarray(episode.action)
        assert np.abs(action - proposed)[human].max() > 1e-3
        assert (action == proposed)[~human].all()
        assert intervention_starts(human).sum() == 3
    pool = learner.feed.online
    reward = pool.gather(np.arange(len(pool))).reward
    assert reward.min() < -0.9
    assert reward.max() == 0.0
    demonstrations = learner.feed.demonstrations
    assert (demonstrations.gather(np.arange(len(demonstrations))).reward == 0.0).all()
    learner.close()
    actor.env.close()


def test_the_value_of_a_finished_run_serves_an_operator(demonstrated: Path) -> None:
    out = demonstrated / "valued"
    config = load_config([f"out={demonstrated}", *TINY, f"finetune.out={out}"])
    card = prepare(config)
    with pytest.raises(ConfigError, match="holds no checkpoint of a critic"):
        run_value(str(out))
    learner = make_learner(config, card)
    learner.checkpoint()
    learner.close()
    value = run_value(str(out))
    episode = EpisodeStore.open(demonstrated / "store").episode(EpisodeStore.open(demonstrated / "store").ids()[0])
    obs = {name: np.asarray(rows[0]) for name, rows in episode.obs.items()}
    here, there = value(obs, episode.action[0]), value(obs, episode.action[0] + 0.2)
    assert np.isfinite([here, there]).all()
    assert here != there
    config = load_config([f"out={demonstrated}", *TINY, "intervener=value", f"intervener.rule.value.folder={out}"])
    assert isinstance(make_intervener(config, card.spec), Intervener)
