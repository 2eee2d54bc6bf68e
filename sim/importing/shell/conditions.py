"""Decide `[ ... ]`, `[[ ... ]]` and `(( ... ))` where both sides are known; else say so with None."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from ersatz.sim.importing.shell.expand import Expander
from ersatz.sim.importing.shell.grammar import Test
from ersatz.sim.importing.shell.pieces import Value, line_of, text_of, unknown_of
from ersatz.sim.importing.shell.scan import Word

_NUMBERS = {"-eq": "==", "-ne": "!=", "-lt": "<", "-le": "<=", "-gt": ">", "-ge": ">="}
_TEXTS = frozenset({"=", "==", "!=", "=~", "<", ">"})


def decide_test(expander: Expander, test: Test) -> bool | None:
    """Decide `[[ words ]]` or `(( sum ))`."""
    if test.sum or not test.words:
        value = expander.sum(test.sum, test.line)
        return None if unknown_of(value) else text_of(value) != "0"
    words: list[Word | str] = [token.op or token.word for token in test.words]
    return _Condition(expander, words, patterns=True).answer()


def decide_words(expander: Expander, words: Sequence[Word]) -> bool | None:
    """Decide `[ words ]`, without its brackets."""
    return _Condition(expander, list(words), patterns=False).answer()


class _Condition:
    """A condition read from left to right; None where something that matters is not known."""

    def __init__(self, expander: Expander, words: list[Word | str], *, patterns: bool) -> None:
        self.expander, self.words, self.at, self.patterns = expander, words, 0, patterns

    def answer(self) -> bool | None:
        found = self.either()
        return found if self.at >= len(self.words) else None

    @property
    def op(self) -> str:
        """The next word where it may be an operator."""
        if self.at >= len(self.words):
            return ""
        word = self.words[self.at]
        if isinstance(word, str):
            return word
        return (
            word[0].text if len(word) == 1 and word[0].kind == "text" and not word[0].quoted else ""
        )

    def either(self) -> bool | None:
        found = self.both()
        while self.op in ("||", "-o"):
            self.at += 1
            other = self.both()
            found = True if found or other else (None if None in (found, other) else False)
        return found

    def both(self) -> bool | None:
        found = self.one()
        while self.op in ("&&", "-a"):
            self.at += 1
            other = self.one()
            found = False if False in (found, other) else (None if None in (found, other) else True)
        return found

    def one(self) -> bool | None:
        if self.at >= len(self.words):
            return False
        if self.op == "!":
            self.at += 1
            found = self.one()
            return None if found is None else not found
        if self.op == "(":
            self.at += 1
            found = self.either()
            self.at += 1
            return found
        follows = self._after(1)
        if follows in _TEXTS or follows in _NUMBERS:
            return self._compare(follows)
        if self.op.startswith("-") and len(self.op) == 2 and self.at + 1 < len(self.words):
            return self._unary()
        value = self._take()
        return None if unknown_of(value) else bool(text_of(value))

    def _after(self, step: int) -> str:
        self.at += step
        op = self.op
        self.at -= step
        return op

    def _take(self) -> Value:
        if self.at >= len(self.words):
            return ()
        word = self.words[self.at]
        self.at += 1
        return () if isinstance(word, str) else self.expander.value(word)

    def _unary(self) -> bool | None:
        op = self.op
        self.at += 1
        word = self.words[self.at]
        bare = not isinstance(word, str) and len(word) == 1 and word[0].kind == "variable"
        if op in ("-z", "-n") and bare and not isinstance(word, str) and not word[0].op:
            self.at += 1
            return self._is_set(word, op)
        value = self._take()
        if op in ("-z", "-n"):
            return None if unknown_of(value) else bool(text_of(value)) == (op == "-n")
        if op == "-v" and not unknown_of(value):
            return text_of(value) in self.expander.state.variables or self._not_set(value)
        return None

    def _not_set(self, value: Value) -> bool:
        self.expander.told(text_of(value), "not set", line_of(value))
        return False

    def _is_set(self, word: Word, op: str) -> bool | None:
        """A variable that nobody set is empty: told, for the environment might hold it."""
        part = word[0]
        held = self.expander.held(part)
        if held is None:
            self.expander.told(part.text, "not set", part.line)
            return op == "-z"
        return None if unknown_of(held) else bool(text_of(held)) == (op == "-n")

    def _compare(self, op: str) -> bool | None:
        left = self._take()
        self.at += 1
        word = self.words[self.at] if self.at < len(self.words) else ()
        right = self._take()
        if unknown_of(left) or unknown_of(right):
            return None
        a, b = text_of(left), text_of(right)
        if op in _NUMBERS:
            return _numbers(_NUMBERS[op], a, b)
        if op == "=~":
            return None
        if op in ("<", ">"):
            return a < b if op == "<" else a > b
        if self.patterns and not isinstance(word, str):
            alike = fnmatch.fnmatchcase(a, text_of(self.expander.pattern(word)))
        else:
            alike = a == b
        return alike == (op != "!=")


def _numbers(op: str, a: str, b: str) -> bool | None:
    try:
        x, y = int(a), int(b)
    except ValueError:
        return None
    return {"==": x == y, "!=": x != y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[op]
