"""Criteria of rules: comparisons of attributes with thresholds, read and evaluated safely.

`TPP >= 4800 or (TPP >= 1600 and PD >= 5.92)` is parsed by Python's own parser, checked node by
node against a short list (and, or, not, comparisons, `in`, + - * /, names, numbers, texts), and
compiled into closures: nothing of the text is ever executed. Kinds are checked when it is read.
An attribute may be unknown (None); truth is then three-valued (Kleene): unknown only where the
unknown decides. Not modelled: functions, assignments, quantifiers.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ersatz.device_models.text.problems import did_you_mean

MAX_LENGTH = 1000
Kind = Literal["number", "text", "truth", "list"]
Value = float | str | bool | tuple[object, ...] | None
Values = Mapping[str, Value]
Evaluate = Callable[[Values], Value]

COMPARE: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt), ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge), ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne),
}  # fmt: skip
ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


class ExpressionError(ValueError):
    """A text is no criterion; `position` counts characters from 1."""

    def __init__(self, reason: str, position: int) -> None:
        self.reason, self.position = reason, position
        super().__init__(f"at character {position}: {reason}")


@dataclass(frozen=True, slots=True)
class Expression:
    """A criterion that has been read: its text, the names it uses, and how to evaluate it."""

    text: str
    names: frozenset[str]
    # values of the names -> true, false, or None for unknown
    evaluate: Evaluate = field(compare=False)
    tree: ast.expr = field(compare=False)
    # how to evaluate each node of the tree, by its identity
    parts: Mapping[int, Evaluate] = field(compare=False)

    def explain(self, values: Values) -> list[str]:
        """Return the comparisons that decided, with their numbers: 'TPP 2,368 >= 4,800: no'."""
        return list(dict.fromkeys(_explain(self.tree, self.parts, values)))


def parse_expression(text: str, kinds: Mapping[str, Kind]) -> Expression:
    """Read a criterion over names of known kinds; raises `ExpressionError` with the position."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    if not text.isascii():
        bad = next(i for i, letter in enumerate(text) if not letter.isascii())
        raise ExpressionError(f"holds {text[bad]!r}; expected plain ASCII", bad + 1)
    flat = text.replace("\n", " ").replace("\t", " ")
    lead = len(flat) - len(flat.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", SyntaxWarning
            )  # `9or` is two words to Python, not to a reader
            tree = ast.parse(flat.strip(), mode="eval").body
    except SyntaxError as error:
        early = (error.lineno or 1) > 1 or not error.offset  # the text ends too early
        position = len(flat.rstrip()) + 1 if early else (error.offset or 1) + lead
        raise ExpressionError(f"cannot be read: {error.msg}", position) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError("cannot be read: nested too deeply or no text", 1) from error
    for node in ast.walk(tree):
        if hasattr(node, "col_offset"):
            node.col_offset += lead
    scope = _Scope(kinds, set(), {})
    try:
        kind, evaluate = _compile(tree, scope)
    except RecursionError as error:
        raise ExpressionError("is nested too deeply", 1) from error
    if kind != "truth":
        raise ExpressionError(f"is a {kind}; expected a comparison like 'TPP >= 4800'", 1 + lead)
    return Expression(text, frozenset(scope.names), evaluate, tree, scope.parts)


@dataclass(slots=True)
class _Scope:
    """What is known while an expression is read, and what has been found."""

    kinds: Mapping[str, Kind]
    names: set[str]
    parts: dict[int, Evaluate]


def _fault(node: ast.expr, reason: str) -> ExpressionError:
    return ExpressionError(reason, node.col_offset + 1)


def _compile(node: ast.expr, scope: _Scope) -> tuple[Kind, Evaluate]:
    """Check one node and return its kind and its closure."""
    kind, evaluate = _compiled(node, scope)
    scope.parts[id(node)] = evaluate
    return kind, evaluate


def _compiled(node: ast.expr, scope: _Scope) -> tuple[Kind, Evaluate]:
    if isinstance(node, ast.BoolOp):
        return "truth", _logic(node, scope)
    if isinstance(node, ast.UnaryOp):
        return _unary(node, scope)
    if isinstance(node, ast.Compare):
        return "truth", _comparison(node, scope)
    if isinstance(node, ast.BinOp):
        return "number", _arithmetic(node, scope)
    if isinstance(node, ast.Name):
        return _name(node, scope)
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.List | ast.Tuple):
        return "list", _list(node, scope)
    words = {ast.Call: "calls are", ast.Attribute: "'.' is", ast.Subscript: "[...] after a name is",
             ast.Lambda: "lambda is", ast.IfExp: "if ... else is"}  # fmt: skip
    what = words.get(type(node), f"{type(node).__name__} is")
    raise _fault(node, f"{what} not allowed in a criterion")


def _list(node: ast.List | ast.Tuple, scope: _Scope) -> Evaluate:
    parts = [_compile(item, scope) for item in node.elts]
    for item, (kind, _) in zip(node.elts, parts, strict=True):
        if kind != "text":
            raise _fault(item, f"is a {kind}; a list holds texts like 'h20'")
    if any(not isinstance(item, ast.Constant) for item in node.elts):
        raise _fault(node, "a list holds texts like 'h20', no names")
    values = tuple(evaluate({}) for _, evaluate in parts)
    return lambda _: values


def _name(node: ast.Name, scope: _Scope) -> tuple[Kind, Evaluate]:
    word = node.id
    if word in ("true", "false"):
        truth = word == "true"
        return "truth", lambda _: truth
    if word not in scope.kinds:
        hint = did_you_mean(word, scope.kinds) or f"; known: {', '.join(sorted(scope.kinds))}"
        raise _fault(node, f"unknown name {word!r}{hint}")
    scope.names.add(word)
    return scope.kinds[word], lambda values: values[word]


