"""How many threads torch computes with, for as long as a command needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from robot_rl.allocator import keep_freed_memory


@contextmanager
def numeric_threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads inside the block, and what it used before after it.

    Freed memory is kept from here on.
    """
    import torch

    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
