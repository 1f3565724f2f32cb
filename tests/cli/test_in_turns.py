"""Several functions timed by turns, each some calls in a row."""

import pytest

from robot_rl.cli.distill_report import in_turns


@pytest.mark.parametrize(("block", "calls", "counted"), [(1, 3, 3), (2, 4, 4), (2, 5, 6)])
def test_each_is_called_in_blocks_by_turns_and_warm_up_is_not_counted(block, calls, counted):
    order = []
    runs = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    times = in_turns(runs, calls, warm_up=1, block=block)
    assert {name: len(taken) for name, taken in times.items()} == {"a": counted, "b": counted}
    assert order == (["a"] * block + ["b"] * block) * (1 + counted // block)
