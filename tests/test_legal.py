"""`ersatz legal` as a user meets it: the answer first, tables, cases, pictures, and bad input."""

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from test_cli import ersatz

from ersatz.sim.cli.output import captured
from ersatz.sim.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def test_the_answer_stands_in_the_first_five_lines() -> None:
    lines = captured(["legal", "h20", "--date", "2025-04-15"]).splitlines()
    top = "\n".join(lines[:5])
    for words in ("h20 on 2025-04-15 to China", "may not be bought", "US-2025-04-H20",
                  "changed last: 2025-04-09", "changes next: 2025-08-08"):  # fmt: skip
        assert words in top
    text = "\n".join(lines)
    assert "TPP 2,368.0 = 148.0 TFLOP/s (bf16, dense) x 16 bits" in text
    assert "PD 2.91 = 2,368.0 / 814 mm2" in text
    assert "memory_gb_s 4,000 >= memory 1,400: yes" in text
    assert lines[-1] == "This is a model of published rules and no legal advice."
    assert all(len(line) <= 100 for line in lines)


def test_a_table_as_text_record_and_picture(tmp_path: Path) -> None:
    text = captured(["legal", "h20", "h800", "mi308x", "ascend-910c", "--date", "2025-03-24",
                     "--date", "2025-04-23", "--out", str(tmp_path)])  # fmt: skip
    assert "2025-03-24: 3 of 4 on sale may be bought; strongest to train: ascend-910c" in text
    assert "2025-04-23: 1 of 4 on sale may be bought" in text
    record = json.loads((tmp_path / "legal.json").read_text())
    verdicts = {(v["device"], v["day"]): v["policy"] for v in record["cases"]["legal"]["verdicts"]}
    assert verdicts["h20", "2025-03-24"] == "free"
    assert verdicts["h20", "2025-04-23"] == "licence"
    assert record["notice"]
    picture = ET.fromstring((tmp_path / "legal.svg").read_text())
    texts = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"h20", "h800", "mi308x", "ascend-910c", "2025-03-24", "DENIED"} <= set(texts)


def test_the_picture_shows_the_course(tmp_path: Path) -> None:
    # the bars of one device cover the time from the first to the last day without a gap
    captured(
        ["legal", "h20", "--date", "2025-01-01", "--date", "2026-01-01", "--out", str(tmp_path)]
    )
    picture = ET.fromstring((tmp_path / "legal.svg").read_text())
    bars = [node for node in picture.iter("{http://www.w3.org/2000/svg}rect") if len(node)]
    titles = [bar[0].text for bar in bars]
    assert [str(title).split(":")[0] for title in titles] == ["free", "letter", "case"]
    edges = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in bars]
    for (x, width), (after, _) in pairwise(edges):
        assert x + width == pytest.approx(after, abs=0.11)


def test_a_what_if_stands_beside_what_is() -> None:
    change = "rules.US-2025-04-H20.binds=2025-04-23"
    lines = captured(["legal", "h20", "--date", "2025-04-15", "--set", change]).splitlines()
    assert lines[0] == "what-if, 2025-04-15: 1 from letter to free: h20"
    assert "may be bought: no licence needed" in lines
    lines = captured(["legal", "h20", "a30", "--date", "2025-04-15", "--set", change]).splitlines()
    assert lines[0] == "what-if, 2025-04-15: 1 from letter to free: h20"
    # beyond the rules' knowledge the first line says how old it is
    for more in ([], ["--set", "knowledge.until=2029-01-01"]):
        far = captured(["legal", "b200", "--date", "2028-01-01", *more]).splitlines()
        assert far[0].startswith("Rules are known to 2026-06-30, 550 days before 2028-01-01")
        assert far[2].startswith("b200 on 2028-01-01") or far[1].startswith("b200 on 2028-01-01")


def test_a_device_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("based_on: h100\ntitle: Mine\n")
    assert captured(["legal", str(path), "--date", "2024-01-15"]).startswith("mine on 2024-01-15")
    both = captured(["legal", str(path), "h20", "--date", "2024-01-15", "--out", str(tmp_path)])
    assert "1 of 2 on sale may be bought; strongest to train: h20" in both


def test_cases_say_what_changes_sides() -> None:
    text = (ROOT / "scenarios/legal/h20-threshold.out").read_text()
    assert "memory-4100, 2025-04-15: 2 from letter to free: h20, rtx-5090d" in text.splitlines()[1]


def test_overrides_hold_in_every_case_of_a_file() -> None:
    later = "rules.US-2025-04-H20.binds=2025-05-01"
    text = captured(["legal", "h20-threshold", "--set", later])
    assert "letter to free" not in text  # nothing binds yet, so nothing is freed
    text = captured(["legal", "h20-threshold", "--set", "dates=[2025-03-24]"])
    assert "2025-03-24" in text
    assert "2025-04-15" not in text.split("public record")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["h2O"], "no such device, did you mean 'h20'"),
        (["h20", "--date", "2018-01-01"], "known from 2019-05-16 to 2026-06-30"),
        (["h20", "--to", "Atlantis"], "no such place"),
        (
            ["h20", "--set", "rules.US-2025-04-H20.criterion.letter=memory_gb_s >"],
            "at character 14",
        ),
        (["h20", "--set", "rules.US-2025.x=1"], "no such rule"),
        (["h20", "--set", "x=1"], "expected rules.ID.key=value"),
        (["h20", "--rules", "nowhere.yaml"], "cannot be read"),
        (["h20-threshold", "--set", "dates=[soon]"], "expected a day like 2025-03-24"),
        (["h20-threshold", "--set", "color=red"], "unknown key"),
        (["nowhere.yaml"], "cannot be read"),
    ],
)
def test_bad_input_is_named(arguments: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        captured(["legal", *arguments])
    assert words in str(caught.value)


def test_bad_input_is_2_without_a_traceback() -> None:
    done = ersatz("legal", "h2O", "--to", "Atlantis", "--date", "2018-01-01")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3  # all faults at once, one line each
    assert "Traceback" not in done.stderr


@pytest.mark.heavy
def test_the_same_bytes_whatever_the_hash_seed() -> None:
    arguments = ("legal", "all", "--date", "2026-01-15", "--json", "-")
    assert ersatz(*arguments, seed="1").stdout == ersatz(*arguments, seed="2").stdout


def test_a_file_of_rules_with_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    question = tmp_path / "q.yaml"
    question.write_text(f"devices: [h20]\ndates: [2025-01-01]\nrules: {{file: '{'1' * 400}'}}\n")
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        captured(["legal", str(question)])
