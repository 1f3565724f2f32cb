"""What `robot-rl <command> --help` prints: the command's own settings, as configs/config.yaml explains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent

from rich.console import Console

from robot_rl.cli.calibrate_command import SUBCOMMANDS
from robot_rl.cli.config import CONFIG_DIR, choices

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "demo": ("out", "source", "store", "run", "bundle"),
    "collect": ("store", "collect"),
    "import": ("source", "store", "import"),
    "export": ("store", "target", "export"),
    "import-bag": ("bag", "plan", "store"),
    "export-bag": ("store", "episode", "bag"),
    "view": ("store", "episode", "view"),
    "report": ("store", "store_report"),
    "check": ("store", "check"),
    "mend": ("store", "mend"),
    "train": ("store", "run", "latency", "seed", "train"),
    "finetune": ("store", "base", "seed", "finetune"),
    "distill": ("store", "run", "seed", "distill"),
    "reward": ("store", "seed", "reward"),
    "package": ("run", "bundle", "package", "lerobot"),
    "evaluate": ("bundle", "run", "evaluate"),
    "validate": ("bundle", "store", "validate"),
    "ab": ("ab",),
    "compose": ("parents", "operator", "search", "report", "compose"),
    "loop": ("bundle", "latency", "seed", "loop", "execution"),
    "calibrate": ("calibrate",),
    "up": (),
    "doctor": ("out",),
}
"""Command to the keys of configs/config.yaml that are its own."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "train": ("task", "policy", "denoiser", "encoder"),
    "demo": ("task", "policy", "denoiser", "encoder"),
    "finetune": ("task", "algo", "head", "intervener", "encoder"),
    "distill": ("task", "head", "denoiser"),
    "reward": ("task", "encoder"),
    "validate": ("task", "validate"),
    "calibrate": ("board",),
}
"""Command to the groups of files that it chooses from; `task` alone for the others."""


def is_asked(words: Sequence[str]) -> bool:
    """Return whether a command's arguments ask for help."""
    return not {"-h", "--help", "help"}.isdisjoint(words)


def show_help(command: str, summary: str, console: Console) -> None:
    """Print what a command does, the words it takes first, and its settings with what they mean."""
    first = {"mend": " <operation>", "calibrate": " <what>", "up": " <graph>"}.get(command, "")
    given = "key:=value" if command == "up" else "key=value"
    lines = [f"usage: robot-rl {command}{first} [{given} ...]", "", summary]
    lines += [f"  {name:<12} {text}" for name, text in _first_words(command).items()]
    if sections := [_section(key) for key in SETTINGS[command]]:
        lines += ["", "settings, with their defaults:", "", "\n".join(sections)]
    if command != "up":
        lines += ["", *(f"{name}={'|'.join(choices(name))}" for name in GROUPS.get(command, ("task",)))]
        lines += ["", f"`robot-rl {command}{first} --cfg` prints every setting that it would run with."]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _first_words(command: str) -> Mapping[str, str]:
    """Return the words that a command takes before its settings, with what each does."""
    if command == "mend":
        from robot_rl.cli.mend_command import OPERATIONS, OTHERS

        return {name: text for name, (_, text) in OPERATIONS.items()} | OTHERS
    return {name: text for name, (_, text) in SUBCOMMANDS.items()} if command == "calibrate" else {}


def _section(key: str) -> str:
    """Return the lines of the configuration files that a top-level key takes, comments included."""
    if key == "calibrate":  # a file of its own
        text = (CONFIG_DIR / "calibrate" / "default.yaml").read_text("utf-8")
        return "calibrate:\n" + indent(text, "  ").rstrip()
    lines = (CONFIG_DIR / "config.yaml").read_text("utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end])
