"""A page is one self-contained file, holds text as text, and is a function of its blocks."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from robustgen.errors import UsageError
from robustgen.report import (
    Block,
    Code,
    Notice,
    Number,
    Numbers,
    Page,
    Paragraph,
    Picture,
    Section,
    Table,
    render,
    score_histograms,
)

HOSTILE = (
    "</td></style><script>alert('x')</script><img src=http://evil.example/x onerror=\"a()\"> {{ 7*7 }} & 'q' \"q\""
)


class Reader(HTMLParser):
    """Every tag with its attributes, and all text, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "img", "br", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def every_block(text: str) -> list[Block]:
    figure = score_histograms({text: np.linspace(0, 1, 30)}, 0.9, text, 0.1)
    return [
        Paragraph(text),
        Code(text),
        Notice("warning", text),
        Numbers([Number(text, text, text)]),
        Table([text, "n"], [[text, "3"]], text, text),
        Picture(figure, text, text),
    ]


def page_of(text: str) -> Page:
    blocks = every_block(text)
    sections = [Section(text, blocks), Section(text, []), Section("画像", [Paragraph(text)])]
    return Page(text, blocks[:4], sections, {text: text, "seed": "0"}, text, text)


@pytest.mark.parametrize("text", ["plain words", HOSTILE], ids=["plain", "hostile"])
def test_a_page_is_self_contained_and_well_formed(text: str) -> None:
    html = render(page_of(text))
    reader = Reader(html)
    assert not reader.open, "every tag is closed"
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "svg"} & {tag for tag, _ in reader.tags}
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 3
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "srcset", "action", "data", "poster", "background"):
            if name in attributes:
                assert attributes[name].startswith("#" if tag == "a" else "data:image/")
    links = [attributes["href"][1:] for attributes in reader.named("a")]
    assert links == ids
    policy = [meta["content"] for meta in reader.named("meta") if "http-equiv" in meta]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_has_words_and_a_readable_image() -> None:
    images = Reader(render(page_of(HOSTILE))).named("img")
    assert images
    for image in images:
        assert image["alt"] == HOSTILE
        head, _, body = image["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        root = ElementTree.fromstring(base64.b64decode(body, validate=True))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        for node in root.iter():
            assert not node.tag.endswith("}script")
            for name, value in node.attrib.items():
                assert not name.endswith("href") or value.startswith(("#", "data:image/png;base64,"))


def test_text_comes_out_as_the_text_that_went_in() -> None:
    reader = Reader(render(page_of(HOSTILE)))
    said = "".join(reader.text)
    assert said.count(HOSTILE) >= 20
    assert "{{ 7*7 }}" in said
    assert said.index(HOSTILE) >= 0
    assert reader.named("title") == [{}]


def test_the_same_page_gives_the_same_bytes() -> None:
    first, twin = page_of("twice"), page_of("twice")
    assert render(first) == render(first) == render(twin)


def test_the_same_page_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from robustgen.report import *; "
        "f = score_histograms({'a': [0.1, 0.2, 0.5], 'b': [3.0]}, 0.4, 'title', 0.05); "
        "p = Page('t', [], [Section('s', [Picture(f, 'alt')])]); "
        "print(hashlib.sha256(render(p).encode()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout != ""


def test_importing_the_package_loads_neither_matplotlib_nor_jinja2_nor_torch() -> None:
    code = (
        "import sys, robustgen.report as r; assert 'render' in dir(r); r.Page('t', [], []); "
        "print([m for m in ('matplotlib', 'jinja2', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    import robustgen.report as report

    for name in report.__all__:
        assert getattr(report, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        report.nothing  # noqa: B018


def test_figures_load_without_pyplot_and_leave_settings_alone() -> None:
    code = (
        "import sys; from matplotlib import rcParams; from robustgen.report import *; "
        "now = lambda: {key: rcParams[key] for key in rcParams if key != 'backend'}; before = now(); "
        "render(Page('t', [], [Section('s', [Picture(score_histograms({'a': [1., 2.]}, 1.5), 'alt')])])); "
        "assert now() == before; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["0.95", "97.3 %", "1,024", "-3", "1e-3", "8/255", "< 0.1 %"], True),
        (["4.8 % [3.2, 7.1]", "—", "0.91 ± 0.02", "3.4 s", "120 ms", "3 of 497"], True),
        (["9.6 \N{EN DASH} 15.5", "nan", "n/a", "\N{MINUS SIGN}2"], True),
        (["PGD", "0.3"], False),
        (["40 steps"], False),
        (["linf 8/255"], False),
        ([], False),
    ],
)
def test_columns_of_numbers_are_told_from_words(cells: list[str], numeric: bool) -> None:
    table = Table(["what", "value"], [["row", cell] for cell in cells])
    assert table.numeric == (False, numeric)
    marked = [cell.get("class") for cell in Reader(render(Page("t", [table], []))).named("td")]
    assert marked == ["number" if numeric else None] * len(cells)


def test_a_long_hostile_cell_is_judged_quickly() -> None:
    assert Table(["a"], [["1 " * 100_000 + "!"]]).numeric == (False,)


def test_a_name_with_undecodable_bytes_can_be_written() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    html = render(Page(name, [Paragraph(name)], []))
    assert "caf?.png" in html
    assert html.encode("utf-8")


def test_a_bare_page_has_no_contents_and_no_origin() -> None:
    reader = Reader(render(Page("Only a title", [], [Section("One", [Paragraph("word")])])))
    assert not reader.named("nav")
    assert not reader.named("dl")
    assert not reader.named("pre")


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match=r"row 2 of a table has 1 cells for 2 columns"):
        Table(["a", "b"], [["1", "2"], ["1"]])
    with pytest.raises(UsageError, match=r"unknown kind of notice 'danger'.*good, warning, bad, info"):
        Notice("danger", "text")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="alt text"):
        Picture(score_histograms({}, 1.0), "  ")


def test_a_per_cent_sign_stays_with_its_number() -> None:
    assert re.search("5\N{NO-BREAK SPACE}% false", render(Page("t", [Paragraph("5 % false alarms")], [])))
