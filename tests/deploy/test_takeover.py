"""Who drives is decided by inputs and clock alone; nothing jumps, and nothing stale ever drives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.deploy.takeover import Command, Now, Takeover, TakeoverInputs
from robot_rl.errors import ConfigError

STEP = 20_000_000
EPOCH = 1_700_000_000_000_000_000
HOME = np.array([0.1, 0.2, 0.08])
POLICY, HUMAN = np.array([1.0, 2.0, 0.0]), np.array([-1.0, 0.5, 0.04])


class Graph:
    """Feeds a takeover as the supervisor does: live sources send a fresh command at every tick."""

    def __init__(self, **settings) -> None:
        self.takeover = Takeover(3, **{"handover_s": 0.2, "release_s": 0.1, "wait_s": 0.1, **settings})
        self.ns = 0
        self.policy, self.human = POLICY, None
        self.engaged, self.device_alive, self.forced = False, False, False
        self.running, self.blocked = True, ""
        self.executed, self.measured = None, HOME
        self.acknowledge = True
        self.resets = 0
        self._device_ns = None

    def now(self) -> Now:
        return Now(self.ns, EPOCH + self.ns)

    def command(self, value, age_ns: int = 0) -> Command | None:
        now = self.now()
        return None if value is None else Command(value, now.stamp_ns - age_ns, now.monotonic_ns - age_ns)

    def tick(self, n: int = 1, **inputs):
        """Pass n ticks and return the last selection."""
        for _ in range(n):
            self.ns += STEP
            if self.device_alive:
                self._device_ns = self.ns
            known = {
                "policy": self.command(self.policy), "human": self.command(self.human),
                "executed": self.command(self.executed), "measured": self.command(self.measured),
                "intervening": self.engaged, "intervening_ns": self._device_ns, "forced": self.forced,
                "policy_allowed": self.running, "blocked": self.blocked,
            }  # fmt: skip
            selection = self.takeover.update(self.now(), TakeoverInputs(**{**known, **inputs}))
            if selection.policy_reset:
                self.resets += 1
                if self.acknowledge:
                    self.takeover.policy_was_reset(self.now())
        return selection

    def engage(self) -> None:
        self.engaged = self.device_alive = True
        self.human = HUMAN

    def release(self) -> None:
        self.engaged, self.human = False, None


def driven_by_policy(**settings) -> Graph:
    graph = Graph(**settings)
    assert graph.tick(30).driver == "policy"
    return graph


def test_a_policy_starts_at_the_measured_pose_and_arrives_at_its_own_command():
    graph = Graph()
    first = graph.tick()
    assert (first.driver, first.policy_reset) == ("none", True)
    assert first.reason == "no command from the policy since its reset"
    blend = [graph.tick().value for _ in range(11)]
    share = np.arange(11) * 0.02 / 0.2
    weight = share**2 * (3 - 2 * share)
    np.testing.assert_allclose(blend, HOME + weight[:, None] * (POLICY - HOME), atol=1e-12)
    np.testing.assert_array_equal(blend[0], HOME)
    np.testing.assert_array_equal(blend[-1], POLICY)
    assert graph.resets == 1


def test_nobody_drives_without_an_episode_or_a_human():
    graph = Graph()
    graph.running = False
    selection = graph.tick(5)
    assert (selection.driver, selection.value, selection.reason) == ("none", None, "no episode is running")


def test_a_human_takes_over_at_the_next_tick_and_blends_from_the_executed_command():
    graph = driven_by_policy()
    graph.executed = POLICY - 0.25  # the safety filter let less through
    graph.engage()
    selection = graph.tick()
    assert selection.driver == "human"
    np.testing.assert_array_equal(selection.value, POLICY - 0.25)
    np.testing.assert_allclose(graph.tick(5).value, (POLICY - 0.25 + HUMAN) / 2)
    np.testing.assert_array_equal(graph.tick(5).value, HUMAN)


def test_where_nothing_was_executed_the_last_command_sent_is_the_start():
    graph = driven_by_policy()
    graph.engage()
    np.testing.assert_array_equal(graph.tick().value, POLICY)


def test_a_human_lets_go_only_after_the_quiet_time_and_the_arm_holds_meanwhile():
    graph = driven_by_policy()
    graph.engage()
    graph.tick(15)
    graph.release()
    drivers = [graph.tick() for _ in range(5)]
    assert [s.driver for s in drivers] == ["human"] * 4 + ["policy"]
    assert all(np.array_equal(s.value, HUMAN) for s in drivers)
    assert drivers[0].reason == "no command from the human"


def test_a_short_pause_of_the_human_does_not_wake_the_policy():
    graph = driven_by_policy()
    graph.engage()
    graph.tick(15)
    for _ in range(5):
        graph.release()
        assert graph.tick(3).driver == "human"
        graph.engage()
        assert graph.tick(3).driver == "human"
    assert graph.resets == 1


def test_the_policy_gets_the_arm_back_with_a_reset_and_a_blend_from_where_the_human_left_it():
    graph = driven_by_policy()
    graph.engage()
    graph.tick(15)
    graph.release()
    back = graph.tick(5)
    assert (back.driver, back.policy_reset, graph.resets) == ("policy", True, 2)
    np.testing.assert_array_equal(back.value, HUMAN)  # waiting for what it sends after the reset
    np.testing.assert_array_equal(graph.tick().value, HUMAN)
    np.testing.assert_allclose(graph.tick(5).value, (HUMAN + POLICY) / 2)
    np.testing.assert_array_equal(graph.tick(5).value, POLICY)


def test_a_policy_that_was_not_reset_never_drives():
    graph = driven_by_policy()
    graph.acknowledge = False
    graph.engage()
    graph.tick(15)
    graph.release()
    assert graph.tick(5).driver == "policy"
    assert graph.tick(4).driver == "policy"  # holds for wait_s
    selection = graph.tick(60)
    assert (selection.driver, selection.reason) == ("none", "no command from the policy since its reset")
    assert graph.resets == 3  # asked again each second


def test_a_command_of_before_the_reset_is_not_used():
    graph = Graph()
    graph.tick()
    old = Command(POLICY, EPOCH + graph.ns - 1, graph.ns + STEP)
    assert graph.tick(policy=old).reason == "no command from the policy since its reset"
    assert graph.tick().driver == "policy"


@pytest.mark.parametrize("age_ms", [101, -101])
def test_a_stale_command_or_a_clock_that_jumped_never_drives(age_ms):
    graph = driven_by_policy()
    now = graph.now()
    stale = Command(POLICY, now.stamp_ns + STEP - age_ms * 1_000_000, graph.ns + STEP)
    selection = graph.tick(policy=stale)
    assert (selection.driver, selection.value) == ("none", None)
    assert "the policy's command is stale: received 0.000 s ago" in selection.reason


def test_a_command_received_long_ago_never_drives_whatever_its_stamp_says():
    graph = driven_by_policy()
    old = graph.command(POLICY)
    for _ in range(5):
        assert graph.tick(policy=old).driver == "policy"
    assert graph.tick(policy=Command(POLICY, EPOCH + graph.ns, old.received_ns)).driver == "none"


def test_a_dead_policy_stops_within_the_time_out_and_starts_again_from_the_measured_pose():
    graph = driven_by_policy()
    graph.policy = None
    selection = graph.tick()
    assert (selection.driver, selection.reason) == ("none", "no command from the policy")
    graph.tick(10)
    graph.policy = POLICY
    np.testing.assert_array_equal(graph.tick().value, HOME)
    assert graph.resets == 2


def test_a_device_that_falls_silent_while_it_has_the_arm_gives_it_to_nobody():
    graph = driven_by_policy()
    graph.engage()
    graph.tick(15)
    graph.device_alive, graph.human = False, None
    selection = graph.tick(40)
    assert selection.driver == "none"
    assert selection.reason.startswith("the operator's device fell silent while it had the arm")
    graph.release()
    graph.device_alive = True  # started again: not enough
    assert graph.tick(20).driver == "none"
    graph.takeover.resume()
    assert graph.tick(2).driver == "policy"


def test_a_human_who_is_engaged_but_sends_nothing_keeps_the_policy_away():
    graph = driven_by_policy()
    graph.engage()
    graph.human = None
    drivers = [graph.tick().driver for _ in range(20)]
    assert drivers[:5] == ["human"] * 5  # holds for wait_s
    assert set(drivers[5:]) == {"none"}


def test_an_intervention_that_was_asked_for_lasts_until_it_is_ended():
    graph = driven_by_policy()
    graph.forced = True
    assert "policy" not in {graph.tick().driver for _ in range(50)}
    graph.forced = False
    graph.tick(6)
    assert graph.tick(2).driver == "policy"


def test_nobody_drives_during_a_reset_and_the_human_may_between_episodes():
    graph = Graph()
    graph.running, graph.blocked = False, "the arm is being reset"
    graph.engage()
    assert graph.tick(3).reason == "the arm is being reset"
    graph.blocked = ""
    np.testing.assert_array_equal(graph.tick().value, HOME)
    assert graph.tick(20).driver == "human"


def test_the_gripper_starts_from_the_last_executed_width_not_from_what_it_holds():
    graph = Graph()
    graph.executed = np.array([9.0, 9.0, 0.0])
    stale = graph.command(graph.executed, age_ns=10**9)
    graph.tick(executed=stale)
    np.testing.assert_array_equal(graph.tick(executed=stale).value, [0.1, 0.2, 0.0])


def test_a_safety_stop_takes_the_arm_from_the_policy_and_afterwards_it_starts_from_the_measured_pose():
    graph = driven_by_policy()
    graph.blocked = "motion is stopped: e-stop"
    assert graph.tick(10).reason == "motion is stopped: e-stop"
    graph.blocked = ""
    graph.tick()
    np.testing.assert_array_equal(graph.tick().value, HOME)
    assert graph.resets == 2


def test_a_command_in_force_is_sent_once_and_again_before_the_receiver_takes_the_sender_for_silent():
    graph = driven_by_policy()
    one = graph.command(POLICY)
    assert [graph.tick(policy=one).repeated for _ in range(5)] == [False, True, True, False, True]  # 0, 20 ... 80 ms
    assert graph.tick(policy=one).driver == "none"  # 120 ms old
    graph = driven_by_policy()
    assert not any(graph.tick().repeated for _ in range(5))  # each tick brings a new one


def test_no_joint_state_no_start():
    graph = Graph()
    graph.measured = None
    assert graph.tick(5).reason == "no fresh joint state to start from"


@pytest.mark.parametrize("bad", [np.array([np.nan, 0, 0]), np.array([0, np.inf, 0]), np.zeros(2)])
def test_a_command_that_is_no_command_never_drives(bad):
    graph = driven_by_policy()
    graph.policy = bad
    assert "the policy's command must be 3 finite numbers" in graph.tick().reason


def test_times_are_checked():
    with pytest.raises(ConfigError, match=r"`handover_s` must be zero or more seconds, got -1"):
        Takeover(3, handover_s=-1)
    with pytest.raises(ConfigError, match=r"`command_timeout_s` must be positive seconds, got 0.0"):
        Takeover(3, command_timeout_s=0.0)
    with pytest.raises(ConfigError, match=r"`release_s` must be zero or more seconds, got nan"):
        Takeover(3, release_s=float("nan"))


def test_a_handover_of_zero_takes_commands_over_at_once():
    graph = driven_by_policy(handover_s=0.0)
    graph.engage()
    np.testing.assert_array_equal(graph.tick().value, HUMAN)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=120))
def test_whatever_happens_successive_commands_differ_by_no_more_than_the_blend_allows(script):
    """Smoothstep's slope is at most 1.5, and the two targets and the pose are at most 3 apart."""
    graph, last = Graph(release_s=0.04), None
    largest = 1.5 * 3.0 * 0.02 / 0.2
    for engaged, alive, policy_sends, human_sends in script:
        graph.engaged, graph.device_alive = engaged, alive
        graph.policy = POLICY if policy_sends else None
        graph.human = HUMAN if human_sends else None
        graph.measured = HOME if last is None else last
        selection = graph.tick()
        assert (selection.value is None) == (selection.driver == "none")
        if selection.value is not None and last is not None:
            assert np.abs(selection.value - last).max() <= largest
        last = selection.value if selection.value is not None else last
