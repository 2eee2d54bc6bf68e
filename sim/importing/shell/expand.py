"""Replace variables, sums and commands in words: what is not known stays marked."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from ersatz.device_models.text.digits import is_whole
from ersatz.sim.importing.shell.arithmetic import NoSum, changed_names, evaluate, number_of
from ersatz.sim.importing.shell.braces import opened_braces
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
from ersatz.sim.importing.shell.scan import Part, Word, arithmetic_names, bare_word, quoted_word
from ersatz.sim.importing.shell.state import Array, State

_ALTERNATIVES = (":-", "-", ":=", "=", ":+", "+")
_DEFAULT_IFS = (Piece(" \t\n", 0),)


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
        for one in opened_braces(word):
            if len(one) == 1 and one[0].kind == "text":
                yield (Piece(one[0].text, one[0].line),)
            else:
                yield from self._cut(one)

    def _cut(self, word: Word) -> Iterator[Value]:
        """Cut a word at blanks of what is not quoted, and between the elements of a list."""
        chunks: list[list[Piece]] = [[]]
        empty = False
        for part in word:
            elements = self.elements(part)
            if elements is None or (part.quoted and _together(part)):
                pieces = self._part(part)
                chunks[-1] += [p._replace(splits=False) if part.quoted else p for p in pieces]
                continue
            if not part.quoted:
                elements = [tuple(p._replace(splits=True) for p in one) for one in elements]
            empty = empty or not elements
            for i, element in enumerate(elements):
                if i:
                    chunks.append([])
                chunks[-1] += element
        if empty and not any(p.text or p.unknown for p in chunks[-1]) and len(chunks) == 1:
            return
        for chunk in chunks:
            if any(part.quoted for part in word) and not any(p.splits for p in chunk):
                yield tuple(chunk)
            else:
                yield from split_words(chunk)

    def elements(self, part: Part) -> list[Value] | None:
        """Return what `${NAME[@]}`, `$@` and their like list, each changed as it says; None for no list."""
        if part.kind != "variable" or not (
            part.item in ("[@]", "[*]") or (part.text in ("@", "*") and not part.item)
        ):
            return None
        if part.prefix == "#":
            return None
        held = self._listed(part)
        if held is None:
            return [(_unknown(f"{part.text} is set where it cannot be followed", part.line),)]
        if part.prefix == "!":
            return [(Piece(key, part.line),) for key in held.keys]
        if part.op in (":-", "-", ":=", "="):
            return list(held.elements) or self.fields([part.word] if part.word else [])
        if part.op in (":+", "+"):
            return self.fields([part.word]) if held.elements else []
        if part.op == ":":
            return self._sliced(part, held)
        if part.op and part.op not in (":?", "?"):
            return [self._changed(part, element) for element in held.elements]
        return list(held.elements)

    def _listed(self, part: Part) -> Array | None:
        if part.text in ("@", "*"):
            return Array(tuple(self.state.arguments or ()))
        held = self.state.variables.get(part.text)
        if held is None or isinstance(held, Array):
            return held or Array()
        return Array((held,))

    def _sliced(self, part: Part, held: Array) -> list[Value]:
        """`${NAME[@]:from:count}`; of the script's own arguments the first is number 1."""
        if any(unknown_of(one) for one in held.elements):
            return [(_unknown(f"a part of {part.text} is not followed", part.line),)]
        cut = self._range(part)
        if cut is None or (cut[0] == 0 and part.text in ("@", "*")):
            return [(_unknown(f"a part of {part.text} has no place that is known", part.line),)]
        begin, count = cut
        if part.text in ("@", "*") and begin > 0:
            begin -= 1
        elements = list(held.elements)[begin if begin >= 0 else len(held.elements) + begin :]
        return elements if count is None else elements[: count if count >= 0 else 0]

    def _range(self, part: Part) -> tuple[int, int | None] | None:
        """Return from where and how many a `:from:count` says; None where that is not known."""
        text = self.value(part.word)
        first, mark, count = text_of(text).partition(":")
        if unknown_of(text) or "?" in first:
            return None
        values = [self.sum(one, part.line) for one in ((first, count) if mark else (first,))]
        if any(unknown_of(one) for one in values):
            return None
        numbers = [int(text_of(one)) for one in values]
        return numbers[0], numbers[1] if mark else None

    def _part(self, part: Part) -> Value:
        if part.kind == "text":
            return (Piece(part.text, part.line),)
        if part.kind == "sum":
            return self.sum(part.text, part.line)
        if part.kind == "command":
            words = " ".join(part.text.split())[:60]
            if words.startswith("#") or words == ":" or words.startswith(": "):
                return ()  # a remark in the midst of a command
            return (_unknown(f"the command {words!r} is not run", part.line, not part.quoted),)
        elements = self.elements(part)
        if elements is None and part.op in _ALTERNATIVES and not part.prefix:
            return self._alternative(part)
        found = self._variable(part) if elements is None else _in_one(elements, part.line)
        return found if part.quoted else _splitting(found)

    def _variable(self, part: Part) -> Value:
        if part.prefix:
            return self._prefixed(part)
        held = self.held(part)
        if held is None:
            return (self._unset(part),)
        return self._changed(part, held) if part.op and part.op not in (":?", "?") else held

    def _prefixed(self, part: Part) -> Value:
        """`${#NAME}` and `${!NAME}`."""
        held = self.state.variables.get(part.text)
        if part.prefix == "#" and part.text in ("@", "*"):
            return (Piece(str(len(self.state.arguments or ())), part.line),)
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
        return _DEFAULT_IFS if held is None and name == "IFS" else held

    def _element(self, array: Array, part: Part) -> Value | None:
        key = self.key(array, part.item[1:-1] or "0", part.line)
        if key is None:
            return (_unknown(f"{part.text}{part.item} has no key that is known", part.line),)
        found = array.get(key)
        return next((e for e in array.elements if unknown_of(e)), None) if found is None else found

    def key(self, array: Array, text: str, line: int) -> str | None:
        """Return the key that stands in brackets after an array's name; None where it is not known."""
        value = self.value(bare_word(text, self.file, line))
        if not array.named:
            value = () if unknown_of(value) else self.sum(text_of(value), line)
        return None if unknown_of(value) or not text_of(value) else text_of(value)

    def _alternative(self, part: Part) -> Value:
        """`${NAME:-word}`, `${NAME:=word}` and `${NAME:+word}`; quotes in the word hold it together."""
        held = self.held(part)
        known = held is not None and (
            not part.op.startswith(":") or bool(text_of(held) or unknown_of(held))
        )
        if part.op in (":+", "+"):
            return self._spread(part) if known else ()
        if held is not None and known:
            return held if part.quoted else _splitting(held)
        value = self._spread(part)
        if held is None:
            named = f"argument {part.text}" if part.text.isdigit() else part.text
            self.told(named, f"{text_of(value)!r}, the script's default", part.line)
        if part.op.endswith("=") and part.text.isidentifier():
            self.state.variables[part.text] = value
        return tuple(piece._replace(line=piece.line or part.line) for piece in value)

    def _spread(self, part: Part) -> Value:
        """Return the word after an operator; what stands there without quotes splits."""
        pieces: list[Piece] = []
        for one in part.word:
            value = self._part(one)
            whole = part.quoted or one.quoted
            pieces += [p if p.unknown else p._replace(splits=not whole) for p in value]
        return checked(tuple(pieces), self.file)

    def pattern(self, word: Word) -> Value:
        """Return a word as a pattern: what is quoted in it stands for itself."""
        pieces: list[Piece] = []
        for part in word:
            value = self._part(part)
            pieces += (
                [p._replace(text=glob.escape(p.text)) for p in value] if part.quoted else value
            )
        return tuple(pieces)

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
        if part.op == ":":
            cut = self._range(part)
            changed = None if cut is None else _letters(text_of(held), *cut)
        else:
            changed = _change(part.op, text_of(held), text_of(word))
        if changed is None:
            return (_unknown(f"${{{part.text}{part.op}...}} is not followed", part.line),)
        return (Piece(changed, line_of(held, part.line)),)

    def sum(self, text: str, line: int) -> Value:
        """Return the value of `$(( text ))`, and set what it sets."""
        missing: list[Unknown] = []

        def value_of(name: str, depth: int = 0) -> int:
            value = self.held(Part("variable", name, line))
            if value is None or unknown_of(value):
                found = unknown_of(value or ()) or self._unset(Part("variable", name, line)).unknown
                missing.extend([found] if found else [])
                raise NoSum(name)
            plain = text_of(value).strip()
            if plain.isidentifier() and depth < MOST_NAMES:  # the name of a number
                return value_of(plain, depth + 1)
            return number_of(plain)

        def assign(name: str, value: int) -> None:
            self.state.variables[name] = (Piece(str(value), line),)

        try:
            opened = self._opened_sum(text, line)
            return (Piece(str(evaluate(opened, value_of, assign)), line),)
        except NoSum as error:
            reason = Unknown(f"$(({text.strip()[:40]})) {error}", line)
            if missing:
                reason = missing[0]._replace(choices=())
            for name in changed_names(arithmetic_names(text)):
                self.state.variables[name] = (Piece("", line, False, reason),)
            return (Piece("", line, False, reason),)

    def _opened_sum(self, text: str, line: int) -> str:
        """Return a sum with what is written in it as `${...}` or `$1` in the place of that."""
        plain = arithmetic_names(text)
        if "$" not in plain and not _POSITION.search(text):
            return plain
        value = self.value(quoted_word(text, self.file, line))
        if unknown := unknown_of(value):
            raise NoSum(unknown.reason)
        return text_of(value)


