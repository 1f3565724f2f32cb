"""What an inference process and its owner share: one block of memory with a place for each array, no pickles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from robot_rl.errors import SpecError
from robot_rl.specs import RobotSpec
from robot_rl.values import ActionChunk, Obs, PolicyInput

ALIGNMENT = 64
MESSAGE_BYTES = 4096

REQUEST = np.dtype(
    [(name, np.int64) for name in ("sequence", "operation", "stamp_ns", "has_noise", "n_prefix", "delay_steps")]
)
REPLY = np.dtype(
    [(name, np.int64) for name in (
        "sequence", "began_ns", "done_ns", "start_ns", "step_ns", "n_rows", "n_execute", "n_message",
    )]
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Sizes of everything that passes; told by the process once it has opened its policy.

    Args:
        n_obs: O.
        n_execute: The policy's own.
        noise: Shape of the noise of one call; `None` for a policy that takes none.
        n_rows: H, most rows of a chunk.
    """

    n_obs: int
    n_execute: int
    noise: tuple[int, ...] | None
    n_rows: int


class SharedBlock:
    """Views of the shared arrays: `request`, `reply`, `message`, `obs`, `noise`, `prefix` and `action`.

    Args:
        spec: The robot, with the observations the policy reads.
        shape: Sizes.
        name: Of an existing block to attach to; `None` makes one, which `close` then also removes.
    """

    def __init__(self, spec: RobotSpec, shape: Shape, name: str | None = None) -> None:
        parts: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "request": ((), REQUEST),
            "reply": ((), REPLY),
            "message": ((MESSAGE_BYTES,), np.dtype(np.uint8)),
            "noise": (shape.noise or (1,), np.dtype(np.float32)),
            "prefix": ((shape.n_rows, spec.action.size), np.dtype(np.float64)),
            "action": ((shape.n_rows, spec.action.size), np.dtype(spec.action.dtype)),
        }
        parts |= {f"obs.{key}": ((shape.n_obs, *item.shape), np.dtype(item.dtype)) for key, item in spec.obs.items()}
        sizes = {key: math.prod(size) * dtype.itemsize for key, (size, dtype) in parts.items()}
        steps = [-(-n // ALIGNMENT) * ALIGNMENT for n in sizes.values()]
        self._owner = name is None
        self._memory = SharedMemory(name, create=self._owner, size=sum(steps) if self._owner else 0)
        self._views: dict[str, np.ndarray] = {}
        offset = 0
        for (key, (size, dtype)), step in zip(parts.items(), steps, strict=True):
            self._views[key] = np.ndarray(size, dtype, buffer=self._memory.buf, offset=offset)
            offset += step

    @property
    def name(self) -> str:
        """What the other side attaches to."""
        return self._memory.name

    def __getitem__(self, key: str) -> np.ndarray:
        return self._views[key]

    def write_request(self, sequence: int, operation: int, value: int = 0) -> None:
        """Note what is asked; `value` is the stamp, or the seed."""
        request = self._views["request"]
        request["sequence"], request["operation"], request["stamp_ns"] = sequence, operation, value
        request["has_noise"] = request["n_prefix"] = request["delay_steps"] = 0

    def write_input(self, spec: RobotSpec, given: PolicyInput) -> None:
        """Copy what a policy is given; shapes and dtypes have been checked. Of a longer promise, H rows are kept."""
        for key in spec.obs:
            self._views[f"obs.{key}"][...] = given.obs[key]
        request = self._views["request"]
        if given.noise is not None:
            self._views["noise"][...], request["has_noise"] = given.noise, 1
        if given.prefix is not None:
            n = min(len(given.prefix), len(self._views["prefix"]))
            self._views["prefix"][:n], request["n_prefix"] = given.prefix[:n], n
        request["delay_steps"] = given.delay_steps

    def read_input(self, spec: RobotSpec) -> PolicyInput:
        """Return what a policy is given, as views: they last until the next request."""
        request = self._views["request"]
        n = int(request["n_prefix"])
        obs: Obs = {key: self._views[f"obs.{key}"] for key in spec.obs}
        return PolicyInput(
            obs=obs,
            stamp_ns=int(request["stamp_ns"]),
            noise=self._views["noise"] if request["has_noise"] else None,
            prefix=self._views["prefix"][:n] if n else None,
            delay_steps=int(request["delay_steps"]),
        )

    def write_chunk(self, chunk: ActionChunk) -> None:
        """Copy a chunk of at most H rows."""
        self._views["action"][: len(chunk)] = chunk.action
        self._reply(
            start_ns=chunk.start_ns, step_ns=chunk.step_ns, n_rows=len(chunk),
            n_execute=0 if chunk.n_execute is None else chunk.n_execute,
        )  # fmt: skip

    def read_chunk(self) -> ActionChunk:
        """Return a copy of the chunk."""
        reply = self._views["reply"]
        action = self._views["action"][: int(reply["n_rows"])].copy()
        n_execute = int(reply["n_execute"])
        return ActionChunk(int(reply["start_ns"]), int(reply["step_ns"]), action, n_execute if n_execute else None)

    def write_message(self, text: str) -> None:
        """Leave what went wrong, empty for nothing; what is too long is cut."""
        data = text.encode()[:MESSAGE_BYTES]
        self._views["message"][: len(data)] = np.frombuffer(data, dtype=np.uint8)
        self._reply(n_message=len(data))

    def read_message(self) -> str:
        """Return what went wrong."""
        data = self._views["message"][: int(self._views["reply"]["n_message"])].tobytes()
        return data.decode(errors="replace")

    def write_times(self, *, sequence: int, began_ns: int, done_ns: int) -> None:
        """Say which request this answers, and when it was computed."""
        self._reply(sequence=sequence, began_ns=began_ns, done_ns=done_ns)

    def close(self) -> None:
        """Let go of the memory; whoever made it removes it. Calling it twice is allowed."""
        if not self._views:
            return
        self._views.clear()
        self._memory.close()
        if self._owner:
            self._memory.unlink()

    def _reply(self, **fields: int) -> None:
        reply = self._views["reply"]
        for name, value in fields.items():
            reply[name] = value


def checked_obs(spec: RobotSpec, n_obs: int, obs: Mapping[str, np.ndarray]) -> Obs:
    """Return the observations the policy reads, of the right shape and dtype; that they are finite is not looked at.

    Raises:
        SpecError: One is missing or has another shape or dtype.
    """
    if missing := sorted(set(spec.obs) - set(obs)):
        raise SpecError(f"observation lacks {missing}; got {sorted(obs)}, the policy reads {sorted(spec.obs)}")
    checked = {}
    for name, item in spec.obs.items():
        checked[name] = item.validate(obs[name], leading=1, finite=False)
        if len(checked[name]) != n_obs:
            raise SpecError(f"`{name}` must hold {n_obs} observation steps, got {len(checked[name])}")
    return checked
