"""Check a whole store: a first look at every episode gathers what is usual, a second finds what is not.

One episode is in memory at a time; what stays is a few numbers per episode and element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot_rl.data.checks.contents import check_contents, check_recorder, recorder_level
from robot_rl.data.checks.duplicates import Duplicates, check_duplicates, duplicate_measures
from robot_rl.data.checks.finding import EpisodeVerdict, Finding, StoreVerdict
from robot_rl.data.checks.follow import check_lag, lag_measures, max_lag, positions
from robot_rl.data.checks.images import Sample, check_images, check_standstill, image_measures, sample_frames
from robot_rl.data.checks.labels import Label, check_labels, label_measures
from robot_rl.data.checks.lag import LagEstimator, Lags
from robot_rl.data.checks.motion import check_frozen, check_idle, check_jumps, driven
from robot_rl.data.checks.profile import Profile, ProfileBuilder
from robot_rl.data.checks.saturation import Saturation
from robot_rl.data.checks.thresholds import Thresholds
from robot_rl.data.checks.timing import Rates, check_timing, nominal_rates, true_rate
from robot_rl.data.checks.view import EpisodeView, Layout, view_episode
from robot_rl.data.splits import split_episodes
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import SpecError, StoreError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How to check.

    Args:
        thresholds: From which number on a finding counts.
        verify: Compare every array with its checksum; reads the whole store.
        val_fraction: Share of validation of the split that training would make.
        seed: Of that split.
    """

    thresholds: Thresholds
    verify: bool = True
    val_fraction: float = 0.05
    seed: int = 0


