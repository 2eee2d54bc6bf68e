"""The variables of a script, and what becomes of them where a branch cannot be decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ersatz.sim.importing.shell.pieces import Piece, Unknown, Value, text_of, unknown_of

Content = Value | tuple[Value, ...]  # a text, or an array


@dataclass(frozen=True, slots=True)
class Array:
    """The elements of an array, and their keys: words where it is `named`, else numbers that rise."""

    elements: tuple[Value, ...] = ()
    own_keys: tuple[str, ...] | None = None  # None: 0, 1, 2, ...
    named: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The key of each element."""
        if self.own_keys is not None:
            return self.own_keys
        return tuple(map(str, range(len(self.elements))))

    @property
    def next_key(self) -> int:
        """The number after the last one."""
        return int(self.keys[-1]) + 1 if self.keys and not self.named else 0

    def get(self, key: str) -> Value | None:
        """Return the element of a key; a number below 0 counts from the end."""
        if not self.named and key.startswith("-"):
            key = str(self.next_key + int(key))
        keys = self.keys
        return self.elements[keys.index(key)] if key in keys else None

    def put(self, key: str, value: Value) -> Array:
        """Return the array with an element more, or another one."""
        held = dict(zip(self.keys, self.elements, strict=True)) | {key: value}
        keys = list(held) if self.named else sorted(held, key=int)
        return _array({k: held[k] for k in keys}, self.named)

    def without(self, key: str) -> Array:
        """Return the array without an element; the others keep their keys."""
        held = {k: v for k, v in zip(self.keys, self.elements, strict=True) if k != key}
        return _array(held, self.named)


def _array(held: Mapping[str, Value], named: bool) -> Array:
    keys = tuple(held)
    usual = not named and keys == tuple(map(str, range(len(keys))))
    return Array(tuple(held.values()), None if usual else keys, named)


Held = Value | Array


@dataclass(slots=True)
class State:
    """Variables and positional parameters; `arguments` is None where nobody gave any."""

    variables: dict[str, Held] = field(default_factory=dict)
    arguments: tuple[Value, ...] | None = None
    written: dict[str, Value] = field(default_factory=dict)  # files that a here-document made

    def copy(self) -> State:
        """Return a state of its own for a branch."""
        return State(dict(self.variables), self.arguments, dict(self.written))


def same(a: Held | None, b: Held | None) -> bool:
    """Tell whether two contents are alike, wherever they were written."""
    if a is None or b is None:
        return a is b
    if isinstance(a, Array) or isinstance(b, Array):
        both = isinstance(a, Array) and isinstance(b, Array)
        return both and (a.keys, *map(_key, a.elements)) == (b.keys, *map(_key, b.elements))  # type: ignore[union-attr]
    return _key(a) == _key(b)


def _key(value: Value) -> tuple[str, Unknown | None]:
    return text_of(value), unknown_of(value)


def merged(before: State, branches: Sequence[State], reason: str, line: int) -> State:
    """Return the state after branches of which one was taken: what differs has choices."""
    if not branches:
        return before
    first, *others = branches
    for name in sorted({name for branch in branches for name in branch.variables}):
        held = [branch.variables.get(name) for branch in branches]
        if not all(same(held[0], other) for other in held[1:]):
            first.variables[name] = _either(held, reason, line)
    first.written = _written([branch.written for branch in branches], reason, line)
    for other in others:
        if other.arguments != first.arguments:
            first.arguments = None
    return first


def _written(branches: Sequence[Mapping[str, Value]], reason: str, line: int) -> dict[str, Value]:
    """Return the files after branches: one that they leave unlike each other is not known."""
    found: dict[str, Value] = {}
    for name in dict.fromkeys(name for branch in branches for name in branch):
        texts = [branch.get(name) for branch in branches]
        if all(same(texts[0], text) for text in texts[1:]):
            found[name] = branches[0][name]
        else:
            found[name] = lost(f"its text depends on {reason} (line {line})", line)
    return found


def lost(reason: str, line: int) -> Value:
    """Return a text of which only is known why it is not."""
    return (Piece("", line, True, Unknown(reason, line)),)


def _either(held: Sequence[Held | None], reason: str, line: int) -> Held:
    if any(isinstance(one, Array) for one in held):
        arrays = [one.elements if isinstance(one, Array) else ((one,) if one else ())
                  for one in held]  # fmt: skip
        start = _common([list(map(_key, elements)) for elements in arrays])
        choices = tuple(_spread(elements[start:]) for elements in arrays)
        return Array((*arrays[0][:start], (Piece("", line, True, Unknown(reason, line, choices)),)))
    values = [one if isinstance(one, tuple) else () for one in held]
    start = _common([[(p.text, p.unknown) for p in value] for value in values])
    choices = tuple(value[start:] for value in values)
    return (*values[0][:start], Piece("", line, True, Unknown(reason, line, choices)))


def _common(lists: Sequence[Sequence[object]]) -> int:
    """Return how many items all lists begin with alike."""
    least = min(map(len, lists))
    return next((i for i in range(least) if any(one[i] != lists[0][i] for one in lists)), least)


def _spread(elements: Sequence[Value]) -> Value:
    """Return elements as one value that splits into them again."""
    found: list[Piece] = []
    for element in elements:
        found += [*element, Piece(" ", element[0].line if element else 0, True)]
    return tuple(found)


def plain_variables(given: Mapping[str, str]) -> dict[str, Held]:
    """Return variables of the environment, which have no line of the script."""
    return {name: (Piece(text, 0),) for name, text in given.items()}
