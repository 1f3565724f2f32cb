"""`robot-rl export`: the format is chosen by name or by the target, options go to its writer."""

import json

import pytest
from rich.console import Console

from robot_rl.cli.config import load_config
from robot_rl.cli.export_command import run
from robot_rl.errors import ConfigError
from tests.data.lerobot_stores import grid_store

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'robot-rl[lerobot]'")


def export(tmp_path, *overrides):
    return run(load_config([f"store={tmp_path / 'store'}", *overrides]), Console(quiet=True))


def test_lerobot_is_written_with_its_options(tmp_path):
    grid_store(tmp_path / "store", episodes=1)
    target = tmp_path / "out"
    lost = export(tmp_path, f"target={target}", "export.format=lerobot", "export.videos=false", "export.fps=10")
    info = json.loads((target / "meta" / "info.json").read_text())
    assert (info["fps"], info["video_path"]) == (10, None)
    assert json.loads((target / "lost.json").read_text()) == lost
    assert "rate" in lost


def test_a_missing_target_an_unknown_format_and_a_foreign_option_are_refused(tmp_path):
    grid_store(tmp_path / "store", episodes=1)
    with pytest.raises(ConfigError, match="`target` is missing"):
        export(tmp_path)
    with pytest.raises(ConfigError, match=r"`export.format` must be one of .*lerobot.*, got 'rlds'"):
        export(tmp_path, f"target={tmp_path / 'out'}", "export.format=rlds")
    with pytest.raises(ConfigError, match=r"export to replay_buffer has no option \['codec'\]"):
        export(tmp_path, f"target={tmp_path / 'out'}", "export.format=replay_buffer", "export.codec=h264")
