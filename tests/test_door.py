"""The public door: `import ersatz` as somebody meets it who has installed a wheel, or sits in a notebook."""

import html
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

import ersatz
from ersatz.sim.answers.answer import by_name, override_texts
from ersatz.sim.finding.shelves import SHELVES, find_entry
from ersatz.sim.report.tables.html import html as as_html

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ["Answer", "InfeasibleError", "InputError", "Problem", "RunResult", "Scenario", "anchor", "buy",
          "catalogue", "compare", "devices", "emulate", "export", "legal", "load", "plan", "read_launch",
          "report", "run", "schedule", "show", "trace"]  # fmt: skip


def stored(name: str) -> str:
    [path] = (ROOT / "scenarios").rglob(f"{name}.out")
    return path.read_text().rstrip("\n")


def test_public_names_are_frozen_and_explained() -> None:
    assert ersatz.__all__ == PUBLIC
    assert set(dir(ersatz)) == {*PUBLIC, "__version__"}
    for name in PUBLIC:
        assert len(getattr(ersatz, name).__doc__) > 30, name
    assert re.fullmatch(r"\d+\.\d+\.\d+", ersatz.__version__)
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        _ = ersatz.fly


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("run", "ling-plus-substitution"),
        ("buy", "stockpile"),
        ("buy", "two-gates"),
        ("buy", "domestic-ramp"),
        ("buy", "cheap-power"),
        ("legal", "devices-by-date"),
        ("schedule", "crosscheck"),
    ],
)
def test_an_answer_reads_as_the_command_prints_it(verb: str, name: str) -> None:
    answer = getattr(ersatz, verb)(name)
    assert str(answer) == stored(name)
    assert answer.feasible
    assert json.loads(answer.to_json()) == json.loads(json.dumps(answer.to_dict()))
    assert list(answer) == list(dict(answer)) != []


def test_an_answer_is_a_mapping_from_case_to_record() -> None:
    answer = ersatz.run(ersatz.load("ling-plus-substitution"))
    assert list(answer) == ["h800", "ascend-910b"]
    assert repr(answer) == "<ersatz run: h800, ascend-910b>"
    step = answer["h800"].step
    assert answer.to_dict()["cases"]["h800"]["step"]["duration_s"] == step.duration_s
    with pytest.raises(AttributeError):
        step.duration_s = 1.0
    with pytest.raises(KeyError, match="expected one of h800, ascend-910b"):
        _ = answer["h8000"]


def test_overrides_are_those_of_the_command_line() -> None:
    given = {
        "parallel": {"tp": 2},
        "cost.rent": "7 CNY/h",
        "job.replicas": 8,
        "fabric.contention": True,
    }
    assert override_texts(given) == [
        'parallel={  "tp": 2 }', "cost.rent=7 CNY/h", "job.replicas=8", "fabric.contention=true"
    ]  # fmt: skip
    [case] = ersatz.load(
        "llama3-70b-mi300x", {"training.global_batch": 128, "job.replicas": 3}, seed=5
    )
    assert (case.training.global_batch, case.job.replicas, case.seed) == (128, 3, 5)
    with pytest.raises(TypeError, match="belong to load"):
        ersatz.run(case, {"training.global_batch": 64})


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ersatz.InputError, match="unknown key"):
        ersatz.run("ling-plus-substitution", ["x=1"])
    with pytest.raises(ersatz.InputError, match="did you mean 'h800'"):
        ersatz.show("h8000")
    tight = ersatz.run(
        "llama3-70b-mi300x", {"training.micro_batch": 64, "training.global_batch": 8192}
    )
    assert not tight.feasible
    assert tight.reasons[0].startswith("infeasible: llama3-70b-mi300x does not fit into memory")


def test_names_that_come_twice_lose_nothing() -> None:
    assert by_name([("a", 1), ("a", 2), ("a (2)", 3)]) == {"a": 1, "a (2)": 2, "a (2) (2)": 3}
    twice = ersatz.compare("llama3-70b-mi300x", "llama3-70b-mi300x")
    assert list(twice) == ["llama3-70b-mi300x", "llama3-70b-mi300x (2)"]


