from __future__ import annotations

import numpy as np
import pytest

from robot_rl.data.robosuite_model import Kinematics
from robot_rl.data.robosuite_success import outcome

BOX = '<geom type="box" size="0.02 0.02 0.02" mass="0.1"/>'


def scene(**bodies: tuple[float, float, float]) -> Kinematics:
    """Return a scene with a table whose top is at 0.8 m, a gripper site at 1.5 m and boxes of 4 cm."""
    boxes = "".join(f'<body name="{n}" pos="{x} {y} {z}">{BOX}</body>' for n, (x, y, z) in bodies.items())
    free = f'<body name="hand" pos="0 0 1.5"><freejoint/>{BOX}<site name="grip_site"/></body>'
    top = '<body name="table"><geom name="t" type="box" size="1 1 0.1"/><site name="table_top" pos="0 0 0.8"/></body>'
    xml = f"<mujoco><worldbody>{top}{free}{boxes}</worldbody></mujoco>"
    return Kinematics(xml, np.array([0, 0, 1.5, 1, 0, 0, 0]))


PEGS = {"peg1": (0.2, 0.1, 0.85), "peg2": (0.2, -0.1, 0.85)}
BIN = (0.1, 0.3, 0.8)
PLACED = {"Milk0": (0.0, 0.2, 0.85), "Bread0": (0.2, 0.2, 0.85), "Cereal0": (0.0, 0.4, 0.85), "Can0": (0.2, 0.4, 0.85)}


@pytest.mark.parametrize(
    ("task", "bodies", "wanted"),
    [
        ("NutAssembly", {**PEGS, "SquareNut0": (0.2, 0.1, 0.82), "RoundNut0": (0.2, -0.1, 0.82)}, "success"),
        ("NutAssembly", {**PEGS, "SquareNut0": (0.24, 0.1, 0.82), "RoundNut0": (0.2, -0.1, 0.82)}, "failure"),
        ("NutAssemblySquare", {**PEGS, "SquareNut0": (0.2, 0.1, 0.82), "RoundNut0": (9, 9, 9)}, "success"),
        ("NutAssembly", PEGS, "unknown"),
        ("PickPlace", {"bin2": BIN, **PLACED}, "success"),
        ("PickPlace", {"bin2": BIN, **PLACED, "Can0": (0.0, 0.4, 0.85)}, "failure"),
        ("PickPlaceCan", {"bin2": BIN, "Can0": (0.2, 0.4, 0.85)}, "success"),
        ("Door", {}, "unknown"),
        ("TwoArmHandover", {}, "unknown"),
        ("SawyerLift", {"cube": (0.0, 0.0, 0.841)}, "success"),
        ("BaxterLift", {"pot": (0.0, 0.0, 0.89)}, "failure"),
        ("TwoArmPegInHole", {"peg": (0.15, 0.0, 0.9), "hole": (0.0, 0.0, 1.0)}, "success"),
        ("TwoArmPegInHole", {"peg": (0.0, 0.0, 0.9), "hole": (0.0, 0.0, 1.0)}, "failure"),
    ],
)
def test_tasks_are_judged_by_where_things_are(task: str, bodies: dict[str, tuple[float, float, float]], wanted: str):
    assert outcome(task, scene(**bodies))[0] == wanted


@pytest.mark.parametrize(
    ("a", "finger", "wanted"),
    [
        ((0.0, 0.0, 0.859), (0.5, 0.0, 0.9), "success"),
        ((0.0, 0.0, 0.859), (0.03, 0.0, 0.87), "failure"),
        ((0.0, 0.0, 0.9), (0.5, 0.0, 0.9), "failure"),
    ],
)
def test_a_stack_must_touch_and_be_let_go(a: tuple[float, ...], finger: tuple[float, ...], wanted: str):
    bodies = {"cubeB": (0.0, 0.0, 0.82)}
    moving = "".join(
        f'<body name="{n}" pos="{p[0]} {p[1]} {p[2]}"><freejoint/>{BOX}</body>'
        for n, p in {"cubeA": a, "l_finger": finger}.items()
    )
    fixed = "".join(f'<body name="{n}" pos="{p[0]} {p[1]} {p[2]}">{BOX}</body>' for n, p in bodies.items())
    xml = f'<mujoco><worldbody><site name="table_top" pos="0 0 0.8"/>{moving}{fixed}</worldbody></mujoco>'
    qpos = np.concatenate([[*a, 1, 0, 0, 0], [*finger, 1, 0, 0, 0]])
    assert outcome("Stack", Kinematics(xml, qpos))[0] == wanted
