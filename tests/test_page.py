"""A report as one HTML file: it says what the record says, is safe, small, and needs nothing else."""

import json
import re
import shutil
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ersatz
from ersatz.sim.answers.cases import run
from ersatz.sim.cli.output import captured
from ersatz.sim.report.page.markup import bars, said, stacked, table
from ersatz.sim.report.page.page import asset, script_hash
from ersatz.sim.report.page.pictures import checked, within
from tests.test_recorded_steps import KINETO, written

ROOT = Path(__file__).resolve().parents[1]
VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """Notes words, ids and what would be loaded; fails where a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        assert not [k for k, _ in attrs if k.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A result folder and its page, made by one command."""
    folder = tmp_path_factory.mktemp("page")
    captured(["run", "ling-plus-substitution", "--out", str(folder / "out"), "--html",
              str(folder / "run.html"), "--json", str(folder / "run.json")])  # fmt: skip
    return folder, (folder / "run.html").read_text()


def test_the_first_screen_says_what_the_record_says(step: tuple[Path, str]) -> None:
    folder, page = step
    record = json.loads((folder / "run.json").read_text())
    first = page.split("<section")[0]
    case = record["cases"]["ascend-910b"]
    assert f"<b>{case['step']['duration_s']:.2f} s</b>" in first
    assert f"<b>{case['cost']['total'] / 1e6:.2f} M CNY</b>" in first
    stored = (ROOT / "scenarios/ling-plus-substitution.out").read_text()

    def cells(row: str) -> list[str]:
        found = re.search(rf"^ *{row} {{2,}}(.*)", stored, re.M)
        assert found
        return re.split(r" {2,}", found[1])

    for cell in re.findall(r"interval +(\S+ s) - (\S+ s) +(\S+ s) - (\S+ s)", stored)[0]:
        assert cell in first
    for wide in cells("made wide by"):
        assert wide.replace(",", " %,") in first
    for fits in cells("memory"):
        assert f"fits: {fits.removesuffix(': fits')}" in first
    assert "denied to CN" in first  # the law of an H800
    start, low, high = map(
        date.fromisoformat,
        re.search(r"if it starts on (\S+); 80 %: (\S+) – ([\d-]+)", first).groups(),
    )  # type: ignore[union-attr]
    shortest, longest = re.findall(r"interval +(\S+) days - (\S+) days", stored)[0]
    assert (low - start).days == pytest.approx(float(shortest), abs=1)
    assert (high - start).days == pytest.approx(float(longest), abs=1)
    assert case["setting"]["pools"][0]["device"] == "ascend-910b2"


def test_a_page_needs_nothing_and_runs_only_its_own_script(step: tuple[Path, str]) -> None:
    _, page = step
    found = Reader(page)
    assert [load for load in found.loads if not load.startswith("a href=#")] == []
    assert set(re.findall(r"url\(.{7}", page)) <= {"url(#stripe"}
    assert "@import" not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert scripts == [asset("page.js")]
    assert f"script-src {script_hash(scripts[0])}" in page
    assert "default-src 'none'" in page
    assert len(page.encode()) < 1_000_000
    for must in (
        "prefers-color-scheme:dark",
        "@media print",
        "max-width:480px",
        "width=device-width",
    ):
        assert must in page


def test_sections_tell_where_the_time_goes_and_what_was_assumed(step: tuple[Path, str]) -> None:
    folder, page = step
    record = json.loads((folder / "run.json").read_text())
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    for head in ("Where the time goes", "The stages over a step", "Memory", "The job", "Money", "Energy",
                 "Published beside predicted", "Assumed", "Sources"):  # fmt: skip
        assert f"h800: {head}" in heads
    assert "Law over time" in heads
    words = set(Reader(page).words)
    assert set(record["assumptions"]) <= words
    # the parts of every row of the interactive picture are those of the record, to four digits
    rows = re.findall(r'data-parts="([^"]*)"', page)
    first = dict(part.split("=") for part in rows[0].split(";"))
    for kind, seconds in record["step"]["by_stage"][0].items():
        if seconds > 0:
            assert float(first[kind]) == pytest.approx(seconds, rel=1e-3)


