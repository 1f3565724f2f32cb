"""Freed memory stays with the process where the C library can be asked for it."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from robot_rl.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    for _ in range(20):
        blocks = [np.ones(2_000_000) for _ in range(4)]  # 16 MB each, written to
        del blocks
use()
before = faults()
use()
print(faults() - before)
"""


def faults(how):
    return int(subprocess.run([sys.executable, "-c", CODE, how], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's allocator is told")
def test_large_blocks_are_not_taken_from_the_system_anew():
    assert faults("keep") * 20 < faults("leave")