class Tags(HTMLParser):
    """Notes the tags that are open, and fails where one is closed that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_a_notebook_shows_the_same_tables() -> None:
    answer = ersatz.run("ling-plus-substitution")
    text, report = answer._repr_html_(), str(answer)
    first, _, whole = text.partition("<details>")
    step, low, high = re.search(  # the first screen of the page; the report is folded below
        r"^step +(\S+ s).*\n.*interval +(\S+ s) - (\S+ s)", report, re.M
    ).groups()  # type: ignore[union-attr]
    assert f"<b>{step}</b>" in first
    assert f"80 %: {low} – {high}" in first
    tags = Tags()
    tags.feed(whole.removesuffix("</details></div>"))
    assert tags.open == []
    rows = report.split("\n\n")[1].splitlines()
    table = [re.split(r" {2,}", row.strip()) for row in rows]
    assert len(table) > 10
    assert {cell for row in table for cell in row} <= {inside.strip() for inside in tags.cells}
    for cell in tags.cells:
        assert cell.strip().split()[0] in report
    assert not re.search(
        r"https?://|<script|src=|#[0-9a-f]{3,6}\b|rgb\(", text
    )  # loads and paints nothing


def test_html_is_escaped_and_keeps_what_it_does_not_know() -> None:
    table = Table("<b>", title="<i>")
    table.add_row("a & b")
    text = as_html(Group(Text("<script>", style="bold"), table, "x < y"))
    assert "<script>" not in text
    for words in ("<script>", "<b>", "<i>", "a & b", "x < y"):
        assert html.escape(words) in text


def test_everything_that_is_listed_can_be_shown_with_its_sources() -> None:
    for kind, shelf in SHELVES.items():
        listed = ersatz.catalogue(kind)
        assert len(listed) > 5
        for name, line in listed.items():
            entry = find_entry(name, kind)
            assert (entry.kind, bool(entry.title)) == (kind, True)
            assert "\n" not in line
            assert line
            for fact in entry.facts:
                assert fact.source, (name, fact.key)
        assert all(len(row) <= 100 for row in str(listed).splitlines())
        assert [row["name"] for row in listed.to_dict()] == shelf.names()


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("H800", None, "devices"),
        ("us-2025-04-h20", None, "rules"),
        ("nemo", None, "stacks"),
        ("rent", None, "prices"),
        ("fgd", None, "schedulers"),
        ("two-gates", None, "scenarios"),
        ("RTX 4090", None, "parts"),
        ("gb200-nvl72", "node", "nodes"),
    ],
)
def test_the_kind_of_a_name_is_guessed(name: str, kind: str | None, found: str) -> None:
    assert find_entry(name, kind).kind == found


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("gb200-nvl72", None, "is among devices and nodes: say which by --kind"),
        ("./mine.yaml", None, "cannot be read: there is no such file"),
        (__file__, None, "is a path: say by --kind"),
        ("deepsek-v3", None, "did you mean 'deepseek-v3'"),
        ("h800", "models", "is not among the models"),
        ("h800", "modles", "did you mean 'models'"),
    ],
)
def test_what_is_not_found_is_said(name: str, kind: str | None, words: str) -> None:
    with pytest.raises(ersatz.InputError, match=re.escape(words)):
        find_entry(name, kind)


def test_a_file_of_ones_own_is_shown(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("layers: 2\nhidden: 64\nheads: 4\nvocab: 100\n")
    shown = str(ersatz.show(str(own), "models"))
    assert "mine" in shown.splitlines()[0]
    assert re.search(r"^hidden +64 +line 2$", shown, re.M)


@pytest.mark.heavy
def test_the_readme_runs_from_a_wheel_beside_a_sim_of_ones_own(tmp_path: Path) -> None:
    """Nothing of the clone is reachable, and a `sim.py` in the folder disturbs nothing."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, timeout=300)
    [wheel] = tmp_path.glob("ersatz-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ersatz", next(top for top in tops if top.endswith(".dist-info"))}
    assert "ersatz/py.typed" in names
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("sim", "device_models", "scenarios"):
        (elsewhere / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    asked = 'import ersatz\nprint(ersatz.__file__)\nprint(ersatz.run("ling-plus-substitution"))\n'
    done = outside(site, elsewhere, "-c", asked)
    place, _, report = done.partition("\n")
    assert place == str(site / "ersatz" / "__init__.py")
    assert report.rstrip("\n") == stored("ling-plus-substitution")
    assert "h800" in outside(site, elsewhere, "-c", code[1])
    assert outside(site, elsewhere, "-m", "ersatz", "--version").startswith("ersatz ")


def outside(site: Path, folder: Path, *words: str) -> str:
    """Run Python in a folder with the wheel and the dependencies, and without this clone."""
    start = f"""
import runpy, sys
sys.path[:] = [p for p in sys.path if p not in ("", {str(ROOT)!r})]
sys.path[:0] = [{str(folder)!r}, {str(site)!r}]
sys.path.append({sysconfig.get_path("purelib")!r})
kind, what, *more = {list(words)!r}
sys.argv = [what, *more] if kind == "-m" else ["-c"]
runpy.run_module(what, run_name="__main__") if kind == "-m" else exec(what)
"""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-S", "-c", start], cwd=folder, env=env, text=True,
                          capture_output=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
