"""What only programs write is refused in words where it is broken: no name of an exception, a place."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass

import pytest

from ersatz.device_models.text.problems import in_words
from ersatz.device_models.text.typed import typed


@dataclass(frozen=True)
class Row:
    """Something that a program writes."""

    name: str
    count: int = 0
    after: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count > 9:
            raise ValueError(f"{self.count} are too many")


def test_plain_data_becomes_what_is_stated() -> None:
    assert typed(Row, {"name": "a", "count": 1, "after": [1, 2]}) == Row("a", 1, (1, 2))
    assert typed(Row, ["a", 2], row=True) == Row("a", 2)
    assert typed(tuple[Row, ...], [{"name": "a"}]) == (Row("a"),)
    assert typed(dict[str, str], {"a": "b"}) == {"a": "b"}


@pytest.mark.parametrize(
    ("kind", "data", "row", "words"),
    [
        (Row, {"name": 1}, False, r"^name: Input should be a valid string$"),
        (Row, {"name": "a", "colour": "red"}, False, r"^colour: "),
        (Row, {"count": 1}, False, r"^name: .*required"),
        (Row, {"name": "a", "count": 10}, False, r"^10 are too many$"),
        (Row, {"name": "a", "after": [1, "x"]}, False, r"^after\.1: "),
        (Row, ["a", 1, [], 4], True, r"^3: is a value too many$"),
        (tuple[Row, ...], [{"name": "a"}, {}], False, r"^1\.name: "),
    ],
)
def test_the_first_fault_is_named_with_its_place(
    kind: type[Row], data: object, row: bool, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        typed(kind, data, row=row)


def _raised(text: str) -> Exception:
    try:
        eval(text, {"ast": ast, "json": json, "Row": Row})
    except Exception as error:
        return error
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("json.loads('[1,')", "is no JSON at line 1, column 4: Expecting value"),
        ("b'a\\xff'.decode()", "is no UTF-8 at byte 1"),
        ("json.loads('[' * 100000)", "is nested too deeply"),
        ("ast.literal_eval('[x]')", "holds a list that cannot be read"),
        ("eval('[1')", "holds a list that cannot be read"),
        ("{}['rank']", "'rank' is missing or unknown"),
        ("int(float('inf'))", "holds a number that is too large, or none"),
        ("Row(name='a', colour=1)", "unknown key 'colour'"),
        ("Row()", "lacks 'name'"),
        ("''.x", "holds something of another kind, or of another length, than was expected"),
        ("[][1]", "holds something of another kind, or of another length, than was expected"),
        ("1 + ''", "holds something of another kind, or of another length, than was expected"),
        ("float('x')", "could not convert string to float: 'x'"),
    ],
)
def test_errors_of_python_in_words(text: str, words: str) -> None:
    assert in_words(_raised(text)) == words
