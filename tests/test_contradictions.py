"""Keys of fleets, purchases, anchors and tables of links that contradict each other: named, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.sim.answers.anchor import anchor
from ersatz.sim.cli import _status
from ersatz.sim.hil.links.tables import read_table

FLEET = """
question: q
pools:
  - {name: h800, devices: 8, nodes: 4, nodes_per_leaf: 2}
tenants: {a: {share: 16}, b: {share: 16}}
jobs:
  drawn:
    - {name: j, count: 5, devices: {8: 1}, every: 1 h, median: 2 h, tenants: {a: 1, b: 1}, rates: {h800: 1}}
policies: [fifo]
"""
BUY = """
question: q
currency: CNY
start: 2025-03-24
purchase: {months: 6}
devices:
  h800: {node: h800-8, standing: true, rent: 27.5 CNY/h, rentable: 64, for_sale: false}
sites:
  china: {energy_price: 0.5 CNY/kWh, pue: 1.3}
jobs:
  j:
    tokens: 0.01 T tokens
    deadline: 3 months
    flop_per_token: 1e11
    rates: {h800: {peak: 989 TFLOP/s, mfu: 30 %}}
"""
HEAD = "# all_reduce_perf\n#  size  count  type  redop  root  time  algbw  busbw #wrong\n"
ROWS = (
    "     1048576        262144     float     sum      -1    100.0   10.49   18.35      0",
    "    16777216       4194304     float     sum      -1    800.0   20.97   36.70      0",
    "   268435456      67108864     float     sum      -1   9000.0   29.83   52.20      0",
)


def status(folder: Path, verb: str, text: str, *more: str) -> int:
    """The exit status of a verb on a file."""
    path = folder / "f.yaml"
    path.write_text(text)
    return _status([verb, str(path), *more], debug=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a: {share: 16}": "a: {share: 64}"}, ["tenants", "80", "at most the fleet's 32 devices together"]),
        ({"a: {share: 16}": "a: {share: 16, limit: 8}"}, ["tenants.a.limit", "at least its share, 16"]),
        ({"rates: {h800: 1}": "rates: {h800: 0}"}, ["jobs.drawn[0].rates", "can run nowhere"]),
        ({"policies:": "until: 0 h\npolicies:"}, ["until", "above 0"]),
        ({"devices: 8, nodes": "node: h800-8, devices: 16, nodes"}, ["pools[0].devices", "expected the 8"]),
        ({"a: {share: 16}": "a: {share: 16, limit: 8}", "policies:": "until: 0 h\npolicies:",
          "devices: 8, nodes": "node: h800-8, devices: 4, nodes"}, ["tenants.a.limit", "until", "pools[0]"]),
    ],
)  # fmt: skip
def test_fleets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], words: list[str]
) -> None:
    text = FLEET
    for old, new in changes.items():
        text = text.replace(old, new)
    assert status(tmp_path, "schedule", text) == 2
    said = capsys.readouterr().err
    assert all(one in said for one in ["f.yaml:", *words])


def test_a_tenant_without_a_share_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(tmp_path, "schedule", FLEET.replace("{a: 1, b: 1}", "{a: 1, c: 1}")) == 0
    assert "tenants c of the jobs" in capsys.readouterr().out


SALE = "for_sale: true, price: 1 M CNY"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("for_sale: false", f"{SALE}, sold_from: 2025-06-01, sold_until: 2025-05-01",
         ["devices.h800.sold_until", "on or after sold_from"]),
        ("for_sale: false", f"{SALE}, quota: 4, lot: 8", ["devices.h800.lot", "at most the quota, 4"]),
        ("months: 6", "months: 6, budget: 0 CNY", ["purchase.budget", "above 0"]),
        ("months: 6", "months: 6, budget: -0 CNY", ["purchase.budget", "above 0"]),
        ("node: h800-8,", "node: h800-8, per_node: 4,", ["devices.h800.per_node", "expected the 8"]),
    ],
)  # fmt: skip
def test_purchases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: list[str]
) -> None:
    assert status(tmp_path, "buy", BUY.replace(old, new)) == 2
    said = capsys.readouterr().err
    assert all(one in said for one in ["f.yaml:", *words])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("months: 6", "months: 6, budget: 1 CNY", "budget: "),  # 25,750 CNY are needed
        ("pue: 1.3", "pue: 1.3, power: 0 W", "power china: it is 0"),
    ],
)
def test_a_limit_that_is_far_too_low_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    assert status(tmp_path, "buy", BUY.replace(old, new)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"Least change that helps: {words}" in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("node: h800-8,", "node: h800-8, device: h20,", "the rules are asked for h20"),
        ("rentable: 64", "rentable: 4, lot: 8", "lot is of orders"),
    ],
)
def test_what_decides_between_two_keys_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    status(tmp_path, "buy", BUY.replace(old, new))
    assert words in " ".join(capsys.readouterr().out.split())


RUN = """
question: q
model: llama3-8b
stack: torchtitan
cluster: {node: h100-8, nodes: 2}
training: {sequence_length: 4096, global_batch: 128, micro_batch: 2, precision: bf16}
parallel: {tp: 2, zero: 3, recompute: none}
published: [{metric: METRIC, value: 4.1 s, source: log}]
"""


def test_a_run_counts_once_however_often_it_is_named(tmp_path: Path) -> None:
    """Twice the same step would halve what is open of it."""
    path = tmp_path / "a.yaml"
    path.write_text(RUN.replace("METRIC", "step.duration_s"))
    with pytest.raises(InputError, match="stands twice"):
        anchor([path, tmp_path / "." / "a.yaml"])


def test_a_metric_that_is_none_is_blamed_and_not_its_unit(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(RUN.replace("METRIC", "step.duration"))
    with pytest.raises(InputError) as raised:
        anchor([path])
    assert [one.key for one in raised.value.problems] == ["published[0].metric"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("   800.0", "  -800.0"),
        ("   800.0", "     nan"),
        ("   800.0", "     0.0"),
        ("   800.0", "   0.800"),  # milliseconds
        ("    16777216 ", "       16MiB "),
        ("    16777216 ", "       16 M "),
        ("36.70      0", "36.70     17"),  # elements that are wrong
    ],
)
def test_no_row_of_links_is_passed_over(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(HEAD + "\n".join(ROWS).replace(old, new) + "\n# Avg bus bandwidth : 35.7\n")
    with pytest.raises(InputError) as raised:
        read_table(path, "", 8, 8)
    assert [one.line for one in raised.value.problems] == [4]


def test_ranks_are_whole_nodes_and_checks_have_passed(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(HEAD + "\n".join(ROWS))
    assert len(read_table(path, "", 8, 8)) == 3
    with pytest.raises(InputError, match="no whole number of nodes of 3"):
        read_table(path, "", 8, 3)
    failed = (
        "1048576   |  104.86  |  10.00000  | {}\n16777216  |  1677.72  |  10.00000  | success\n"
    )
    path.write_text(failed.format("failed"))
    with pytest.raises(InputError, match="check failed"):
        read_table(path, "all_reduce", 8, 8)


TRACED = """
question: q
pools:
  - {name: h800, devices: 8, nodes: 4, nodes_per_leaf: 2}
