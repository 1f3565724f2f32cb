"""Tutorial and task pages do what they say: their marked blocks are run in order, and print what they promise."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks, name, promised

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TUTORIAL = DOCS / "tutorial.md"
TASKS = [page for page in sorted((DOCS / "tasks").glob("*.md")) if "<!-- run -->" in page.read_text()]


def environment() -> dict[str, str]:
    """Return the environment of the blocks: the tutorial's own rehearsal settings, wide lines, this interpreter."""
    (quick,) = (block for block in blocks(TUTORIAL.read_text()) if block.mark == "quick")
    match = re.search(r'QUICK="(.*?)"', quick.text, re.DOTALL)
    assert match is not None
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ, "PATH": path, "QUICK": match[1].replace("\\\n", " "), "COLUMNS": "200", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def run_page(page: Path, folder: Path) -> None:
    """Run the marked blocks of a page in `folder`, and compare what they print with what the page promises."""
    printed = ""
    for block in blocks(page.read_text()):
        where = f"{name(page)}:{block.line}"
        if block.mark == "run":
            program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-e", "-c"]
            done = subprocess.run(
                [*program, block.text], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{where} ended with {done.returncode}\n{done.stdout[-4000:]}"
            printed = done.stdout
        if block.mark == "prints":
            for pattern in promised(block):
                assert pattern.search(printed), f"{where}: nothing like {pattern.pattern!r} in\n{printed[-4000:]}"


@pytest.fixture(scope="module")
def after_tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial")
    run_page(TUTORIAL, folder)
    return folder


def test_the_tutorial_does_what_it_says(after_tutorial: Path) -> None:
    assert (after_tutorial / "outputs/lift/bundle/manifest.json").is_file()


@pytest.mark.parametrize("page", TASKS, ids=name)
def test_a_task_page_goes_on_from_the_tutorial(page: Path, after_tutorial: Path, tmp_path: Path) -> None:
    shutil.copytree(after_tutorial / "outputs", tmp_path / "outputs", symlinks=True)
    run_page(page, tmp_path)
