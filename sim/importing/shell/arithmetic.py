"""Sums of a shell: whole numbers of 64 bits, division towards zero, comparisons and `c ? a : b`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|\d+|[A-Za-z_]\w*|\*\*|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>&|^!~?:()])"
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"),
    ("+", "-"), ("*", "/", "%"), ("**",),
)  # fmt: skip
MOST_TOKENS = 2000


class NoSum(ValueError):
    """The text is no sum that can be worked out."""


def evaluate(text: str, value_of: Callable[[str], int]) -> int:
    """Return the value of a sum; `value_of` gives that of a name. Raises `NoSum`."""
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
    sum_ = _Sum(found, value_of)
    try:
        value = sum_.choice()
    except RecursionError as error:
        raise NoSum("is nested too deeply") from error
    if sum_.at < len(found):
        raise NoSum(f"cannot be worked out: {text.strip()[:60]}")
    return value


class _Sum:
    def __init__(self, found: list[str], value_of: Callable[[str], int]) -> None:
        self.found, self.value_of, self.at = found, value_of, 0

    @property
    def token(self) -> str:
        return self.found[self.at] if self.at < len(self.found) else ""

    def take(self) -> str:
        self.at += 1
        return self.found[self.at - 1]

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
            value = _wrapped(_apply(op, value, self.level(depth + 1)))
        return value

    def single(self) -> int:
        token = self.take() if self.token else ""
        if token in _SIGNS:
            return _SIGNS[token](self.single())
        if token == "(":
            value = self.choice()
            if self.token != ")":
                raise NoSum("lacks a )")
            self.take()
            return value
        if token[:1].isdigit():
            return _wrapped(_number(token))
        if token.isidentifier():
            return self.value_of(token)
        raise NoSum(f"has {token!r} where a number is expected")


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
    if token[:2] in ("0x", "0X"):
        return int(token, 16)
    try:
        return int(token, 8) if len(token) > 1 and token[0] == "0" else int(token)
    except ValueError as error:
        raise NoSum(f"has no number: {token}") from error


def _wrapped(value: int) -> int:
    """Keep a number within 64 bits, as a shell does."""
    return (value + 2**63) % 2**64 - 2**63
