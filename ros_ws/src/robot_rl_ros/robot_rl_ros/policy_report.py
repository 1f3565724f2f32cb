"""What the policy node says about itself on /diagnostics."""

from __future__ import annotations

from collections import Counter
from typing import Any

from robot_rl.deploy.driver import Decision, PolicyDriver
from robot_rl.deploy.ticker import Ticker
from robot_rl_ros.diagnostics import ERROR, OK, WARN, Health

BEGINNING = ("no chunk yet", "waiting for the inference under way")


class PolicyReport:
    """Counts decisions and turns the last one into a `Health`."""

    def __init__(self) -> None:
        self._ticks: Counter[str] = Counter()
        self._level, self._message = OK, "no episode is running"

    def note(self, decision: Decision | None) -> bool:
        """Take in a tick's decision, `None` when no episode runs; return whether the level changed."""
        before = self._level
        if decision is None:
            self._level, self._message = OK, "no episode is running"
        elif decision.action is None:
            self._level = OK if decision.reason in BEGINNING else ERROR
            self._message = decision.reason
            self._ticks["silent"] += 1
        else:
            self._level = WARN if decision.held else OK
            self._message = decision.reason if decision.held else "driving"
            self._ticks["held" if decision.held else "commanded"] += 1
        return bool(self._level != before)

    def health(self, bundle_id: str, driver: PolicyDriver, ticker: Ticker | None) -> Health:
        """Return the present health with all counts."""
        counts, inference = driver.counts, driver.inference.to_dict()
        values: dict[str, Any] = {
            "bundle": bundle_id,
            **{f"ticks {name}": self._ticks[name] for name in ("commanded", "held", "silent")},
            "chunks": counts.chunks,
            "stale actions": counts.stale_actions,
            "inference p50 [ms]": inference["p50_ms"],
            "inference p99 [ms]": inference["p99_ms"],
            "clock jumps": driver.clock_jumps,
        }
        if ticker is None:
            return Health(OK, "inactive", values)
        values |= {"lateness p99 [ms]": ticker.lateness.to_dict()["p99_ms"], "skipped ticks": ticker.skipped}
        return Health(self._level, self._message, values)
