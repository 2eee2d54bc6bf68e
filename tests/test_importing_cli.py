"""`ersatz import`, `ersatz export` and `ersatz run` of a launch file on the command line."""

import json
from pathlib import Path

import pytest

import ersatz
from ersatz.sim.cli.app import Failure, invoke
from ersatz.sim.errors import InputError

SCRIPT = """#!/bin/bash
torchrun --nproc_per_node 8 --nnodes ${NODES:-1} pretrain_gpt.py --num-layers 4 --hidden-size 1024 \\
  --num-attention-heads 8 --seq-length 1024 --micro-batch-size 1 --global-batch-size 16 --bf16 \\
  --vocab-size 1024 --swiglu --ffn-hidden-size 2816 --use-distributed-optimizer --unheard-of 7
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "t.sh"
    path.write_text(SCRIPT)
    return path


def test_import_prints_the_scenario_and_what_is_missing(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["import", str(script)]) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert first == "t.sh: megatron-sh; 8 devices (8 per machine); 1 to answer"
    assert "cluster.node: the file does not name a machine" in out
    assert "layers: 4" in out
    assert "--unheard-of 7 (line 2)" in out or "--unheard-of 7 (line 4)" in out
    assert max(map(len, out.splitlines())) <= 100


def test_json_has_what_the_table_has(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoke(["import", str(script), "--json", "-", "--node", "h100-8", "--define", "NODES=2"])
    record = json.loads(capsys.readouterr().out)
    keys = "format version scenario devices devices_per_node measured_step_s measured_from read assumed"
    assert set(record) >= {*keys.split(), "not_modelled", "ignored", "questions"}
    assert (record["devices"], record["scenario"]["cluster"]) == (
        16,
        {"nodes": 2, "node": "h100-8"},
    )
    assert {"flag": "--unheard-of", "value": "7", "line": 4, "effect": "unknown"} in record[
        "not_modelled"
    ]
    assert {"flag": "--num-layers", "value": "4", "line": 2, "key": "model.layers"} in record[
        "read"
    ]


def test_a_contradiction_is_infeasible_and_the_rest_is_printed(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.write_text(SCRIPT.replace("--bf16", "--bf16 --tensor-model-parallel-size 3"))
    with pytest.raises(Failure) as caught:
        invoke(["import", str(script), "--json", "-"])
    assert caught.value.status == 1
    assert json.loads(capsys.readouterr().out)["wrong"]


def test_what_was_written_runs_and_nothing_else_is_overwritten(
    script: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine.yaml"
    invoke(["import", str(script), "--node", "h100-8", "--out", str(out)])
    assert out.read_text().startswith("question: ")
    assert ersatz.run(out)["mine"].step.duration_s == ersatz.run(
        script, {"cluster.node": "h100-8"})["t"].step.duration_s  # fmt: skip
    with pytest.raises(Failure, match="expected another file"):
        invoke(["import", str(script), "--out", str(script)])
    assert script.read_text() == SCRIPT


def test_run_of_a_script_with_questions_names_them(script: Path) -> None:
    with pytest.raises(InputError, match=r"cluster.node: .*answer it: --set cluster.node="):
        invoke(["run", str(script)])


def test_run_says_what_was_assumed_and_left_out(script: Path) -> None:
    (case,) = ersatz.load(script, {"cluster.node": "h100-8"})
    said = " ".join(case.assumptions)
    assert "$NODES is taken as '1', the script's default" in said
    assert "--unheard-of 7 (line 4) is not modelled: unknown" in said


def test_export_gives_the_text_as_it_is(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoke(["export", str(script), "--as", "megatron", "--set", "cluster.node=h100-8"])
    out = capsys.readouterr().out
    assert out.startswith("#!/bin/bash\n")
    assert "    --ffn-hidden-size 2816\n" in out
    (again,) = (script.parent / "again.sh",)
    again.write_text(out)
    a, b = (ersatz.load(p, {"cluster.node": "h100-8"})[0] for p in (script, again))
    assert (a.parallel, a.training) == (b.parallel, b.training)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--define", "X"], "expected NAME=VALUE"),
        (["--args", "'"], "--args"),
        (["--set", "x"], "key=value"),
    ],
)
def test_bad_options_are_told(script: Path, words: list[str], expected: str) -> None:
    with pytest.raises((Failure, InputError), match=expected):
        invoke(["import", str(script), *words])
