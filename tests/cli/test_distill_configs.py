"""Every head's configuration builds the head of every policy it is for, and starts as its page says."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from policies.one_step import OneStepHead
from robot_rl.cli.config import CONFIG_DIR, build, load_config, plain
from robot_rl.cli.distill_command import head_card
from robot_rl.cli.distill_teacher import Teacher, check_data
from robot_rl.cli.model_card import ModelCard
from robot_rl.data.normalizer import FieldStats
from robot_rl.errors import ConfigError
from robot_rl.specs import ActionSpec, ArraySpec, RobotSpec

SPEC = RobotSpec(
    name="pusher",
    obs={
        "agent_pos": ArraySpec(name="agent_pos", shape=(2,), unit="px"),
        "block_pose": ArraySpec(name="block_pose", shape=(3,), unit="px, rad"),
    },
    action=ActionSpec(name="action", shape=(2,), unit="px", kind="position", low=0.0, high=512.0),
    control_hz=10,
)
HEADS = sorted(path.stem for path in (CONFIG_DIR / "head").glob("*.yaml"))
FOR = {"same_noise": ("flow", "diffusion", "edm"), "lcm": ("diffusion",), "shortcut": ("flow",), "mean_flow": ("flow",)}


def field(*shape: int) -> FieldStats:
    zero, one = np.zeros(shape), np.ones(shape)
    return FieldStats(min=-one, max=one, mean=zero, std=one, q01=-one, q99=one, count=10)


def teacher_of(policy: str, *overrides: str) -> Teacher:
    config = load_config(
        ["task=pusht", f"policy={policy}", "encoder=state", "denoiser=mlp", "+denoiser.width=16", *overrides]
    )
    stats = {name: field(*array.shape) for name, array in SPEC.obs.items()}
    stats |= {"action": field(2), "action_relative": field(config.task.horizon, 2)}
    card = ModelCard(task="pusht", policy=plain(config.policy), spec=SPEC, stats=stats, n_execute=8, data_digest="d")
    return Teacher(Path("run"), card, card.build_model(), card.policy, "run-1")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name in HEADS for policy in FOR[name]])
def test_every_head_builds_for_every_policy_it_is_for(name: str, policy: str) -> None:
    teacher = teacher_of(policy)
    card = head_card(load_config(["task=pusht", f"head={name}"]), teacher, "digest")
    head = card.build_model()
    assert isinstance(head, OneStepHead)
    assert head.teach(teacher.model) == (policy != "diffusion")
    assert (head.horizon, head.n_obs, card.data_digest) == (16, 2, "digest")


@pytest.mark.parametrize(
    ("name", "policy"), [pair for pair in itertools.product(HEADS, FOR["same_noise"]) if pair[1] not in FOR[pair[0]]]
)
def test_a_head_refuses_the_policies_it_is_not_for(name: str, policy: str) -> None:
    card = head_card(load_config(["task=pusht", f"head={name}"]), teacher_of(policy), "digest")
    with pytest.raises(ConfigError, match=r"needs a (flow|diffusion) teacher"):
        card.build_model()


def test_a_head_may_have_a_smaller_network_than_its_teacher() -> None:
    config = load_config(["task=pusht", "head.denoiser=${denoiser}", "denoiser=mlp_tiny", "denoiser.width=8"])
    teacher = teacher_of("flow")
    head = head_card(config, teacher, "digest").build_model()
    assert isinstance(head, OneStepHead)
    assert not head.teach(teacher.model)
    sizes = [sum(p.numel() for p in part.denoiser.parameters()) for part in (head, teacher.model)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control_hz": 20}, r"`control_hz` is 10 for the teacher and 20 in the store"),
        ({"obs": {"agent_pos": SPEC.obs["agent_pos"]}}, r"the teacher reads \['block_pose'\], the store has"),
        (
            {"action": ActionSpec(name="action", shape=(2,), unit="m", kind="position")},
            r"`action` is .* for the teacher and .* in the store",
        ),
    ],
)
def test_a_store_of_another_robot_is_refused(change: dict[str, object], message: str) -> None:
    parts = {"name": SPEC.name, "obs": SPEC.obs, "action": SPEC.action, "control_hz": 10} | change
    with pytest.raises(ConfigError, match=message):
        check_data(RobotSpec(**parts), teacher_of("flow").card)  # type: ignore[arg-type]


def test_the_default_limits_are_those_of_the_code() -> None:
    from robot_rl.bundle.certificate import Limits

    assert build(load_config(["task=pusht"]).distill.limits) == Limits()
