"""Plain data, as JSON has it, as values of stated kinds: for files that only programs write.

What people write has a schema of its own, with the place of every fault; here the first fault is enough.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

T = TypeVar("T")
TOO_MANY = "unexpected_positional_argument"


_kinds: dict[Any, TypeAdapter[Any]] = {}  # as many as there are in the program


def _kind(kind: Any) -> TypeAdapter[Any]:
    if kind not in _kinds:
        _kinds[kind] = TypeAdapter(tuple[kind], config=ConfigDict(extra="forbid"))
    return _kinds[kind]


def typed(kind: type[T], data: Any, *, row: bool = False) -> T:
    """Return plain data as a value of a kind: a dataclass, a tuple, a mapping of such.

    Of a `row` the fields stand in their order. Raises `ValueError` with the first value that is of
    another kind, and where it stands; an unknown field is one.
    """
    given = ArgsKwargs(tuple(data)) if row else data
    try:
        found: T = _kind(kind).validate_python((given,))[0]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"][1:]))[:100]
        words = str(first["msg"]).removeprefix("Value error, ")
        words = "is a value too many" if first["type"] == TOO_MANY else words
        raise ValueError(f"{place}: {words}" if place else words) from None
    return found
