"""The command line as a user meets it: verbs, options, exit statuses, and no tracebacks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def ersatz(*arguments: str, cwd: Path = ROOT, seed: str = "0") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run([sys.executable, "-m", "ersatz", *arguments], capture_output=True, text=True,
                          cwd=cwd, env=env, timeout=120)  # fmt: skip


SMALL = """# How long?
question: How long?
model: llama2-7b
cluster: {node: h800-8, nodes: 2}
training: {sequence_length: 4096, global_batch: 64, tokens: 1 T tokens}
parallel: {tp: 2, dp: 8}
cost: {rent: 27.5 CNY/h}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_verbs_and_options_are_frozen() -> None:
    verbs = re.findall(r"^  ([a-z]+)  ", ersatz("--help").stdout, re.M)
    assert verbs == [
        "run",
        "compare",
        "plan",
        "import",
        "export",
        "emulate",
        "fabric",
        "buy",
        "legal",
        "schedule",
        "validate",
        "anchor",
        "calibrate",
        "report",
        "serve",
        "devices",
        "list",
        "show",
    ]
    for verb, options in {
        "run": {
            "--json",
            "--out",
            "--set",
            "--seed",
            "--timer",
            "--calibration",
            "--attach",
            "--ops",
            "--stack",
            "--html",
            "--trace",
            "--ranks",
            "--help",
        },
        "plan": {
            "--json",
            "--out",
            "--set",
            "--seed",
            "--on",
            "--devices",
            "--by",
            "--budget",
            "--for",
            "--keep",
            "--most",
            "--memory",
            "--any",
            "--tokens",
            "--legal",
            "--to",
            "--workers",
            "--journal",
            "--mix",
            "--some",
            "--what-if",
            "--ray",
            "--shard",
            "--stack",
            "--html",
            "--help",
        },
        "export": {"--json", "--as", "--set", "--out", "--ranks", "--help"},
        "import": {
            "--json",
            "--node",
            "--set",
            "--define",
            "--args",
            "--out",
            "--against",
            "--help",
        },
        "compare": {"--json", "--out", "--set", "--seed", "--stack", "--html", "--help"},
        "emulate": {
            "--node",
            "--nodes",
            "--stack",
            "--ranks",
            "--steps",
            "--timer",
            "--calibration",
            "--attach",
            "--patience",
            "--seed",
            "--with",
            "--json",
            "--out",
            "--help",
        },
        "buy": {"--json", "--out", "--set", "--seed", "--prices", "--html", "--help"},
        "legal": {
            "--date",
            "--to",
            "--buyer",
            "--from",
            "--rules",
            "--units",
            "--watch",
            "--set",
            "--json",
            "--out",
            "--html",
            "--help",
        },
        "schedule": {
            "--policy",
            "--trace",
            "--door",
            "--judge",
            "--fleet",
            "--claims",
            "--slurm-conf",
            "--slurm-assoc",
            "--state-numbers",
            "--scheduler",
            "--endpoint",
            "--speed",
            "--exporter",
            "--twice",
            "--json",
            "--out",
            "--set",
            "--seed",
            "--html",
            "--timeline",
            "--help",
        },
        "serve": {"--port", "--json", "--help"},
        "report": {"--html", "--date", "--to", "--json", "--help"},
        "anchor": {"--json", "--set", "--stack", "--out", "--help"},
        "calibrate": {
            "--device",
            "--as",
            "--minutes",
            "--out",
            "--dtype",
            "--prove",
            "--from",
            "--json",
            "--seed",
            "--help",
            "--trace",
            "--models",
            "--links",
            "--table",
            "--ranks",
            "--per-node",
            "--soak",
            "--plain",
            "--pretend",
        },
        "fabric": {
            "--json",
            "--out",
            "--svg",
            "--set",
            "--seed",
            "--node",
            "--nodes",
            "--network",
            "--help",
        },
        "devices": {"--json", "--help"},
        "list": {"--json", "--help"},
        "show": {"--kind", "--json", "--help"},
        "validate": {
            "--json",
            "--out",
            "--oddities",
            "--held-out",
            "--memory",
            "--crashes",
            "--html",
            "--help",
        },
    }.items():
        text = ersatz(verb, "--help").stdout
        assert set(re.findall(r"--[a-z][a-z-]+", text.split("Example")[0])) == options
        assert "Example" in text
        assert f"ersatz {verb}" in text


def test_run_prints_a_report_of_100_columns(scenario: Path) -> None:
    done = ersatz("run", str(scenario))
    assert (done.returncode, done.stderr) == (0, "")
    assert "How long?" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout  # colour on a terminal only


