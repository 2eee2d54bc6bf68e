"""Sums of a shell: whole numbers of 64 bits, division towards zero, `c ? a : b`, and `X += 1`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|\d+#\w+|\d+|[A-Za-z_]\w*|<<=|>>=|\+\+|--|[-+*/%&|^]=|\*\*|<<|>>|<=|>=|==|!="
    r"|&&|\|\||[-+*/%<>&|^!~?:()=,])"
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"),
    ("+", "-"), ("*", "/", "%"), ("**",),
)  # fmt: skip
_SETS = ("=", "+=", "-=", "*=", "/=", "%=", "<<=", ">>=", "&=", "^=", "|=")
_STEPS = ("++", "--")
MOST_TOKENS = 2000

Assigned = Callable[[str, int], None]


class NoSum(ValueError):
    """The text is no sum that can be worked out."""


def number_of(text: str) -> int:
    """Return the number that a variable's text is in a sum: `010` is 8, an empty text 0. Raises `NoSum`."""
    plain = text.strip()
    sign = -1 if plain.startswith("-") else 1
    digits = plain.lstrip("+-")
    if digits and not digits[:1].isdigit():
        raise NoSum(f"has {text[:20]!r} where a whole number is expected")
    return sign * _number(digits) if digits else 0


def changed_names(text: str) -> list[str]:
    """Return the names that a sum sets, whether or not it can be worked out."""
    found = _CHANGED.findall(text)
    return [first or second for first, second in found]


def evaluate(text: str, value_of: Callable[[str], int], assign: Assigned | None = None) -> int:
    """Return the value of a sum; `value_of` gives that of a name, `assign` sets one. Raises `NoSum`."""
    found: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        token = _TOKEN.match(text, at)
        if not token or len(found) > MOST_TOKENS:
            raise NoSum(f"cannot be worked out: {text.strip()[:60]}")
        found.append(token[1])
        at = token.end()
    if not found:
        return 0
    sum_ = _Sum(found, value_of, assign)
    try:
        value = sum_.list()
    except RecursionError as error:
        raise NoSum("is nested too deeply") from error
    if sum_.at < len(found):
        raise NoSum(f"cannot be worked out: {text.strip()[:60]}")
    return value


class _Sum:
    def __init__(
        self, found: list[str], value_of: Callable[[str], int], assign: Assigned | None
    ) -> None:
        self.found, self.value_of, self.assign, self.at = found, value_of, assign, 0

    @property
    def token(self) -> str:
        return self.found[self.at] if self.at < len(self.found) else ""

    def take(self) -> str:
        self.at += 1
        return self.found[self.at - 1]

    def list(self) -> int:
        """Work out sums between commas; the last counts."""
        value = self.set_or_choice()
        while self.token == ",":
            self.take()
            value = self.set_or_choice()
        return value

    def set_or_choice(self) -> int:
        """`NAME = sum`, `NAME += sum`, or a sum."""
        after = self.found[self.at + 1] if self.at + 1 < len(self.found) else ""
        if not (self.token.isidentifier() and after in _SETS):
            return self.choice()
        name, op = self.take(), self.take()[:-1]
        value = self.set_or_choice() if not op else 0
        if op:
            old = self.value_of(name)
            value = _wrapped(_apply(op, old, self.set_or_choice()))
        return self._set(name, value)

    def _set(self, name: str, value: int) -> int:
        if self.assign is None:
            raise NoSum(f"sets {name}")
        self.assign(name, value)
        return value

    def choice(self) -> int:
        condition = self.level(0)
        if self.token != "?":
            return condition
        self.take()
        yes = self.choice()
        if self.token != ":":
            raise NoSum("lacks the : of a choice")
        self.take()
        no = self.choice()
        return yes if condition else no

    def level(self, depth: int) -> int:
        if depth == len(_LEVELS):
            return self.single()
        value = self.level(depth + 1)
        while self.token in _LEVELS[depth]:
            op = self.take()
            right = self.level(depth if op == "**" else depth + 1)  # 2**3**2 is 2**9
            value = _wrapped(_apply(op, value, right))
        return value

    def single(self) -> int:
        token = self.take() if self.token else ""
        if token in _STEPS:
            if not self.token.isidentifier():
                return self.single()  # `--3` is 3
            name = self.take()
            return self._set(name, _wrapped(self.value_of(name) + (1 if token == "++" else -1)))
        if token in _SIGNS:
            return _SIGNS[token](self.single())
        if token == "(":
            value = self.list()
            if self.token != ")":
                raise NoSum("lacks a )")
            self.take()
            return value
        if token[:1].isdigit():
            return _wrapped(_number(token))
        if token.isidentifier():
            value = self.value_of(token)
            if self.token in _STEPS:
                self._set(token, _wrapped(value + (1 if self.take() == "++" else -1)))
            return value
        raise NoSum(f"has {token!r} where a number is expected")


_CHANGED = re.compile(
    r"([A-Za-z_]\w*)\s*(?:\+\+|--|(?:<<|>>|[-+*/%&|^])?=(?!=))|(?:\+\+|--)\s*([A-Za-z_]\w*)"
)
_SIGNS: Mapping[str, Callable[[int], int]] = {
    "-": lambda v: -v, "+": lambda v: v, "!": lambda v: int(not v), "~": lambda v: ~v,
}  # fmt: skip
_OPS: Mapping[str, Callable[[int, int], int]] = {
    "||": lambda a, b: int(bool(a or b)), "&&": lambda a, b: int(bool(a and b)),
    "|": lambda a, b: a | b, "^": lambda a, b: a ^ b, "&": lambda a, b: a & b,
    "==": lambda a, b: int(a == b), "!=": lambda a, b: int(a != b), "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b), "<=": lambda a, b: int(a <= b), ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: a << (b % 64), ">>": lambda a, b: a >> (b % 64),
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
}  # fmt: skip


def _apply(op: str, a: int, b: int) -> int:
    if op in ("/", "%"):
        if not b:
            raise NoSum("divides by 0")
        whole = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return whole if op == "/" else a - whole * b
    if op == "**":
        if not 0 <= b <= 64:
            raise NoSum("has an exponent beyond 64")
        return int(a**b)
    return _OPS[op](a, b)


def _number(token: str) -> int:
    if len(token) > 40:
        raise NoSum("has too large a number")
    try:
        if token[:2] in ("0x", "0X"):
            return int(token, 16)
        base, mark, digits = token.partition("#")
        if mark:
            return int(digits, int(base))
        return int(token, 8) if len(token) > 1 and token[0] == "0" else int(token)
    except ValueError as error:
        raise NoSum(f"has no number: {token}") from error


def _wrapped(value: int) -> int:
    """Keep a number within 64 bits, as a shell does."""
    return (value + 2**63) % 2**64 - 2**63
