"""Which feature of a LeRobot data set becomes which stream of a store, and which are lost and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from robot_rl.data.foreign import Findings
from robot_rl.data.lerobot_info import BOOKKEEPING, Feature, Info
from robot_rl.data.schema import STEP_STREAMS
from robot_rl.errors import ConfigError

Role = Literal["obs", "action", "reward", "by_human", "action_executed", "extra", "text"]

_HUMAN = ("by_human", "complementary_info.is_intervention", "is_intervention", "intervention")
_REWARD = ("next.reward", "reward")
_OBSERVED = ("observation", "obs.", "obs/")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A feature on its way into a store.

    Args:
        feature: The feature.
        stream: The stream's name; several sources of role `action` are joined in their order.
        role: What it is to a robot; `text` is kept with the episode where it does not change in it.
    """

    feature: Feature
    stream: str
    role: Role

    @property
    def finite(self) -> bool:
        """Whether NaN is an error; extras may hold it."""
        return self.role in ("obs", "action", "reward", "action_executed")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is read, and what is not.

    Args:
        sources: The features that are.
        lost: The features that are not, each with why.
    """

    sources: Sequence[Source]
    lost: Mapping[str, str] = field(default_factory=dict)

    def of(self, *roles: Role) -> list[Source]:
        """Return the sources of these roles."""
        return [source for source in self.sources if source.role in roles]

    @property
    def numbers(self) -> list[Source]:
        """The sources that are columns of numbers."""
        return [source for source in self.sources if source.feature.is_number]

    @property
    def pictures(self) -> list[Source]:
        """The sources that are videos or pictures."""
        return [source for source in self.sources if source.feature.is_picture]


def make_plan(
    info: Info,
    findings: Findings,
    *,
    features: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    action: Sequence[str] | None = None,
    videos: bool = True,
) -> Plan:
    """Return which feature becomes which stream.

    Args:
        info: The data set's features.
        findings: Takes features that cannot be read.
        features: Only these, and the action; `None` takes all.
        rename: Feature -> stream, where the stream shall be called otherwise.
        action: Features that, joined, are the action; `None` takes `action`, or else what is called so.
        videos: Take videos and pictures too.

    Raises:
        ConfigError: A feature is named that the data set does not have, or two would become one stream.
    """
    rename = rename or {}
    _check_names(info, features=features, rename=rename, action=action)
    commanded = list(action) if action else _find_action(info, findings)
    asked = None if features is None else {*features, *commanded}
    lost: dict[str, str] = {}
    sources = []
    prefixed = any(name.startswith(_OBSERVED) for name, f in info.features.items() if f.is_number)
    for name, feature in info.features.items():
        if name in BOOKKEEPING:
            continue
        why = _why_not(feature, asked=asked, videos=videos, findings=findings)
        if why is not None:
            lost[name] = why
            continue
        role = _role(feature, commanded, prefixed=prefixed)
        sources.append(Source(feature=feature, stream=_stream(name, role, rename), role=role))
    sources.sort(key=lambda s: commanded.index(s.feature.name) if s.role == "action" else -1)
    _check_streams(sources)
    if not any(source.role == "action" for source in sources):
        findings.add(
            "fatal", "meta/info.json", f"no feature is the action; there are {sorted(info.features)}",
            "name it with import.action=[<feature>, ...]",
        )  # fmt: skip
    return Plan(sources=sources, lost=lost)


def _check_names(
    info: Info, *, features: Sequence[str] | None, rename: Mapping[str, str], action: Sequence[str] | None
) -> None:
    for option, names in (("features", features), ("rename", rename), ("action", action)):
        if unknown := sorted({*(names or ())} - {*info.features}):
            raise ConfigError(f"`import.{option}` names {unknown}; the data set's features are {sorted(info.features)}")


def _find_action(info: Info, findings: Findings) -> list[str]:
    for name in ("action", "actions"):
        if name in info.features:
            return [name]
    parts = [n for n, f in info.features.items() if n.startswith(("action.", "actions.", "action/")) and f.is_number]
    if parts:
        findings.add(
            "warning", "meta/info.json", "there is no feature `action`",
            f"{parts} are joined in this order; import.action=[...] chooses otherwise",
        )  # fmt: skip
    return parts


def _why_not(feature: Feature, *, asked: set[str] | None, videos: bool, findings: Findings) -> str | None:
    """Return why a feature is not read, or `None`."""
    if asked is not None and feature.name not in asked:
        return "not asked for by import.features"
    if feature.is_picture and not videos:
        return "not asked for, import.videos=false"
    if feature.dtype == "string":
        return None
    if not feature.is_picture and not feature.is_number:
        return f"dtype `{feature.dtype}` has no place in a store"
    if any(n <= 0 for n in feature.shape):
        findings.add(
            "warning", "meta/info.json", f"feature `{feature.name}` has no elements, its shape is {feature.shape}",
            "it is left out",
        )  # fmt: skip
        return f"has no elements, its shape is {list(feature.shape)}"
    if feature.is_picture and len(feature.shape) != 3:
        findings.add(
            "warning", "meta/info.json",
            f"feature `{feature.name}` must be of shape height, width, channels, got {feature.shape}",
            "it is left out",
        )  # fmt: skip
        return f"is no picture by its shape {list(feature.shape)}"
    return None


def _role(feature: Feature, commanded: Sequence[str], *, prefixed: bool) -> Role:
    name, single = feature.name, feature.shape in ((), (1,))
    if name in commanded:
        return "action"
    if feature.dtype == "string":
        return "text"
    if feature.is_picture:
        return "obs"
    if name in _REWARD and single:
        return "reward"
    if name in _HUMAN and single and feature.dtype == "bool":
        return "by_human"
    if name == "action_executed":
        return "action_executed"
    if name.startswith("next.") or name.startswith(("action", "complementary_info")):
        return "extra"
    return "obs" if name.startswith(_OBSERVED) or not prefixed else "extra"


def _stream(name: str, role: Role, rename: Mapping[str, str]) -> str:
    if role in ("action", "reward", "by_human", "action_executed", "text"):
        return role if role != "text" else name
    if name in rename:
        return rename[name]
    clean = re.sub(r"[^A-Za-z0-9_.\-]", "_", name).lstrip(".-") or "feature"
    return f"source_{clean}" if clean in STEP_STREAMS else clean


def _check_streams(sources: Sequence[Source]) -> None:
    taken: dict[str, str] = {}
    for source in sources:
        if source.role in ("action", "text"):
            continue
        if source.stream in taken:
            raise ConfigError(
                f"features `{taken[source.stream]}` and `{source.feature.name}` would both become stream "
                f"`{source.stream}`; give one another name with import.rename={{feature: stream}}"
            )
        taken[source.stream] = source.feature.name