def _constant(node: ast.Constant) -> tuple[Kind, Evaluate]:
    value = node.value
    if isinstance(value, bool):
        return "truth", lambda _: value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError as error:
            raise _fault(node, "is too large a number") from error
        return "number", lambda _: number
    if isinstance(value, str):
        return "text", lambda _: value
    raise _fault(node, f"{value!r} is no number, text, true or false")


def _typed(node: ast.expr, want: Kind, scope: _Scope) -> Evaluate:
    kind, evaluate = _compile(node, scope)
    if kind != want:
        raise _fault(node, f"{ast.unparse(node)!r} is a {kind}; expected a {want}")
    return evaluate


def _logic(node: ast.BoolOp, scope: _Scope) -> Evaluate:
    parts = [_typed(part, "truth", scope) for part in node.values]
    decides = isinstance(node.op, ast.Or)  # the truth value of one part that settles the whole

    def evaluate(values: Values) -> Value:
        unknown = False
        for part in parts:
            truth = part(values)
            if truth is None:
                unknown = True
            elif truth is decides:
                return decides
        return None if unknown else not decides

    return evaluate


def _unary(node: ast.UnaryOp, scope: _Scope) -> tuple[Kind, Evaluate]:
    if isinstance(node.op, ast.Not):
        inner = _typed(node.operand, "truth", scope)

        def negate(values: Values) -> Value:
            truth = inner(values)
            return None if truth is None else not truth

        return "truth", negate
    if isinstance(node.op, ast.USub):
        number = _typed(node.operand, "number", scope)

        def minus(values: Values) -> Value:
            value = number(values)
            return -value if isinstance(value, float) else None

        return "number", minus
    raise _fault(node, "expected 'not' or a minus sign")


def _arithmetic(node: ast.BinOp, scope: _Scope) -> Evaluate:
    apply = ARITHMETIC.get(type(node.op))
    if apply is None:
        raise _fault(node, "expected one of + - * / between numbers")
    left, right = (_typed(part, "number", scope) for part in (node.left, node.right))

    def evaluate(values: Values) -> Value:
        a, b = left(values), right(values)
        if (
            not isinstance(a, float)
            or not isinstance(b, float)
            or (apply is operator.truediv and not b)
        ):
            return None
        return apply(a, b)

    return evaluate


def _comparison(node: ast.Compare, scope: _Scope) -> Evaluate:
    sides = [node.left, *node.comparators]
    compiled = [_compile(side, scope) for side in sides]
    tests: list[tuple[Evaluate, Evaluate, Callable[[Any, Any], bool]]] = []
    for i, op in enumerate(node.ops):
        (left_kind, left), (right_kind, right) = compiled[i], compiled[i + 1]
        if isinstance(op, ast.In | ast.NotIn):
            if (left_kind, right_kind) != ("text", "list"):
                raise _fault(
                    sides[i], "expected a text before 'in' and a list like ['h20'] after it"
                )
            within = isinstance(op, ast.In)
            tests.append((left, right, lambda a, b, w=within: (a in b) is w))  # type: ignore[misc]
            continue
        if type(op) not in COMPARE:
            raise _fault(sides[i], "expected one of < <= > >= == != in, not in")
        if left_kind != right_kind or left_kind == "list":
            raise _fault(sides[i + 1], f"a {left_kind} is compared with a {right_kind}")
        if left_kind != "number" and not isinstance(op, ast.Eq | ast.NotEq):
            raise _fault(sides[i], f"a {left_kind} is only compared by ==, != or in")
        tests.append((left, right, COMPARE[type(op)][1]))

    def evaluate(values: Values) -> Value:
        unknown = False
        for left, right, test in tests:
            a, b = left(values), right(values)
            if a is None or b is None:
                unknown = True
            elif not test(a, b):
                return False
        return None if unknown else True

    return evaluate


def _explain(node: ast.expr, parts: Mapping[int, Evaluate], values: Values) -> Iterable[str]:
    """Yield the comparisons below a node that made it what it is."""
    truth = parts[id(node)](values)
    if isinstance(node, ast.BoolOp):
        alike = [part for part in node.values if parts[id(part)](values) is truth]
        one_is_enough = truth is False and isinstance(node.op, ast.And)
        for part in alike[:1] if one_is_enough else alike:
            yield from _explain(part, parts, values)
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield from _explain(node.operand, parts, values)
        return
    answer = "unknown" if truth is None else "yes" if truth else "no"
    yield f"{node.id if isinstance(node, ast.Name) else _write(node, values)}: {answer}"


def _write(node: ast.expr, values: Values) -> str:
    """Write a comparison with the value of each name after it."""
    if isinstance(node, ast.Compare):
        text = _write(node.left, values)
        for op, side in zip(node.ops, node.comparators, strict=True):
            word = "in" if isinstance(op, ast.In) else "not in"
            word = COMPARE[type(op)][0] if type(op) in COMPARE else word
            text += f" {word} {_write(side, values)}"
        return text
    if isinstance(node, ast.BinOp):
        signs = {ast.Add: "+", ast.Sub: "-", ast.Mult: "x", ast.Div: "/"}
        return f"{_write(node.left, values)} {signs[type(node.op)]} {_write(node.right, values)}"
    if isinstance(node, ast.Name):
        value = values.get(node.id)
        return f"{node.id} {_show(value)}"
    return ast.unparse(node)


def _show(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.5g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "unknown" if value is None else str(value)


def compared_texts(expression: Expression, name: str) -> list[str]:
    """Return the texts that a criterion compares a name with: `device in ['h20']`."""
    found: list[str] = []
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Name) and side.id == name for side in sides):
                found += [leaf.value for side in sides for leaf in ast.walk(side)
                          if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)]  # fmt: skip
    return found
