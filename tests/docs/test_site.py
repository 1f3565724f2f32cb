"""The site builds without a warning, and fetches nothing from elsewhere when it is read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_FETCHED = re.compile(r'<(?:script|img|iframe|source)[^>]* src="?(https?:[^">\s]+)|<link[^>]* href="?(https?:[^">\s]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)], cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_every_page_is_there_and_fetches_nothing(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text()
        assert _FETCHED.findall(html) == [], page


def test_the_reference_shows_signatures_shapes_and_what_is_raised(site: Path) -> None:
    html = (site / "reference/deploy.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
    assert 'id="robot_rl.deploy.safety.SafetyFilter.filter"' in html
    assert "Commanded action [A], in its physical unit." in text
    assert "The filter was never armed, so that there is no pose to hold." in text
    assert "now_ns: int" in text
