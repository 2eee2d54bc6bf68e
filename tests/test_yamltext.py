"""YAML is read strictly, with the place of every value, and never with a traceback."""

from pathlib import Path

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import MAX_BYTES, parse_yaml, read_yaml


def problems(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


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
    assert all("anchors" in line for line in problems(bomb))


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