class StoreChecker:
    """Checks one store; `check` is the whole of it.

    Args:
        store: What to check.
        settings: How.
        progress: Called with (episodes done, episodes in all); every episode is looked at twice.
    """

    def __init__(self, store: EpisodeStore, settings: CheckSettings, progress: Progress | None = None) -> None:
        self._store, self._settings, self._t = store, settings, settings.thresholds
        self._progress = progress
        self._ids = store.ids()
        self._layout = Layout.of(store.schema)
        self._findings: dict[str, list[Finding]] = {id: [] for id in self._ids}
        self._levels: dict[str, str] = {}
        self._labels: dict[str, Label] = {}
        self._rates: Rates = {}
        self._profile = ProfileBuilder()
        self._duplicates = Duplicates()
        self._samples: list[Sample] = []
        n_action, n_state = len(self._layout.action), len(self._layout.state)
        self._lags = LagEstimator(n_action, n_state, max_lag(store.spec.control_hz, self._t))

    def check(self) -> StoreVerdict:
        """Return the verdict on every episode and on the store."""
        for i, id in enumerate(self._ids):
            self._gather(id)
            self._show(i + 1)
        profile = self._profile.build()
        lags = self._lags.result(min_correlation=self._t.min_correlation) if profile is not None else None
        whole: list[Finding] = []
        measures: dict[str, Any] = {
            "rates_hz": self._rate_measures(),
            "labels": label_measures([*self._labels.values()]),
        }
        if profile is not None:
            found, measured = self._judge(profile, lags)
            whole, measures = [*whole, *found], {**measures, **measured}
        whole += self._file(check_labels([*self._labels.values()], self._t))
        whole += self._file(check_images(self._samples, self._t))
        return StoreVerdict(
            store=self._store.url,
            digest=self._store.digest(),
            episodes=[self._verdict(id) for id in self._ids],
            findings=[*self._unreadable(), *whole],
            measures={**measures, "pictures": image_measures(self._samples)},
            thresholds=asdict(self._t),
        )

    def _gather(self, id: str) -> None:
        """First look: read, verify, and add to what is usual."""
        view = self._view(id, verify=self._settings.verify)
        if view is None:
            return
        self._levels[id] = recorder_level(view.recording)
        self._labels[id] = Label.of(view)
        for name, stream in view.recording.streams.items():
            rate = true_rate(stream.stamp_ns)
            if rate is not None:
                self._rates.setdefault(name, []).append(rate)
        if not np.isfinite(view.table).all():
            return
        self._profile.add(view)
        self._lags.add(view.action, view.state)
        self._duplicates.add(view)

    def _view(self, id: str, *, verify: bool = False) -> EpisodeView | None:
        """Return an episode's view; what keeps it from being read becomes a finding."""
        try:
            if verify:
                self._store.verify(id)
            view = view_episode(id, self._store.read(id), self._store.schema)
        except (StoreError, SpecError) as error:
            if verify or not self._settings.verify:
                advice = "restore it from a copy or delete it"
                self._findings[id].append(
                    Finding(check="read", severity="fail", what=str(error), advice=advice, episode=id)
                )
            return None
        return view

    def _judge(self, profile: Profile, lags: Lags | None) -> tuple[list[Finding], dict[str, Any]]:
        """Second look: return findings about the store, and what was measured."""
        spec, layout, t = self._store.spec, self._layout, self._t
        saturation, nominal = Saturation(profile), nominal_rates(self._store.schema, self._rates, t)
        for i, id in enumerate(self._ids):
            view = self._view(id) if id in self._labels else None
            if view is not None:
                self._findings[id] += self._judge_episode(view, profile, lags, nominal)
                saturation.add(view)
            self._show(len(self._ids) + i + 1)
        pairs = self._duplicates.pairs(profile, self._table, hz=spec.control_hz, thresholds=t)
        split = split_episodes(self._ids, val_fraction=self._settings.val_fraction, seed=self._settings.seed)
        kind = spec.action.kind
        found = [
            *check_lag(lags, layout, profile, kind=kind, hz=spec.control_hz, thresholds=t),
            *saturation.findings(layout, t),
            *self._file(check_duplicates(pairs, self._ids, split, t)),
        ]
        measures = {
            "nominal_hz": {name: round(hz, 3) for name, hz in nominal.items()},
            "lag": lag_measures(lags, layout, spec.control_hz),
            "ends": saturation.measures(layout),
            "duplicates": duplicate_measures(pairs),
        }
        return found, measures

    def _judge_episode(
        self, view: EpisodeView, profile: Profile, lags: Lags | None, nominal: dict[str, float]
    ) -> list[Finding]:
        """Return what is wrong with one episode, and keep the figures of its pictures."""
        layout, t, drives = self._layout, self._t, driven(lags)
        findings = check_timing(view.recording, self._store.schema, nominal, t)
        findings += [*check_contents(view, self._store.schema), *check_recorder(view.id, view.recording)]
        if np.isfinite(view.table).all():
            findings += check_frozen(view, layout, profile, drives, t)
            findings += check_jumps(view, layout, profile, positions(lags, layout, self._store.spec.action.kind), t)
            findings += check_idle(view, layout, profile, drives, t)
        try:
            for camera in layout.cameras:
                self._samples.append(sample_frames(view, camera, t.frames))
                findings += check_standstill(view, camera, profile, sorted(drives), t)
        except StoreError as error:
            advice = "restore it from a copy or delete it"
            findings.append(Finding(check="read", severity="fail", what=str(error), advice=advice, episode=view.id))
        return [_of_episode(finding, view.id) for finding in findings]

    def _table(self, id: str) -> np.ndarray:
        return view_episode(id, self._store.read(id), self._store.schema).table

    def _file(self, findings: list[Finding]) -> list[Finding]:
        """Give each episode its findings and return those about the store."""
        for finding in findings:
            if finding.episode:
                self._findings[finding.episode].append(finding)
        return [finding for finding in findings if not finding.episode]

    def _unreadable(self) -> list[Finding]:
        """Return what was found wrong when the store was opened; salvaged and unfinished recordings too."""
        severity = {"unreadable": "fail", "quarantined": "warn", "salvaged": "warn"}
        return [
            Finding(
                check="opened", severity=severity.get(f.state, "ok"), what=f"episode {f.id} {f.state}: {f.reason}",  # type: ignore[arg-type]
                advice="see docs/episode_store.md on what is salvaged",
            )
            for f in self._store.found
        ]  # fmt: skip

    def _rate_measures(self) -> dict[str, dict[str, float]]:
        return {
            name: {f"p{q}": round(float(np.percentile(rates, q)), 3) for q in (5, 50, 95)}
            for name, rates in self._rates.items()
        }

    def _verdict(self, id: str) -> EpisodeVerdict:
        label = self._labels.get(id)
        task, outcome, steps, seconds = ("", "unknown", 0, 0.0) if label is None else (
            label.task, label.outcome, label.steps, label.seconds
        )  # fmt: skip
        return EpisodeVerdict(
            id=id, task=task, outcome=outcome, steps=steps, seconds=seconds, recorder=self._levels.get(id, ""),
            findings=self._findings[id],
        )  # fmt: skip

    def _show(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, 2 * len(self._ids))


def _of_episode(finding: Finding, id: str) -> Finding:
    return finding if finding.episode == id else Finding(**{**asdict(finding), "episode": id})


def check_store(store: EpisodeStore, settings: CheckSettings, progress: Progress | None = None) -> StoreVerdict:
    """Return the verdict on a store and on each of its episodes; nothing is changed.

    Args:
        store: What to check.
        settings: How.
        progress: Called with (looks done, looks in all), two per episode.
    """
    return StoreChecker(store, settings, progress).check()
