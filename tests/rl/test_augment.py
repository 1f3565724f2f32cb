"""Pictures moved by a few pixels (specs, off-policy: row 33)."""

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.rl.augment import draw_shift, random_shift

RAMP = torch.arange(84, dtype=torch.uint8).expand(84, 84)[None, :, :, None].expand(1, 84, 84, 3)


def shifted(row, col):
    return random_shift(RAMP, torch.tensor([[row, col]]))


def test_a_ramp_moves_as_it_must():
    assert torch.equal(shifted(4, 4), RAMP)
    left = shifted(0, 0)[0, 0, :, 0].tolist()
    assert (left[:8], left[-1]) == ([0, 0, 0, 0, 0, 1, 2, 3], 79)
    assert shifted(8, 8)[0, 0, -8:, 0].tolist() == [80, 81, 82, 83, 83, 83, 83, 83]


def test_there_are_81_shifts_and_all_channels_of_a_picture_share_one():
    offset = draw_shift(5000, torch.Generator().manual_seed(0))
    assert len({tuple(pair) for pair in offset.tolist()}) == 81
    pictures = torch.randint(255, (16, 12, 12, 1), dtype=torch.uint8).expand(16, 12, 12, 3)
    moved = random_shift(pictures, offset[:16])
    assert torch.equal(moved[..., 0], moved[..., 2])
    assert moved.dtype == torch.uint8
    alone = torch.cat([random_shift(pictures[i : i + 1], offset[i : i + 1]) for i in range(16)])
    assert torch.equal(moved, alone)


def test_an_offset_beyond_the_border_is_refused():
    with pytest.raises(ConfigError, match=r"`offset` must be in \[0, 8\], got 9 to 9"):
        shifted(9, 9)
