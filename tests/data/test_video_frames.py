"""Video frames become pictures of a store with colours as near as JPEG allows, from any place and in any order."""

import av
import numpy as np
import pytest
import simplejpeg

from robot_rl.data.video_frames import VideoRows, decode_frames, read_header
from robot_rl.errors import DataFormatError
from tests.data.lerobot_folders import FPS, HEIGHT, WIDTH, picture, write_video

COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 210), (240, 240, 240), (16, 16, 16), (128, 90, 30)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "numbers.mp4"
    write_video(path, [picture(0, i) for i in range(12)])
    return path


def rows(path, **changes):
    settings = {"shape": (HEIGHT, WIDTH, 3), "count": 12, "fps": FPS, "codec": "jpeg"} | changes
    return VideoRows(path, **settings)


def level(image):
    """Return which frame a picture is, by the level of its first band."""
    return round((float(image[8:40, 8:16, 0].mean()) - 40) / 12)


def flat_video(path, colour, *, matrix, full):
    """Write six frames of one colour, converted and marked with the given matrix and range."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {"crf": "0"}
        stream.codec_context.colorspace = {"601": 5, "709": 1}[matrix]
        stream.codec_context.color_range = 2 if full else 1
        red, green, blue = (c / 255 for c in colour)
        kr, kb = (0.299, 0.114) if matrix == "601" else (0.2126, 0.0722)
        y = kr * red + (1 - kr - kb) * green + kb * blue
        cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
        planes = (255 * y, 255 * cb + 128, 255 * cr + 128) if full else (219 * y + 16, 224 * cb + 128, 224 * cr + 128)
        for _ in range(6):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for plane, value in zip(frame.planes, planes, strict=True):
                plane.update(np.full((plane.height, plane.line_size), round(value), np.uint8).tobytes())
            frame.color_range, frame.colorspace = (2 if full else 1), {"601": 5, "709": 1}[matrix]
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("matrix", "full"), [("601", False), ("601", True), ("709", False)])
def test_colours_survive_whatever_range_and_matrix_the_video_has(tmp_path, colour, matrix, full):
    flat_video(tmp_path / "flat.mp4", colour, matrix=matrix, full=full)
    coded = rows(tmp_path / "flat.mp4", count=6).encoded(3)
    decoded = simplejpeg.decode_jpeg(coded)
    assert np.abs(decoded.reshape(-1, 3).mean(0) - colour).max() < 4


def test_pictures_made_from_planes_are_those_made_from_rgb(video):
    """The two ways differ by rounding and by how chroma is enlarged, which shows at the edges between bands only."""
    data = rows(video)
    for i in (0, 5, 11):
        by_planes, by_rgb = simplejpeg.decode_jpeg(data.encoded(i)).astype(int), data[i].astype(int)
        assert np.abs(by_planes - by_rgb)[:, [4, 12, 32, 40, 56]].max() <= 4
        assert np.abs(by_planes - by_rgb).mean() < 3
        assert np.abs(by_planes - picture(0, i))[8:40, [4, 12, 32, 40, 56]].max() <= 3


def test_frames_come_in_any_order_and_from_any_time(video):
    data = rows(video)
    assert [level(simplejpeg.decode_jpeg(data.encoded(i))) for i in (0, 1, 2, 7, 8, 3, -1)] == [0, 1, 2, 7, 8, 3, 11]
    assert [level(image) for image in data[[9, 2, 2]]] == [9, 2, 2]
    assert level(data[4]) == 4
    assert data[3:3].shape == (0, HEIGHT, WIDTH, 3)
    later = rows(video, count=4, start_s=6 / FPS, timed=True)
    assert [level(image) for image in later[:]] == [6, 7, 8, 9]
    assert level(simplejpeg.decode_jpeg(later.encoded(2))) == 8


def test_png_keeps_the_decoded_picture_exactly(video):
    data = rows(video, codec="png")
    from robot_rl.data.frame_codec import decode

    np.testing.assert_array_equal(decode(data.encoded(5), "png", (HEIGHT, WIDTH, 3)), data[5])


def test_a_camera_of_one_channel_is_kept_gray(video):
    data = rows(video, shape=(HEIGHT, WIDTH, 1))
    assert data[2].shape == (HEIGHT, WIDTH, 1)
    assert simplejpeg.decode_jpeg_header(data.encoded(2))[2] == "Gray"


def test_the_header_says_what_the_video_is(video):
    header = read_header(video)
    assert (header.codec, header.height, header.width, header.frames) == ("h264", HEIGHT, WIDTH, 12)
    assert header.rate == FPS
    assert not header.cut_short


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 15}, "must have 15 frames from 0 s on, it ends after 12"),
        ({"shape": (64, 64, 3)}, "pictures must be 64x64, got 48x64"),
        ({"fps": 7, "timed": True}, "frame 2 from 0 s on is at 0.1000 s, not at 0.2857 s"),
    ],
)
def test_a_video_that_is_not_as_promised_is_refused(video, changes, message):
    data = rows(video, **changes)
    with pytest.raises(DataFormatError, match=message):
        [data.encoded(i) for i in range(len(data))]


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(DataFormatError, match=r"nothing\.mp4 is missing"):
        read_header(tmp_path / "nothing.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DataFormatError, match=r"text\.mp4 cannot be opened as a video"):
        read_header(tmp_path / "text.mp4")
    with pytest.raises(DataFormatError, match=r"text\.mp4 cannot be decoded"):
        list(decode_frames(tmp_path / "text.mp4", count=1, fps=FPS))


def test_a_reader_that_stops_early_leaves_no_thread_behind(video):
    import gc
    import threading

    before = set(threading.enumerate())
    data = rows(video)
    data.encoded(0)
    assert len(set(threading.enumerate()) - before) >= 2
    del data
    gc.collect()
    assert not set(threading.enumerate()) - before
