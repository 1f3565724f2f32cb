"""Which bundle the policy node runs: one folder, or the newest accepted one of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot_rl.bundle import PolicyBundle, newest_accepted
from robot_rl.bundle.accepted import find_bundle, read_accepted
from robot_rl.deploy.residual import smoke_run_all
from robot_rl.errors import BundleError
from robot_rl.evaluation.permission import check_hardware_permission, speed_share
from robot_rl.evaluation.rollback import Rollback


class BundleSource:
    """Finds bundles that may drive this robot.

    Args:
        path: A bundle, or a folder whose subfolders are bundles.
        n_joints: A, how many joints (and gripper) the robot has.
        hardware: A real arm moves, so a bundle needs a validation record or the operator's word.
        override: Id of the bundle that the operator allows without one.
        min_success: Success rate that the validation record must show.
        velocity: [A], the robot's speed limits, for bundles that may use a share of them; empty where none is known.
        rollback_patience: Least mean number of episodes until a bundle that is as good as its incumbent's bound is
            taken back; 0 never goes back.
    """

    def __init__(
        self, path: str | Path, *, n_joints: int, hardware: bool, override: str, min_success: float,
        velocity: Sequence[float] = (), rollback_patience: int = 0,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self._n_joints, self._velocity = n_joints, tuple(velocity)
        self._rollback = (
            Rollback(self.path, patience=rollback_patience) if rollback_patience and self.has_many else None
        )
        self._hardware, self._override, self._min_success = hardware, override, min_success

    @property
    def has_many(self) -> bool:
        """Whether newer bundles may appear."""
        return not (self.path / "manifest.json").is_file()

    @property
    def trial(self) -> str:
        """The trial that the driving bundle was set for, empty for none."""
        accepted = read_accepted(self.path) if self.has_many else None
        return "" if accepted is None else accepted.trial

    def names_another(self, than: PolicyBundle) -> bool:
        """Whether the folder's `accepted.json` names another bundle than this one, or cannot be read."""
        try:
            accepted = read_accepted(self.path) if self.has_many else None
        except BundleError:
            return True
        return accepted is not None and accepted.bundle != than.id

    def note(self, bundle: PolicyBundle, outcome: str | None, *, taken_over: bool) -> str:
        """Count how an episode ended, and return why the bundle was taken back, if it was; `discard` is not counted.

        Args:
            bundle: Who drove.
            outcome: How it ended.
            taken_over: A person had the arm within it, so that a success was not the bundle's.

        Raises:
            RobotRLError: The files that it is counted in are damaged.
            OSError: They cannot be written.
        """
        if self._rollback is None or outcome not in ("success", "failure", "timeout"):
            return ""
        back = self._rollback.note(bundle.id, success=outcome == "success" and not taken_over)
        return "" if back is None else back.reason

    def first(self) -> PolicyBundle:
        """Return the bundle to begin with.

        Raises:
            BundleError: There is none that is whole, fits, answers and may move this robot.
        """
        named = self._named()
        if named is not None:
            self._accept(named)
            return named
        found = newest_accepted(self.path, accept=self._accept)
        if found is None:
            raise BundleError(
                f"{self.path} holds no bundle that may drive this robot (the log says why each was refused); "
                "export or validate one"
            )
        return found

    def newer(self, than: PolicyBundle) -> PolicyBundle | None:
        """Return the bundle that should drive now, unless it is the one given; those that were refused are in the log.

        That is the one the folder's `accepted.json` names, which may be an older one after a rollback, else the newest.
        """

        def accept(bundle: PolicyBundle) -> None:
            if bundle.id != than.id:
                self._accept(bundle)

        named = self._named()
        found = newest_accepted(self.path, accept=accept) if named is None else named
        if found is None or found.id == than.id:
            return None
        if named is not None:
            self._accept(named)
        return found

    def _named(self) -> PolicyBundle | None:
        """Return the bundle that is meant whatever its age: the only one, or the one that is pointed to."""
        if not self.has_many:
            return PolicyBundle.open(self.path)
        accepted = read_accepted(self.path)
        return None if accepted is None else find_bundle(self.path, accepted.bundle)

    def max_step(self, bundle: PolicyBundle) -> np.ndarray | None:
        """Return how far a command [A] may be from the one before; `None` where the bundle may use all speed.

        A real arm is slower with a bundle that was not validated itself, but inherits (architecture, section 4).

        Raises:
            BundleError: The robot's speed limits are not known.
        """
        share = speed_share(bundle) if self._hardware else 1.0
        if share == 1.0:
            return None
        if len(self._velocity) != self._n_joints:
            raise BundleError(
                f"bundle {bundle.id} may use {share:g} of the speed limits, since its parent was validated and not it; "
                f"parameter `velocity` must hold {self._n_joints} of them, got {list(self._velocity)}"
            )
        return np.asarray(self._velocity) * share / bundle.manifest.control_hz

    def _accept(self, bundle: PolicyBundle) -> None:
        action = bundle.manifest.robot.action
        if action.kind != "joint_position" or action.shape != (self._n_joints,):
            raise BundleError(
                f"bundle {bundle.id} commands {action.kind} {action.shape}, this robot takes joint_position "
                f"({self._n_joints},); use a bundle trained for this robot"
            )
        if self._hardware:
            check_hardware_permission(bundle, override=self._override, min_success=self._min_success)
            self.max_step(bundle)
        smoke_run_all(bundle)