def test_report_of_a_folder_is_the_page_of_the_run(step: tuple[Path, str]) -> None:
    folder, page = step
    text = captured(["report", str(folder / "out"), "--html", str(folder / "again.html")])
    assert text.splitlines()[0].startswith("What does it cost to train Ling-Plus")
    again = (folder / "again.html").read_text()
    assert Reader(again).words[:60] == Reader(page).words[:60]
    assert again.count('role="img"') == page.count('role="img"')  # the folder's pictures are there
    # the bare record has no pictures of its own but says the same
    alone = ersatz.report(folder / "run.json")
    assert Reader(alone.html).words[1:40] == Reader(page).words[1:40]
    both = ersatz.report(folder / "run.json", folder / "out", date="2023-01-01", to="China")
    assert both.html.count("<h1>") == 1
    assert "if it starts on 2023-01-01" in both.html
    assert "on 2023-01-01: no licence needed" in both.html  # the H800 was free then


def test_the_same_bytes_again(step: tuple[Path, str]) -> None:
    folder, page = step
    captured(["run", "ling-plus-substitution", "--html", str(folder / "twice.html")])
    assert (folder / "twice.html").read_text() == page


def test_hostile_words_are_shown_and_do_nothing() -> None:
    evil = '</title><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31m\u202e & "'
    case = ersatz.load("qwen2.5-72b-16x80")[0]
    import dataclasses

    case = dataclasses.replace(case, question=evil, name=evil, assumptions=(evil,))
    page = run(case).to_html()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    Reader(page)


