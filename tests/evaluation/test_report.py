from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation import plots
from robot_rl.evaluation.report import (
    Code,
    Facts,
    Picture,
    Plot,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    Video,
    Videos,
    write_report,
)
from robot_rl.evaluation.video import write_mp4


class Balance(HTMLParser):
    """Collects text and checks that every element that is opened is closed, in order."""

    VOID = ("meta", "img", "br", "line", "circle", "rect", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(html: str) -> str:
    page = Balance()
    page.feed(html)
    assert page.open == []
    return page.text


def test_every_block_is_in_one_file_without_links_or_scripts(tmp_path):
    video = write_mp4([np.full((32, 32, 3), 9, np.uint8)] * 3, tmp_path / "a.mp4", 10)
    png = tmp_path / "a.png"
    png.write_bytes(b"\x89PNG made up")
    svg = plots.histogram([0, 1], [1], x_label="reward")
    blocks = [
        Tiles([Tile("Success", "90.0 %", "of 10")]),
        Text("A paragraph."), Facts({"steps": 12, "half": 0.5, "none": None}),
        Plot(svg, "left"), Plot(svg, "right"), Plot(svg, wide=True), Picture(png, "a picture"),
        Videos([Video(video, "seed 3", True), Video(video, "seed 4", False), Video(video)]),
        Table(("seed", "ok"), [(3, True), (4, False)], caption="seeds"), Code("robot-rl demo", "Run", folded=True),
    ]  # fmt: skip
    path = write_report(
        tmp_path / "deep" / "r.html", title="A run", subtitle="went well", sections=[Section("All", blocks)]
    )
    html = path.read_text()
    text = parsed(html)
    for words in (
        "A run",
        "went well",
        "90.0 %",
        "A paragraph.",
        "a picture",
        "seed 3",
        "robot-rl demo",
        "yes",
        "no",
        "0.5",
    ):
        assert words in text
    assert html.count('class="badge good"') == 1
    assert html.count('class="badge bad"') == 1
    assert html.count('<div class="row">') == 1
    assert html.count('<div class="wide">') == 1
    assert not re.search(r"<script|https?://|<link", html)
    inside = re.search(r'src="data:video/mp4;base64,([^"]+)"', html).group(1)
    assert base64.b64decode(inside) == video.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]


def test_words_from_outside_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    blocks = [
        Text(bad),
        Table((bad,), [(bad,)], caption=bad),
        Code(bad, bad),
        Facts({bad: bad}),
        Tiles([Tile(bad, bad, bad)]),
    ]
    html = write_report(tmp_path / "r.html", title=bad, subtitle=bad, sections=[Section(bad, blocks)]).read_text()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") >= 10


def test_a_section_without_blocks_is_left_out(tmp_path):
    html = write_report(
        tmp_path / "r.html", title="t", sections=[Section("Nothing"), Section("Some", [Text("x")])]
    ).read_text()
    assert "Nothing" not in html
    assert "<h2>Some</h2>" in html


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.mp4: no such file; leave its block out"):
        write_report(tmp_path / "r.html", title="t", sections=[Section("v", [Videos([Video(tmp_path / "gone.mp4")])])])
    with pytest.raises(ConfigError, match=r"a.gif: a report holds \['.jpeg', '.jpg', '.png'\] here, got '.gif'"):
        write_report(tmp_path / "r.html", title="t", sections=[Section("v", [Picture(tmp_path / "a.gif")])])
    assert list(tmp_path.iterdir()) == []


def test_a_row_must_fit_its_header():
    with pytest.raises(ConfigError, match="table `t`: row 1 has 1 cells, the header 2"):
        Table(("a", "b"), [(1, 2), (1,)], caption="t")
