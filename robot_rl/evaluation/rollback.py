"""Back to the incumbent when a new bundle does worse than it should.

The rule: the success of the last 20 episodes falls below the incumbent's lower confidence bound. A window that is not
full counts its missing episodes as successes, so that a bad bundle goes as soon as it cannot reach the bound any more,
and a good one never for want of episodes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from robot_rl.bundle.accepted import Accepted, read_accepted, write_accepted
from robot_rl.errors import ConfigError
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.trial_log import TrialLog

log = logging.getLogger(__name__)

OUTCOMES = "outcomes.jsonl"


class Rollback:
    """Watches the episodes of the bundle that drives, and takes it back.

    Outcomes are kept beside the bundles, so that a restart forgets none. Call `note` between episodes.

    Args:
        folder: Of the bundles.
        window: Episodes that count.

    Raises:
        ConfigError: A window below 1.
    """

    def __init__(self, folder: str | Path, *, window: int = 20) -> None:
        if window < 1:
            raise ConfigError(f"`window` must be at least 1, got {window}")
        self._folder, self._window = Path(folder), window
        self._log: TrialLog | None = None

    def note(self, bundle_id: str, *, success: bool) -> Accepted | None:
        """Count an episode, and return who drives from now on if that changed; nothing is kept where nobody is named.

        Raises:
            BundleError: The incumbent is gone.
        """
        accepted = read_accepted(self._folder)
        if accepted is None:
            return None
        if self._log is None:
            self._log = TrialLog(self._folder / OUTCOMES, {"outcomes": "of episodes by bundle"})
        self._log.add({"bundle": bundle_id, "success": bool(success)})
        if accepted.bundle != bundle_id or not accepted.incumbent:
            return None
        since = [row["success"] for row in self._log.rows if row["bundle"] == bundle_id][-self._window :]
        reachable = (sum(since) + self._window - len(since)) / self._window
        if reachable >= accepted.bound:
            return None
        reason = (
            f"bundle {bundle_id} succeeded in {sum(since)} of its last {len(since)} episodes; over {self._window} that "
            f"is below {accepted.bound:.3f}, the lower bound of the incumbent {accepted.incumbent}"
        )
        back = replace(
            accepted, bundle=accepted.incumbent, incumbent="", bound=0.0, reason=reason,
            refused=(*accepted.refused, bundle_id),
        )  # fmt: skip
        write_accepted(self._folder, back)
        log.error("rolled back: %s", reason)
        return back


def promote(
    folder: str | Path, bundle_id: str, *, incumbent: str, successes: int, trials: int, reason: str, level: float = 0.95
) -> Accepted:
    """Let a bundle drive, with the way back to its incumbent.

    Args:
        folder: Of the bundles, both among them.
        bundle_id: Who shall drive.
        incumbent: Who drives when it does worse.
        successes: Of the incumbent.
        trials: Of the incumbent; under the same conditions as the episodes to come, or the bound is not theirs.
        reason: In words.
        level: Of the one-sided lower bound.

    Raises:
        BundleError: A bundle is not there.
    """
    before = read_accepted(folder)
    refused = () if before is None else tuple(id for id in before.refused if id != bundle_id)
    bound = clopper_pearson(successes, trials, level=2 * level - 1).low
    accepted = Accepted(bundle=bundle_id, incumbent=incumbent, bound=bound, reason=reason, refused=refused)
    write_accepted(folder, accepted)
    return accepted