def test_json_has_the_promised_keys(scenario: Path) -> None:
    data = json.loads(ersatz("run", str(scenario), "--json", "-").stdout)
    for part, keys in {
        "step": ("duration_s", "mfu", "hfu", "tokens_per_s_per_device", "breakdown", "low80_s"),
        "memory": ("peak_bytes", "capacity_bytes", "fits"),
        "job": ("wall_s", "device_hours", "goodput", "interruptions"),
        "cost": ("total", "currency", "per_trillion_tokens"),
        "energy": ("kwh", "carbon_kg"),
    }.items():
        assert set(keys) <= set(data[part])
    assert data["assumptions"]
    assert data["sources"]
    assert sum(data["step"]["breakdown"].values()) == pytest.approx(data["step"]["duration_s"])


@pytest.mark.heavy
def test_the_same_bytes_whatever_the_hash_seed(scenario: Path) -> None:
    first = ersatz("run", str(scenario), "--json", "-", seed="1").stdout
    assert first == ersatz("run", str(scenario), "--json", "-", seed="2").stdout
    other = ersatz("run", str(scenario), "--json", "-", "--seed", "5").stdout
    assert json.loads(other)["job"] != json.loads(first)["job"]


def test_out_writes_everything(scenario: Path, tmp_path: Path) -> None:
    assert ersatz("run", str(scenario), "--out", str(tmp_path / "o")).returncode == 0
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert {
        "result.json",
        "report.txt",
        "scenario.yaml",
        "step.csv",
        "breakdown.csv",
        "job.csv",
    } <= names
    rows = (tmp_path / "o" / "breakdown.csv").read_text().splitlines()
    assert rows[0] == "case,stage,cause,seconds"


def test_a_step_study_has_no_job(scenario: Path) -> None:
    scenario.write_text(SMALL.replace(", tokens: 1 T tokens", ""))
    data = json.loads(ersatz("run", str(scenario), "--json", "-").stdout)
    assert data["job"] is None
    assert data["cost"] is None


def test_infeasible_is_1_with_the_whole_report(scenario: Path) -> None:
    done = ersatz("run", str(scenario), "--set", "model=llama3-70b")
    assert done.returncode == 1
    assert "DOES NOT FIT" in done.stdout
    assert "infeasible: small does not fit into memory" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["run", "ling-plus-substitution", "--set", "x=1"], "unknown key"),
        (["devices", "h8000"], "did you mean 'h800'"),
        (["run"], "Missing argument"),
        (["fly"], "No such command"),
        (["fabric"], "expected a scenario, or --node"),
        (["fabric", "--node", "h800-8", "--network", "hpn8"], "did you mean 'hpn7'"),
        (
            ["fabric", "--node", "h800-8", "--set", "fabric.faults=[{part: leaf, at: [8]}]"],
            "the fabric has",
        ),
        (["run", "ling-plus-substitution", "--seed", "x"], "--seed"),
        (["validate", "nowhere.csv"], "cannot be read"),
    ],
)
def test_bad_input_is_2_without_a_traceback(arguments: list[str], words: str) -> None:
    done = ersatz(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_finished_result_is_not_lost(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for option, target in (("--out", "file/x"), ("--json", "missing/x.json")):
        done = ersatz("run", str(scenario), option, str(tmp_path / target))
        assert done.returncode == 3
        assert "How long?" in done.stdout
        assert "cannot be written" in done.stderr


def test_compare_puts_scenarios_side_by_side(scenario: Path) -> None:
    other = scenario.with_name("other.yaml")
    other.write_text(SMALL.replace("h800-8", "ascend-910b2-8").replace("27.5", "7"))
    done = ersatz("compare", str(scenario), str(other))
    assert done.returncode == 0
    assert "small" in done.stdout
    assert "other" in done.stdout
    assert "%)" in done.stdout


def test_currencies_are_never_mixed(scenario: Path) -> None:
    other = scenario.with_name("other.yaml")
    other.write_text(
        SMALL.replace("27.5 CNY/h", "2 USD/h").replace("cost: {", "cost: {currency: USD, ")
    )
    lines = ersatz("compare", str(scenario), str(other)).stdout.splitlines()
    cost = next(line for line in lines if line.startswith("cost"))
    assert "CNY" in cost
    assert "USD" in cost
    assert "(" not in cost  # no difference between amounts of different currencies


def test_devices_lists_and_explains(tmp_path: Path) -> None:
    listing = ersatz("devices").stdout
    assert "h800" in listing
    assert all(len(line) <= 100 for line in listing.splitlines())
    explained = ersatz("devices", "ppu-810e").stdout
    assert "120 TFLOP/s" in explained
    assert "arXiv 2503.05139" in explained
    assert len(json.loads(ersatz("devices", "--json", "-").stdout)) >= 35
    own = tmp_path / "mine.yaml"
    own.write_text("based_on: h100\ntitle: Mine\n")
    assert "Mine (mine)" in ersatz("devices", str(own)).stdout


def test_version() -> None:
    assert re.match(r"ersatz \d+\.\d+", ersatz("--version").stdout)