jobs: {trace: t.csv}
policies: [fifo]
"""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["id,submit_s,devices,devices,duration_s", "0,0,8,16,100"], ["t.csv:1", "devices", "stands twice"]),
        (["id,submit_s,devices,duration_s", "0,0,-0,100", "1,0,0,100", "2,0,8,-1"],
         ["t.csv:2", "t.csv:3", "t.csv:4", "from 1 on"]),
    ],
)  # fmt: skip
def test_traces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    rows: list[str], words: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    assert status(tmp_path, "schedule", TRACED) == 2
    said = capsys.readouterr().err
    assert all(one in said for one in words)


PRICED = "item,device,region,date,low,mid,high,unit,basis,devices,kind,source,confidence,note\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            "purchase,h800,CN,2025-01-01,1,2,3,RMB,server,8,channel,mine,medium,",
            "'RMB' - expected CURRENCY",
        ),
        (
            "purchase,h800,CN,2025-01-01,1,2,3,CNY/h,server,8,channel,mine,medium,",
            "expected CURRENCY, one",
        ),
        ("rent,h800,CN,2025-01-01,1,2,3,CNY,card,1,market,mine,medium,", "expected CURRENCY/h"),
        ("power,*,CN,2025-01-01,1,2,3,CNY/MWh,,,tariff,mine,medium,", "expected CURRENCY/kWh"),
        ("purchase,h801,CN,2025-01-01,1,2,3,CNY,server,8,channel,mine,medium,", "no such device"),
    ],
)
def test_prices_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, words: str
) -> None:
    (tmp_path / "p.csv").write_text(f"{PRICED}{row}\n{row}\n")
    assert status(tmp_path, "buy", BUY, "--prices", str(tmp_path / "p.csv")) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "p.csv:2" in said
    assert "p.csv:3" in said


def test_columns_of_prices_stand_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text(PRICED.replace(",mid,", ",mid,mid,"))
    assert status(tmp_path, "buy", BUY, "--prices", str(tmp_path / "p.csv")) == 2
    assert "has the columns mid twice" in capsys.readouterr().err


def test_machines_that_stand_and_are_for_sale_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status(tmp_path, "buy", BUY.replace("for_sale: false", "for_sale: true, price: 1 M CNY"))
    assert "standing, and for sale" in " ".join(capsys.readouterr().out.split())


def test_a_rule_names_devices_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = """
id: MY-1
title: t
issuer: CN
gates: [import]
announced: 2025-01-01
binds: 2025-02-01
destinations: [CN]
criterion: {x: "device in ['h20', 'h2o'] or 'h880' == device"}
policy: {x: {is: denied}}
source: s
confidence: medium
"""
    (tmp_path / "r.yaml").write_text(rule)
    words = ["legal", "h20", "--date", "2025-06-01", "--rules", str(tmp_path / "r.yaml")]
    assert _status(words, debug=False) == 2
    said = capsys.readouterr().err
    assert "'h2o' - is no device of the catalogue" in said
    assert "'h880' - is no device of the catalogue" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "0 USD"], "above 0"),
        (["--budget", "-5 USD"], "above 0"),
        (["--to", "Atlantis"], "needs --legal"),
    ],
)
def test_wishes_of_plans(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert (
        _status(
            ["plan", "llama3-8b", "--on", "h100", "--tokens", "1 T tokens", *options], debug=False
        )
        == 2
    )
    said = capsys.readouterr().err
    assert options[0] in said
    assert words in said


COMPARED = """
question: q
currency: CNY
compare:
  work: {tokens: 9 T tokens, flop_per_token: 1e11}
  options:
    a: {peak: 370 TFLOP/s, mfu: 20 %, rent: 7 CNY/h}
    d: {peak: 989 TFLOP/s, mfu: 20 %, rent: 27 CNY/h}
  ask:
    - {kind: break_even, input: a.rent, option: a, AGAINST}