_POSITION = re.compile(r"\$\{?\d+\}?")
MOST_NAMES = 20


def _splitting(value: Value) -> Value:
    return tuple(p if p.unknown else p._replace(splits=True) for p in value)


def _together(part: Part) -> bool:
    """Tell whether a list in quotes is one word: `"$*"`, `"${NAME[*]}"`."""
    return part.item == "[*]" or part.text == "*"


def _in_one(elements: Sequence[Value], line: int) -> Value:
    """Return elements as one text with a blank between them."""
    pieces: list[Piece] = []
    for i, element in enumerate(elements):
        pieces += [Piece(" ", line, True)] if i else []
        pieces += element
    return tuple(pieces)


def _letters(text: str, begin: int, count: int | None) -> str:
    """Return `${NAME:begin:count}`; a count below 0 is a place from the end."""
    begin = begin if begin >= 0 else max(len(text) + begin, 0)
    if count is None:
        return text[begin:]
    return text[begin : begin + count] if count >= 0 else text[begin:count]


def _unknown(reason: str, line: int, splits: bool = False) -> Piece:
    return Piece("", line, splits, Unknown(reason, line))


def _change(op: str, text: str, word: str) -> str | None:
    if op in ("%", "%%", "#", "##"):
        return _cut(op, text, word)
    if op in ("/", "//") and not re.search(r"[*?\[]", word):
        old, _, new = word.partition("/")
        if op == "/" and old[:1] in ("#", "%"):
            begins, end = old[0] == "#", old[1:]
            fits = text.startswith(end) if begins else text.endswith(end)
            rest = text.removeprefix(end) if begins else text.removesuffix(end)
            return (new + rest if begins else rest + new) if fits else text
        return text.replace(old, new, -1 if op == "//" else 1) if old else text
    if op in ("^^", ",,") and not word:
        return text.upper() if op == "^^" else text.lower()
    if op in ("^", ",") and not word:
        return (text[:1].upper() if op == "^" else text[:1].lower()) + text[1:]
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
