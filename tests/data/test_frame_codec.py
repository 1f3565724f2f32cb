from __future__ import annotations

import cv2
import numpy as np
import pytest

from robot_rl.data.frame_codec import check_encoded, decode, encode, is_whole
from robot_rl.errors import SpecError, StoreError
from robot_rl.specs import ArraySpec
from tests.data.store_data import picture

SHAPES = [(24, 32, 3), (24, 32, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_png_is_lossless(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(noise, "png"), "png", shape), noise)


@pytest.mark.parametrize("shape", SHAPES)
def test_jpeg_is_close_and_keeps_the_order_of_channels(shape):
    error = np.abs(decode(encode(picture(200, shape), "jpeg"), "jpeg", shape).astype(int) - picture(200, shape))
    assert error.mean() < 3


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_other_programs_see_the_same_colours(codec):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    bgr = cv2.imdecode(np.frombuffer(encode(red, codec), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(bgr[0, 0].astype(int) - [0, 0, 255]).max() < 5


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_damaged_bytes_and_wrong_sizes_are_refused(codec):
    spec = ArraySpec(name="camera", shape=(24, 32, 3), dtype="uint8")
    data = encode(picture(1), codec)
    check_encoded(data, codec, spec)
    assert is_whole(data, codec)
    assert not is_whole(data[:-3], codec)
    with pytest.raises(StoreError, match="frame must be"):
        decode(data, codec, (32, 24, 3))
    with pytest.raises(StoreError, match="cannot be decoded"):
        decode(b"nonsense", codec, spec.shape)
    other = encode(picture(1, (24, 24, 1)), codec)
    with pytest.raises(SpecError, match=r"`camera` must be whole .* got a picture of \(24, 24, 1\)"):
        check_encoded(other, codec, spec)
