"""LeRobot's observations as a bundle reads them.

An observation that is not told where to look is looked for as `observation.<name>`, `observation.images.<name>`, and
under its own name; a lone picture also as the only picture there is. Vectors that are found nowhere are taken to be
`observation.state`, one after another in the order of the bundle, if their widths add up: so our export writes them.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from robot_rl.errors import ConfigError, SpecError
from robot_rl.specs import ArraySpec, RobotSpec

STATE = "observation.state"
_PLACE = re.compile(r"(?P<feature>[^\[\]]+)(?:\[(?P<first>\d+):(?P<last>\d+)\])?")
Place = tuple[str, slice]


def places(robot: RobotSpec, given: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> dict[str, Place]:
    """Return where each observation of `robot` lies.

    Args:
        robot: What the bundle reads.
        given: Observation -> feature, or columns of one, as configured.
        shapes: Shape of each feature that there is, without the batch.

    Raises:
        ConfigError: An observation that cannot be found; names what there is.
    """
    if unknown := sorted(set(given) - set(robot.obs)):
        raise ConfigError(f"`policy.obs` names {unknown}, the bundle reads {sorted(robot.obs)}")
    found = {name: _parse(name, given[name]) for name in given}
    for name, spec in robot.obs.items():
        feature = _by_name(name, spec, shapes)
        if name not in found and feature is not None:
            found[name] = (feature, slice(None))
    rest = [name for name in robot.obs if name not in found]
    widths = [robot.obs[name].size for name in rest]
    if rest and not any(robot.obs[n].is_image for n in rest) and list(shapes.get(STATE, ())) == [sum(widths)]:
        ends = np.cumsum(widths)
        found |= {n: (STATE, slice(int(e - w), int(e))) for n, w, e in zip(rest, widths, ends, strict=True)}
        rest = []
    missing = sorted({*rest, *(name for name, (feature, _) in found.items() if feature not in shapes)})
    if missing:
        there = {name: tuple(shape) for name, shape in shapes.items()}
        raise ConfigError(
            f"the bundle reads {[f'{n}: {robot.obs[n].describe()}' for n in missing]}, LeRobot gives {there}; "
            "say where they are, for example --policy.obs='{\"" + missing[0] + '": "observation.state[0:3]"}\''
        )
    return found


def _parse(name: str, text: str) -> Place:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ConfigError(f"`policy.obs.{name}` must be a feature or columns of one (feature[0:3]), got {text!r}")
    first, last = match["first"], match["last"]
    return match["feature"], slice(None) if first is None else slice(int(first), int(last))


def _by_name(name: str, spec: ArraySpec, shapes: Mapping[str, Sequence[int]]) -> str | None:
    for feature in (f"observation.{name}", f"observation.images.{name}", name):
        if feature in shapes:
            return feature
    pictures = [feature for feature, shape in shapes.items() if len(shape) == 3]
    return pictures[0] if spec.is_image and len(pictures) == 1 else None


def read(batch: Mapping[str, Tensor], where: Mapping[str, Place], robot: RobotSpec) -> dict[str, np.ndarray]:
    """Return {name: [B, ...]} as the bundle reads it, from LeRobot's tensors: pictures [0, 1], channels first.

    Raises:
        SpecError: An observation has another shape than the bundle reads.
    """
    obs = {}
    for name, (feature, columns) in where.items():
        spec, value = robot.obs[name], batch[feature].detach().cpu()
        if spec.is_image:
            pixels = (value * 255.0).round().clamp(0, 255).to(torch.uint8) if value.is_floating_point() else value
            array = pixels.movedim(-3, -1).numpy()
        else:
            array = value[..., columns].numpy().astype(spec.dtype)
            array = array.reshape(len(array), *spec.shape) if array[0].size == spec.size else array
        if array.shape[1:] != spec.shape:
            raise SpecError(
                f"`{name}` must be {spec.describe()}, `{feature}` is {array.dtype}{array.shape[1:]}; make the "
                "environment or the robot give that size, or train the bundle on this one"
            )
        obs[name] = np.ascontiguousarray(array)
    return obs
