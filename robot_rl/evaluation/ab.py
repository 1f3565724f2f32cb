"""Two bundles on one robot, compared without anybody knowing which one acts: blind, interleaved, counted exactly.

The order is drawn in blocks, each with as many trials of either, so that light, wear and the operator's day fall on
both alike. The sheet holds trials and labels; which bundle acted stands in the key, which is opened at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robot_rl.data.files import replace_file
from robot_rl.errors import ConfigError
from robot_rl.evaluation.paired import PairCounts, PairedProgress, PairedTest, TwoRates, compare_rates
from robot_rl.evaluation.statistics import Interval, clopper_pearson
from robot_rl.evaluation.trial_log import TrialLog

Arm = Literal["A", "B"]
Label = Literal["success", "failure", "void"]
LABELS: tuple[Label, ...] = ("success", "failure", "void")
KEY, SHEET = "key.json", "sheet.jsonl"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How two bundles are compared.

    Args:
        trials: Trials of each, at most where the test is sequential.
        block: Trials of a block, half of each bundle.
        sequential: Judge after every block, with a test that allows it; else once, at the end.
        alpha: Probability of naming a better one where there is none.

    Raises:
        ConfigError: An odd block, or trials that do not fill blocks.
    """

    trials: int = 50
    block: int = 4
    sequential: bool = False
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.block < 2 or self.block % 2 or self.trials < 1 or (2 * self.trials) % self.block:
            raise ConfigError(f"`block` must be even and divide twice `trials`, got {self.block} and {self.trials}")
        if not 0.0 < self.alpha < 0.5:
            raise ConfigError(f"`alpha` must lie between 0 and 0.5, got {self.alpha}")

    def order(self, seed: int) -> list[Arm]:
        """Return who acts in each of the 2 x `trials` slots."""
        rng, half = np.random.default_rng(seed), self.block // 2
        found: list[Arm] = []
        for _ in range(2 * self.trials // self.block):
            block: list[Arm] = [*["A"] * half, *["B"] * half]  # type: ignore[list-item]
            found += [block[i] for i in rng.permutation(self.block)]
        return found


@dataclass(frozen=True)
class Trial:
    """The next thing to do: slot, attempt at it (a void one is repeated), who acts (a secret), and its pair."""

    slot: int
    attempt: int
    arm: Arm
    pair: int

    @property
    def id(self) -> str:
        """What the stored episode carries."""
        return f"{self.slot:04d}.{self.attempt}"


@dataclass(frozen=True)
class Comparison:
    """What a finished comparison says of A against B.

    Args:
        a: Success rate of A with its exact interval.
        b: Of B.
        counts: Pairs of the same block, A as the candidate.
        tests: One-sided p-values for the better one; valid only where the number of trials was fixed.
        progress: The sequential test of A against B, where that was chosen.
        voids: Attempts that were repeated.
    """

    a: Interval
    b: Interval
    counts: PairCounts
    tests: TwoRates
    progress: PairedProgress | None
    voids: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        progress = None if self.progress is None else self.progress.to_dict()
        return {
            "A": self.a.to_dict(), "B": self.b.to_dict(), "pairs": asdict(self.counts), "tests": asdict(self.tests),
            "sequential": progress, "voids": self.voids,
        }  # fmt: skip


class AbSession:
    """The sheet of one comparison, and the key to it; continued where it was left.

    Args:
        folder: For both.
        bundles: Ids of the two, in any order; which is A is drawn.
        plan: How they are compared.
        seed: Of order and names; `None` takes one that nobody knows. Only of a new comparison.
        where: In which cell, in words; trials of different ones are not added up.

    Raises:
        ConfigError: One bundle twice, a damaged key, or the folder holds another comparison.
    """

    def __init__(
        self, folder: str | Path, bundles: tuple[str, str], plan: Plan, *, seed: int | None = None, where: str = ""
    ) -> None:
        if bundles[0] == bundles[1]:
            raise ConfigError(f"two bundles are compared, got {bundles[0]} twice")
        self.plan, self._path = plan, Path(folder) / KEY
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._key = self._read_key(bundles, seed)
        digest = hashlib.sha256(self._path.read_bytes()).hexdigest()
        identity = {"bundles": sorted(bundles), "plan": asdict(plan), "key": digest, "where": where}
        self._sheet = TrialLog(self._path.with_name(SHEET), identity)
        self._order = plan.order(int(self._key["seed"]))

    def bundle(self, arm: Arm) -> str:
        """Return a bundle's id; for who sets the robot up, not for the operator's eyes."""
        return str(self._key[arm])

    def next(self) -> Trial | None:
        """Return the next trial, `None` when it is over."""
        slot, attempt = len(self._labelled()), 0
        for row in reversed(self._sheet.rows):
            if row["slot"] != slot:
                break
            attempt += 1
        if slot == len(self._order) or self._decided():
            return None
        arm, half = self._order[slot], self.plan.block // 2
        block = slot // self.plan.block
        within = self._order[block * self.plan.block : slot].count(arm)
        return Trial(slot, attempt, arm, block * half + within)

    def record(self, trial: Trial, label: Label, **facts: Any) -> None:
        """Write a label down; it is on the disk when this returns.

        Raises:
            ConfigError: Not the next trial, or no label.
        """
        if label not in LABELS or trial != self.next():
            raise ConfigError(f"expected one of {LABELS} for trial {self.next()}, got {label!r} for {trial}")
        date = datetime.now(UTC).isoformat(timespec="seconds")
        self._sheet.add({"slot": trial.slot, "attempt": trial.attempt, "label": label, "date": date, **facts})

    @property
    def done(self) -> tuple[int, int]:
        """Slots with a label, and all slots."""
        return len(self._labelled()), len(self._order)

    def compare(self) -> Comparison:
        """Open the key and count.

        Raises:
            ConfigError: It is not over: a look before the end of a fixed number of trials makes its p-value wrong.
        """
        if self.next() is not None:
            done, total = self.done
            raise ConfigError(
                f"{done} of {total} trials are labelled; nothing is shown before the end, since looking early and "
                "stopping by it would make a difference out of nothing. Go on, or begin anew with ab.sequential=true"
            )
        labels = self._labelled()
        k = {arm: sum(won for won, who in zip(labels, self._order, strict=False) if who == arm) for arm in ("A", "B")}
        n = {arm: self._order[: len(labels)].count(arm) for arm in ("A", "B")}
        first, second = (k["A"], n["A"]), (k["B"], n["B"])
        ahead = first[0] * second[1] >= second[0] * first[1]
        return Comparison(
            clopper_pearson(*first), clopper_pearson(*second), PairCounts.of(*self._pairs()),
            compare_rates(first, second) if ahead else compare_rates(second, first),
            self._progress() if self.plan.sequential else None, len(self._sheet) - len(labels),
        )  # fmt: skip

    def _labelled(self) -> list[bool]:
        return [row["label"] == "success" for row in self._sheet.rows if row["label"] != "void"]

    def _pairs(self) -> tuple[list[bool], list[bool]]:
        """Return outcomes of A and B, the i-th of either in each whole block side by side."""
        labels, block = self._labelled(), self.plan.block
        whole = len(labels) // block * block
        of = {arm: [labels[i] for i in range(whole) if self._order[i] == arm] for arm in ("A", "B")}
        return of["A"], of["B"]

    def _progress(self) -> PairedProgress:
        half = self.plan.alpha / 2  # either may be the better one
        test = PairedTest(margin=0.0, alpha=half, beta=half, max_pairs=self.plan.trials)
        return test.judge(*self._pairs())

    def _decided(self) -> bool:
        return self.plan.sequential and self._progress().verdict in ("accept", "reject")

    def _read_key(self, bundles: tuple[str, str], seed: int | None) -> Mapping[str, Any]:
        """Return the key, drawn and written if there is none."""
        if not self._path.exists():
            drawn = int.from_bytes(os.urandom(6)) if seed is None else seed
            swapped = bool(np.random.default_rng([drawn, 1]).integers(2))
            a, b = bundles[::-1] if swapped else bundles
            replace_file(self._path, json.dumps({"A": a, "B": b, "seed": drawn}).encode() + b"\n", mode=0o600)
        try:
            key: dict[str, Any] = json.loads(self._path.read_text())
            key = {"A": str(key["A"]), "B": str(key["B"]), "seed": int(key["seed"])}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path} is damaged ({error!r}), and without it no label says which bundle it is of; restore it, "
                "or choose another `ab.out`"
            ) from error
        if sorted((key["A"], key["B"])) != sorted(bundles):
            raise ConfigError(f"{self._path.parent} holds a comparison of other bundles; choose another `ab.out`")
        return key
