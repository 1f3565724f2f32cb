"""Every configuration composes and builds; a wrong one is refused by name."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from policies.chunk_network import ChunkNetwork
from robot_rl.cli.config import CONFIG_DIR, build, load_config, plain, simulation
from robot_rl.cli.main import COMMANDS, main
from robot_rl.data.normalizer import FieldStats
from robot_rl.deploy.safety import SafetyLimits
from robot_rl.errors import ConfigError
from robot_rl.interfaces import ChunkModel, Env, Policy
from robot_rl.specs import RobotSpec

TASKS = sorted(path.stem for path in (CONFIG_DIR / "task").glob("*.yaml") if path.stem != "own")
POLICIES = sorted(path.stem for path in (CONFIG_DIR / "policy").glob("*.yaml"))
DENOISERS = sorted(path.stem for path in (CONFIG_DIR / "denoiser").glob("*.yaml"))


def _stats(spec: RobotSpec, horizon: int) -> dict[str, FieldStats]:
    def field(shape: tuple[int, ...]) -> FieldStats:
        zero, one = np.zeros(shape), np.ones(shape)
        return FieldStats(min=-one, max=one, mean=zero, std=one, q01=-one, q99=one, count=10)

    stats = {name: field(array.shape) for name, array in spec.obs.items() if not array.is_image}
    return stats | {"action": field(spec.action.shape), "action_relative": field((horizon, *spec.action.shape))}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_builds_its_environment_expert_and_limits(task: str) -> None:
    config = load_config([f"task={task}"])
    env = build(config.task.env)
    try:
        assert isinstance(env, Env)
        assert set(config.task.obs) <= set(env.spec.obs)
        assert sum(env.spec.obs[name].size for name in config.task.rest) == env.spec.action.size
        limits = build(config.task.safety)
        assert isinstance(limits, SafetyLimits)
        assert limits.width == env.spec.action.size
        if config.task.expert is not None:
            assert isinstance(build(config.task.expert), Policy)
    finally:
        env.close()


def test_a_task_of_ones_own_needs_its_observations_named() -> None:
    with pytest.raises(ConfigError, match=r"`task\.obs` must be given"):
        load_config(["task=own"])
    assert plain(load_config(["task=own", "task.obs=[joints]"]).task.obs) == ["joints"]


def test_a_task_without_simulation_is_refused_where_one_is_needed() -> None:
    config = load_config(["task=own", "task.obs=[joints]"])
    with pytest.raises(ConfigError, match=r"task `own` has no simulation"):
        simulation(config)


@pytest.mark.parametrize(("policy", "denoiser"), list(itertools.product(POLICIES, DENOISERS)))
def test_every_policy_builds_with_every_denoiser(policy: str, denoiser: str) -> None:
    small = {
        "unet": ["denoiser.down_dims=[16,32]"],
        "mlp": ["+denoiser.width=16"],
        "mlp_small": [],
        "mlp_tiny": [],
        "transformer": ["+denoiser.width=16"],
        "moh": ["+denoiser.width=16"],
        "moh_reweighted": ["+denoiser.width=16"],
    }
    config = load_config(["task=pusht", f"policy={policy}", f"denoiser={denoiser}", *small[denoiser]])
    env = build(config.task.env)
    spec = env.spec.select(plain(config.task.obs))
    env.close()
    model = build(config.policy, spec, _stats(spec, config.task.horizon))
    assert isinstance(model, ChunkNetwork)
    assert isinstance(model, ChunkModel)
    assert (model.n_obs, model.horizon, model.action_dim) == (2, 16, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stepz=4"], r"unknown config key `train.stepz` .*did you mean train.steps"),
        (["loop.hertz=4"], r"unknown config key `loop.hertz`"),
        (["wibble=1"], r"unknown config key `wibble`"),
        (["task=juggle"], r"Could not find 'task/juggle'"),
        (
            ["algo=rl100_offline", "algo.critic.stepz=9"],
            r"`algo.critic.stepz` in .*; did you mean algo\.critic\.steps,",
        ),
        (["collect={episodez: 4}"], r"unknown config key `collect.episodez` .*did you mean collect.episodes"),
        (["~train.stepz"], r"unknown config key `train.stepz` in `~train.stepz`; did you mean train.steps"),
        (["algo=null"], r"`algo=null` must name a file: one of \['dppo', "),
        (["train.steps=1,2"], r"`train.steps=1,2` gives several values; a list takes brackets"),
        (["out=a(b"], r"`out=a\(b` does not parse: .*takes quotes that the shell leaves"),
        (["train.steps"], r"expected key=value, got `train.steps`; `robot-rl <command> --help` lists the keys"),
    ],
)
def test_a_wrong_override_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(overrides)


def test_of_many_overrides_only_the_wrong_one_is_named() -> None:
    with pytest.raises(ConfigError) as told:
        load_config(["train.steps=4", "train.stepz=5", "seed=1"])
    assert str(told.value).startswith("unknown config key `train.stepz` in `train.stepz=5`; did you mean train.steps,")
    assert "seed=1" not in str(told.value)


def test_an_unknown_argument_of_a_target_is_refused() -> None:
    config = load_config(["+task.env.colour=red"])
    with pytest.raises(ConfigError, match=r"cannot build `sim.env.ArmEnv`.*colour"):
        build(config.task.env)


def test_relative_actions_refuse_observations_of_another_width() -> None:
    config = load_config(["task=pusht", "policy.relative_to=[block_pose]"])
    env = build(config.task.env)
    spec = env.spec.select(plain(config.task.obs))
    env.close()
    with pytest.raises(ConfigError, match=r"joins to 3 elements, the action has 2"):
        build(config.policy, spec, _stats(spec, 16))


def test_main_prints_the_commands_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)
    assert main(["fly"]) == 2
    assert "unknown command `fly`" in capsys.readouterr().out


def test_cfg_prints_what_a_command_would_run_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "train.steps=7", "--cfg"]) == 0
    assert "steps: 7" in capsys.readouterr().out


def test_every_command_has_a_composition_root() -> None:
    import importlib

    for name in set(COMMANDS) - {"up"}:
        assert callable(importlib.import_module(f"robot_rl.cli.{name.replace('-', '_')}_command").run), name


def test_doctor_finds_what_this_machine_needs(tmp_path: Path) -> None:
    from robot_rl.cli.doctor_command import checks

    found = {check.name: check for check in checks(load_config([f"out={tmp_path}"]))}
    assert found["torch"].ok
    assert found["opencv has hand-eye calibration"].ok
    assert not [check for check in found.values() if check.ok is False]
