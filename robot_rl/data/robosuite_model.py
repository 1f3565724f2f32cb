"""A robosuite demonstration's MuJoCo model, as far as its states need it: which column of a state is which joint.

A flattened MuJoCo state is [time, qpos, qvel, ...]. The joints stand in the order of the document (MuJoCo manual,
"Computation"), so the XML tells the columns without its meshes. For forward kinematics the model is compiled with
every mesh, texture, actuator and tendon taken out; poses of bodies and sites and the contacts of plain shapes stay.
"""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.data.hdf5_demos import DemoFile
from robot_rl.errors import DataFormatError, MissingExtraError

_WIDTHS = {"free": (7, 6), "ball": (4, 3), "slide": (1, 1), "hinge": (1, 1)}
_LOOKS = {"camera", "light"}
_MESH_ONLY = ("mesh", "fitscale", "size", "class", "density", "material")


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A joint: its name, its body, its kind, and its first column in qpos and in qvel."""

    name: str
    body: str
    kind: str
    qpos: int
    qvel: int


@dataclass(frozen=True, kw_only=True)
class StateLayout:
    """What the columns of a state mean: the joints in order, the widths of qpos and qvel."""

    joints: tuple[Joint, ...]
    nq: int
    nv: int

    def bodies(self) -> dict[str, int]:
        """Return the bodies that move freely: name -> first column of its pose (position, quaternion wxyz) in qpos."""
        return {joint.body: joint.qpos for joint in self.joints if joint.kind == "free"}

    def single(self) -> list[int]:
        """Return the columns in qpos of joints with one degree of freedom: arms, fingers, doors."""
        return [joint.qpos for joint in self.joints if joint.kind in ("slide", "hinge")]


def parse_layout(xml: str) -> StateLayout:
    """Return what a model's XML says about the columns of its states.

    Raises:
        DataFormatError: It is not XML, or a joint is of an unknown kind.
    """
    joints: list[Joint] = []
    nq = nv = 0
    for body in _parse(xml).iter("body"):
        for child in body:
            if child.tag not in ("joint", "freejoint"):
                continue
            kind = "free" if child.tag == "freejoint" else child.get("type", "hinge")
            if kind not in _WIDTHS:
                raise DataFormatError(
                    f"joint {child.get('name')!r} has type {kind!r}, expected one of {sorted(_WIDTHS)}"
                )
            joints.append(Joint(name=child.get("name", ""), body=body.get("name", ""), kind=kind, qpos=nq, qvel=nv))
            nq, nv = nq + _WIDTHS[kind][0], nv + _WIDTHS[kind][1]
    return StateLayout(joints=tuple(joints), nq=nq, nv=nv)


def _parse(xml: str) -> ET.Element:
    try:
        return ET.fromstring(xml)
    except ET.ParseError as error:
        raise DataFormatError(f"the model is not XML: {error}") from error


def bare(xml: str) -> str:
    """Return a model's XML without what needs other files: the tree of bodies with joints, sites and plain shapes.

    Raises:
        DataFormatError: It is not XML.
    """
    source, model = _parse(xml), ET.Element("mujoco")
    for tag in ("compiler", "option", "default", "worldbody"):
        model.extend(copy.deepcopy(source.findall(tag)))
    for compiler in model.iter("compiler"):
        for folder in ("meshdir", "texturedir", "assetdir"):
            compiler.attrib.pop(folder, None)
    for parent in list(model.iter()):
        for child in list(parent):
            if child.tag in _LOOKS or (child.tag == "geom" and child.get("type") == "hfield"):
                parent.remove(child)
            elif child.tag in ("geom", "site"):
                _without_files(child)
    return ET.tostring(model, encoding="unicode")


def _without_files(shape: ET.Element) -> None:
    """Turn a mesh into a point without contacts, so that its body keeps a mass; drop the material of anything."""
    shape.attrib.pop("material", None)
    if shape.get("type") == "mesh" or shape.get("mesh") is not None:
        for key in _MESH_ONLY:
            shape.attrib.pop(key, None)
        shape.attrib.update(type="sphere", size="0.001", contype="0", conaffinity="0", mass="0.001")


class Kinematics:
    """A model without meshes at one state: where bodies and sites are, and what touches what.

    Args:
        xml: The model.
        qpos: Joint positions [nq].

    Raises:
        MissingExtraError: mujoco is not installed.
        DataFormatError: MuJoCo does not take the model, or its qpos has another width.
    """

    def __init__(self, xml: str, qpos: Any) -> None:
        try:
            import mujoco
        except ImportError as error:
            raise MissingExtraError("mujoco", "sim") from error
        try:
            self.model = mujoco.MjModel.from_xml_string(bare(xml))
        except ValueError as error:
            raise DataFormatError(f"MuJoCo does not take the model: {error}") from error
        if len(qpos) != self.model.nq:
            raise DataFormatError(f"the model's qpos has {self.model.nq} numbers, the state's {len(qpos)}")
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:] = qpos
        mujoco.mj_fwdPosition(self.model, self.data)

    def names(self, kind: str) -> list[str]:
        """Return the names of all `body`, `site`, `geom` or `joint`."""
        access, count = getattr(self.model, kind), getattr(self.model, {"joint": "njnt"}.get(kind, f"n{kind}"))
        return [access(i).name for i in range(count)]

    def touching(self) -> set[frozenset[str]]:
        """Return the pairs of bodies with contact, by name."""
        body = [self.model.body(int(i)).name for i in self.model.geom_bodyid]
        return {frozenset(body[int(geom)] for geom in contact.geom) for contact in self.data.contact}


def model_text(value: str, folder: Path) -> str | None:
    """Return a demonstration's model: `model_file` is its XML, or names a file in `models/`; `None` if it lacks."""
    if value.lstrip().startswith("<"):
        return value
    name = value.replace("\\", "/").rsplit("/", 1)[-1]
    for path in (folder / "models" / name, folder / name):
        if name and path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


def read_models(demos: DemoFile) -> dict[int, str]:
    """Return the models of a file's demonstrations by number; those that lack, and their foreign paths, are told."""
    found: dict[int, str] = {}
    for demo in demos.demos:
        value = demo.attrs.get("model_file")
        text = model_text(value, demos.path.parent) if isinstance(value, str) else None
        if text is not None:
            found[demo.index] = text
    if lacking := [demo.index for demo in demos.demos if demo.index not in found]:
        demos.add(
            "warning", "data/*/model_file", "the model is not in the file and not in models/ beside it",
            "without it the states have no names and success cannot be computed", lacking,
        )  # fmt: skip
    demos.check_foreign_paths(found)
    return found
