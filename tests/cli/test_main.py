"""What the program says where a command cannot begin or go on: help, files that cannot be used, interruptions."""

import errno
import os
from pathlib import Path

import pytest

from robot_rl.cli import collect_command, file_trouble
from robot_rl.cli.command_help import SETTINGS, _section
from robot_rl.cli.main import COMMANDS, main

KNOWN = ["collect", "store=/data/new", "collect.episodes=1"]


@pytest.mark.parametrize("asked", ["--help", "-h", "help"])
def test_a_command_explains_its_own_settings(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "task=lift", asked]) == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: robot-rl finetune [key=value ...]")
    assert "  patience_s: 60\n" in told
    assert "classifier: null      # a folder of `robot-rl reward`" in told
    assert "algo=dppo|dqc" in told
    assert "robot-rl finetune --cfg" in told
    assert "video_episodes" not in told


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"up"}))
def test_every_command_has_help_whose_settings_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert COMMANDS[command] in told
    for key in SETTINGS[command]:
        assert _section(key).startswith(f"{key}:")
        assert _section(key) in told


def test_the_first_words_of_a_command_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mend", "trim", "--help"]) == 0
    assert "  undo         take the last one back\n" in capsys.readouterr().out
    assert main(["calibrate", "--help"]) == 0
    assert "  hand-eye     a camera on the arm" in capsys.readouterr().out


def test_a_word_that_is_no_setting_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--verbose"]) == 2
    assert "expected key=value, got `--verbose`; `robot-rl <command> --help`" in capsys.readouterr().out


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(config: object, console: object) -> None:
        raise error

    monkeypatch.setattr(collect_command, "run", run)


def test_a_place_that_cannot_be_written_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["collect", f"store={tmp_path}/file/store"]) == 2
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("NotADirectoryError: cannot use")
    assert "Not a directory; mend that, or choose another place with `store=<path>`, or every output" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR]
)
def test_what_is_wrong_with_a_place_is_explained_with_the_key_of_the_output(number: int) -> None:
    told = file_trouble.explain(OSError(number, os.strerror(number), "/data/x"), "evaluate", ["evaluate.episodes=1"])
    assert told is not None
    assert told.startswith(f"cannot use /data/x: {os.strerror(number)}; ")
    assert "`evaluate.out=<path>`, or every output with `out=<folder>`" in told


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),  # of no file
        OSError(errno.EPIPE, "Broken pipe", "/data/x"),
        FileNotFoundError(errno.ENOENT, "No such file", "/data/new/episode_3"),
        ValueError("a fault"),
    ],
)
def test_a_fault_of_the_program_stays_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, error)
    with pytest.raises(type(error)):
        main(KNOWN)


def test_a_file_that_was_named_and_does_not_exist_is_the_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, FileNotFoundError(errno.ENOENT, "No such file", "/data/new"))
    assert main(KNOWN) == 2
    assert "there is no file or folder /data/new; give one that exists as `store`" in capsys.readouterr().out


def test_every_command_that_writes_names_an_output_that_exists() -> None:
    from robot_rl.cli.config import load_config

    assert set(file_trouble.OUTPUT) == set(COMMANDS) - {"up"}
    for key in file_trouble.OUTPUT.values():
        node = load_config([])
        for part in key.split("."):
            assert part in node, key
            node = node[part]


def test_only_commands_that_go_on_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from robot_rl.cli import loop_command

    _failing(monkeypatch, KeyboardInterrupt())
    assert main(KNOWN) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().out
    monkeypatch.setattr(loop_command, "run", collect_command.run)
    assert main(["loop"]) == 130
    assert capsys.readouterr().out == "interrupted\n"
