"""The policy bundle: the only way from learner to robot, an immutable directory that proves its own contents."""

from __future__ import annotations

from robot_rl.bundle.directory import PolicyBundle, newest_accepted, refuse_existing
from robot_rl.bundle.manifest import FORMAT_VERSION, Graph, Manifest, Parity, TensorInfo
from robot_rl.bundle.residual import ResidualInfo, base_of, residual_info
from robot_rl.bundle.solver import SolverInfo

__all__ = [
    "FORMAT_VERSION",
    "Graph",
    "Manifest",
    "Parity",
    "PolicyBundle",
    "ResidualInfo",
    "SolverInfo",
    "TensorInfo",
    "base_of",
    "newest_accepted",
    "refuse_existing",
    "residual_info",
]
