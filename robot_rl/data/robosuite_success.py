"""Whether a robosuite task is done in a state: `_check_success` of robosuite 0.3.0 and 1.0.0, from forward kinematics.

Departures, because meshes are taken out of the model: a finger touches a cube only where one of its boxes does, and
the height of the table is its top's site or box. Tasks that are not here (wiping, handing over, tools) stay unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from robot_rl.data.robosuite_model import Kinematics
from robot_rl.values import Outcome

_LIFTED_M = 0.04
_POT_LIFTED_M = 0.10
_REACHED_M = math.atanh(0.4) / 10.0
"""robosuite asks 1 - tanh(10 d) < 0.6 of the distance d from the gripper: it has let go of the object."""
_BINS = ("Milk", "Bread", "Cereal", "Can")
_BIN_SIZE_M = (0.39, 0.49)
_BIN_DEPTH_M = 0.1
_PEG_M = 0.03
_PEG_HEIGHT_M = 0.05
_DOOR_RAD = 0.3


def has_rule(environment: str) -> bool:
    """Whether success of a task is known how to tell."""
    return _find(environment) is not None


def outcome(environment: str, state: Kinematics) -> tuple[Outcome, str]:
    """Return how an attempt ended that stopped in `state`, and the rule that says so (empty where there is none)."""
    found = _find(environment)
    if found is None:
        return "unknown", ""
    rule, done, single = found
    ended = done(state, single)
    return "unknown" if ended is None else ("success" if ended else "failure"), rule


def _find(environment: str) -> tuple[str, Callable[[Kinematics, bool], bool | None], bool] | None:
    """Return rule and test of a task, and whether it is about a single object of several."""
    name = environment.removeprefix("Sawyer").removeprefix("Panda")
    for known, (rule, done) in _RULES.items():
        if name == known or (known in ("NutAssembly", "PickPlace") and name.startswith(known)):
            return rule, done, name != known
    return None


def _position(state: Kinematics, body: str) -> np.ndarray | None:
    """Return where a body is, `None` without it; later versions call `cube` `cube_main`."""
    names = state.names("body")
    for name in (body, f"{body}_main", f"{body}0", f"{body}0_main"):
        if name in names:
            return np.array(state.data.body(name).xpos)
    return None


def _table_top(state: Kinematics) -> float | None:
    if "table_top" in state.names("site"):
        return float(state.data.site("table_top").xpos[2])
    if "table_collision" in state.names("geom"):
        geom = state.model.geom("table_collision")
        return float(state.data.geom("table_collision").xpos[2] + geom.size[2])
    return None


def _grip(state: Kinematics) -> np.ndarray | None:
    sites = [name for name in state.names("site") if name.endswith("grip_site") and not name.startswith("l_g_")]
    return np.array(state.data.site(sites[0]).xpos) if sites else None


def _above(state: Kinematics, body: str, margin: float) -> bool | None:
    at, table = _position(state, body), _table_top(state)
    return None if at is None or table is None else bool(at[2] > table + margin)


def _stacked(state: Kinematics, single: bool) -> bool | None:
    lifted = _above(state, "cubeA", _LIFTED_M)
    pairs = state.touching()
    cubes = {name for name in state.names("body") if name.startswith(("cubeA", "cubeB"))}
    on = any(len(pair) == 2 and pair <= cubes for pair in pairs)
    held = any(
        "finger" in other for pair in pairs for cube in pair if cube.startswith("cubeA") for other in pair - {cube}
    )
    return None if lifted is None else lifted and on and not held


def _let_go(state: Kinematics, at: np.ndarray) -> bool | None:
    grip = _grip(state)
    return None if grip is None else bool(np.linalg.norm(grip - at) > _REACHED_M)


def _on_pegs(state: Kinematics, single: bool) -> bool | None:
    table, done = _table_top(state), []
    for nut, peg in (("SquareNut", "peg1"), ("RoundNut", "peg2")):
        at, where = _position(state, nut), _position(state, peg)
        if at is None or where is None or table is None:
            continue
        near = bool((np.abs(at - where)[:2] < _PEG_M).all()) and bool(at[2] < table + _PEG_HEIGHT_M)
        done.append(near and _let_go(state, at) is True)
    return _combine(done, 2, single)


def _in_bins(state: Kinematics, single: bool) -> bool | None:
    corner, done = _position(state, "bin2"), []
    for number, item in enumerate(_BINS):
        at = _position(state, item)
        if at is None or corner is None:
            continue
        low = corner[:2] - np.array([number in (0, 2), number < 2]) * np.array(_BIN_SIZE_M) / 2
        inside = bool((low < at[:2]).all() and (at[:2] < low + np.array(_BIN_SIZE_M) / 2).all())
        inside &= bool(corner[2] < at[2] < corner[2] + _BIN_DEPTH_M)
        done.append(inside and _let_go(state, at) is True)
    return _combine(done, len(_BINS), single)


def _combine(done: list[bool], of: int, single: bool) -> bool | None:
    """Return whether all objects are in place, or one of them where the task is about a single one."""
    if single:
        return any(done) if done else None
    return all(done) if len(done) == of else None


def _opened(state: Kinematics, single: bool) -> bool | None:
    hinges = [name for name in state.names("joint") if name.lower() == "door_hinge"]
    return bool(state.data.joint(hinges[0]).qpos[0] > _DOOR_RAD) if hinges else None


def _in_hole(state: Kinematics, single: bool) -> bool | None:
    names = state.names("body")
    peg = next((name for name in ("peg", "cylinder") if name in names), None)
    if peg is None or "hole" not in names:
        return None
    axis = state.data.body(peg).xmat.reshape(3, 3)[:, 2]
    hole = state.data.body("hole").xmat.reshape(3, 3)
    offset = state.data.body("hole").xpos + 0.1 * hole[:, 0] - state.data.body(peg).xpos
    along, away = float(offset @ axis), float(np.linalg.norm(np.cross(axis, offset)))
    return away < 0.06 and -0.12 <= along <= 0.14 and abs(float(hole[:, 2] @ axis)) > 0.95


_RULES: dict[str, tuple[str, Callable[[Kinematics, bool], bool | None]]] = {
    "Lift": ("the cube is 4 cm above the table", lambda s, _: _above(s, "cube", _LIFTED_M)),
    "BaxterLift": ("the pot is 10 cm above the table", lambda s, _: _above(s, "pot", _POT_LIFTED_M)),
    "Stack": ("cube A is 4 cm above the table, touches cube B, and no finger touches it", _stacked),
    "NutAssembly": ("each nut is within 3 cm of its peg, below 5 cm above the table, and let go", _on_pegs),
    "PickPlace": ("each object is in its quarter of bin 2 and let go", _in_bins),
    "Door": ("the hinge is open by more than 0.3 rad", _opened),
    "BaxterPegInHole": (
        "the peg is within 6 cm of the hole's axis, -12 to 14 cm along it, aligned to cos > 0.95",
        _in_hole,
    ),
    "TwoArmPegInHole": (
        "the peg is within 6 cm of the hole's axis, -12 to 14 cm along it, aligned to cos > 0.95",
        _in_hole,
    ),
}
