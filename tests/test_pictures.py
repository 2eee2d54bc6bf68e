"""Pictures: names that can be read, units, colours that differ, also for the colour-blind."""

import re
from datetime import date, timedelta
from itertools import combinations
from xml.etree import ElementTree

import pytest

from ersatz.sim.report.pictures.charts import (
    band_chart,
    line_chart,
    map_chart,
    panels,
    point_chart,
    stack_chart,
    tornado_chart,
)
from ersatz.sim.report.pictures.frame import (
    COLOURS,
    Frame,
    colour_of,
    colours_for,
    frame_of,
    number,
    round_values,
)
from ersatz.sim.report.pictures.verdicts import PAINT, Bar, Row, verdict_chart

LINE = [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)]
FRAME = frame_of("Title & more", "months", "devices", [LINE])
LABELS = {"free": "free", "denied": "denied"}


def texts(picture: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(picture).iter()
            if node.tag.endswith("text")]  # fmt: skip


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def deutan(colour: str) -> tuple[float, ...]:
    """What somebody without green cones sees: Vienot, Brettel, Mollon 1999, linear light."""
    r, g, b = ((c / 255) ** 2.2 for c in rgb(colour))
    mixed = 0.29275 * r + 0.70725 * g
    return tuple(
        255 * v ** (1 / 2.2) for v in (mixed, mixed, max(0.0, -0.02234 * r + 0.02234 * g + b))
    )


def test_eight_names_have_eight_colours_and_the_next_eight_stripes() -> None:
    paint = list(colours_for([f"t{i}" for i in range(16)]).values())
    assert len(set(paint)) == 16
    assert paint[8] == "url(#stripe0)"
    assert colour_of(40) == colour_of(50)  # beyond sixteen names a colour says nothing: grey


@pytest.mark.parametrize(("one", "other"), list(combinations(COLOURS, 2)))
def test_colours_differ_for_the_colour_blind(one: str, other: str) -> None:
    distance = sum((a - b) ** 2 for a, b in zip(deutan(one), deutan(other), strict=True)) ** 0.5
    assert distance > 25  # of 442 from black to white; 2 to 3 can just be seen


def test_free_and_denied_differ_in_lightness_or_hue_for_the_colour_blind() -> None:
    shown = [deutan(PAINT[p]) for p in ("free", "case", "licence", "denied")]
    for a, b in combinations(shown, 2):
        assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 25


@pytest.mark.parametrize(
    "picture",
    [
        line_chart(FRAME, {"a": LINE, "b": LINE}, {"a mark": 1.0}),
        band_chart(FRAME, LINE, LINE, LINE),
        stack_chart(FRAME, {"a": LINE}, limit=("most", 3.0)),
        point_chart(FRAME, {"a": (0.0, 1.0), "b": (2.0, 2.0)}, joined=True),
    ],
)
def test_every_chart_has_a_title_and_both_units(picture: str) -> None:
    assert {"Title & more", "months", "devices"} <= set(texts(picture))
    assert picture.count("<svg") == 1
    assert "nan" not in picture


def test_a_tornado_writes_values_at_its_bars_and_names_at_the_left() -> None:
    picture = tornado_chart(
        "What matters", "months", [("price", 10.0, 14.0)], 12.0, {"price": ("0.9", "1.2")}
    )
    assert {"price", "10 (0.9)", "14 (1.2)", "months", "at the input's low end"} <= set(
        texts(picture)
    )
    name = next(n for n in ElementTree.fromstring(picture).iter() if n.text == "price")
    assert name.attrib["text-anchor"] == "end"  # left of the axis


def test_an_empty_stack_says_none_and_has_no_quarter_devices() -> None:
    told = texts(stack_chart(frame_of("Fleet", "", "devices", [[(0.0, 0.0), (4.0, 0.0)]]), {}))
    assert "none" in told
    assert "0.25" not in told


def test_long_legends_take_rows_and_stay_on_the_paper() -> None:
    names = [f"a tenant with a long name {i}" for i in range(12)]
    frame = Frame("T", "x", "y", (0, 1), (0, 1), keys=tuple(colours_for(names).items()))
    assert len(frame.legend_rows()) == 4  # 760 pixels hold three of 216
    picture = line_chart(frame, {n: [(0.0, 0.0), (1.0, 1.0)] for n in names})
    assert max(float(x) for x in re.findall(r'<rect x="([\d.]+)"', picture)) < 760


def test_verdicts_change_on_their_day_and_name_the_rule() -> None:
    # A year is 365 days over 960 - left - 20 pixels; a rule of day 100 begins at 100/365 of them.
    first, day = date(2025, 1, 1), date(2025, 4, 11)
    bars = (Bar(first, day, "free"), Bar(day, date(2026, 1, 1), "denied", ("US-X",), True))
    picture = verdict_chart(
        "Law", [Row("h20", bars)], (first, date(2026, 1, 1)), LABELS, [day], first + timedelta(200)
    )
    root = ElementTree.fromstring(picture)
    shown = [n for n in root.iter() if n.tag.endswith("rect") and len(n)]
    left, right = float(shown[0].attrib["x"]), float(shown[0].attrib["width"])
    whole = right + float(shown[1].attrib["width"])
    assert right / whole == pytest.approx(100 / 365, abs=1e-3)
    assert left + whole == pytest.approx(940, abs=0.2)
    assert shown[1][0].text == "denied: 2025-04-11 to 2026-01-01, by US-X"
    assert {"1  2025-04-11  US-X", "rules known to 2025-07-20", "2025-04-11"} <= set(texts(picture))


def test_maps_and_panels_are_sound() -> None:
    grid = map_chart("T", "x", "y", ["1", "2"], ["r"], [["a & b", "c"]])
    both = panels("Both", [grid, grid])
    root = ElementTree.fromstring(both)
    assert sum(node.tag.endswith("svg") for node in root.iter()) == 3
    assert float(root.attrib["height"]) == 34 + 2 * (130 + 34)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 5, [0, 1, 2, 3, 4, 5]), (0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]), (-10, 10, [-10, -5, 0, 5, 10])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert round_values(low, high) == pytest.approx(expected)


def test_numbers_of_an_axis() -> None:
    assert [number(v) for v in (0, 0.1 + 0.2, 2500, 52e6, 1.5e9)] == [
        "0",
        "0.3",
        "2.5 k",
        "52 M",
        "1.5 B",
    ]
