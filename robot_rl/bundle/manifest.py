"""What a policy bundle says about itself: one frozen dataclass, one JSON file, one content hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from robot_rl.bundle.solver import SolverInfo
from robot_rl.errors import BundleError
from robot_rl.specs import RobotSpec

FORMAT_VERSION = 2
"""2 added `solver`. A manifest of version 1 is read as one whose denoiser cannot be stepped."""


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of one graph input or output; a string axis (`B`) is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file of a bundle and what goes in and out of it."""

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Parity:
    """How far the graphs are from the torch model they came from.

    Args:
        max_abs_normalised: Largest absolute difference over all compared actions, in normalised units.
        n: Number of compared chunks.
        tolerance: What was allowed.
    """

    max_abs_normalised: float
    n: int
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a robot must know before it lets the bundle's graphs move anything.

    Args:
        robot: The observations the policy reads, the action it gives, and the control rate.
        n_obs: O, observation steps the policy reads.
        horizon: H, actions the graph predicts.
        n_execute: Actions to execute before asking again.
        action_offset: Control step of the chunk's first action relative to the newest observation, in 1-H..0.
        action_low: Frozen lower end of the action range, one number per element, in the action's unit.
        action_high: Frozen upper end, likewise.
        normaliser: Statistics the model was built with; for people and for retraining, the graphs contain them.
        data_digest: Digest of the training data.
        family: Model family (`flow`, `diffusion`, ...).
        graphs: Graph by name; `sample` is required.
        parity: Torch against ONNX Runtime, measured at export.
        files: sha256 of every file by its path inside the bundle.
        created: ISO 8601 time of export.
        parent: Id of the bundle this one was fine-tuned from, if any.
        git_commit: Commit of the code that exported, if known.
        solver: How to step the `denoise` graph; `None` where the policy does not denoise or the bundle is of version 1.
        format_version: Version the manifest was written in; it stays what it was, or the id would no longer hold.
        id: Content hash of all the rest; empty until `sealed`.
    """

    robot: RobotSpec
    n_obs: int
    horizon: int
    n_execute: int
    action_offset: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    normaliser: Mapping[str, Any]
    data_digest: str
    family: str
    graphs: Mapping[str, Graph]
    parity: Parity
    files: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    parent: str = ""
    git_commit: str = ""
    solver: SolverInfo | None = None
    format_version: int = FORMAT_VERSION
    id: str = ""

    def __post_init__(self) -> None:
        if "sample" not in self.graphs:
            raise BundleError(f"a bundle needs a graph named `sample`, got {sorted(self.graphs)}; export it again")
        if self.n_obs < 1 or not 1 - self.horizon <= self.action_offset <= 0:
            raise BundleError(
                f"`n_obs` must be >= 1 and `action_offset` in {1 - self.horizon}..0 for horizon {self.horizon}, "
                f"got n_obs {self.n_obs}, action_offset {self.action_offset}"
            )
        usable = self.horizon + self.action_offset
        if not 1 <= self.n_execute <= usable:
            raise BundleError(f"`n_execute` must be in 1..{usable} (horizon + action_offset), got {self.n_execute}")
        self._check_range()
        self._check_parity()
        self._check_solver()

    def _check_range(self) -> None:
        width = self.robot.action.shape[0]
        for side in ("action_low", "action_high"):
            bound = getattr(self, side)
            if len(bound) != width or not all(math.isfinite(x) for x in bound):
                raise BundleError(f"`{side}` must be {width} finite numbers, got {list(bound)}")
        for i, (low, high) in enumerate(zip(self.action_low, self.action_high, strict=True)):
            if low > high:
                raise BundleError(f"frozen action range of element {i} is empty: low {low:g} > high {high:g}")

    def _check_parity(self) -> None:
        # NaN must fail too, so the comparison is written the way that NaN makes false.
        if not self.parity.max_abs_normalised <= self.parity.tolerance:
            raise BundleError(
                f"ONNX and torch differ by {self.parity.max_abs_normalised:.3g} in normalised actions, "
                f"expected at most {self.parity.tolerance:.3g} over {self.parity.n} chunks; the bundle is not usable"
            )

    def _check_solver(self) -> None:
        if self.solver is None:
            return
        shape = (self.horizon, self.robot.action.shape[0])
        if len(shape_of := _shape(self.solver.scale)) and shape_of != shape[-len(shape_of) :]:
            raise BundleError(f"`solver.scale` must be of shape {shape[1:]} or {shape}, got {shape_of}")
        if unknown := sorted(set(self.solver.relative_to) - set(self.robot.obs)):
            raise BundleError(f"`solver.relative_to` names {unknown}, the policy reads {sorted(self.robot.obs)}")

    @property
    def control_hz(self) -> float:
        """Control rate in hertz."""
        return self.robot.control_hz

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["robot"] = self.robot.to_dict()
        plain["graphs"] = {name: asdict(graph) for name, graph in self.graphs.items()}
        plain["parity"] = asdict(self.parity)
        plain["solver"] = None if self.solver is None else self.solver.to_dict()
        if self.format_version == 1:
            del plain["solver"]
        # One pass through JSON so that what is hashed is exactly what can be read back (tuples are lists there).
        return dict(json.loads(json.dumps(plain)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Build from `to_dict`'s values.

        Raises:
            BundleError: Another format version, a missing or unknown key, or contradicting values.
        """
        version = data.get("format_version")
        if version not in range(1, FORMAT_VERSION + 1):
            raise BundleError(
                f"manifest.json: `format_version` must be 1 to {FORMAT_VERSION}, got {version!r}; "
                "export the policy again, or use the robot_rl version that wrote it"
            )
        try:
            values = dict(data)
            values["robot"] = RobotSpec.from_dict(data["robot"])
            values["graphs"] = {name: _graph(graph) for name, graph in data["graphs"].items()}
            values["parity"] = Parity(**data["parity"])
            values["solver"] = None if data.get("solver") is None else SolverInfo.from_dict(data["solver"])
            values["action_low"], values["action_high"] = tuple(data["action_low"]), tuple(data["action_high"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            wanted = sorted(f.name for f in fields(cls))
            raise BundleError(f"manifest.json is not a bundle's manifest ({error}); expected keys {wanted}") from error

    def sealed(self) -> Manifest:
        """Return the same manifest carrying its content hash as id."""
        return replace(self, id=content_id(self.to_dict()))


def content_id(plain: Mapping[str, Any]) -> str:
    """Return the hash of everything but the id in a manifest's plain values: 32 hex digits."""
    text = json.dumps({k: v for k, v in plain.items() if k != "id"}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _shape(nested: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of nested tuples."""
    return (len(nested), *_shape(nested[0])) if isinstance(nested, tuple) else ()


def _graph(data: Mapping[str, Any]) -> Graph:
    """Read one graph of a manifest."""
    inputs, outputs = (
        tuple(TensorInfo(t["name"], t["dtype"], tuple(t["shape"])) for t in data[side])
        for side in ("inputs", "outputs")
    )
    return Graph(data["file"], inputs, outputs)
