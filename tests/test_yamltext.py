"""YAML is read strictly, with the place of every value, and never with a traceback."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ersatz.device_models.text.files import MAX_BYTES
from ersatz.device_models.text.problems import MOST_PROBLEMS, InputError, Problem
from ersatz.device_models.text.yamltext import parse_yaml, read_yaml
from tests.pace import within


def complaints(text: str) -> list[Problem]:
    """Return what is wrong with a text; nothing where it can be read."""
    try:
        parse_yaml(text, "x.yaml")
    except InputError as error:
        return list(error.problems)
    return []


def problems(text: str) -> list[str]:
    found = [str(problem) for problem in complaints(text)]
    assert found, "was read"
    return found


def test_scalars_follow_yaml_1_2() -> None:
    data = parse_yaml("a: 1e9\nb: no\nc: 12:30\nd: 2e-6\ne: true\nf: ~\ng: 007", "x.yaml").data
    assert data == {"a": 1e9, "b": "no", "c": "12:30", "d": 2e-6, "e": True, "f": None, "g": 7}


def test_places_of_keys_and_values() -> None:
    text = parse_yaml("a:\n  - b: 1\n    c: two\n", "x.yaml")
    assert text.values["a", 0, "c"] == (3, 8)
    assert text.keys["a", 0, "c"] == (3, 5)
    problem = text.problem(("a", 0, "c"), "two", "expected a number")
    assert str(problem) == "x.yaml:3:8: a[0].c: 'two' - expected a number"
    missing = text.problem(("a", 0, "d"), None, "is missing")
    assert (missing.line, missing.column) == (2, 5)  # the nearest parent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a: [1, 2", "is no valid YAML: did not find"),
        ("a: 1\na: 2", "x.yaml:2:1: a: the key stands twice"),
        ("a: &x [1]\nb: *x", "anchors and aliases are not accepted"),
        ("a: .nan", "not a finite number"),
        ("a: .inf", "not a finite number"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml"),
        ("a\x00b", "binary"),
        ("{[1]: 2}", "single word"),
    ],
)
def test_bad_text(text: str, words: str) -> None:
    assert any(words in line for line in problems(text)), problems(text)


def test_an_alias_bomb_ends_at_once() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    assert all("anchors" in line for line in problems(bomb)[:MOST_PROBLEMS])


def test_deep_nesting_is_no_crash() -> None:
    assert problems("[" * 5000)


def test_files(tmp_path: Path) -> None:
    for name, content in (("binary", b"\xff\xfe\x00"), ("huge", b"a" * (MAX_BYTES + 1))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            read_yaml(tmp_path / name)
    with pytest.raises(InputError, match="No such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(InputError, match="directory"):
        read_yaml(tmp_path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)  # without a writer: to open it would wait for ever
    for name in (pipe, Path("/dev/zero")):
        with pytest.raises(InputError, match="no regular file"):
            read_yaml(name)
    for name in ("a\0b", "x" * 5000, "\udcff"):
        with pytest.raises(InputError):
            read_yaml(name)


@pytest.mark.parametrize("depth", [41, 450, 999, 20_000])
def test_deep_nesting_has_its_place(depth: int) -> None:
    for text in ("a: " + "[" * depth + "]" * depth, "a: " + "{b: " * depth + "1" + "}" * depth):
        assert re.search(r"^x.yaml:1:\d+: .*nest", problems(text)[0])


def test_a_long_scalar_is_text_and_read_in_linear_time() -> None:
    with within(1.5):  # 37 s for 60,000 digits when it was quadratic
        data = parse_yaml(f"a: {'9' * 1_000_000}x\nb: {'9' * 65}\nc: {'9' * 64}", "x.yaml").data
    assert (type(data["b"]), type(data["c"])) == (str, int)


@pytest.mark.parametrize(
    "text", ['"\\e]0;owned\\a"', '"\\x9b2J"', '"\\u202e"', '"\\uD800"', "a\u202eb"]
)
def test_control_and_bidi_characters_are_refused(text: str) -> None:
    assert "x.yaml:1:" in problems(f"a: {text}")[0]
    assert "x.yaml:1:" in problems(f"{text}: 1")[0]


@pytest.mark.parametrize(
    "scalar", ["!!bool maybe", '!!float ""', '!!int ""', "!!int 0x" + "f" * 5000, "!!int 1:x",
               "!!timestamp 2020", "!!float 1e999999", "!!map x", "!!seq x", "!!null x", "!!str"]
)  # fmt: skip
def test_explicit_tags_never_crash(scalar: str) -> None:
    assert all(problem.line == 1 for problem in complaints(f"a: {scalar}"))


def test_at_most_fifty_faults_are_told_each_once() -> None:
    lines = problems("".join(f"a{i}: .nan\n" for i in range(1000)))
    assert len(lines) == MOST_PROBLEMS + 1
    assert "more faults" in lines[-1]


@given(st.text(alphabet="abc019-:{}[],.'\"!&*#|>%@ \n\t", max_size=60))
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    assert all(problem.line or "empty" in problem.expected for problem in complaints(text))
