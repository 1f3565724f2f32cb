"""Links of the documentation lead somewhere, blocks are read as written, and the site holds every page."""

import re
from pathlib import Path

import pytest
import yaml

from robot_rl.cli.config import CONFIG_DIR
from tests.docs.pages import DOCS, PAGES, ROOT, Block, blocks, commands, links, name, promised

ALGORITHMS = [
    *sorted(page for page in (DOCS / "algorithms").glob("*.md") if page.name != "index.md"),
    *(DOCS / f"{page}.md" for page in ("moh", "composition", "execution")),
]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in titles)
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


def navigation(node: object) -> list[str]:
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node
    assert isinstance(children, list | type({}.values()))
    return [page for child in children for page in navigation(child)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page.read_text()):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: {link}: there is {sorted(anchors(target))}"
        assert page.parent == ROOT or DOCS in (target, *target.parents), f"{name(page)}: {link} is not on the site"


def test_the_site_has_every_page_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = navigation(config["nav"])
    assert sorted(pages) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_algorithm_that_can_be_configured_has_a_page_that_names_it() -> None:
    text = "\n".join(page.read_text() for page in (DOCS / "algorithms").glob("*.md"))
    configured = [f"{group}={file.stem}" for group in ("algo", "policy") for file in (CONFIG_DIR / group).glob("*")]
    assert {key for key in configured if key not in text} == set()


@pytest.mark.parametrize("page", ALGORITHMS, ids=name)
def test_a_page_about_an_algorithm_tells_all_that_it_should(page: Path) -> None:
    text = page.read_text()
    assert "arXiv" in text
    for part in ("## Run it", "## What it computes", "## Departures", "## What is logged", "## Results"):
        assert part in text, part


def test_blocks_marks_and_commands_are_read_as_they_stand() -> None:
    text = "a `b`\n<!-- run -->\n```bash\nx a \\\n  b  # c\ny 'd\n  e'\n```\n\n```yaml\nk: v\n```\n"
    assert blocks(text) == [Block("bash", "run", 4, "x a \\\n  b  # c\ny 'd\n  e'"), Block("yaml", "", 11, "k: v")]
    assert commands(text) == ["x a b  # c", "y 'd e'"]


def test_a_promise_leaves_numbers_free_and_nothing_else() -> None:
    (pattern,) = promised(Block("text", "prints", 1, "trained 6000 steps in .../run, 1.4e-06 of 3"))
    assert pattern.search("trained 20 steps  in /tmp/x/run, 0.5 of 7")
    assert not pattern.search("trained 20 runs in /tmp/x/run, 0.5 of 7")
