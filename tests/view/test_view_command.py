"""`robot-rl view` as a user runs it; in the browser too, where there is a Chromium."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rerun", reason="needs the `view` extra")

from robot_rl.cli.main import main
from robot_rl.cli.view_command import episode_id
from robot_rl.data.frame_codec import encode
from robot_rl.errors import ConfigError
from tests.deploy.conftest import make_bundle  # noqa: F401 - a fixture
from tests.view.browser import Browser, find_chromium
from tests.view.test_episode import read_back
from tests.view.view_data import ORANGE, commands, store

PATCH = 0.004
"""Share of the page that the patch in the camera's picture takes, at least."""


def test_an_episode_is_named_by_id_by_number_or_is_the_newest():
    ids = ["a", "b", "7"]
    assert [episode_id(ids, wanted) for wanted in ("b", 0, -2, 7, None)] == ["b", "a", "b", "7", "7"]
    with pytest.raises(ConfigError, match=r"no episode 3; give a number from 0 to 2 or an id such as a"):
        episode_id(ids, 3)
    with pytest.raises(ConfigError, match="the store is empty"):
        episode_id([], None)


def test_two_episodes_go_into_a_file_under_their_own_roots(tmp_path, capsys):
    store(tmp_path / "store")
    file = tmp_path / "out" / "both.rrd"
    assert main(["view", f"store={tmp_path}/store", "episode=0", "view.compare=ep1", f"view.save={file}"]) == 0
    rows, static = read_back(file)
    np.testing.assert_allclose(np.ravel(rows["/A/action/0"]["Scalars:scalars"]), commands()[:, 0])
    np.testing.assert_allclose(np.ravel(rows["/B/action/0"]["Scalars:scalars"]), commands(0.4)[:, 0])
    assert "# ep1" in static["/B/about"]["TextDocument:text"][0][0]
    assert f"open it with: rerun {file}" in capsys.readouterr().out


def test_a_bundles_chunks_are_drawn_over_the_actions_and_their_error_is_printed(tmp_path, capsys, make_bundle):  # noqa: F811
    store(tmp_path / "store", episodes=1)
    bundle = make_bundle()
    line = ["view", f"store={tmp_path}/store", f"view.policy={bundle.path}", "view.every=10"]
    assert main([*line, f"view.save={tmp_path}/e.rrd"]) == 0
    rows, _ = read_back(tmp_path / "e.rrd")
    assert rows["/prediction_error/0"]["step"] == [0, 10, 20, 30, 40, 50]
    shown = float(np.mean(rows["/prediction_error/0"]["Scalars:scalars"]))
    assert re.search(rf"0 *│ *{shown:.4g}", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["view.save=e.mp4"], "must be a file that ends in .rrd"),
        (["view.save=e.rrd", "view.policy=nowhere"], "must be a bundle or a training run"),
        (["view.save=e.rrd", "episode=9"], "no episode 9"),
        ([], "no display here"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_reason(tmp_path, capsys, monkeypatch, line, message):
    store(tmp_path / "store", episodes=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if message == "no display here" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells by its environment whether there is a display")
    assert main(["view", f"store={tmp_path}/store", *line]) == 2
    assert message in " ".join(capsys.readouterr().out.split())


def _served(process: subprocess.Popen, log: Path) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"open (http://\S+)", log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def _share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float(np.mean(np.abs(picture.astype(int) - colour).max(axis=2) < 30))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium: apt-get install chromium")
def test_the_browser_shows_the_cameras_picture_and_the_curves(tmp_path):
    store(tmp_path / "store", episodes=1)
    log = tmp_path / "log.txt"
    line = [sys.executable, "-m", "robot_rl.cli.main", "view", "--web", f"store={tmp_path}/store"]
    with log.open("w") as out:
        process = subprocess.Popen([*line, "view.open_browser=false"], stdout=out, stderr=subprocess.STDOUT)
    try:
        url = _served(process, log)
        with Browser(tmp_path / "profile", width=900, height=700) as browser:
            browser.open(f"{url}&renderer=webgl&theme=light")
            picture = browser.wait_for(lambda p: _share(p, ORANGE) > PATCH, seconds=400)
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(30)
    (tmp_path / "page.png").write_bytes(encode(picture, "png"))  # to look at when this fails
    assert _share(picture, ORANGE) > PATCH, "the camera's orange patch is not on the page"
    right = picture[:, picture.shape[1] // 2 :]
    assert _share(right, (217, 115, 13)) > 0.0002, "the commanded action is not drawn"
    assert _share(right, (47, 107, 216)) > 0.0002, "the state is not drawn"
    assert status == 0
