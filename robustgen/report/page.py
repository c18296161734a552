"""A report as a value, and its rendering to one HTML file that needs nothing else.

Everything is given as plain text and escaped by the template, so class names, paths and commands from outside can be
put anywhere. Nothing is read from the clock, the machine or the network: the same page gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

from robustgen.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

Kind = Literal["good", "warning", "bad", "info"]

_UNIT = re.compile(r"(?<=[\d\s])(%|[a-zA-Zµ]{1,3})(?![a-zA-Z])")  # also the e of 1e-3
_IN_NUMBERS = set("0123456789 .,:/+-()[]<>~→\N{MINUS SIGN}\N{EN DASH}\N{MULTIPLICATION SIGN}±≤≥≈…\N{NO-BREAK SPACE}")
_NO_NUMBER = {"", "-", "\N{EN DASH}", "—", "n/a", "nan", "inf", "-inf"}


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    block: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Code:
    """Text to be typed or read character by character, such as a command."""

    text: str
    block: ClassVar[str] = "code"


@dataclass(frozen=True)
class Notice:
    """One statement set apart: a finding (`good`, `bad`), a caution (`warning`) or an aside (`info`)."""

    kind: Kind
    text: str
    block: ClassVar[str] = "notice"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"unknown kind of notice {self.kind!r}: known: {', '.join(get_args(Kind))}")


@dataclass(frozen=True)
class Number:
    """One headline number: `value` as it is to be read (`"97.2 %"`), what it is, and an optional remark."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Numbers:
    """A row of headline numbers."""

    items: Sequence[Number]
    block: ClassVar[str] = "numbers"


@dataclass(frozen=True)
class Table:
    """Rows of cells under `columns`. Columns in which every cell is a number are set flush right in tabular figures.

    `caption` says what the table shows, `note` what to keep in mind reading it. The first cell of a row names it. Cells
    that begin with a tick or a cross are green or red.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    note: str = ""
    block: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise UsageError(f"row {number} of a table has {len(row)} cells for {len(self.columns)} columns: {row}")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether its cells are numbers, with or without unit, interval, or a dash for a gap."""
        columns = [[row[index].strip() for row in self.rows] for index in range(len(self.columns))]
        return tuple(bool(cells) and all(_is_number(cell) for cell in cells) for cells in columns)


@dataclass(frozen=True)
class Picture:
    """A figure of `robustgen.report`, embedded. `alt` says in words what it shows, for who cannot see it."""

    figure: Figure
    alt: str
    caption: str = ""
    block: ClassVar[str] = "picture"

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise UsageError("a picture needs an alt text: say in one sentence what it shows")

    @property
    def uri(self) -> str:
        """The figure as a `data:` address."""
        from robustgen.report.canvas import data_uri

        return data_uri(self.figure)

    @property
    def size(self) -> tuple[int, int]:
        """Natural width and height in CSS pixels."""
        width, height = self.figure.get_size_inches()
        return round(96 * width), round(96 * height)


@dataclass(frozen=True)
class Mark:
    """One thing that was checked: `kind` is its mark, `text` what was found, `note` what that means."""

    kind: Kind
    title: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Marks:
    """A list of things that were checked, each with a green or red mark."""

    items: Sequence[Mark]
    block: ClassVar[str] = "marks"


Block: TypeAlias = Paragraph | Code | Notice | Numbers | Table | Picture | Marks


@dataclass(frozen=True)
class Section:
    """Blocks under a heading, which the contents at the top of the page lead to."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report: what was done and what came out (`lead`), the `sections`, and how to make it again.

    `lead` holds the summary: a paragraph, the verdict as a `Notice`, headline `Numbers`. `facts` (versions, seed, date,
    device) and `command` stand in the footer; `version` is robustgen's own, shown in the header.
    """

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section]
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    version: str = ""

    @property
    def anchors(self) -> tuple[str, ...]:
        """The id of each section: letters of its title, made unique by its number."""
        slugs = (re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")[:40] for section in self.sections)
        return tuple(f"s{number}-{slug}".rstrip("-") for number, slug in enumerate(slugs, start=1))


def render(page: Page) -> str:
    """The page as one HTML document: no script, no request to anywhere, the same bytes for the same page.

    Characters that UTF-8 cannot carry (undecodable bytes of a file name) become question marks.
    """
    return _template().render(page=page).encode("utf-8", "replace").decode("utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = _prose
    text = resources.files("robustgen.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _prose(text: str) -> str:
    """A number and its per cent sign stay on one line."""
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)


def _is_number(cell: str) -> bool:
    digits = any(char.isdecimal() for char in cell)
    return cell.lower() in _NO_NUMBER or (digits and set(_UNIT.sub("", cell)) <= _IN_NUMBERS)
