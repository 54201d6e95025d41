from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from adv_detect.errors import DataError
from adv_detect.plots.style import figure_bytes
from adv_detect.reporting import (
    Bullets,
    Card,
    Cards,
    Facts,
    Figure,
    Fold,
    Note,
    Report,
    ReportPart,
    Section,
    Table,
    Text,
    render_parts,
    render_report,
)
from adv_detect.reporting.blocks import SCORE
from adv_detect.reporting.render import rich_text, write
from adv_detect.reporting.stored import part_as_json, part_from_json
from adv_detect.reporting.where import main

VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Collects what a test wants to know and fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def picture(file_format: str = "png") -> bytes:
    figure = MatplotlibFigure(figsize=(3.0, 2.0))
    figure.subplots().plot([0, 1])
    return figure_bytes(figure, file_format)


FRAME = pd.DataFrame(
    {
        "detector": ["a", "b", "control: margin only", "published: a"],
        "bim": [".950 ± .001", ".990 ± .002", ".999", ".998"],
        "auc": [0.5, np.nan, 0.25, 1.0],
        "n": [1000, 2, 3, 4],
    }
)
REPORT = Report(
    "Title <b>",
    "on `small`",
    [
        Section(
            "First part", [Text("**bold** & `code` <script>"), Bullets(["one", "two"]), Note("careful", "caution")]
        ),
        Section(
            "Second part",
            [
                Cards([Card(".987", "macro-AUC", "n = 3")]),
                Table(FRAME, "caption", {"auc": SCORE}, {"n": "images"}, mark_best=["bim"]),
                Figure(picture("svg"), "lines", alt="a line", file_format="svg"),
                Figure(picture(), "pixels"),
                Facts({"seed": 0, "nested": {"steps": [1, 2], "none": None}}, "Parameters"),
                Fold("More", [Text("inside"), Table(FRAME[["detector", "n"]])]),
            ],
        ),
    ],
)


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(REPORT)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_fetched(html: str, page: Page) -> None:
    assert not re.search(r"https?://|url\(|@import", html)
    assert not page.all("script")
    assert not page.all("link")
    for tag, attributes in page.seen:
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, value)
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv"))
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_figures_are_embedded_and_described(page: Page) -> None:
    svg, png = page.all("img")
    assert b"<svg" in base64.b64decode((svg["src"] or "").partition("base64,")[2])
    assert base64.b64decode((png["src"] or "").partition("base64,")[2]).startswith(b"\x89PNG")
    assert [svg["alt"], png["alt"]] == ["a line", "pixels"]


def test_texts_are_escaped(html: str, page: Page) -> None:
    assert "<script>" not in html
    assert "<title>Title &lt;b&gt;</title>" in html
    assert page.texts["strong"] == ["bold"]
    assert {"code", "small"} <= set(page.texts["code"])


def test_contents_lead_to_the_sections(page: Page) -> None:
    assert [link["href"] for link in page.all("a")] == ["#first-part", "#second-part"]
    assert [section["id"] for section in page.all("section")] == ["first-part", "second-part"]


def test_table_shows_its_numbers(page: Page) -> None:
    cells = page.texts["td"]
    assert cells[:3] == [".950 ± .001", ".500", "1,000"]
    assert cells[3:6] == [".990 ± .002", "–", "2"]  # noqa: RUF001
    assert "images" in page.texts["th"]


def test_best_is_marked_among_detectors_only(html: str) -> None:
    assert re.findall(r'class="num best">([^<]*)<', html) == [".990 ± .002"]
    assert html.count('<tr class="control">') == 2
    assert html.count('<tr class="published">') == 2


def test_tables_and_figures_are_numbered(page: Page) -> None:
    numbers = [text for text in page.texts["span"] if text.startswith(("Table", "Figure"))]
    assert numbers == ["Table 1.", "Figure 1.", "Figure 2.", "Table 2."]


def test_facts_are_flattened(page: Page) -> None:
    assert dict(zip(page.texts["dt"], page.texts["dd"], strict=True)) == {
        "seed": "0", "nested.steps": "1, 2", "nested.none": "–",  # noqa: RUF001
    }  # fmt: skip


def test_same_report_same_page(html: str) -> None:
    assert render_report(REPORT) == html


def test_pictures_have_the_width_in_inches_that_they_were_drawn_for(page: Page) -> None:
    svg, png = page.all("img")
    assert png["width"] == "288"  # 3 inches of 96 pixels
    assert "width" not in svg


def test_a_stored_part_gives_the_same_page(html: str) -> None:
    folded = Report("Title", "", [Section("One", [Fold("More", [Figure(picture(), "inside")])])])

    for report, wanted in ((REPORT, html), (folded, render_report(folded))):
        part = part_from_json(json.loads(json.dumps(part_as_json(ReportPart(report, "detectors")))))
        assert render_parts({"evaluation_part": part}, "detectors") == wanted


@pytest.mark.parametrize("sections", [[], [Section("A", []), Section("a!", [])]])
def test_titles_must_differ(sections: list[Section]) -> None:
    with pytest.raises(DataError, match="at least one section and no title twice"):
        render_report(Report("t", "s", sections))


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (None, None, "–"),  # noqa: RUF001
        (float("nan"), ".3f", "–"),  # noqa: RUF001
        (True, None, "yes"),
        (np.int64(12345), None, "12,345"),
        (0.123456, None, "0.123"),
        (0.5, ".1%", "50.0%"),
        (np.float32(0.5), SCORE, ".500"),
        ("text", SCORE, "text"),
    ],
)
def test_cells(value: object, number_format: str | None, text: str) -> None:
    assert write(value, number_format) == text


def test_rich_text_escapes_inside_of_markup() -> None:
    assert rich_text("**<i>** `a & b`") == "<strong>&lt;i&gt;</strong> <code>a &amp; b</code>"


def test_where(tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "run `kedro run`" in capsys.readouterr().err
    report = tmp_path / "report.html"
    report.write_text("x")
    assert main([str(report)]) == 0
    assert report.as_uri() in capsys.readouterr().out


def test_where_of_another_environment(tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEDRO_ENV", raising=False)
    for name in ("data/08_reporting", "data/mine/08_reporting", "conf/mine", "conf/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "report.html").touch()

    assert [main(["--env=mine"]), main([])] == [0, 0]
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("report")] == [
        "report: data/mine/08_reporting/report.html",
        "report: data/08_reporting/report.html",
    ]
    assert [main(["--env=other"]), main(["--env=nope"])] == [1, 1]
    said = capsys.readouterr().err
    assert "no report at data/other/08_reporting/report.html: run `kedro run --env=other`" in said
    assert "--env: expected one of [mine, other], got 'nope'" in said
    monkeypatch.setenv("KEDRO_ENV", "mine")
    assert main([]) == 0
    assert "data/mine/" in capsys.readouterr().out
