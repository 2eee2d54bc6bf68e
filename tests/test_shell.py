"""Scripts are followed as a shell would, without one: known answers for each piece of syntax."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.sim.errors import InputError, Problem
from ersatz.sim.importing.shell.arithmetic import NoSum, evaluate
from ersatz.sim.importing.shell.machine import follow
from ersatz.sim.importing.shell.pieces import line_of, text_of, unknown_of


def words(script: str, arguments: list[str] | None = None, **defines: str) -> list[list[str]]:
    """The fields of every command; what is not known is shown as ?."""
    found = follow(script, "s.sh", defines, arguments)
    return [["?" if unknown_of(f) else text_of(f) for f in c.fields] for c in found.commands]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("X=3\nrun --a $X --b ${X} --c=\"$X\"", ["run", "--a", "3", "--b", "3", "--c=3"]),
        ("A='--x 1'\nrun $A \"$A\"", ["run", "--x", "1", "--x 1"]),
        ("A=(--x 1  # a remark\n --y 'two words')\nA+=(--z)\nrun \"${A[@]}\"",
         ["run", "--x", "1", "--y", "two words", "--z"]),
        ('A=("--fp8-format hybrid")\nrun ${A[@]}', ["run", "--fp8-format", "hybrid"]),
        ("A=(1 2)\nA=(\"${A[@]}\" 3)\nrun ${A[@]} ${#A[@]} ${A[1]}", ["run", "1", "2", "3", "3", "2"]),
        ('B=" \\\n --x 1 \\\n --y 2 \\\n"\nrun $B', ["run", "--x", "1", "--y", "2"]),
        ("run a \\\n  b # no\n", ["run", "a", "b"]),
        ("run ${X:-${Y:-7}}", ["run", "7"]),
        ("X=\nrun ${X:-1} ${X-2} ${X:+3} end", ["run", "1", "end"]),
        ("X=5\nrun ${X:+yes}", ["run", "yes"]),
        ("N=4; G=8\nrun $((N*G)) $(( N > 3 ? 10 : 20 )) $(($N*$G/3)) $((-7/2))",
         ["run", "32", "10", "10", "-3"]),
        ("run $(nvidia-smi -L | wc -l) `nproc`", ["run", "?", "?"]),
        ("X=a/b/c.tar.gz\nrun ${X##*/} ${X%.gz} ${X%%.*} ${X/b/d} ${X//a/o}",
         ["run", "c.tar.gz", "a/b/c.tar", "a/b/c", "a/d/c.tar.gz", "o/b/c.tor.gz"]),
        ("X=1 run a; Y=2; run2 $X $Y", ["run", "a"]),
        ("if [ 2 -gt 1 ] && [[ abc == a* ]]; then A=1; else A=2; fi\nrun $A", ["run", "1"]),
        ("if [[ -z $NOT_THERE ]]; then A=1; fi\nrun $A", ["run", "1"]),
        ("M=8b\ncase $M in\n 7b|8b) L=32;;\n *) L=80;;\nesac\nrun $L", ["run", "32"]),
        ("for f in a b; do L+=\" --$f\"; done\nrun $L", ["run", "--a", "--b"]),
        ("for i in {1..3}; do S=$((S+i)); done\nrun $S", ["run", "?"]),
        ("S=0\nfor i in {1..3}; do S=$((S+i)); done\nrun $S", ["run", "6"]),
        ("i=0\nwhile [ $i -lt 4 ]; do i=$((i+2)); done\nrun $i", ["run", "4"]),
        ("f() { local V=$1; OUT=$V; }\nf 12\nrun $OUT", ["run", "12"]),
        ("function g { echo hi; }\ng\nrun", ["run"]),
        ("( X=1 )\nX=${X:-2}\nrun $X", ["run", "2"]),
        ("run a | tee log", ["run", "a"]),
        ("run <<EOF\n$(danger)\nEOF\n", ["run"]),
        ("set -- a b\nrun $2 $#", ["run", "b", "2"]),
        ("declare -A M; export X=3 Y=4\nrun $X$Y", ["run", "34"]),
        ("X=9\nunset X\nrun ${X-0}", ["run", "0"]),
        ("run \\$X 'a'\"b\"c", ["run", "$X", "abc"]),
    ],
)  # fmt: skip
def test_what_a_shell_would_hand_over(script: str, expected: list[str]) -> None:
    assert words(script)[0] == expected


def test_arguments_and_variables_of_the_environment() -> None:
    script = "run ${1:-2} $2 $SIZE"
    assert words(script) == [["run", "2", "?", "?"]]
    assert words(script, ["7", "8"], SIZE="big") == [["run", "7", "8", "big"]]


def test_a_branch_that_cannot_be_decided_leaves_its_choices() -> None:
    script = 'X=1\nif [ "$KIND" = a ]; then X=2; A+=(--more); else X=3; fi\nrun $X "${A[@]}"'
    found = follow(script, "s.sh", {}, None)
    unknown = unknown_of(found.commands[0].fields[1])
    assert unknown is not None
    assert [text_of(choice) for choice in unknown.choices] == ["2", "3"]
    assert unknown.line == 2


def test_a_branch_that_ends_the_script_is_not_taken() -> None:
    assert words('if [ -z "$MODEL" ]; then echo no; exit 1; fi\nrun on') == [["run", "on"]]
    assert words("[ $# -lt 2 ] && { echo usage; exit 1; }\nrun on") == [["run", "on"]]


def test_a_loop_that_cannot_be_followed_makes_what_it_changes_unknown() -> None:
    found = follow("N=1\nwhile read x; do N=$((N*2)); done\nrun $N --seed 1", "s.sh", {}, None)
    assert unknown_of(found.commands[-1].fields[1]) is not None
    assert found.remarks == (("a loop (line 2) whose turns are not known", 2),)


def test_every_word_keeps_its_line() -> None:
    script = 'A="\n  --x 1 \\\n  --y 2\n"\nrun $A \\\n --z'
    (command,) = follow(script, "s.sh", {}, None).commands
    assert [line_of(f) for f in command.fields] == [5, 2, 2, 3, 3, 6]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("run 'x", "a quote ' that begins here never ends"),
        ('a\nrun "x', 's.sh:2:1: a quote " that begins here never ends'),
        ("A=(1 2", "an array that begins here never ends"),
        ("if true; then x", "expected fi"),
        ("run ${X", "a { that begins here never ends"),
        ("fi", "unexpected 'fi'"),
        ("f() { f; }\nf", "the function f calls itself"),
        ("X=aaaaaaaaaaaaaaaa\nfor i in {1..40}; do X=$X$X; done", "grows a text beyond"),
        ("( " * 200, "nested too deeply"),
    ],
)
def test_what_is_no_script_is_named_with_its_line(script: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        follow(script, "s.sh", {}, None)
    assert expected in str(caught.value)


def test_nothing_is_run(tmp_path: pytest.TempPathFactory) -> None:
    target = f"{tmp_path}/made"
    script = f"touch {target}; $(touch {target}) `touch {target}`; eval touch {target}"
    script += f"; source <(touch {target})"
    follow(script, f"{tmp_path}/s.sh", {}, None)
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 50))
def test_sums_are_those_of_whole_numbers_towards_zero(a: int, b: int, c: int) -> None:
    """A shell divides towards zero and keeps the sign of the dividend."""
    assert evaluate(f"{a} + {b} * {c}", lambda n: 0) == a + b * c
    assert evaluate(f"({a}) / {c}", lambda n: 0) == int(a / c)
    assert evaluate(f"({a}) % {c}", lambda n: 0) == a - c * int(a / c)
    assert evaluate(f"{a} < {b} ? 1 : 2", lambda n: 0) == (1 if a < b else 2)


@pytest.mark.parametrize("text", ["1/0", "1 +", "a b", "2**99999", "9" * 50, "(" * 3000])
def test_a_sum_that_is_none_is_no_number(text: str) -> None:
    with pytest.raises(NoSum):
        evaluate(text, lambda n: 1)


@given(st.text("abX$(){}[]\"'`\\;&|<>#=\n -1", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_followed_or_refused(script: str) -> None:
    """What is refused is refused in words and by its place; nothing else is raised, nothing hangs."""
    refused: list[Problem] = []
    try:
        follow(script, "s.sh", {}, None)
    except InputError as error:
        refused = list(error.problems)
    assert all(p.file == "s.sh" and p.expected for p in refused)


def long_script(lines: int) -> str:
    """A launch script of at least so many lines: exports, tests, an array and a quoted block."""
    third = lines // 10 * 3
    rows = [f"export V{i}=${{V{i}:-{i}}}  # a remark" for i in range(third)]
    rows += [f'if [ "$V{i}" -gt 3 ]; then A+=(--more-{i}); fi' for i in range(lines // 10)]
    rows += [
        "A+=(",
        *(f"    --flag-{i} $V{i} --switch-{i} $((V{i} * 2))" for i in range(third)),
        ")",
    ]
    rows += ['B="', *(f"    --other-{i} ${{V{i}}} \\" for i in range(third)), '"']
    return "\n".join([*rows, 'torchrun train.py "${A[@]}" $B'])


def test_four_times_the_lines_take_about_four_times_as_long() -> None:
    """How long 500 lines take (50 ms) is a benchmark; here, that nothing grows with their square."""

    def seconds(lines: int) -> float:
        script = long_script(lines)
        assert len(script.splitlines()) >= lines
        times = []
        for _ in range(5):
            start = time.process_time()
            follow(script, "s.sh", {}, None)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(2000) < 8 * seconds(500)
