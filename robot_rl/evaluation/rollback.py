"""Back to the incumbent when a new bundle does worse than it should.

The rule: there is evidence that its success has fallen below the incumbent's lower confidence bound
(`robot_rl.evaluation.decline`). The share of a window's successes alone would take back a bundle as good as its
incumbent sooner or later, since a window is short and is looked at after every episode.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from robot_rl.bundle.accepted import Accepted, read_accepted, write_accepted
from robot_rl.evaluation.decline import Decline
from robot_rl.evaluation.statistics import clopper_pearson
from robot_rl.evaluation.trial_log import TrialLog

log = logging.getLogger(__name__)

OUTCOMES = "outcomes.jsonl"
_LAST = 20


class Rollback:
    """Watches the episodes of the bundle that drives, and takes it back.

    Outcomes are kept beside the bundles, so that a restart forgets none. Call `note` between episodes.

    Args:
        folder: Of the bundles.
        patience: Least mean number of episodes until a bundle that is as good as the incumbent's bound is taken back;
            a better one lasts longer.

    Raises:
        ConfigError: A patience that is not above 1.
    """

    def __init__(self, folder: str | Path, *, patience: float = 100.0) -> None:
        Decline(0.0, patience=patience)  # a wrong one is refused before there is an episode
        self._folder, self._patience = Path(folder), patience
        self._log: TrialLog | None = None

    def note(self, bundle_id: str, *, success: bool) -> Accepted | None:
        """Count an episode, and return who drives from now on if that changed; nothing is kept where nobody is named.

        The bundle to go back to need not be there: a bad one is taken back all the same.

        Raises:
            BundleError: What says who drives is damaged.
            ConfigError: The file of outcomes is.
            OSError: They cannot be written; the episode is not counted then.
        """
        accepted = read_accepted(self._folder)
        if accepted is None:
            return None
        if self._log is None:
            self._log = TrialLog(self._folder / OUTCOMES, {"outcomes": "of episodes by bundle"})
        under = {key: value for key in ("since", "trial") if (value := getattr(accepted, key))}
        self._log.add({"bundle": bundle_id, "success": bool(success), **under})
        if accepted.bundle != bundle_id or not accepted.incumbent:
            return None
        since = self._since_promotion(accepted)
        if not Decline(accepted.bound, patience=self._patience).add(since).alarm:
            return None
        last = since[-_LAST:]
        reason = (
            f"bundle {bundle_id} succeeded in {sum(since)} of {len(since)} episodes, in {sum(last)} of the last "
            f"{len(last)}: evidence beyond {self._patience:g} that it is below {accepted.bound:.3f}, the lower bound "
            f"of the incumbent {accepted.incumbent}"
        )
        back = replace(
            accepted, bundle=accepted.incumbent, incumbent="", bound=0.0, reason=reason,
            refused=(*accepted.refused, bundle_id), since="",
        )  # fmt: skip
        write_accepted(self._folder, back, verify=False)
        self._log.add({"bundle": bundle_id, "taken_back": True})
        log.error("rolled back: %s", reason)
        return back

    def _since_promotion(self, accepted: Accepted) -> list[bool]:
        """Return the outcomes of who drives under this promotion: none of earlier ones, none of blind trials."""
        assert self._log is not None
        rows = [row for row in self._log.rows if row["bundle"] == accepted.bundle]
        last = max((i for i, row in enumerate(rows) if row.get("taken_back")), default=-1)
        mine = [row for row in rows[last + 1 :] if row.get("since", "") == accepted.since and not row.get("trial")]
        return [row["success"] for row in mine]


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
    since = datetime.now(UTC).isoformat(timespec="microseconds")
    accepted = Accepted(bundle=bundle_id, incumbent=incumbent, bound=bound, reason=reason, refused=refused, since=since)
    write_accepted(folder, accepted)
    return accepted
