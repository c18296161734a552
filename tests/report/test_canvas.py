"""Any name can be drawn, and every colour has a readable dark twin."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from robustgen.report import roc_curves, score_histograms, security_curve
from robustgen.report.canvas import COLOURS, drawable, percent, svg


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    "name", ["猫", "🐈", "$\\frac{", "_hidden", "a\nb\tc", "\udce9", "\x00", "--><script>", "x" * 500]
)
def test_any_name_can_be_drawn(name: str) -> None:
    figure = score_histograms({name: [1.0, 2.0], "other": [1.5]}, 1.2, name)
    assert len(legend(figure)) == 2
    assert "<script" not in svg(figure)
    assert svg(roc_curves({name: ([0, 1], [0, 1], 0.5)}, name))
    assert svg(security_curve([0, 1], {name: [1, 0]}, title=name))


def test_what_the_font_lacks_becomes_a_box_and_what_is_long_is_cut() -> None:
    assert drawable("naïve Ω 猫") == "naïve Ω □"
    assert drawable("  a\n b ") == "a b"
    assert drawable("abcdef ghij", 8) == "abcdef…"


@pytest.mark.parametrize(
    ("share", "expected"), [(0, "0.0 %"), (1e-5, "< 0.1 %"), (0.05, "5.0 %"), (0.99999, "> 99.9 %"), (1, "100.0 %")]
)
def test_a_share_is_never_rounded_to_none_or_all(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_every_colour_has_a_dark_twin_with_enough_contrast() -> None:
    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(first: str, second: str) -> float:
        high, low = sorted((luminance(first), luminance(second)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    papers = {name: (light, dark) for light, (name, dark) in COLOURS.items()}
    for name, pair in papers.items():
        needed = {"ink": 7.0, "muted": 4.5, "wrong": 4.5}.get(name, 3.0)
        if name not in ("paper", "grid", "frame"):
            assert all(contrast(a, b) >= needed for a, b in zip(pair, papers["paper"], strict=True)), name


def test_an_svg_holds_its_own_light_and_dark_colours() -> None:
    text = svg(score_histograms({"a": [1.0, 2.0]}, 1.5))
    head, _, body = text.partition("</style>")
    assert "prefers-color-scheme:dark" in head
    names = {name for name, _ in COLOURS.values()}
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", body)) <= names
    assert not re.findall(r"#[0-9a-f]{6}", body.replace("#ffffff", "")), "every colour drawn has a dark twin"
    assert "<!--" not in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
