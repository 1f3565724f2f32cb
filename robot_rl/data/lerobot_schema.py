"""The store schema of a LeRobot data set, from its features, its rows and the pictures' headers."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from robot_rl.data.foreign import Findings
from robot_rl.data.lerobot_cameras import Pictures
from robot_rl.data.lerobot_info import Info
from robot_rl.data.lerobot_plan import Plan
from robot_rl.data.lerobot_scan import Scan
from robot_rl.data.schema import StoreSchema
from robot_rl.errors import SpecError
from robot_rl.specs import ActionKind, ActionSpec, ArraySpec, RobotSpec


def make_schema(
    info: Info, plan: Plan, scan: Scan, pictures: Pictures, findings: Findings, *, action_kind: str
) -> tuple[StoreSchema | None, dict[str, str]]:
    """Return the schema, `None` with a fatal finding where there can be none, and what is lost."""
    lost = {**plan.lost, **pictures.lost}
    lost |= {name: "is text that changes within an episode, for which a store has no stream" for name in scan.changing}
    obs: dict[str, ArraySpec] = {}
    extra: dict[str, ArraySpec] = {}
    for source in plan.of("obs", "extra"):
        if not source.feature.is_number:
            continue
        dtype, shape = scan.kind(source)
        if 0 in shape:
            lost[source.feature.name] = f"has no elements, its rows are {dtype}{shape}"
            continue
        (obs if source.role == "obs" else extra)[source.stream] = ArraySpec(
            name=source.stream, shape=shape, dtype=dtype
        )
    obs |= {s.stream: pictures.specs[s.stream] for s in plan.pictures if s.stream in pictures.specs}
    for name, episodes in (("timestamp", scan.off_clock), ("task_index", _several(scan))):
        if episodes:
            extra[name] = ArraySpec(name=name, shape=(), dtype=_bookkeeping_dtype(info, name), unit="")
    try:
        action = _action(plan, scan, action_kind)
        lost |= _casts(plan, scan, action)
        robot = RobotSpec(name=info.robot, obs=obs, action=action, control_hz=info.fps)
        return StoreSchema(spec=robot, extra=extra, codecs=pictures.codecs), lost
    except SpecError as error:
        findings.add("fatal", "meta/info.json", str(error), "rename or leave out the feature with the import options")
        return None, lost


def _several(scan: Scan) -> list[int]:
    return [number for number, indices in scan.tasks.items() if len(indices) > 1]


def _bookkeeping_dtype(info: Info, name: str) -> str:
    default = "float32" if name == "timestamp" else "int64"
    return info.features[name].dtype if name in info.features and info.features[name].is_number else default


def _action(plan: Plan, scan: Scan, kind: str) -> ActionSpec:
    kinds = [scan.kind(source) for source in plan.of("action")]
    width = sum(math.prod(shape) for _, shape in kinds)
    dtype: Any = np.result_type(*(np.dtype(dtype) for dtype, _ in kinds))
    return ActionSpec(name="action", shape=(width,), dtype=dtype.name, kind=cast(ActionKind, kind))


def _casts(plan: Plan, scan: Scan, action: ActionSpec) -> dict[str, str]:
    """Return what a stream of fixed dtype cannot hold of its feature."""
    lost = {}
    for source in plan.of("reward", "by_human", "action_executed"):
        dtype, _ = scan.kind(source)
        wanted = {"reward": "float32", "by_human": "bool"}.get(source.role, action.dtype)
        if not np.can_cast(dtype, wanted, casting="safe"):
            lost[source.feature.name] = f"is kept as {wanted}, the data are {dtype}"
    return lost
