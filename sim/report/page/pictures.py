"""Pictures from a folder, checked before they stand in a page: shapes and words, nothing that acts."""

from __future__ import annotations

from xml.etree import ElementTree

SPACE = "{http://www.w3.org/2000/svg}"
TAGS = frozenset(
    {
        "svg",
        "g",
        "title",
        "defs",
        "pattern",
        "rect",
        "circle",
        "line",
        "path",
        "polyline",
        "polygon",
        "text",
    }
)
ATTRIBUTES = frozenset({
    "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "width", "height", "d", "points", "viewBox",
    "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
    "opacity", "font-size", "font-weight", "font-family", "text-anchor", "transform", "paint-order", "role",
    "class", "id", "patternUnits", "patternTransform",
})  # fmt: skip
MOST_BYTES = 4_000_000  # of one picture
TOGETHER = 2_500_000  # of those of one page


def checked(svg: str) -> str:
    """Return a picture, written anew from what is known; nothing where it holds anything else.

    A picture that ersatz wrote holds shapes, words and colours. One with a script, a link, a style or
    an outer reference was not written by ersatz, or was changed since.
    """
    if len(svg) > MOST_BYTES or "<!" in svg:
        return ""
    try:
        root = ElementTree.fromstring(svg)
    except (ElementTree.ParseError, ValueError):
        return ""
    for node in root.iter():
        if not isinstance(node.tag, str) or node.tag.removeprefix(SPACE) not in TAGS:
            return ""
        for name, value in node.attrib.items():
            inside = value.startswith("url(#stripe") or "url" not in value.lower()
            if name not in ATTRIBUTES or not inside or "javascript" in value.lower():
                return ""
        if node.tag == f"{SPACE}pattern" and not node.attrib.get("id", "").startswith("stripe"):
            return ""
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    return ElementTree.tostring(root, encoding="unicode")


def within(pictures: dict[str, str], most: int = TOGETHER) -> tuple[dict[str, str], list[str]]:
    """Return the pictures that fit into a page together, the small ones first, and who was left out."""
    kept, used = set(), 0
    for name in sorted(pictures, key=lambda n: (len(pictures[n]), n)):
        if used + len(pictures[name]) <= most:
            used += len(pictures[name])
            kept.add(name)
    return (
        {n: svg for n, svg in pictures.items() if n in kept},
        [n for n in pictures if n not in kept],
    )
