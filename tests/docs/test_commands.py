"""Every command that the documentation shows exists and takes the keys it is shown with. None is run here."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from robot_rl.cli.calibrate_command import SUBCOMMANDS
from robot_rl.cli.config import CONFIG_DIR, load_config
from robot_rl.cli.main import COMMANDS
from robot_rl.cli.mend_command import OPERATIONS, OTHERS
from robot_rl.errors import ConfigError
from tests.docs.pages import PAGES, ROOT, commands, inline_code, name

WORDS = {"calibrate": {*SUBCOMMANDS}, "mend": {*OPERATIONS, *OTHERS}}
"""Commands whose first argument is a word, and the words there are."""
_PLACEHOLDER = re.compile(r"<[^<>]*>")
_GROUPS = {folder.name for folder in CONFIG_DIR.iterdir() if folder.is_dir()}


@cache
def check_keys(overrides: tuple[str, ...]) -> None:
    load_config(overrides)


def check_command(command: str) -> None:
    """Raise unless `robot-rl <command>` exists and takes these keys; `<...>` and `...` stand for what is not known."""
    words = shlex.split(_PLACEHOLDER.sub("placeholder", command), comments=True)[1:]
    first, rest = words[0], [word for word in words[1:] if word not in ("...", "--cfg", "--web") and word[0] != "$"]
    if first not in COMMANDS:
        raise ConfigError(f"unknown command `{first}`")
    if first == "up":
        check_graph(*rest)
        return
    if first in WORDS:
        if rest[0] not in WORDS[first]:
            raise ConfigError(f"`{first}` has no `{rest[0]}`")
        rest = rest[1:]
    given = [word.replace("=...", "=placeholder").split("=", 1) for word in rest]
    check_keys(tuple("=".join(word) for word in given if not (word[0] in _GROUPS and word[1:] == ["placeholder"])))


def check_graph(graph: str, *arguments: str) -> None:
    known = pytest.importorskip("robot_rl_ros.arm_graphs", reason="needs the ROS packages").GRAPHS[graph].arguments
    if unknown := {argument.split(":=")[0] for argument in arguments} - {argument.name for argument in known}:
        raise ConfigError(f"graph `{graph}` has no argument {sorted(unknown)}")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_module(module: str) -> None:
    parts = module.split(".")
    base = ROOT / "ros_ws/src/robot_rl_ros" if parts[0] == "robot_rl_ros" else ROOT
    file = base.joinpath(*parts)
    assert file.with_suffix(".py").is_file() or (file / "__init__.py").is_file(), f"no module {module}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_is_taken_as_it_is_written(page: Path) -> None:
    for command in commands(page.read_text()):
        program, _, rest = command.partition(" ")
        try:
            if program.endswith("robot-rl"):
                check_command(command)
            elif program == "make" and rest:
                assert shlex.split(rest, comments=True)[0] in targets(), f"the Makefile has no target {rest}"
            elif (program, rest[:2]) == ("python", "-m") and rest[3:].startswith(("benchmarks", "robot_rl")):
                check_module(rest.split()[1])
        except (ConfigError, ValueError) as error:
            raise AssertionError(f"{name(page)}: `{command}`: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_named_in_a_sentence_exists(page: Path) -> None:
    for code in inline_code(page.read_text()):
        if match := re.match(r"robot-rl ([a-z-]+)", code):
            assert match[1] in COMMANDS, f"{name(page)}: `{code}`"
        if match := re.match(r"make ([a-z-]+)$", code):
            assert match[1] in targets(), f"{name(page)}: `{code}`"
        if match := re.match(r"python -m (benchmarks\.\w+)", code):
            check_module(match[1])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("robot-rl tarin task=lift", "unknown command `tarin`"),
        ("robot-rl train train.step=3", "unknown config key `train.step`"),
        ("robot-rl train task=lifft", "lifft"),
        ("robot-rl mend remove store=x", "`mend` has no `remove`"),
        ("robot-rl calibrate camera", "`calibrate` has no `camera`"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_command(command)


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {command for command in COMMANDS if f"`{command}`" not in readme} == set()
