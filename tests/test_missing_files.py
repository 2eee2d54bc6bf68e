"""Whatever takes the name of a file says of one that is not there, is a folder or a pipe, that it is so.

Each verb and each option that takes a file stands here, and so does each key of a file that names
another; that none is left out is read from the verbs themselves.
"""

import json
import os
from pathlib import Path

import pytest
from fuzz import seeds
from test_cli import SMALL

from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.text.problems import InputError
from ersatz.sim.cli import _status
from ersatz.sim.cli.app import _commands

# what an option is asked together with
CONF = "NodeName=n[1-6] Gres=gpu:8\nPartitionName=p Nodes=n[1-6] Default=YES\n"
STEP = {
    "traceEvents": [
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 10.0 * i, "dur": 9.0, "pid": 0, "tid": 7,
         "args": {"stream": 7, "device": 0}} for i in range(3)
    ],
    "deviceProperties": [{"name": "NVIDIA H100 80GB HBM3", "totalGlobalMem": 85_000_000_000}],
}  # fmt: skip

# FILE is the file that is not there
ASKED = {
    ("run", "scenario"): ("run", "FILE"),
    ("run", "--calibration"): ("run", "s.yaml", "--timer", "table", "--calibration", "FILE"),
    ("run", "--set"): ("run", "s.yaml", "--set", "model=FILE"),
    ("compare", "scenarios"): ("compare", "s.yaml", "FILE"),
    ("compare", "--set"): ("compare", "s.yaml", "--set", "stack=FILE"),
    ("plan", "scenario"): ("plan", "FILE"),
    ("plan", "--stack"): ("plan", "s.yaml", "--stack", "FILE"),
    ("plan", "--set"): ("plan", "s.yaml", "--set", "model=FILE"),
    ("plan", "--on"): ("plan", "s.yaml", "--on", "FILE"),
    ("plan", "--journal"): ("plan", "s.yaml", "--journal", "new.db", "--journal", "FILE"),
    ("fabric", "scenario"): ("fabric", "FILE"),
    ("fabric", "--node"): ("fabric", "--node", "FILE"),
    ("fabric", "--network"): ("fabric", "--node", "h800-8", "--network", "FILE"),
    ("fabric", "--set"): ("fabric", "s.yaml", "--set", "cluster.network=FILE"),
    ("buy", "scenario"): ("buy", "FILE"),
    ("buy", "--prices"): ("buy", "b.yaml", "--prices", "FILE"),
    ("buy", "--set"): ("buy", "b.yaml", "--set", "jobs.train.plans=FILE"),
    ("legal", "devices"): ("legal", "h20", "FILE"),
    ("legal", "--rules"): ("legal", "h20", "--rules", "FILE"),
    ("schedule", "scenario"): ("schedule", "FILE"),
    ("schedule", "--policy"): ("schedule", "f.yaml", "--policy", "FILE"),
    ("schedule", "--trace"): ("schedule", "f.yaml", "--trace", "FILE"),
    ("schedule", "--set"): ("schedule", "f.yaml", "--set", "jobs.trace=FILE"),
    ("validate", "table"): ("validate", "FILE"),
    ("validate", "--crashes"): ("validate", "--memory", "--crashes", "FILE"),
    ("run", "--stack"): ("run", "s.yaml", "--stack", "FILE"),
    ("compare", "--stack"): ("compare", "s.yaml", "--stack", "FILE"),
    ("anchor", "runs"): ("anchor", "FILE"),
    ("calibrate", "--table"): ("calibrate", "--as", "h800", "--table", "FILE"),
    ("calibrate", "--from"): ("calibrate", "--from", "FILE", "--as", "h800"),
    ("devices", "name"): ("devices", "FILE"),
    ("show", "name"): ("show", "FILE"),
    ("import", "files"): ("import", "FILE"),
    ("export", "scenario"): ("export", "FILE", "--as", "megatron"),
    ("schedule", "--judge"): ("schedule", "--judge", "FILE"),
    ("import", "--against"): ("import", "step.json", "--against", "FILE"),
    ("schedule", "--slurm-assoc"): (
        *("schedule", "f.yaml", "--door", "slurm", "--slurm-conf", "slurm.conf"),
        *("--slurm-assoc", "FILE"),
    ),
    ("schedule", "--slurm-conf"): ("schedule", "f.yaml", "--door", "slurm", "--slurm-conf", "FILE"),
    ("report", "results"): ("report", "FILE"),
    ("schedule", "--fleet"): ("schedule", "--judge", "log.csv", "--fleet", "FILE"),
}
# ... and what takes no file to read: words, numbers, places to write to
NO_FILES = {
    "--json", "--out", "--svg", "--seed", "--nodes", "--date", "--to", "--buyer", "--door", "--scheduler",
    "--endpoint", "--speed", "--twice", "--oddities", "--held-out", "--device", "--as", "--minutes",
    "--claims", "--html",
    "--dtype", "--memory", "--watch", "--ranks", "--attach", "--help", "--kind", "--ops", "--timer",
}  # fmt: skip
NO_FILES_OF = {
    ("anchor", "--set"),
    ("calibrate", "--models"),
    ("calibrate", "--per-node"),
    *(
        ("plan", option)
        for option in (
            "--devices",
            "--by",
            "--budget",
            "--for",
            "--keep",
            "--most",
            "--any",
            "--tokens",
            "--legal",
            "--workers",
            "--what-if",
            "--shard",
        )
    ),
    ("emulate", "--node"),
    ("emulate", "--patience"),
    ("emulate", "--steps"),
    ("export", "--set"),
    ("import", "--args"),
    ("import", "--define"),
    ("import", "--node"),
    ("import", "--set"),
    # emulate asks for PyTorch first: tests/test_emulate.py
    ("emulate", "--calibration"),
    ("emulate", "--stack"),
    ("emulate", "script"),
    ("calibrate", "--plain"),
    ("calibrate", "--soak"),
    ("calibrate", "--trace"),
    ("calibrate", "--pretend"),
    ("legal", "--units"),
    ("calibrate", "--links"),
    ("anchor", "--stack"),
    ("legal", "--from"),
    ("legal", "--set"),
    ("list", "kind"),
    ("emulate", "--with"),
    *(
        ("plan", f"--{name}")
        for name in (
            "any",
            "budget",
            "by",
            "devices",
            "for",
            "keep",
            "legal",
            "mix",
            "most",
            "ray",
            "shard",
            "some",
            "tokens",
            "workers",
        )
    ),
    ("run", "--trace"),  # a place to write to
    ("schedule", "--timeline"),
    ("schedule", "--state-numbers"),
    ("schedule", "--exporter"),
    ("serve", "--port"),
    ("calibrate", "--prove"),
}
KINDS = ("/no/such.yaml", "/no/such.csv", "/no/such.json", "no/such.py", "no/such")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"step.json": json.dumps(STEP), "slurm.conf": CONF,
                       "s.yaml": SMALL, "b.yaml": seeds.BUY, "plans.yaml": seeds.NAMED,
                       "f.yaml": seeds.TRACED, "itself.csv": seeds.TRACES["csv"][1]}.items():  # fmt: skip
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_that_takes_a_file_is_left_out() -> None:
    found = {
        (verb, next((o for o in parameter.opts if o.startswith("--")), parameter.name))
        for verb, command in _commands().commands.items()
        for parameter in command.params
    }
    assert {(verb, name) for verb, name in found if name not in NO_FILES} - NO_FILES_OF == set(
        ASKED
    )


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_a_file_that_is_not_there(
    asked: tuple[str, str], name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = _status([word.replace("FILE", name) for word in ASKED[asked]], debug=False)
    said = capsys.readouterr().err
    assert status == 2
    assert "no such file" in said.lower(), said
    assert name.removeprefix("./") in said


@pytest.mark.parametrize("what", ["folder", "pipe", "/dev/zero"])
@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_what_is_no_file_is_not_waited_for(
    asked: tuple[str, str], what: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(f"it-{what}")
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    name = what if what.startswith("/") else f"./{path}"
    assert _status([word.replace("FILE", name) for word in ASKED[asked]], debug=False) == 2
    assert name.removeprefix("./") in capsys.readouterr().err


INSIDE = {
    "model": ("run", SMALL.replace("llama2-7b", "FILE")),
    "node": ("run", SMALL.replace("h800-8", "FILE")),
    "network": ("fabric", SMALL.replace("nodes: 2", "nodes: 2, network: FILE")),
    "stack": ("run", f"{SMALL}stack: FILE\n"),
    "a device of a question": ("legal", "dates: [2025-03-24]\ndevices: [FILE]\n"),
    "rules of a question": ("legal", "dates: [2025-03-24]\ndevices: [h20]\nrules: {file: FILE}\n"),
    "a trace": ("schedule", seeds.TRACED.replace("itself.csv", "FILE")),
    "plans": ("buy", seeds.BUY.replace("train: {", "train: {plans: FILE, ")),
}


@pytest.mark.parametrize("key", INSIDE)
def test_a_file_that_a_file_names_is_not_there(
    key: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, text = INSIDE[key]
    assert "FILE" in text
    (place / "x.yaml").write_text(text.replace("FILE", "./no/such.yaml"), "utf-8")
    assert _status([verb, "x.yaml"], debug=False) == 2
    said = capsys.readouterr().err
    assert "no such file" in said.lower(), said
    assert "no/such.yaml" in said


def test_a_device_that_a_node_names_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    for line in ("device: ./no/such.yaml", "based_on: ./no/such.yaml"):
        path.write_text(f"{line}\n", "utf-8")
        with pytest.raises(InputError, match=r"(?i)no such file"):
            load_node(str(path))
