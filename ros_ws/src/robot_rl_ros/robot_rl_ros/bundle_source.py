"""Which bundle the policy node runs: one folder, or the newest accepted one of several."""

from __future__ import annotations

from pathlib import Path

from robot_rl.bundle import PolicyBundle, newest_accepted
from robot_rl.deploy.onnx_policy import smoke_run
from robot_rl.errors import BundleError
from robot_rl.evaluation.permission import check_hardware_permission


class BundleSource:
    """Finds bundles that may drive this robot.

    Args:
        path: A bundle, or a folder whose subfolders are bundles.
        n_joints: A, how many joints (and gripper) the robot has.
        hardware: A real arm moves, so a bundle needs a validation record or the operator's word.
        override: Id of the bundle that the operator allows without one.
        min_success: Success rate that the validation record must show.
    """

    def __init__(self, path: str | Path, *, n_joints: int, hardware: bool, override: str, min_success: float) -> None:
        self.path = Path(path)
        self._n_joints = n_joints
        self._hardware, self._override, self._min_success = hardware, override, min_success

    @property
    def has_many(self) -> bool:
        """Whether newer bundles may appear."""
        return not (self.path / "manifest.json").is_file()

    def first(self) -> PolicyBundle:
        """Return the bundle to begin with.

        Raises:
            BundleError: There is none that is whole, fits, answers and may move this robot.
        """
        if not self.has_many:
            bundle = PolicyBundle.open(self.path)
            self._accept(bundle)
            return bundle
        found = newest_accepted(self.path, accept=self._accept)
        if found is None:
            raise BundleError(
                f"{self.path} holds no bundle that may drive this robot (the log says why each was refused); "
                "export or validate one"
            )
        return found

    def newer(self, than: PolicyBundle) -> PolicyBundle | None:
        """Return the newest accepted bundle unless it is the one given; those that were refused are in the log."""

        def accept(bundle: PolicyBundle) -> None:
            if bundle.id != than.id:
                self._accept(bundle)

        found = newest_accepted(self.path, accept=accept) if self.has_many else PolicyBundle.open(self.path)
        if found is None or found.id == than.id:
            return None
        if not self.has_many:
            self._accept(found)
        return found

    def _accept(self, bundle: PolicyBundle) -> None:
        action = bundle.manifest.robot.action
        if action.kind != "joint_position" or action.shape != (self._n_joints,):
            raise BundleError(
                f"bundle {bundle.id} commands {action.kind} {action.shape}, this robot takes joint_position "
                f"({self._n_joints},); use a bundle trained for this robot"
            )
        if self._hardware:
            check_hardware_permission(bundle, override=self._override, min_success=self._min_success)
        smoke_run(bundle)
