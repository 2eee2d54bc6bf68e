"""Text of strangers made safe to show: nothing in it moves a cursor, sets a title or turns the line round.

A scenario's words (its question, names, sources) reach terminals, tables and pictures. What a
terminal would obey in place of showing it is either taken out, where columns must line up, or
written as an escape, where the reader should see that it was there.
"""

from __future__ import annotations

import re

# C0 but tab and line feed, DEL and C1; marks, embeddings, overrides and isolates of direction; line and
# paragraph separators; what has no width; surrogates (bytes that are no UTF-8); tags.
_OBEYED = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_PATTERN = re.compile(f"[{_OBEYED}]")


def is_plain(text: str) -> bool:
    """Tell whether a text holds nothing but what can be seen, tabs and line feeds."""
    return _PATTERN.search(text) is None


def stripped(text: str) -> str:
    r"""Return the text without what a terminal obeys: the columns of a table stay true.

    >>> stripped("a\x1b[31mb\u202ec")
    'a[31mbc'
    """
    return _PATTERN.sub("", text)


def visible(text: str) -> str:
    r"""Return the text with what a terminal obeys written as an escape; a stray byte as itself.

    >>> print(visible("a\x1b[31mb\u202ec\udcff"))
    a\x1b[31mb\u202ec\xff
    """
    return _PATTERN.sub(_escape, text)


def json_escaped(text: str) -> str:
    r"""Return JSON text that says the same and shows nothing that a terminal obeys.

    >>> print(json_escaped('{"a": "\x9b\u202e"}'))
    {"a": "\u009b\u202e"}
    """
    return _PATTERN.sub(lambda found: _units(found[0]), text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte that is no UTF-8
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _units(character: str) -> str:
    raw = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, len(raw), 2))
