"""What a page of the documentation holds that a test can use: fenced blocks, the marks before them, commands, links.

A mark is an HTML comment on the line before a block, which readers do not see:
`<!-- run -->` a block that the test runs; `<!-- prints -->` lines that the blocks before it must have printed, where
numbers and ids may differ and `...` is anything; `<!-- quick -->` exports that the test sets.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

_MARK = re.compile(r"^<!-- (\w+) -->$")
_FENCE = re.compile(r"^(```+)\s*(\w*)\s*$")
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"[0-9a-f]{32}|\d+(?:\.\d+)?(?:e-\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the mark before it, the number of its first line, its text."""

    language: str
    mark: str
    line: int
    text: str


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found: list[Block] = []
    mark, fence, language, start, lines = "", "", "", 0, []
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if fence and line.strip() == fence:
            found.append(Block(language, mark, start, "\n".join(lines)))
            mark, fence, lines = "", "", []
        elif fence:
            lines.append(line)
        elif match:
            fence, language, start = match[1], match[2], number + 1
        elif line.strip():
            comment = _MARK.match(line)
            mark = comment[1] if comment else ""
    assert not fence, f"the block that begins at line {start - 1} never ends"
    return found


def without_blocks(text: str) -> str:
    """Return a page's prose: what stands in fences is not read as Markdown."""
    lines = text.splitlines()
    for block in blocks(text):
        first, last = block.line - 2, block.line - 1 + len(block.text.splitlines())
        lines[first : last + 1] = [""] * (last + 1 - first)
    return "\n".join(lines)


def commands(text: str) -> list[str]:
    """Return the shell commands that blocks and indented code of a page show, each joined to one line."""
    sources = [block.text for block in blocks(text) if block.language in ("", "bash", "sh", "console")]
    sources += re.findall(r"^ {4}(robot-rl .*)$", without_blocks(text), re.MULTILINE)
    return [command for source in sources for command in _joined(source)]


def _joined(source: str) -> list[str]:
    """Join lines that end in a backslash or within a quotation."""
    found, open_line = [], ""
    for line in source.splitlines():
        whole = f"{open_line} {line.strip()}".strip()
        quoted = whole.split(" #")[0].count("'") % 2 == 1
        if whole.endswith("\\") or quoted:
            open_line = whole.removesuffix("\\").strip()
            continue
        open_line = ""
        if whole:
            found.append(whole)
    return [*found, open_line] if open_line else found


def inline_code(text: str) -> list[str]:
    return _INLINE.findall(without_blocks(text))


def links(text: str) -> list[str]:
    """Return the targets of links and pictures that lie in the project, without their anchors' pages being read."""
    return [target for target in _LINK.findall(without_blocks(text)) if not target.startswith(("http:", "https:"))]


def promised(block: Block) -> list[re.Pattern[str]]:
    """Return a pattern for each line that a `prints` block promises; numbers, ids and blanks are free."""
    patterns = []
    for line in block.text.splitlines():
        pieces = (r".*?".join(map(re.escape, _NUMBER.split(part))) for part in line.split("..."))
        words = r".*?".join(pieces).replace(r"\ ", " ").split()
        patterns.append(re.compile(r"\s+".join(words)))
    return patterns