def test_foreign_pictures_are_left_out() -> None:
    rect = '<rect class="paper" width="1" height="1" fill="url(#stripe0)"/>'
    good = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">{rect}</svg>'
    assert "rect" in checked(good)
    for bad in (
        good.replace("<rect", "<script>alert(1)</script><rect"),
        good.replace("<rect", '<rect onload="x()"'),
        good.replace("<rect", '<a href="javascript:x"/><rect'),
        good.replace("<rect", "<style>*{}</style><rect"),
        good.replace("<rect", '<image href="http://x"/><rect'),
        good.replace("url(#stripe0)", "url(http://x/y)"),
        good.replace("<svg", "<!DOCTYPE x [<!ENTITY a 'b'>]><svg"),
        good.replace("<rect", "<foreignObject/><rect"),
        "<svg", "",
    ):  # fmt: skip
        assert checked(bad) == ""
    kept, left = within({"a": "x" * 10, "b": "x" * 90, "c": "x" * 20}, 40)
    assert (list(kept), left) == (["a", "c"], ["b"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("{}", "expected a result that --json wrote"),
        ("[1]", "expected a result that --json wrote"),
        ('{"step": {}, "memory": 1, "question": "x"}', "is no whole result of ersatz"),
        ('{"cases": {"a": {"verdicts": 3, "courses": {}}}}', "is no whole result of ersatz"),
        ('{"cases": {"a": 1}, "notice": ""}', "is no whole result of ersatz"),
        ('{"best": 1, "plans": []}', "is no whole result of ersatz"),
        ('{"policies": [], "definitions": {}}', "is no whole result of ersatz"),
        ('{"rows": 1, "summary": {}}', "is no whole result of ersatz"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(ersatz.InputError, match=expected):
        ersatz.report(file)
    with pytest.raises(ersatz.InputError, match="expected a folder that --out wrote"):
        ersatz.report(tmp_path)


def test_a_page_never_replaces_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes")
    text = captured(["legal", "h20", "--date", "2025-03-24", "--html", str(tmp_path / "notes.txt")])
    assert "holds something else than HTML" in " ".join(text.split())
    assert (tmp_path / "notes.txt").read_text() == "my notes"


def test_law_by_day_and_by_table(tmp_path: Path) -> None:
    few = ersatz.legal("h20", "h800", dates=["2025-03-24", "2025-04-23"]).to_html()
    first = few.split("<section")[0]
    assert first.count('<article class="card">') == 2
    assert "letter" in first
    assert "US-2025-04-H20" in first
    many = ersatz.legal("all", dates=["2025-03-24", "2025-04-23"]).to_html()
    assert "<table>" in many.split("<section")[0]
    assert "CN-2025-11-STATE-DC" not in re.findall(r"<h2>(.*?)</h2>", many)
    Reader(many)
    Reader(few)


def test_a_purchase_says_what_to_buy_what_comes_and_what_turns_it() -> None:
    answer = ersatz.buy("two-gates")
    case = answer.to_dict()["cases"]["two-gates"]
    page = answer.to_html()
    first = page.split("<section")[0]
    [order] = case["plan"]["orders"]
    assert f"{order['nodes']:,.0f} h200 nodes ({order['date']})" in first
    assert f"done in {max(case['as_planned']['finish_months']):.1f} months" in first
    assert f"{100 * case['monte_carlo']['finished']:.0f} % of 200 lives end" in first
    assert "law: h200" in first
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    for head in (
        "What would turn this answer",
        "Working devices by chance",
        "What matters",
        "What may leave, and when",
    ):
        assert head in heads
    for name in ("rent-or-buy", "stockpile", "domestic-ramp"):
        other = ersatz.buy(name).to_html()
        assert '<article class="card">' in other
        Reader(other)
    Reader(page)


def test_a_plan_says_the_best_layout_and_what_proves_it() -> None:
    answer = ersatz.plan("llama3-70b-mi300x")
    record, page = answer.to_dict(), answer.to_html()
    first = page.split("<section")[0]
    assert f"<b>{record['best']['result']['step']['duration_s']:.2f} s</b>" in first
    assert f"of {record['best']['search']['layouts']:,} layouts" in first
    assert page.count("micro-batch") > len(record["plans"])
    Reader(page)


def test_predicted_against_measured(tmp_path: Path) -> None:
    table_text = (
        Path(ersatz.__file__).parent / "device_models/data/measured/training_runs.csv"
    ).read_text()
    runs = tmp_path / "runs.csv"
    runs.write_text("".join(line + "\n" for line in table_text.splitlines()[:4]))
    captured(["validate", str(runs), "--html", str(tmp_path / "v.html")])
    page = (tmp_path / "v.html").read_text()
    Reader(page)
    assert "Predicted against measured" in page
    assert "in the median" in page
    assert "--html: expected without" in captured(
        ["validate", "--memory", "--html", str(tmp_path / "w.html")]
    )


def test_parts_of_a_page() -> None:
    assert said("<a & \x1bb>") == "&lt;a &amp; b&gt;"
    # 3 of 6 is half of the longest bar; nothing is drawn of nothing
    drawn = bars([("a", 6.0, "6 s"), ("b", 3.0, "3 s"), ("c", 0.0, "")])
    assert re.findall(r"width:([\d.]+)%", drawn) == ["100.0", "50.0"]
    assert "c" not in re.findall(r'row">(\w)', drawn)
    split = stacked([("s", {"x": 1.0, "y": 3.0})], ["x", "y"], "s")
    assert re.findall(r"width:([\d.]+)%", split) == ["25.00", "75.00"]
    assert "4 s" in split
    assert table(("a", "b"), [(1, 2)], right=(1,)).count("class=r") == 2


def test_dates_beyond_the_calendar_are_said() -> None:
    from ersatz.sim.report.page.material import Material
    from ersatz.sim.report.page.run_page import _done_by

    fact = _done_by(Material("run", {}, day=date(2026, 1, 1)), 86400.0, 1.0, 1e15)
    assert fact.value == "2026-01-02"
    assert "after the year 9999" in fact.more


@pytest.mark.heavy
def test_the_commands_of_its_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs/page.md").read_text()
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()
    ]
    monkeypatch.chdir(tmp_path)
    for name, rank in (("trace", 3), ("rank0", 0), ("rank8", 8)):  # of a run of one's own
        about = {"rank": rank, "world_size": 16}
        written(tmp_path, {**KINETO, "distributedInfo": about}, f"{name}.json.gz")
    own = {path.name for path in tmp_path.iterdir()} | {"mine.yaml"}
    shutil.copy(ROOT / "scenarios/qwen2.5-72b-16x80.yaml", tmp_path / "mine.yaml")
    assert lines[-1] == "ersatz serve"  # tests/test_browser.py runs it
    for line in lines[:-1]:
        assert "exit status" not in captured(line.split()[1:]), line
    made = {path.name for path in tmp_path.iterdir()} - own
    assert made == {
        "ling.html",
        "law.html",
        "result",
        "report.html",
        "step.json.gz",
        "fleet.json.gz",
        "step.yaml",
        "step.ranks.json",
        "step",
    }


def test_a_job_in_which_nothing_fails_never_saves_best() -> None:
    """Its best interval has no end, which a record says by leaving it out."""
    from ersatz.sim.report.page.run_page import _span

    assert (_span(None), _span(3600.0)) == ("never", "60.0 min")
