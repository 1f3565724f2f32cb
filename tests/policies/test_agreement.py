"""What cannot be composed is refused, and the message says which two values disagree."""

import dataclasses
import math

import pytest
import torch

from policies.agreement import Parent, check_agreement, shared_levels, supported_levels
from policies.compose import ComposedModel
from robot_rl.errors import ConfigError
from robot_rl.gaussian_path import GaussianPath
from tests.policies.helpers import HORIZON, SPEC, STATS, field_stats
from tests.policies.parents import parent


def altered(one: Parent, **spec) -> Parent:
    return dataclasses.replace(one, spec=dataclasses.replace(one.spec, **spec))


def test_parents_of_any_family_agree():
    check_agreement([parent("flow"), parent("epsilon"), parent("sample"), parent("v")])


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ((0.5, 0.4), r"`weights` must sum to 1, got \[0.5, 0.4\] with sum 0.9"),
        ((0.6, 0.6), "with sum 1.2"),
        ((1.2, -0.2), r"`weights` must not be negative, got \[1.2, -0.2\]"),
        ((math.nan, 1.0), "must not be negative"),
        ((1.0,), r"`weights` must be one for each of \['flow', 'v'\], got \[1.0\]"),
    ],
)
def test_weights_that_are_no_convex_combination_are_refused(weights, text):
    with pytest.raises(ConfigError, match=text):
        ComposedModel([parent("flow"), parent("v")], weights)


def test_normalisers_that_disagree_are_named_by_element_and_values():
    other = parent("v")
    other.model.normalizer.scale.copy_(parent("flow", action_norm="mean_std").model.normalizer.scale)
    with pytest.raises(ConfigError, match=r"scale of element 0 is 0\.00408163\d for `flow` and 0\.00816326\d for `v`"):
        check_agreement([parent("flow"), other])
    near = parent("v")
    near.model.normalizer.offset[1] += 3e-6
    with pytest.raises(ConfigError, match=r"offset of element 1 is -1.105263 for `flow` and -1.10526 for `v`"):
        check_agreement([parent("flow"), near])
    same = parent("v")
    same.model.normalizer.offset[1] += 3e-7
    check_agreement([parent("flow"), same])


def relative(name: str, reach: float = 100.0, horizon: int = HORIZON, offset: int = 0) -> Parent:
    from tests.policies import helpers

    steps = torch.arange(1.0 + offset, horizon + 1 + offset)[:, None].expand(horizon, 2).numpy()
    stats = STATS | {"action_relative": field_stats(-reach * steps**2, reach * steps**2)}
    net = helpers.FAMILIES["flow"](
        SPEC, stats, encoder=helpers.encoder, denoiser=helpers.DENOISERS["mlp"], n_obs=2, horizon=horizon,
        action_offset=offset, relative_to=["agent_pos"],
    )  # fmt: skip
    return Parent(name, net.eval(), SPEC, stats)


def test_relative_normalisers_are_compared_step_by_control_step_where_both_reach():
    check_agreement([relative("long"), relative("short", horizon=4)])
    with pytest.raises(ConfigError, match=r"scale of element 0 of step 0 is 0\.0[12] for `long`"):
        check_agreement([relative("long"), relative("other", reach=50.0)])
    joined = ComposedModel([relative("short", horizon=4), relative("long")], (0.5, 0.5))
    assert torch.equal(joined.normalizer.scale, relative("long").model.normalizer.scale)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda: relative("moved"), r"`relative_to` is \[\] for `flow` and \['agent_pos'\] for `moved`"),
        (lambda: altered(parent("v"), control_hz=20), "`control_hz` is 10 for `flow` and 20 for `v`"),
        (
            lambda: altered(parent("v"), action=dataclasses.replace(SPEC.action, unit="m")),
            "`action` differs in `unit`: 'px' for `flow`, 'm' for `v`",
        ),
        (
            lambda: altered(parent("v"), obs={"agent_pos": dataclasses.replace(SPEC.obs["agent_pos"], unit="m")}),
            "`agent_pos` differs in `unit`: 'px' for `flow`, 'm' for `v`",
        ),
    ],
)
def test_policies_of_different_robots_are_refused(other, text):
    with pytest.raises(ConfigError, match=text):
        check_agreement([parent("flow"), other()])


def test_one_parent_is_no_composition():
    with pytest.raises(ConfigError, match=r"needs at least 2 `parents`, got \['flow'\]"):
        check_agreement([parent("flow")])


def test_the_shared_grid_is_the_discrete_parents_and_within_what_all_know():
    flow, vp = parent("flow").model, parent("epsilon").model
    assert shared_levels([flow, vp]) == [*(float(vp.path.sigma_e(k)) for k in range(90, -1, -10)), 0.0]
    assert shared_levels([flow, vp], 5) == [*(float(vp.path.sigma_e(k)) for k in (80, 60, 40, 20, 0)), 0.0]
    assert shared_levels([flow, flow])[0] == math.inf
    assert supported_levels(flow) == (0.0, math.inf)
    low, high = supported_levels(vp)
    assert (low, high) == pytest.approx((0.02513, 2029.2), rel=1e-3)


def on_ve(times) -> Parent:
    """A parent whose path is EDM's, trained between the first and the last of the times."""
    one = parent("flow", "edm")
    one.model.path, one.model.times = GaussianPath.ve(), times
    return one


def test_levels_that_a_parent_was_not_trained_on_are_left_out_or_refused():
    edm = on_ve([2.0, 1.0, 0.1, 0.0])
    assert supported_levels(edm.model) == (0.1, 2.0)
    levels = shared_levels([parent("epsilon").model, edm.model])
    assert max(levels) <= 2.0
    assert min(levels[:-1]) >= 0.1
    assert shared_levels([parent("flow").model, edm.model], 3) == pytest.approx([2.0, 0.53, 0.1, 0.0], abs=0.02)
    with pytest.raises(ConfigError, match=r"`edm` was trained on sigma_e from 0.1 to 2, `levels` holds 7"):
        ComposedModel([parent("v"), edm], (0.5, 0.5), levels=[7.0, 1.0, 0.0])
    with pytest.raises(ConfigError, match="the parents share no noise level"):
        shared_levels([edm.model, on_ve([0.05, 0.01, 0.0]).model])


@pytest.mark.parametrize("levels", [[1.0], [1.0, 2.0, 0.0], [2.0, 1.0], [1.0, 1.0, 0.0]])
def test_levels_that_do_not_fall_to_zero_are_refused(levels):
    with pytest.raises(ConfigError, match="`levels` must be noise levels sigma_e that fall and end in 0"):
        ComposedModel([parent("flow"), parent("v")], (0.5, 0.5), levels=levels)


def test_a_grid_finer_than_the_hosts_steps_is_refused():
    with pytest.raises(ConfigError, match="round to the same steps"):
        ComposedModel([parent("flow"), parent("v")], (0.2, 0.8), levels=[1.001, 1.0, 0.5, 0.0])
