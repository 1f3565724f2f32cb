import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError
from sim.env import ArmEnv
from sim.intercept import InterceptEnv
from sim.randomise import Randomisation, RandomisedEnv
from sim.robots import ARM7
from tests.contracts.env import check_env

WILD = Randomisation(
    mass=(0.5, 2.0), friction=(0.5, 2.0), damping=(0.5, 2.0), gain=(0.5, 2.0), camera_m=0.02, camera_deg=5.0,
    light=(0.5, 1.0), pixel=3.0, noise={"joint_position": 0.01},
)  # fmt: skip
HOME = np.append(np.asarray(ARM7.home), 0.08).astype(np.float32)
FIELDS = ("body_mass", "body_inertia", "body_gravcomp", "geom_friction", "dof_damping", "actuator_gainprm", "cam_quat")


@pytest.fixture(scope="module")
def arm():
    env = ArmEnv(max_steps=10)
    yield env
    env.close()


def numbers(env: ArmEnv) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(env.model, name)) for name in FIELDS}


def test_a_randomised_arm_holds_the_contract():
    check_env(lambda: RandomisedEnv(ArmEnv(max_steps=15), WILD), n_steps=4)


def test_each_seed_has_its_own_arm_and_the_same_one_again(arm):
    nominal, drawn = numbers(arm), {}
    env = RandomisedEnv(arm, WILD, on_draw=lambda seed, found: drawn.setdefault(seed, dict(found)))
    env.reset(1)
    first = numbers(arm)
    env.reset(2)
    second = numbers(arm)
    env.reset(1)
    for name, value in numbers(arm).items():
        np.testing.assert_array_equal(value, first[name])
        assert not np.array_equal(first[name], second[name]), name
    assert drawn[1] == env.drawn
    assert drawn[1] != drawn[2]
    factor = first["body_mass"][1:] / nominal["body_mass"][1:]
    assert (factor > 0.5).all()
    assert (factor < 2.0).all()
    assert drawn[1]["mass"] == pytest.approx(factor.mean())
    np.testing.assert_allclose(first["body_inertia"][1:], nominal["body_inertia"][1:] * factor[:, None])
    np.testing.assert_allclose(np.linalg.norm(first["cam_quat"], axis=1), 1.0)


def test_the_controller_goes_on_compensating_the_nominal_weight(arm):
    nominal = numbers(arm)
    RandomisedEnv(arm, WILD).reset(3)
    now = numbers(arm)
    np.testing.assert_allclose(
        now["body_gravcomp"] * now["body_mass"], nominal["body_gravcomp"] * nominal["body_mass"], atol=1e-12
    )


def test_closing_puts_every_number_back_and_the_clipping_planes_never_move():
    arm = ArmEnv(max_steps=10)
    nominal, extent = numbers(arm), arm.model.stat.extent
    env = RandomisedEnv(arm, WILD)
    env.reset(5)
    assert arm.model.stat.extent == extent
    env.close()
    for name, value in numbers(arm).items():
        np.testing.assert_array_equal(value, nominal[name])


def test_other_dynamics_move_the_arm_otherwise_and_without_any_nothing_changes(arm):
    target = HOME.copy()
    target[:4] += 0.3

    def end(env) -> np.ndarray:
        env.reset(7)
        for _ in range(6):
            tick = env.step(target)
        return tick.obs["joint_position"]

    plain = end(arm)
    np.testing.assert_array_equal(end(RandomisedEnv(arm, Randomisation())), plain)
    soft = end(RandomisedEnv(arm, Randomisation(gain=(0.3, 0.3))))
    assert np.abs(soft - plain).max() > 1e-3


def test_noise_is_on_the_observation_named_and_repeats_with_the_seed():
    env = RandomisedEnv(InterceptEnv(), Randomisation(noise={"target_pos": 0.05}))
    bare = InterceptEnv()
    shown, truth = env.reset(4).obs, bare.reset(4).obs
    assert not np.array_equal(shown["target_pos"], truth["target_pos"])
    np.testing.assert_array_equal(shown["agent_pos"], truth["agent_pos"])
    np.testing.assert_array_equal(env.reset(4).obs["target_pos"], shown["target_pos"])
    assert shown["target_pos"].dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Randomisation(mass=(0.0, 1.0)), "`mass` must be two factors with 0 < low <= high"),
        (lambda: Randomisation(gain=(2.0, 1.0)), "`gain` must be two factors"),
        (lambda: Randomisation(noise={"x": -1.0}), "`x` must be 0 or more"),
        (
            lambda: RandomisedEnv(InterceptEnv(), Randomisation(noise={"joint_position": 1.0})),
            r"noise on unknown observations \['joint_position'\]",
        ),
        (
            lambda: RandomisedEnv(InterceptEnv(), Randomisation(mass=(0.9, 1.1))),
            "mass can vary only in an arm's MuJoCo model, and InterceptEnv has none; choose validate=observations",
        ),
    ],
)
def test_what_cannot_vary_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_model_is_the_one_that_is_stepped(arm):
    assert isinstance(arm.model, mujoco.MjModel)
    assert arm.model.nu == 8
