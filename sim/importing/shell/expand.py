"""Replace variables, sums and commands in words: what is not known stays marked."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from ersatz.device_models.text.digits import is_whole
from ersatz.sim.importing.shell.arithmetic import NoSum, evaluate
from ersatz.sim.importing.shell.pieces import (
    Piece,
    Unknown,
    Value,
    checked,
    line_of,
    split_words,
    text_of,
    unknown_of,
)
from ersatz.sim.importing.shell.scan import Part, Word, arithmetic_names
from ersatz.sim.importing.shell.state import Array, State

_DEFAULTS = (":-", "-", ":=", "=")
_RANGE = re.compile(r"\{(-?\d{1,6})\.\.(-?\d{1,6})\}$")
MOST_RANGE = 1000


class Expander:
    """Expands words in a state; `told` hears what is taken for granted of variables."""

    def __init__(self, file: str, state: State, told: Callable[[str, str, int], None]) -> None:
        self.file, self.state, self.told = file, state, told

    def fields(self, words: Sequence[Word]) -> list[Value]:
        """Return the fields of several words: what a command gets as arguments."""
        return [*chain.from_iterable(self._fields(word) for word in words)]

    def value(self, word: Word) -> Value:
        """Return a word as one value: what an assignment keeps."""
        pieces = tuple(chain.from_iterable(self._part(part) for part in word))
        return checked(pieces, self.file)

    def _fields(self, word: Word) -> Iterator[Value]:
        if len(word) == 1 and word[0].kind == "text":
            yield from self._literal(word[0])
            return
        if len(word) == 1 and _is_array(word[0]):
            yield from self._array(word[0])
            return
        if len(word) == 2 and not word[0].text and _is_array(word[1]):
            yield from self._array(word[1])
            return
        if [p.text for p in word if p.kind == "variable"] in (["@"], ["*"]) and len(word) <= 2:
            yield from self.state.arguments or ()
            return
        pieces = [
            piece._replace(splits=False) if part.quoted else piece
            for part in word
            for piece in self._part(part)
        ]
        if any(part.quoted for part in word) and not any(p.splits for p in pieces):
            yield tuple(pieces)
        else:
            yield from split_words(pieces)

    def _literal(self, part: Part) -> Iterator[Value]:
        found = None if part.quoted else _RANGE.match(part.text)
        if found and abs(int(found[2]) - int(found[1])) < MOST_RANGE:
            first, last = int(found[1]), int(found[2])
            step = 1 if last >= first else -1
            yield from ((Piece(str(i), part.line),) for i in range(first, last + step, step))
        else:
            yield (Piece(part.text, part.line),)

    def _array(self, part: Part) -> Iterator[Value]:
        held = self.state.variables.get(part.text)
        if held is None:
            return
        elements = held.elements if isinstance(held, Array) else (held,)
        for element in elements:
            if part.quoted:
                yield element
            else:  # an element with blanks is split where the array is used without quotes
                yield from split_words(p._replace(splits=True) for p in element)

    def _part(self, part: Part) -> Value:
        if part.kind == "text":
            return (Piece(part.text, part.line),)
        if part.kind == "sum":
            return self.sum(part.text, part.line)
        if part.kind == "command":
            words = " ".join(part.text.split())[:60]
            return (_unknown(f"the command {words!r} is not run", part.line, not part.quoted),)
        found = self._variable(part)
        if part.quoted:
            return found
        return tuple(p if p.unknown else p._replace(splits=True) for p in found)

    def _variable(self, part: Part) -> Value:
        if part.prefix:
            return self._prefixed(part)
        held = self.held(part)
        if part.op in _DEFAULTS:
            return self._default(part, held)
        if part.op in (":+", "+"):
            known = held is not None and bool(text_of(held) or unknown_of(held))
            return self.value(part.word) if known else ()
        if held is None:
            return (self._unset(part),)
        return self._changed(part, held) if part.op and part.op not in (":?", "?") else held

    def _prefixed(self, part: Part) -> Value:
        """`${#NAME}` and `${!NAME}`."""
        held = self.state.variables.get(part.text)
        if part.prefix == "#" and isinstance(held, Array) and part.item in ("[@]", "[*]"):
            if not any(unknown_of(e) for e in held.elements):
                return (Piece(str(len(held.elements)), part.line),)
        elif part.prefix == "#" and isinstance(held, tuple) and not unknown_of(held):
            return (Piece(str(len(text_of(held))), part.line),)
        elif part.prefix == "!" and isinstance(held, tuple) and not unknown_of(held):
            name = text_of(held)
            if name.isidentifier() and name != part.text:
                return self._variable(part._replace(text=name, prefix=""))
        return (_unknown(f"${{{part.prefix}{part.text}}} is not followed", part.line),)

    def held(self, part: Part) -> Value | None:
        """Return what a variable holds, or None where it is not set."""
        name, state = part.text, self.state
        if is_whole(name) and name != "0":
            given = state.arguments or ()
            return given[int(name) - 1] if 0 < int(name) <= len(given) else None
        if name in ("@", "*"):
            return tuple(
                chain.from_iterable((*a, Piece(" ", 0, True)) for a in state.arguments or ())
            )
        if name == "#":
            return (Piece(str(len(state.arguments or ())), part.line),)
        held = state.variables.get(name)
        if isinstance(held, Array):
            return self._element(held, part)
        return held

    def _element(self, array: Array, part: Part) -> Value | None:
        index = part.item.strip("[]")
        if index in ("@", "*"):
            return tuple(
                chain.from_iterable((*e, Piece(" ", part.line, True)) for e in array.elements)
            )
        try:
            at = evaluate(arithmetic_names(index or "0"), self._number)
        except NoSum:
            return (_unknown(f"{part.text}[{index}] has no index that is known", part.line),)
        inside = -len(array.elements) <= at < len(array.elements)
        return array.elements[at] if inside else None

    def _default(self, part: Part, held: Value | None) -> Value:
        empty = part.op.startswith(":") and held is not None and not (
            text_of(held) or unknown_of(held))  # fmt: skip
        if held is not None and not empty:
            return held
        value = self.value(part.word)
        if held is None:
            text = text_of(value)
            named = f"argument {part.text}" if part.text.isdigit() else part.text
            self.told(named, f"{text!r}, the script's default", part.line)
        if part.op.endswith("=") and part.text.isidentifier():
            self.state.variables[part.text] = value
        return tuple(piece._replace(line=piece.line or part.line) for piece in value)

    def _unset(self, part: Part) -> Piece:
        if part.text.isdigit():
            return _unknown(f"argument {part.text} of the script is not given (--args)", part.line,
                            not part.quoted)  # fmt: skip
        return _unknown(f"the environment variable {part.text} is not given (--define"
                        f" {part.text}=...)", part.line, not part.quoted)  # fmt: skip

    def _changed(self, part: Part, held: Value) -> Value:
        """`${NAME%word}` and its relatives, by the patterns of a shell."""
        word = self.value(part.word)
        if unknown_of(held) or unknown_of(word):
            return held if unknown_of(held) else word
        changed = _change(part.op, text_of(held), text_of(word))
        if changed is None:
            return (_unknown(f"${{{part.text}{part.op}...}} is not followed", part.line),)
        return (Piece(changed, line_of(held, part.line)),)

    def sum(self, text: str, line: int) -> Value:
        """Return the value of `$(( text ))`."""
        missing: list[Unknown] = []

        def value_of(name: str) -> int:
            value = self.held(Part("variable", name, line))
            if value is None or unknown_of(value):
                found = unknown_of(value or ()) or self._unset(Part("variable", name, line)).unknown
                missing.extend([found] if found else [])
                raise NoSum(name)
            return _whole(text_of(value))

        names = _POSITION.sub(lambda m: self._argument(m[1]), text)
        try:
            return (Piece(str(evaluate(arithmetic_names(names), value_of)), line),)
        except NoSum as error:
            if missing:
                return (Piece("", line, False, missing[0]._replace(choices=())),)
            return (_unknown(f"$(({text.strip()[:40]})) {error}", line),)

    def _argument(self, name: str) -> str:
        """Return a positional parameter as it stands in a sum."""
        held = self.held(Part("variable", name, 0))
        return text_of(held) if held and not unknown_of(held) else f"_argument_{name}"

    def _number(self, name: str) -> int:
        held = self.state.variables.get(name)
        if not isinstance(held, tuple) or unknown_of(held):
            raise NoSum(name)
        return _whole(text_of(held))


_POSITION = re.compile(r"\$\{?(\d+)\}?")


def _is_array(part: Part) -> bool:
    return part.item in ("[@]", "[*]") and not part.op and not part.prefix


def _whole(text: str) -> int:
    try:
        return int(text.strip() or "0")
    except ValueError as error:
        raise NoSum(f"has {text[:20]!r} where a whole number is expected") from error


def _unknown(reason: str, line: int, splits: bool = False) -> Piece:
    return Piece("", line, splits, Unknown(reason, line))


def _change(op: str, text: str, word: str) -> str | None:
    if op in ("%", "%%", "#", "##"):
        return _cut(op, text, word)
    if op in ("/", "//") and not re.search(r"[*?\[]", word):
        old, _, new = word.partition("/")
        return text.replace(old, new, -1 if op == "//" else 1) if old else text
    if op in ("^^", ",,") and not word:
        return text.upper() if op == "^^" else text.lower()
    return None


def _cut(op: str, text: str, pattern: str) -> str:
    """Cut the shortest (or with a doubled operator the longest) match off the end or the begin."""
    ends = range(len(text) + 1)
    if op[0] == "#":
        for end in reversed(ends) if op == "##" else ends:
            if fnmatch.fnmatchcase(text[:end], pattern):
                return text[end:]
        return text
    for begin in ends if op == "%%" else reversed(ends):
        if fnmatch.fnmatchcase(text[begin:], pattern):
            return text[:begin]
    return text
