"""Fixtures for every test: where the optional real data lies, and one thread per process so that tests repeat."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real data of others, `$ROBOT_RL_DATA` or `shared/data` beside the project; skips where missing."""
    folder = Path(os.environ.get("ROBOT_RL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set ROBOT_RL_DATA to a folder that holds it")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Pin torch to one thread, so that two xdist workers do not fight and sums are taken in one order."""
    import torch

    torch.set_num_threads(1)
