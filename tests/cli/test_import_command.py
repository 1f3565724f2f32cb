"""`robot-rl import` tells defects, imports what is sound when asked to, and writes what it did."""

import json

import pytest

from robot_rl.cli.main import main
from robot_rl.data.store import EpisodeStore
from tests.data.lerobot_folders import change_rows, write_v2


def test_a_data_set_with_a_broken_episode_is_refused_until_it_may_be_left_out(tmp_path, capsys):
    root = write_v2(tmp_path / "toy")
    change_rows(root, 1, lambda found: found.update(frame_index=found["frame_index"] * 2))
    arguments = ["import", f"source={root}", f"store={tmp_path / 'store'}"]
    assert main(arguments) == 2
    told = " ".join(capsys.readouterr().out.split())
    assert "1 defects" in told
    assert "must grow by one" in told
    assert "import.skip_broken=true" in told
    assert not EpisodeStore.exists(tmp_path / "store")
    assert main([*arguments, "import.skip_broken=true"]) == 0
    assert "2 of 3 episodes" in " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    assert list(report["skipped"]) == ["1"]
    assert report["imported"] == 2
    assert report["format"] == "lerobot v2.1"


def test_settings_reach_the_reader(tmp_path, capsys):
    root = write_v2(tmp_path / "toy", kind="video")
    settings = [
        "import.videos=false",
        "import.features=[effort,observation.state]",
        "import.rename={observation.state: joints}",
        "import.limit=2",
    ]
    more = ["import.options={threads: 2}", "import.format=lerobot", "import.action_kind=position"]
    assert main(["import", f"source={root}", f"store={tmp_path / 'store'}", *settings, *more]) == 0
    store = EpisodeStore.open(tmp_path / "store")
    assert len(store) == 2
    assert store.spec.action.kind == "position"
    assert set(store.read(store.ids()[0]).streams) == {"action", "effort", "joints"}
    assert "not asked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("import.format=csv", "`import.format` must be one of"),
        ("import.action=[speed]", "`import.action` names ['speed']"),
        ("import.options={colour: red}", "has no option ['colour']"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, capsys, setting, message):
    root = write_v2(tmp_path / "toy")
    assert main(["import", f"source={root}", f"store={tmp_path / 'store'}", setting]) == 2
    assert message in " ".join(capsys.readouterr().out.split())


def test_a_place_without_any_data_set_is_refused(tmp_path, capsys):
    assert main(["import", f"source={tmp_path}", f"store={tmp_path / 'store'}"]) == 2
    assert "looks like none of the formats" in " ".join(capsys.readouterr().out.split())
