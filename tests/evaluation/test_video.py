from __future__ import annotations

import av
import numpy as np
import pytest

from robot_rl.errors import ConfigError, SpecError
from robot_rl.evaluation.video import Mp4Writer, write_mp4


def frames(count: int, height: int, width: int) -> list[np.ndarray]:
    """Grey pictures whose level tells their number."""
    return [np.full((height, width, 3), 40 + 20 * i, np.uint8) for i in range(count)]


def test_pictures_come_back_in_order_at_the_rate_asked_for(tmp_path):
    path = write_mp4(frames(8, 48, 64), tmp_path / "deep" / "a.mp4", 12.5)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 12.5
        levels = [picture.to_ndarray(format="rgb24").mean() for picture in video.decode(stream)]
    np.testing.assert_allclose(levels, 40 + 20 * np.arange(8), atol=2)


def test_the_index_stands_before_the_pictures(tmp_path):
    data = write_mp4(frames(3, 32, 32), tmp_path / "a.mp4", 10).read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_odd_sides_are_padded(tmp_path):
    path = write_mp4(frames(2, 33, 47), tmp_path / "a.mp4", 10)
    with av.open(str(path)) as video:
        assert (video.streams.video[0].height, video.streams.video[0].width) == (34, 48)


def test_wrong_pictures_are_refused_and_leave_nothing_behind(tmp_path):
    with pytest.raises(SpecError, match=r"`frame` must be uint8\(height, width, 3\), got float32\(4, 4, 3\)"):
        write_mp4([np.zeros((4, 4, 3), np.float32)], tmp_path / "a.mp4", 10)
    with pytest.raises(SpecError, match=r"must keep the first frame's shape \(32, 32, 3\), got \(16, 32, 3\)"):
        write_mp4([*frames(2, 32, 32), *frames(1, 16, 32)], tmp_path / "a.mp4", 10)
    with pytest.raises(SpecError, match=r"`a.mp4` has no frames"):
        write_mp4([], tmp_path / "a.mp4", 10)
    assert list(tmp_path.iterdir()) == []


def test_the_rate_must_be_positive(tmp_path):
    with pytest.raises(ConfigError, match="`fps` must be positive, got 0"):
        Mp4Writer(tmp_path / "a.mp4", 0)
