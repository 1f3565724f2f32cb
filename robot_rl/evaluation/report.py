"""One HTML file that shows a run to a person: no scripts, no links, readable on light and dark screens.

A report is a list of sections, a section a list of blocks. Everything, pictures and videos too, is inside the file.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup

from robot_rl import __version__
from robot_rl.errors import ConfigError
from robot_rl.files import replace_text


@dataclass(frozen=True)
class Tile:
    """One figure in large type: what it is, the figure, and its uncertainty or unit below."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Plot:
    """An SVG from `evaluation.plots`, with a caption; narrow plots that follow one another share a row."""

    kind: ClassVar[str] = "plot"
    svg: Markup
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file, with a caption beside it, or below a `wide` one."""

    kind: ClassVar[str] = "picture"
    path: str | Path
    caption: str = ""
    wide: bool = False

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return _data_uri(self.path, {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"})


@dataclass(frozen=True)
class Video:
    """An mp4 file with a caption; `good` colours it by how the episode ended."""

    path: str | Path
    caption: str = ""
    good: bool | None = None

    @property
    def uri(self) -> str:
        """The video as a data URI."""
        return _data_uri(self.path, {".mp4": "video/mp4"})


@dataclass(frozen=True)
class Videos:
    """Videos in a grid."""

    kind: ClassVar[str] = "videos"
    videos: Sequence[Video]


@dataclass(frozen=True)
class Table:
    """Rows of cells; cells that are numbers stand right. `folded` hides a long one behind its caption."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ConfigError(
                    f"table `{self.caption}`: row {i} has {len(row)} cells, the header {len(self.header)}"
                )


@dataclass(frozen=True)
class Code:
    """Text as typed: a command, a configuration."""

    kind: ClassVar[str] = "code"
    text: str
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, Any]


Block = Tiles | Text | Facts | Plot | Picture | Videos | Table | Code


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def write_report(path: str | Path, *, title: str, subtitle: str = "", sections: Sequence[Section]) -> Path:
    """Write the report, whole or not at all, and return its path.

    Args:
        path: The HTML file; its folder is made.
        title: What was run.
        subtitle: The result in one line.
        sections: In order of appearance; those without blocks are left out.

    Raises:
        ConfigError: A picture or video file is missing or of a kind that a page cannot hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_cell
    environment.filters["batch_plots"] = _batch_plots
    html = environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        sections=[section for section in sections if section.blocks],
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return replace_text(path, html)


def format_cell(value: Any) -> str:
    """Return a table cell's text: yes and no for truth values, four digits for fractions, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _batch_plots(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return the blocks in order, narrow plots that follow one another in one list, every other block alone."""
    runs: list[list[Block]] = []
    for block in blocks:
        if runs and _narrow(block) and _narrow(runs[-1][0]):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _narrow(block: Block) -> bool:
    return isinstance(block, Plot) and not block.wide


def _data_uri(path: str | Path, kinds: Mapping[str, str]) -> str:
    path = Path(path)
    if path.suffix.lower() not in kinds:
        raise ConfigError(f"{path}: a report holds {sorted(kinds)} here, got {path.suffix!r}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; leave its block out of the report or make the file first")
    return f"data:{kinds[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"
