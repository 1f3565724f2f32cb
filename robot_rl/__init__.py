"""robot_rl: a learning stack for real robot manipulation. The rooms are listed in docs/design.md."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _refuse_shadowed_siblings() -> None:
    """Raise if a foreign top-level `policies`, `sim` or `calibration` stands before ours on the path."""
    root = Path(__file__).resolve().parents[1]
    for name in ("policies", "sim", "calibration"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is not None and found.parent.parent != root and (root / name).is_dir():
            raise ImportError(
                f"a foreign package `{name}` at {found.parent} shadows robot_rl's own at {root / name}; "
                "uninstall it or put this project first on PYTHONPATH"
            )


_refuse_shadowed_siblings()
