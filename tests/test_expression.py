"""Criteria: what they accept and mean, three-valued logic, and what they refuse, with position."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ersatz.sim.law.expression import ExpressionError, Kind, parse_expression

KINDS: dict[str, Kind] = {
    "TPP": "number",
    "PD": "number",
    "x": "number",
    "hq": "text",
    "dc": "truth",
}


def value(text: str, **values: object) -> object:
    return parse_expression(text, KINDS).evaluate({"TPP": 0.0, "PD": 0.0, "x": 0.0, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TPP >= 4800", True), ("TPP > 4800", False), ("not TPP < 4800", True),
        ("TPP >= 1600 and PD >= 5.92", False), ("TPP >= 1600 or PD >= 5.92", True),
        ("1600 <= TPP <= 4800", True), ("1600 <= TPP < 4800", False),
        ("TPP + 2 * PD == 4806", True), ("TPP / PD > 1599", True), ("-PD < 0", True),
        ("hq == 'CN'", True), ("hq != 'CN'", False), ("hq in ['CN', 'MO']", True),
        ("hq not in ('US',)", True), ("dc", True), ("not dc", False), ("dc == true", True),
        ("dc and (TPP >= 4800 or\n (TPP >= 1600 and PD >= 5.92))", True),
        ("TPP > 1 or PD > 1 and false", True),  # `and` binds closer than `or`
    ],
)  # fmt: skip
def test_meaning(text: str, expected: bool) -> None:
    assert value(text, TPP=4800.0, PD=3.0, hq="CN", dc=True) is expected


def test_the_unknown_decides_only_where_it_must() -> None:
    # density unknown: above 4,800 it does not matter, between 1,600 and 4,800 it decides
    text = "TPP >= 4800 or (TPP >= 1600 and PD >= 5.92)"
    assert value(text, TPP=5000.0, PD=None) is True
    assert value(text, TPP=2000.0, PD=None) is None
    assert value(text, TPP=1000.0, PD=None) is False
    assert value("not PD > 1", PD=None) is None
    assert value("PD * 2 > 1", PD=None) is None
    assert value("TPP / x > 1", TPP=1.0, x=0.0) is None  # no division by nothing


TRUTH = st.sampled_from([True, False, None])


@given(TRUTH, TRUTH, TRUTH)
def test_kleene_logic_agrees_with_every_completion(
    a: bool | None, b: bool | None, c: bool | None
) -> None:
    # where all ways to fill in the unknowns agree for a formula without repetitions, it is known
    kinds: dict[str, Kind] = {"a": "truth", "b": "truth", "c": "truth"}
    formula = parse_expression("(a and not b) or c", kinds)
    outcomes = {
        formula.evaluate({"a": x, "b": y, "c": z})
        for x in ([a] if a is not None else [True, False])
        for y in ([b] if b is not None else [True, False])
        for z in ([c] if c is not None else [True, False])
    }
    got = formula.evaluate({"a": a, "b": b, "c": c})
    assert got == (outcomes.pop() if len(outcomes) == 1 else None)


@given(
    st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
)
def test_comparisons_are_those_of_numbers(a: float, b: float, sign: str) -> None:
    known = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
             "==": operator.eq, "!=": operator.ne}  # fmt: skip
    assert value(f"TPP {sign} PD", TPP=a, PD=b) is known[sign](a, b)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("TPP >= ", 7, "cannot be read"),
        ("TPP >= 4800)", 12, "unmatched ')'"),
        ("(TPP >= 4800", 1, "was never closed"),
        ("TPP >= 4800 and TTP > 1", 17, "unknown name 'TTP', did you mean 'TPP'"),
        ("TPP", 1, "is a number; expected a comparison"),
        ("TPP >= 'a'", 8, "a number is compared with a text"),
        ("hq > 'CN'", 1, "a text is only compared by"),
        ("hq in 'CN'", 1, "expected a text before 'in' and a list"),
        ("TPP and PD > 1", 1, "'TPP' is a number; expected a truth"),
        ("open('x') == 'y'", 1, "calls are not allowed"),
        ("TPP > 1 and hq.upper() == 'x'", 13, "calls are not allowed"),
        ("hq.upper == 'x'", 1, "'.' is not allowed"),
        ("hq[0] == 'C'", 1, "[...] after a name is not allowed"),
        ("(lambda: 1) == 2", 2, "lambda is not allowed"),
        ("TPP ** 9 > 1", 1, "expected one of + - * /"),
        ("TPP > 1 if dc else PD > 1", 1, "if ... else is not allowed"),
        ("[x for x in hq] == 'x'", 1, "ListComp is not allowed"),
        ("hq in [hq]", 7, "no names"),
        ("TPP is 3", 1, "expected one of < <="),
        ("TPP > 1j", 7, "is no number, text"),
        ("TPP ≥ 4800", 5, "expected plain ASCII"),
        ("TPP > 1" + " or TPP > 1" * 200, 1000, "is longer than"),
        ("(" * 400 + "TPP > 1" + ")" * 400, 1, "nested"),
        ("TPP > 1" + "0" * 400, 7, "is too large a number"),
        ("", 1, "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_refused_with_its_place(text: str, position: int, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text, KINDS)
    assert reason in str(caught.value)
    if reason != "nested":
        assert caught.value.position == position


def test_the_comparisons_that_decided_are_named() -> None:
    expression = parse_expression("dc and (TPP >= 4800 or (TPP >= 1600 and PD >= 5.92))", KINDS)
    explained = expression.explain({"dc": True, "TPP": 2368.0, "PD": 2.91})
    assert explained == ["TPP 2,368 >= 4800: no", "PD 2.91 >= 5.92: no"]
    assert expression.explain({"dc": False, "TPP": 5000.0, "PD": 1.0}) == ["dc: no"]
    allowed = expression.explain({"dc": True, "TPP": 5000.0, "PD": 1.0})
    assert allowed == ["dc: yes", "TPP 5,000 >= 4800: yes"]
    assert "PD unknown >= 5.92: unknown" in expression.explain(
        {"dc": True, "TPP": 2000.0, "PD": None}
    )


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_expression(text, KINDS)
    except ExpressionError as error:
        position = error.position
    else:
        position = 1
        assert found.names <= set(KINDS)
    assert position >= 1
