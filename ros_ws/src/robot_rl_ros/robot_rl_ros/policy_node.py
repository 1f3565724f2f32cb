"""Drives from a policy bundle: observations in, `policy/command` out, at the bundle's rate, on absolute deadlines."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import rclpy.lifecycle
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot_rl.bundle import PolicyBundle
from robot_rl.deploy.driver import Decision, PolicyDriver
from robot_rl.deploy.execution import STRATEGIES, Execution
from robot_rl.deploy.onnx_policy import OnnxPolicy
from robot_rl.deploy.promises import SampledPolicy
from robot_rl.deploy.residual import step_policy
from robot_rl.deploy.ticker import Ticker
from robot_rl.errors import BundleError, RobotRLError
from robot_rl_ros.bundle_source import BundleSource
from robot_rl_ros.diagnostics import OK, Diagnostics, Health
from robot_rl_ros.episode_tally import EpisodeTally
from robot_rl_ros.obs_sources import make_observer, read_sources, subscribe, unsubscribe, with_latency
from robot_rl_ros.params import declare
from robot_rl_ros.policy_outputs import PolicyOutputs
from robot_rl_ros.policy_params import declare_latency, declare_providers
from robot_rl_ros.policy_report import PolicyReport
from robot_rl_ros.qos import LATCHED
from robot_rl_ros.runner import run
from robot_rl_ros.stamps import now_ns

DrivingPolicy = OnnxPolicy | SampledPolicy


class PolicyNode(rclpy.lifecycle.LifecycleNode):
    """Loads a bundle on `configure` and commands while it is active, an episode runs, and all it sees is fresh.

    A newer accepted bundle takes over between episodes. Raises `ConfigError` or `BundleError` where it must refuse.
    """

    def __init__(self) -> None:
        super().__init__("policy")
        bundle = declare(self, "bundle", str, "a policy bundle, or a folder of bundles of which the newest drives")
        sources = declare(self, "observations", str, "YAML file: topic, type and largest age of each observation")
        self._names = declare(self, "joint_names", list[str], "arm joints, then `gripper`, in the order of an action")
        hardware = declare(self, "hardware", False, "a real arm moves: an unvalidated bundle is refused")
        override = declare(self, "override_bundle", "", "id of the one bundle that may move hardware unvalidated")
        min_success = declare(self, "min_success", 0.5, "success rate a validation must show", low=0.0, high=1.0)
        velocity = declare(self, "velocity", (list[float],), "speed limits of bundles that inherit [rad/s, m/s]")
        self._threads = declare(self, "threads", 1, "threads of one inference", low=1, high=64)
        self._providers = declare_providers(self)
        self._seed = declare(self, "seed", -1, "seed of the policy's noise; -1 takes one from the machine", low=-1)
        strategy = declare(self, "execution", STRATEGIES[0], "how chunks are executed", choices=STRATEGIES)
        latency = declare_latency(self)
        self._execution = Execution(strategy=strategy, lead_ns=latency.lead_ns)
        self._max_hold_s = declare(self, "max_hold_s", 0.5, "how long to repeat an action [s]", low=0.0, high=10.0)
        self._follow = declare(self, "follow_episodes", True, "command only while episode/status says running")
        self._autostart = declare(self, "autostart", True, "configure and activate by itself")
        self._shadow = declare(self, "shadow", False, "compare with selected/command and command nothing")
        self._shadow_log = declare(self, "shadow_log", "", "JSONL file of a shadow's findings, one line an episode")
        patience = declare(self, "rollback_patience", 100, "mean episodes to a false alarm; 0: never", low=0)
        self._sources = with_latency(read_sources(sources), latency)
        self._source = BundleSource(
            bundle, n_joints=len(self._names), hardware=hardware, override=override, min_success=min_success,
            velocity=velocity, rollback_patience=0 if self._shadow else patience,
        )  # fmt: skip
        self._lock = threading.Lock()  # the driver: ticks, resets and swaps
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bundle")
        self._newer: Future[tuple[PolicyBundle, DrivingPolicy] | None] | None = None
        self._ticker: Ticker | None = None
        self._bundle: PolicyBundle | None = None
        self._refusal: RobotRLError | None = None
        self._episode, self._running = -1, not self._follow
        self._origin_ns = 0
        self._driver: PolicyDriver
        self._tally = EpisodeTally(self, self._source)
        self._report = PolicyReport()
        self._diagnostics = Diagnostics(self, self._health)

    def autostart(self) -> PolicyNode:
        """Configure and activate if the parameter says so.

        Raises:
            RobotRLError: Why configuring was refused.
        """
        if self._autostart and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
        if self._autostart and self._refusal is not None:
            raise self._refusal
        return self

    def on_configure(self, state: rclpy.lifecycle.LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle and subscribe to what it reads; FAILURE when that is refused."""
        try:
            bundle = self._source.first()
            self._install(bundle, self._load(bundle))
            self._obs_subscriptions = subscribe(
                self, bundle.manifest.robot.obs, self._sources, lambda: self._driver.observer
            )
        except RobotRLError as error:
            self._refusal = error
            self.get_logger().error(f"refused to configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._refusal = None
        self._outputs = PolicyOutputs(self, self._names, shadow=self._shadow, shadow_log=self._shadow_log)
        self._episodes = self.create_subscription(String, "episode/status", self._take_status, LATCHED)
        self._own_services = [
            self.create_service(Trigger, "~/reload", self._reload),
            self.create_service(Trigger, "~/reset", self._reset),
        ]
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: rclpy.lifecycle.LifecycleState) -> TransitionCallbackReturn:
        """Begin to tick."""
        self._start_ticking()
        return super().on_activate(state)

    def on_deactivate(self, state: rclpy.lifecycle.LifecycleState) -> TransitionCallbackReturn:
        """Command nothing any more."""
        self._stop_ticking()
        return super().on_deactivate(state)

    def on_cleanup(self, state: rclpy.lifecycle.LifecycleState) -> TransitionCallbackReturn:
        """Give the bundle back and unsubscribe."""
        self._stop_ticking()
        unsubscribe(self, [*self._obs_subscriptions, self._episodes])
        for service in self._own_services:
            self.destroy_service(service)
        self._outputs.close()
        self._driver.close()
        self._bundle = None
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the threads."""
        self._stop_ticking()
        self._worker.shutdown(wait=True, cancel_futures=True)
        if self._bundle is not None:
            self._driver.close()

    def _present(self) -> PolicyBundle:
        if self._bundle is None:
            raise BundleError("there is no bundle yet; configure this node first")
        return self._bundle

    def _load(self, bundle: PolicyBundle) -> DrivingPolicy:
        seed = None if self._seed < 0 else self._seed
        policy = self._execution.policy(bundle, threads=self._threads, seed=seed, providers=self._providers)
        policy.warm_up()
        return policy

    def _install(self, bundle: PolicyBundle, policy: DrivingPolicy) -> None:
        robot = bundle.manifest.robot
        observer = make_observer(robot.obs, self._sources, n_obs=policy.n_obs, step_ns=robot.step_ns)
        executor = self._execution.executor(bundle)
        driver = PolicyDriver(
            policy, observer, max_hold_s=self._max_hold_s, executor=executor,
            step=step_policy(bundle, threads=self._threads), max_step=self._source.max_step(bundle),
        )  # fmt: skip
        with self._lock:
            old, self._driver = (self._driver if self._bundle is not None else None), driver
            self._bundle = bundle
        if old is not None:
            old.close()
        self.get_logger().info(f"bundle {bundle.id} ({bundle.manifest.family}, {robot.control_hz:g} Hz) drives")

    def _start_ticking(self) -> None:
        manifest = self._present().manifest
        self._step_ns = manifest.robot.step_ns
        self._ticker = Ticker(self._tick, rate_hz=manifest.control_hz, name="policy")
        self._origin_ns = time.monotonic_ns()  # deadlines fall one period apart from here
        self._ticker.start()

    def _stop_ticking(self) -> None:
        if self._ticker is not None:
            self._ticker.close()
            self._ticker = None

    def _tick(self) -> None:
        """Decide and publish; the tick's own time is its deadline, however late the thread woke."""
        woke_ns = time.monotonic_ns()
        stamp_ns = now_ns(self)
        deadline_ns = woke_ns - (woke_ns - self._origin_ns) % self._step_ns
        if not self._running:
            self._note(None)
            return
        with self._lock:
            decision = self._driver.tick(deadline_ns, ros_offset_ns=stamp_ns - woke_ns)
        self._outputs.send(stamp_ns, decision, offset_ns=stamp_ns - woke_ns)
        self._note(decision)

    def _note(self, decision: Decision | None) -> None:
        if self._report.note(decision):
            self._diagnostics.publish()

    def _health(self) -> Health:
        if self._ticker is not None and self._ticker.error is not None:
            raise self._ticker.error  # ends the process: a policy that cannot tick must not look alive
        if self._bundle is None:
            return Health(OK, "not configured")
        return self._report.health(self._bundle.id, self._driver, self._ticker)

    def _take_status(self, msg: String) -> None:
        if not self._follow:
            return
        status = json.loads(msg.data)
        running, episode = status["state"] == "running", int(status["index"])
        if running and (not self._running or episode != self._episode):
            running = self._begin()
        elif self._running and not running:
            self._end(status.get("outcome"))
        self._episode, self._running = episode, running

    def _begin(self) -> bool:
        """Let a newer bundle take over and start afresh; false if nothing may drive."""
        if problem := self._tally.settle():
            return self._drive_nothing(problem)
        self._take_newer()
        if self._source.names_another(self._present()):
            self._newer = self._worker.submit(self._look_for_newer)
            self._newer.exception()  # waits: a bundle that was taken back must not drive once more
            self._take_newer()
        if self._source.names_another(self._present()):
            return self._drive_nothing(f"bundle {self._present().id} may not drive and the one that may cannot")
        with self._lock:
            self._driver.reset()
        self._tally.drivers.begin()
        self._outputs.begin_episode(self._present().id, self._source.trial)
        return True

    def _drive_nothing(self, why: str) -> bool:
        self._outputs.nobody_drives()
        self.get_logger().error(f"{why}; no motion")
        return False

    def _end(self, outcome: str | None) -> None:
        """Count the episode, and look for the bundle that shall drive the next one."""
        self._outputs.end_episode(self._present().id, self._driver.inference.to_dict)
        self._tally.end(self._present(), outcome)
        if self._newer is None and self._source.has_many:
            self._newer = self._worker.submit(self._look_for_newer)

    def _look_for_newer(self) -> tuple[PolicyBundle, DrivingPolicy] | None:
        found = self._source.newer(self._present())
        if found is None:
            return None
        mine, new = self._present().manifest.robot, found.manifest.robot
        found.check_fits(mine)
        if extra := sorted(set(mine.obs) - set(new.obs)):
            raise BundleError(
                f"bundle {found.id} no longer reads {extra}; clean up and configure this node again to take it"
            )
        return found, self._load(found)

    def _take_newer(self) -> bool:
        """Let a newer bundle take over if one was found."""
        if self._newer is None or not self._newer.done():
            return False
        pending, self._newer = self._newer, None
        try:
            found = pending.result()
        except RobotRLError as error:
            self.get_logger().warning(f"the newer bundle is refused: {error}")
            return False
        if found is None:
            return False
        self._install(*found)
        return True

    def _reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._running and self._follow:
            response.success, response.message = False, "an episode is running; a bundle is changed between episodes"
            return response
        if self._newer is None:
            self._newer = self._worker.submit(self._look_for_newer)
        self._newer.exception()  # waits; what was wrong is told below
        error = self._newer.exception()
        swapped = self._take_newer()
        response.success = error is None
        response.message = str(error) if error is not None else f"{'now' if swapped else 'still'} {self._present().id}"
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Forget the plan; what is commanded after the answer starts from what is seen now."""
        with self._lock:
            self._driver.replan()
        response.success = True
        return response


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(lambda: PolicyNode().autostart(), args)


if __name__ == "__main__":
    sys.exit(main())