"""


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("against: a", "ask[0].against: 'a' - expected another option"),
        ("against: d, low: 1 CNY/h", "ask[0].low: '1 CNY/h' - expected both low and high"),
        ("against: d, high: 1 CNY/h", "ask[0].high: '1 CNY/h' - expected both low and high"),
    ],
)
def test_questions_of_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], against: str, words: str
) -> None:
    assert status(tmp_path, "buy", COMPARED.replace("AGAINST", against)) == 2
    assert words in capsys.readouterr().err


def test_rules_that_are_ignored_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(tmp_path, "buy", f"{BUY}rules: {{foresight: true, ignore: true}}\n") == 0
    assert "rules.foresight says nothing then" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--units", "1.5"], "expected a number of devices, whole"),
        (["--set", "rules.US-2025-04-H20.criterion.memory=-1"], "expected a number from 0"),
    ],
)
def test_questions_of_law(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert _status(["legal", "h20", "--date", "2025-06-01", *options], debug=False) == 2
    assert words in capsys.readouterr().err


PLANNED = """
question: q
model: llama3-8b
cluster: {node: h100-8, nodes: 2}
training: {sequence_length: 4096, global_batch: 32, MORE}
PARALLEL
"""


def test_a_layout_that_is_not_followed_is_read_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PLANNED.replace("MORE", "tokens: 1 T tokens").replace(
        "PARALLEL", "parallel: {tpp: 4, pp: x}"
    )
    assert status(tmp_path, "plan", text) == 2
    said = capsys.readouterr().err
    assert "parallel.tpp: unknown key" in said
    assert "parallel.pp" in said


def test_steps_beside_tokens_count_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PLANNED.replace("MORE", "tokens: 1 T tokens, steps: 10").replace(
        "PARALLEL", "parallel: {tp: 2}"
    )
    assert status(tmp_path, "run", text) == 0
    assert "training.steps counts, 10" in " ".join(capsys.readouterr().out.split())
    whole = text.replace("1 T tokens", f"{10 * 32 * 4096} tokens")
    assert status(tmp_path, "run", whole) == 0
    assert "training.steps counts" not in capsys.readouterr().out
