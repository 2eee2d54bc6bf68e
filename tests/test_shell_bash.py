"""Scripts as bash reads them: each word that is handed over is bash's own, or is said not to be known."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ersatz.sim.importing.shell.machine import follow
from ersatz.sim.importing.shell.pieces import text_of, unknown_of

BASH = shutil.which("bash")
RUN = 'run() { printf "R"; printf "\\x1f%s" "$@"; printf "\\x1e"; }\nexport -f run\n'
SCRIPTS: tuple[tuple[str, list[list[str]]], ...] = (
    # what a function calls its own ends with it
    ("TP=4; f() { local TP=2; }; f; run $TP", [["4"]]),
    ("TP=4; f() { local TP; TP=2; }; f; run $TP", [["4"]]),
    ("X=1; f() { declare X=5; }; f; run $X", [["1"]]),
    ("f() { declare -g X=4; }; f; run $X", [["4"]]),
    ("o() { local T=8; i; run $T; }; i() { T=9; }; o; run ${T:-none}", [["9"], ["none"]]),
    ("f() ( X=3; run $X ); X=1; f; run $X", [["3"], ["1"]]),
    # sums that set
    ("TP=4; let TP=TP*2; run $TP", [["8"]]),
    ('TP=4; let "TP += 2" "PP = 3"; run $TP $PP', [["6", "3"]]),
    ("TP=4; ((TP*=2)); run $TP", [["8"]]),
    ("TP=4; (( TP = 8 )); run $TP", [["8"]]),
    ("TP=4; X=$((TP++)); Y=$((--TP)); run $TP $X $Y", [["4", "4", "4"]]),
    ("((X=3,Y=X*2)); run $X $Y", [["3", "6"]]),
    ("declare -i N=3*4; N+=1; run $N", [["13"]]),
    ("X=010; run $((X+1)) $((0x10)) $((2#101)) $[1+1]", [["9", "16", "5", "2"]]),
    ("TP=1; if (( TP > 1 )); then X=many; else X=one; fi; run $X", [["one"]]),
    ("X=5; if (( X % 2 == 0 )); then Y=even; else Y=odd; fi; run $Y", [["odd"]]),
    ("for ((i=0;i<3;i++)); do S+=\"$i \"; done; run $S $i", [["0", "1", "2", "3"]]),
    ("i=0; while ((i<5)); do ((i++)); if ((i==3)); then break; fi; done; run $i", [["3"]]),
    # arrays by key, their parts, and what changes each element
    ("declare -A C=([tp]=4 [pp]=2); run ${C[tp]} ${#C[@]}", [["4", "2"]]),
    ('declare -A M; M["7b"]=4; K=7b; run ${M[$K]}', [["4"]]),
    ('A=(a b c); unset "A[1]"; A+=(d); run "${A[@]}" ${#A[@]} ${A[3]}', [["a", "c", "d", "3", "d"]]),
    ("A=(1 2); A[3]=8; i=1; A[i]=7; A[$((0))]+=x; run ${A[@]}", [["1x", "7", "8"]]),
    ("A=([0]=x [2]=z); run \"${A[@]}\" ${!A[@]}", [["x", "z", "0", "2"]]),
    ('A=(a b c d); run "${A[@]:1:2}" ${A[@]: -1}', [["b", "c", "d"]]),
    ('A=(--bf16 --x); run "${A[@]/--bf16/--fp16}"', [["--fp16", "--x"]]),
    ('A=(1 2); run "${A[*]}" pre"${A[@]}"', [["1 2", "pre1", "2"]]),
    ('A=(--x 1); run "${A[@]+"${A[@]}"}" ${B[@]+"${B[@]}"} "${B[@]}" end', [["--x", "1", "end"]]),
    ('set -- a b c; run "${@:2}" "$*" $#', [["b", "c", "a b c", "3"]]),
    # words
    ("run a{1,2}b {a,b} {01..03} {1..9..4} {x} \"{a,b}\"",
     [["a1b", "a2b", "a", "b", "01", "02", "03", "1", "5", "9", "{x}", "{a,b}"]]),
    ("X=$'a\\nb'; run \"$X\" $\"plain\"", [["a\nb", "plain"]]),
    ('run --x 1 ${X:-"a b"} ${Y:-c d} ${Z:+no}', [["--x", "1", "a b", "c", "d"]]),
    ("X=abc; run ${X:1} ${X:0:2} ${X: -1} ${X^} ${X/#a/z} ${X/%c/z}",
     [["bc", "ab", "c", "Abc", "zbc", "abz"]]),
    ("run --x 1 2>&1", [["--x", "1"]]),
    ("run --x 1 2>/dev/null 3", [["--x", "1", "3"]]),
    ("run --x 1 `# a remark` --y ${IFS# another} 2", [["--x", "1", "--y", "2"]]),
    # shells of their own, and what holds for one command
    ("X=1; true | X=2; run $X", [["1"]]),
    ("false && echo a | run x; run end", [["end"]]),
    ("X=1; X=5 run $X", [["1"]]),
    # branches
    ("X=a; case $X in a) Y=1;& b) Y=2;; c) Y=3;; esac; run $Y", [["2"]]),
    ("X=a; case $X in a) Y=1;;& a*) Y+=2;; *) Y=3;; esac; run $Y", [["12"]]),
    ('X="*"; case abc in "$X") A=1;; *) A=2;; esac; run $A', [["2"]]),
    ('M=llama-70b; [[ $M == "llama"* ]] && X=1 || X=2; run $X', [["1"]]),
    ("Q=1; if [[ -v Q ]]; then X=1; else X=2; fi; run $X", [["1"]]),
    ("f() { return 1; }; if f; then X=1; else X=2; fi; run $X", [["2"]]),
    ("for i in 1 2 3; do for j in a b; do [[ $i == 2 ]] && break 2; L+=\"$i$j \"; done; done; run $L",
     [["1a", "1b"]]),
    # what is read once more
    ('CMD="run --a 1"; eval "$CMD --b 2"', [["--a", "1", "--b", "2"]]),
    ("CMD=\"run --a 'x y'\"; eval $CMD", [["--a", "x y"]]),
    ('N=TP; eval "$N=4"; export P$N=5; run $TP $PTP', [["4", "5"]]),
    ("cat > a.env <<EOF\nTP=4\nEOF\necho PP=2 >> a.env; . ./a.env; run $TP $PP", [["4", "2"]]),
    ('read -r A B <<< "4 2"; IFS=, read -ra P <<< "8,9"; run $A $B ${P[1]}', [["4", "2", "9"]]),
    ("time run a", [["a"]]),
    ("if (( ${D:-0} )); then X=1; else X=$(( ${D:-3} + 1 )); fi; run $X", [["4"]]),
    ("echo 'TP=$1' > l.sh; set -- 9; . ./l.sh 2; run $TP $1", [["2", "9"]]),
    ("bash <<'EOF'\nrun a\nEOF\nbash -c 'X=1; run $X'; run ${X:-none}", [["a"], ["1"], ["none"]]),
    ("x=1; x=2 & wait; run $x $((2**3**2)) {a..e..2}", [["1", "512", "a", "c", "e"]]),
)  # fmt: skip
# What is not worked out must not keep the value that it had.
NOT_KNOWN = (
    "TP=1; if grep -q big conf.yaml; then TP=4; fi; run $TP",
    "TP=1; nvidia-smi | grep -q H100 && TP=4; run $TP",
    "TP=1; if command -v nothing >/dev/null 2>&1; then TP=4; fi; run $TP",
    "TP=1; ./check.sh || TP=4; run $TP",
    "TP=1; if python -c 'import x'; then TP=4; fi; run $TP",
    "TP=1; printf -v TP '%s' 4; run $TP",
    "TP=1; f() { local -n R=$1; R=4; }; f TP; run $TP",
    "cat > a.env <<EOF\nTP=1\nEOF\nsed -i s/1/4/ a.env; . ./a.env; run $TP",
    "TP=1; if [ -d /tmp ]; then TP=4; fi; run $TP",
    "TP=1; [[ a =~ b ]] || TP=4; run $TP",
    'A=(1 2); A[$NOT_THERE]=3; run "${A[@]}"',
    "TP=1; ((TP+=NOT_THERE)); run $TP",
)


def followed(script: str) -> list[list[str]]:
    """The words of each `run`; `?` where one is not known."""
    found = follow(script, "s.sh", {}, None)
    return [
        ["?" if unknown_of(one) else text_of(one) for one in command.fields[1:]]
        for command in found.commands
        if text_of(command.fields[0]) == "run"
    ]


@pytest.mark.parametrize(("script", "expected"), SCRIPTS)
def test_words_are_those_that_bash_hands_over(
    script: str, expected: list[list[str]], tmp_path: Path
) -> None:
    assert followed(script) == expected
    if BASH:
        done = subprocess.run([BASH, "-c", RUN + script], capture_output=True, text=True, cwd=tmp_path,
                              timeout=20, check=False, env={"PATH": os.environ["PATH"]})  # fmt: skip
        assert [
            row.split("\x1f")[1:] for row in done.stdout.split("\x1e") if "\x1f" in row
        ] == expected


@pytest.mark.parametrize("script", NOT_KNOWN)
def test_what_is_not_worked_out_is_not_known(script: str) -> None:
    words = [word for row in followed(script) for word in row]
    assert "?" in words


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("run --x 1 \\ \n  --tp 4\n", "--tp begins a line of its own"),
        ("run --x 1 \\\n  # --y 2 \\\n  --tp 4\n", "--tp begins a line of its own"),
        ("IFS=,; X=1,2; run $X", "IFS is set"),
        ("TP=1; eval $(parse_yaml x.yaml); run $TP", "eval of what is not known"),
        ("TP=1; source <(python gen.py); run $TP", "a script that is not known is sourced"),
        ("TP=1; export $NOT_THERE=4; run $TP", "a variable whose name is not known is set"),
    ],
)
def test_what_a_shell_does_otherwise_is_said(script: str, said: str) -> None:
    assert any(words.startswith(said) for words, _ in follow(script, "s.sh", {}, None).remarks)
