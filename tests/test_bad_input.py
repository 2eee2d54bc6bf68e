"""Whatever a file says, it is answered or refused with its place: no crash, no hang, no nonsense.

Each input here once ended in a traceback, ran for minutes, or was answered with a number that cannot
be. The properties below try others of the kind: any text for any quantity of any section.
"""

import json
import math
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from ersatz.device_models.catalog.reading import load_device, load_node, load_stack
from ersatz.device_models.shipped import DATA, SCENARIOS
from ersatz.device_models.text.problems import MOST_PROBLEMS, InputError
from ersatz.device_models.text.units import UNITS
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.law.legal import load_questions
from ersatz.sim.law.rules import load_rules
from ersatz.sim.market.observations import COLUMNS
from ersatz.sim.market.prices import load_prices
from ersatz.sim.market.supply import load_supply
from ersatz.sim.options.answer import answer_comparison
from ersatz.sim.options.file import load_comparisons
from ersatz.sim.options.other_files import load_ramps, load_stockpiles
from ersatz.sim.plan.schedules import make_schedule
from ersatz.sim.purchase.reading.file import load_inquiries, section_of
from ersatz.sim.purchase.reading.schema import BuyFile
from ersatz.sim.report.json_out import result_json, to_text
from ersatz.sim.report.run import render_run
from ersatz.sim.run import run_case
from ersatz.sim.scenario.fabric_file import load_fabric_cases
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Published
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.quantities import Section
from ersatz.sim.workload.model_file import load_model
from tests.pace import within

BASE = """question: How long?
model: {layers: 8, hidden: 1024, heads: 16, vocab: 32000}
cluster: {node: h800-8, nodes: 2}
training: {sequence_length: 1024, global_batch: 16, tokens: 1 B tokens}
parallel: {tp: 2, dp: 8}
cost: {rent: 10 CNY/h}
"""
ANNUITY = "cost={model: annuity, server_price: 2 M CNY, %s}"
DEPRECIATION = "cost={model: depreciation, value_decay: 0, server_price: 2 M CNY, %s}"
MOE = "model={layers: 8, hidden: 1024, heads: 16, vocab: 32000, experts: %s}"


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def refusal(load: Any, *arguments: Any) -> list[str]:
    """Return the complaints of a reader that has to refuse."""
    with pytest.raises(InputError) as caught:
        load(*arguments)
    return [str(problem) for problem in caught.value.problems]


def placed(lines: list[str], words: str) -> bool:
    """Tell whether a complaint says these words, and stands at a line and column or an option."""
    return any(words in line and (":1" in line or "--set" in line or ".yaml:" in line)
               for line in lines)  # fmt: skip


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.²=1", "unknown key"),
        ("question=\udcff", "holds the character"),
        ("\udcff=1", "expected key=value"),
        ("training.tokens=0 tokens", "at least 1 tokens"),
        (f"training.tokens={'9' * 400} tokens", "expected a token count"),
        (f"cost.network_share={'9' * 400}", "expected a fraction"),
        ("cost.rent=1e308 CNY/h", "is too large"),
        (ANNUITY % "interest: 1e308 %", "is too large"),
        (ANNUITY % "interest: 101 %", "a share from 0 to 100 %"),
        (ANNUITY % "sold_fraction: 0 %", "a share above 0"),
        (ANNUITY % "sold_fraction: 500 %", "a share above 0 and at most 100 %"),
        (ANNUITY % "network_share: 900 %", "a share from 0 to 100 %"),
        (ANNUITY % "life: 0 s", "1 day to 100 years"),
        (DEPRECIATION % "life: 0 s", "1 day to 100 years"),
        ("energy.device_life=0 s", "1 day to 100 years"),
        ("job.checkpoint.storage_bandwidth=0 GB/s", "at least 1 kB/s"),
        ("job.checkpoint.storage_bandwidth=1e-300 B/s", "is too small"),
        ("job.checkpoint.interval=1e-320 min", "is too small"),
        ("job.checkpoint.interval=0 s", "1 s to 100 years"),
        ("job.evaluation={every: 1e-9 s, duration: 1 s}", "at least 1 min"),
        ("job.failures.shape=1e-300", "greater than or equal to 0.1"),
        ("stragglers.ranks={0: 1e308}", "is too large"),
        ("stragglers={fraction: 1000000 %, slowdown: 1}", "a share from 0 to 100 %"),
        ("stragglers={fraction: 10 %, slowdown: 1e308 %}", "is too large"),
        ("model.layers=100000", "expected 0 to 2000"),
        ("model.ffn_hidden=0", "above 0"),
        (MOE % "{routed: 0, top_k: 1, hidden: 64}", "above 0"),
        (MOE % "{routed: 8, top_k: 0, hidden: 64}", "above 0"),
        (MOE % "{routed: 8, top_k: 9, hidden: 64}", "at most the 8 routed experts"),
        (MOE % "{routed: 8, top_k: 2, hidden: 0}", "above 0"),
        (MOE % "{routed: 8, top_k: 2, hidden: 64, dense_layers: 9}", "at most the 8 layers"),
        (MOE % "{routed: 8, top_k: 2, hidden: 64, dense_layers: 2}, ffn_hidden: 0", "above 0"),
        (MOE % "100", "expected keys and values"),
        ("model.latent=[1]", "expected keys and values"),
        ("model.hidden=3", "is less than the 16 heads"),
        ("model.kv_heads=5", "a divisor of the 16 heads"),
        ("model=" + "x" * 5000, "no such model"),
        ("cluster.node=" + "x" * 5000, "no such name"),
        ("cluster.node=./" + "x/" * 5000 + "a.yaml", "cannot be read"),
        ("stack=" + "../" * 3000 + "x", "cannot be read"),
        ("cluster.nodes=1000000", "less than or equal to 250000"),
        ("fabric={size: 1000000}", "less than or equal to 100000"),
        ("parallel.vp=10000000", "10000000 chunks for"),
        ("parallel={tp: 2, pp: 8, vp: 10000000, schedule: interleaved}", "80000000 chunks for 8 layers"),
        ("parallel={pp: 10000000, schedule: zb-v}", "20000000 chunks for 8 layers"),
        ("job.replicas=1000000000", "less than or equal to"),
        ('published=[{metric: step.nothing, value: 1, source: x}]', "no such metric"),
        ('published=[{metric: step.mfv, value: 1, source: x}]', "did you mean 'step.mfu'"),
        ('published=[{metric: step.breakdown.bubbel, value: 1, source: x}]', "did you mean"),
        ('published=[{metric: step.duration_s, value: 0, source: x}]', "published"),
        ('published=[{metric: step.duration_s, value: -0.2 s, source: x}]', "published"),
        ('published=[{metric: step.mfu, value: 1e-300, source: x}]', "published"),
        ('cases={"\\e[31mred": {}}', "a key holds the character U+001B"),
        ("cases={" + "x" * 101 + ": {}}", "1 to 100 printable characters"),
        ("cases=[1]", "expected a name and changed keys each"),
        ("cluster={pools: [{name: 'a b', node: h800-8, nodes: 2}]}", "expected a name of letters"),
        ("cluster={pools: [{name: \"a\\nb\", node: h800-8, nodes: 2}]}", "expected a name of letters"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_at_its_place(
    scenario: Path, override: str, words: str
) -> None:
    with within(2.0):
        lines = refusal(load_cases, scenario, [override])
    assert placed(lines, words), lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question: x\nnodes(8): 1\n", ":2:1: nodes(8): unknown key"),
        *((f"question: x\n{key}: 1\n", f":2:1: {key.strip(chr(39))}: unknown key")
          for key in ("str", "float", "tuple", "dict", "function-before", "literal", "'[key]'")),
        ("question: x\ncases: [1]\n", ":2:8: cases: expected a name"),
        ("question: x\ncases: a\n", ":2:8: cases: expected a name"),
        ("question: x\ncases: {a: 1}\n", ":2:12: cases.a: '1' - expected the keys"),
        ("- 1\n", "expected a scenario"),
    ],
)  # fmt: skip
def test_files_of_the_wrong_shape(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    for load in (load_cases, load_fabric_cases, section_of):
        for overrides in ([], ["seed=1"]):
            lines = refusal(load, path, overrides)
            assert any(words in line for line in lines), lines


def test_fifty_faults_are_told_and_told_fast(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BASE + "".join(f"key{i}: 1\n" for i in range(20_000)))
    with within(6.0):  # most of it is to read the file; it was quadratic
        assert len(refusal(load_cases, path)) == MOST_PROBLEMS + 1


def test_what_costs_nothing_has_a_report(scenario: Path) -> None:
    free = (["cost.rent=0 CNY/h"], [ANNUITY % "opex_share: 0 %", "cost.server_price=0 CNY"])
    for overrides in free:
        cases = load_cases(scenario, overrides)
        result = run_case(cases[0])
        assert result.cost is not None
        assert result.cost.total == 0.0
        render_run([*cases, *cases], [result, result])


def test_a_metric_is_known_before_the_simulation(scenario: Path) -> None:
    """The mapping's parts are known by name; one that is not in a result is zero."""
    rows = ("[{metric: step.breakdown.pipeline, value: 1, source: x},"
            " {metric: job.wall_s, value: 2 days, source: y}]")  # fmt: skip
    case = load_cases(scenario, [f"published={rows}"])[0]
    found = run_case(case).published
    assert [row.metric for row in found] == ["step.breakdown.pipeline", "job.wall_s"]
    assert found[0].predicted == 0.0
    for metric, lacking in (("job.wall_s", "training"), ("cost.total", "cost")):
        text = BASE.replace(", tokens: 1 B tokens", "") if lacking == "training" else BASE
        scenario.write_text("\n".join(x for x in text.splitlines() if not x.startswith("cost")))
        row = f"published=[{{metric: {metric}, value: 1, source: x}}]"
        assert any(f"{lacking}" in line for line in refusal(load_cases, scenario, [row]))


def test_a_scenario_made_in_a_program_is_refused_in_words(scenario: Path) -> None:
    from dataclasses import replace

    case = load_cases(scenario)[0]
    wrong = replace(case, published=(Published("step.mfv", 1.0, "x"),))
    with pytest.raises(ValueError, match=r"step.mfv.*did you mean 'step.mfu'"):
        run_case(wrong)


def test_every_part_of_a_result_is_a_known_metric() -> None:
    from ersatz.sim.records import PARTS

    case = load_cases(SCENARIOS / "deepseek-v3-h800.yaml")[0]
    result = run_case(case)
    for name, known in PARTS.items():
        part, mapping = name.split(".")
        held = getattr(getattr(result, part), mapping)
        assert set(held) <= set(known), name


def test_a_schedule_has_a_most_number_of_slots() -> None:
    for p, m, v in ((1, 1_000_001, 1), (64, 1_000_000, 1), (4, 8, 10_000_000)):
        with within(0.5), pytest.raises(ValueError, match="more than can be walked"):
            make_schedule("interleaved" if v > 1 else "1f1b", p, m, v)


def test_a_job_that_nobody_can_wait_for_is_refused(scenario: Path) -> None:
    """200 years of pauses every minute are a hundred million."""
    often = ["job.evaluation={every: 1 min, duration: 1 s}", "training.tokens=1e16 tokens"]
    with within(3.0):
        assert (
            "expected at most 500,000 failures"
            in refusal(run_case, load_cases(scenario, often)[0])[0]
        )


def test_more_draws_than_anybody_can_wait_for_are_cut_and_said(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand draws would take minutes; some hundreds tell the same."""
    from ersatz.sim.job import job

    monkeypatch.setattr(job, "MOST_TURNS", 20_000)
    case = load_cases(scenario, ["job.replicas=100000"])[0]
    with within(10.0):
        result = run_case(case)
    assert result.job is not None
    assert 4 <= result.job.replicas < 400
    said = next(words for words in result.assumptions if words.startswith("job.replicas"))
    assert f"{result.job.replicas} draws, not 100,000" in said


def test_a_network_of_a_million_nodes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for nodes in (1_000_000, 200_000):
        path.write_text(f"question: x\ncluster: {{node: h800-8, nodes: {nodes}}}\n")
        assert refusal(load_fabric_cases, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("defaults: {zero: 3x3}", "zero: '3x3' - expected one of 0, 1, 2, 3"),
        ("defaults: {schedule: fast}", "expected one of gpipe"),
        ("defaults: {zer: 1}", "did you mean 'zero'"),
        ("gradient_dtype: {value: bf17, source: A, date: 2026, confidence: low}", "expected one of fp32"),
        ("attention_factor: {value: 0, source: A, date: 2026, confidence: low}", "0.001 to 1000"),
        ("attention_factor: {value: 1e308, source: A, date: 2026, confidence: low}", "from 0 to 1e15"),
        ("launch_s: {value: 1e9 days, source: A, date: 2026, confidence: low}", "is too large"),
        ("memory_fragmentation: {value: 3, source: A, date: 2026, confidence: low}", "from 0 to 1"),
    ],
)  # fmt: skip
def test_a_stack_is_refused_at_its_line(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"based_on: megatron-core\nsources: {{A: x}}\n{change}\n")
    lines = refusal(load_stack, str(path))
    assert any(words in line and "own.yaml:3:" in line for line in lines), lines


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shared_expert_intermediate_size": "2048"}, "expected a whole number"),
        ({"shared_expert_intermediate_size": [2048]}, "expected one for each of 2 layers"),
        ({"first_k_dense_replace": 5}, "at most the 2 layers"),
        ({"model_type": "\x1b[2J"}, "expected a printable text"),
        ({"vocab_size": 10**60}, "expected 1 to"),
        ({"num_attention_heads": "many"}, "expected a whole number"),
        ({"num_hidden_layers": 1e308}, "expected a whole number"),
        ({"num_experts_per_tok": None}, "lacks what gives how many experts a token visits"),
        ({"num_experts_per_tok": 9}, "at most the 8 experts"),
        ({"num_attention_heads": 33}, "does not divide the hidden size 4096"),
        ({"num_key_value_heads": 5}, "expected a divisor of the 32 heads"),
        ({"layer_types": ["full_attention"]}, "expected one for each of 2 layers"),
        ({"layer_types": ["full_attention", "rwkv"]}, "kind of layer that is not modelled (1 of 2"),
        ({"num_trigger_layers": 3}, "seems to shape the model and is not understood"),
        ({"model_type": 7}, "expected a printable text"),
    ],
)
def test_configs_of_the_wrong_kind(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    good = {"hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 32,
            "vocab_size": 32000, "n_routed_experts": 8, "moe_intermediate_size": 1024,
            "num_experts_per_tok": 2}  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(good | config))
    assert any(words in line for line in refusal(load_model, str(path)))
    path.write_text('{"hidden_size": ' + "9" * 5000 + "}")
    assert "too large" in refusal(load_model, str(path))[0]


def test_pipes_and_devices_are_refused_wherever_a_file_names_them(
    tmp_path: Path, scenario: Path
) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    legal = tmp_path / "legal.yaml"
    for name in (str(pipe), "/dev/zero"):
        legal.write_text(f"dates: [2025-03-24]\ndevices: ['{name}']\n")
        assert "no regular file" in refusal(load_questions, legal)[0]
        for key in ("model", "stack", "cluster.node", "cluster.network"):
            assert refusal(load_cases, scenario, [f"{key}={name}"])
        for load in (load_rules, load_prices, load_cases, load_device):
            assert refusal(load, name)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """In a notebook: load, write the file anew, load again; a node notices its device's file, too."""
    node, device = tmp_path / "own-8.yaml", tmp_path / "own.yaml"
    text = (DATA / "nodes" / "h800-8.yaml").read_text()
    node.write_text(text.replace("device: h800", "device: ./own.yaml"))
    for name in ("h800", "h20", "h100"):
        device.write_text(f"based_on: {name}\n")
        assert load_node(str(node)).device.matrix_peak == load_device(name).matrix_peak
        assert load_node(str(node)) is load_node(str(node))  # and is read once


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rules.CN-2025-10-CUSTOMS.id=x", "a rule keeps its id"),
        ("rules.US-2025-04-H20.criterion.memory=" + "9" * 60, "to 1e+30"),
        ("rules.US-2025-04-H20.binds=9999999-01-01", "expected a day like"),
        ("knowledge.until=0001-01-01", "1990 to 2100"),
    ],
)
def test_rules_that_cannot_be(override: str, words: str) -> None:
    assert any(words in line for line in refusal(load_rules, None, [override]))


@pytest.mark.parametrize(
    "override",
    ["ascend-910c.start=5", "ascend-910c.dies_per_device.value=0", "ascend-910c.die_bank.mid=1e308",
     "ascend-910c.wafers.series=[]", "ascend-910c.yield.series=[[2025-12, -1, 0, 1]]"],
)  # fmt: skip
def test_supply_that_cannot_be(override: str) -> None:
    assert refusal(load_supply, (override,))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("purchase,h20,CN,2025-01-01", "has 4 cells; expected 14"),
        ("purchase,h20,CN,2025-01-01,1,2,3,CNY,,1,list,me,high,,,", "has 16 cells; expected 14"),
        ("purchase,h20,CN,2025-01-01,1,2,1e300,CNY,,1,list,me,high,", "1e+15"),
        ("purchase,h20,CN,2025-01-01,1,2,nan,CNY,,1,list,me,high,", "expected 0 <= low"),
        ("purchase,h20,CN,2025-01-01,1,2,3,CNY,,0,list,me,high,", "1 to 999,999"),
        ("purchase,h20,CN,0001-01-01,1,2,3,CNY,,1,list,me,high,", "expected a day"),
    ],
)
def test_a_row_of_prices_is_named(tmp_path: Path, cells: str, words: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{cells}\n")
    lines = refusal(load_prices, path)
    assert any(words in line and "own.csv:2:" in line for line in lines), lines


def test_own_prices_move_a_purchase(tmp_path: Path) -> None:
    """A server of eight H20 for 8 x 1 M CNY: the price of the offer is that and its network."""
    path, own = tmp_path / "x.yaml", tmp_path / "own.csv"
    path.write_text(
        "question: x\nstart: 2025-03-24\nrules: {ignore: true}\npurchase: {months: 6}\n"
        "devices: {h20: {node: h20-8, network_share: 0 %}}\n"
        "jobs: {a: {tokens: 1 T tokens, flop_per_token: 1e10,"
        " rates: {h20: {peak: 148 TFLOP/s, mfu: 40 %}}}}\n"
    )
    kind = load_prices().quote("purchase", "h20", "CN", "2025-03-24", "CNY").kind
    own.write_text(
        f"{','.join(COLUMNS)}\npurchase,h20,CN,2025-03-01,1e6,1e6,1e6,CNY,server,1,{kind},me,high,\n"
    )
    shipped, mine = load_inquiries(path)[0], load_inquiries(path, prices=own)[0]
    assert mine.buildout.offers[0].price[0] == pytest.approx(8e6)
    assert shipped.buildout.offers[0].price[0] != pytest.approx(8e6)
    assert "own.csv" in mine.assumptions[0]


PURCHASE = """question: x
start: 2025-03-24
rules: {ignore: true}
purchase: {months: 6, budget: 1 B CNY}
devices: {a: {per_node: 8, power: 500 W, price: 1 M CNY, lead_time: 30 d}}
jobs: {j: {tokens: 1 T tokens, flop_per_token: 1e10, rates: {a: {peak: 100 TFLOP/s, mfu: 40 %}}}}
"""
COMPARE = """question: x
compare:
  work: {tokens: 1 T tokens, flop_per_token: 1e11}
  options: {a: {peak: 100 TFLOP/s, mfu: 40 %, rent: 10 CNY/h}, b: {peak: 100 TFLOP/s, mfu: 40 %}}
  ask: [{kind: cost}]
"""


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("devices.a.lead_time=1e9 days", "is too large"),
        ("devices.a.lead_time=200 years", "at most 100 years"),
        ("devices.a.failure_rate=1e5 /s", "0 to 1 per minute"),
        ("devices.a.supply=1e300", "less than or equal to"),
        ("start=9990-01-01", "1990 to 2100"),
        ("jobs.j.flop_per_token=1e-300", "greater than or equal to 1"),
        ("jobs.j.rates.a.mfu=0 %", "a share above 0"),
        ("jobs.j.deadline=0 s", "1 s to 100 years"),
        ("events=[{kind: price, change: -200 %}]", "-100 % or more"),
        ("monte_carlo={inputs: {price: [1, 2, 1e300]}}", "expected numbers from 0 to 36525"),
        ("monte_carlo={inputs: {approval: [0, 0.5, 2]}}", "expected numbers from 0 to 1"),
    ],
)
def test_a_purchase_that_cannot_be(tmp_path: Path, override: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(PURCHASE)
    assert load_inquiries(path)
    assert any(words in line for line in refusal(load_inquiries, path, [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("compare.options.a.mfu=1e308 %", "is too large"),
        ("compare.options.a.mfu=120 %", "at most 100 %"),
        ("compare.options.a.rent=-1 CNY/h", "not negative"),
        ("compare.options.a.life=0 s", "1 day to 100 years"),
        ("compare.options.a.rent_drift=-100 %", "-99 % to 1,000 %"),
        ("compare.options.a.device=h21", "no such device"),
        ("compare.options.a.place=Atlantis", "no such place"),
        ("compare.ask=[{kind: legal, date: 2025-13-01}]", "expected a day"),
        ("compare.work.flop_per_token=0", "greater than or equal to 1"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, override: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(COMPARE)
    assert any(words in line for line in refusal(load_comparisons, path, [override]))


def test_an_option_that_costs_nothing_is_told_or_refused(tmp_path: Path) -> None:
    from ersatz.sim.report.buying.options import comparison_record, render_comparisons

    path = tmp_path / "x.yaml"
    path.write_text(COMPARE)
    case = load_comparisons(path)[0]
    answers = [(case, answer_comparison(case))]
    render_comparisons(answers)
    json.dumps(comparison_record(answers), allow_nan=False)
    ask = (
        "compare.ask=[{kind: tornado, option: a, against: b, inputs: {a.mfu: [30 %, 40 %, 50 %]}}]"
    )
    with pytest.raises(InfeasibleError, match="b costs nothing"):
        answer_comparison(load_comparisons(path, [ask])[0])


def test_the_ascend_910a_trains_in_fp16_and_says_so(scenario: Path) -> None:
    case = load_cases(scenario, ["cluster.node=ascend-910a-8"])[0]
    assert case.training.precision == "fp16"
    assert any("multiplies no bf16" in text for text in case.assumptions)
    given = load_cases(scenario, ["cluster.node=ascend-910a-8", "training.precision=fp16"])[0]
    assert run_case(case).step.duration_s == run_case(given).step.duration_s
    for precision in ("bf16", "fp8"):
        override = ["cluster.node=ascend-910a-8", f"training.precision={precision}"]
        assert "multiplies fp16, int8 only" in refusal(load_cases, scenario, override)[0]


# --- properties: any text for any quantity --------------------------------------------------------

_UNITS = sorted({unit for units in UNITS.values() for unit in units})
_NUMBERS = st.sampled_from(
    ["0", "-1", "1e-320", "1e-300", "1e-12", "0.5", "1", "7", "1e9", "1e18", "1e30", "1e308", "1e999",
     "9" * 70, "nan", "inf", "٣", "1_0", ".5", "5.", "+1"]
)  # fmt: skip
_WORDS = st.sampled_from(
    ["~", "true", "[]", "{}", "[1, 2]", "{a: 1}", "x", "''", '"\\e[2J"', "2025-03-24", "1e", "a: b"]
)
_TEXTS = st.one_of(
    _WORDS, _NUMBERS, st.builds("{} {}".format, _NUMBERS, st.sampled_from(_UNITS)),
    st.text(max_size=12),
)  # fmt: skip


def keys_of(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted names of all keys of a schema's sections."""
    found: list[str] = []
    for key, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found += keys_of(kind, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}")
    return found


def answered(load: Any, path: Path, overrides: list[str]) -> Any:
    """Return what a reader makes of a file; None where it refuses in words, each with its place."""
    try:
        return load(path, overrides)
    except InputError as error:
        for problem in error.problems:
            assert problem.expected
            assert problem.line or problem.file in ("--set", str(path)), problem
        return None


@settings(max_examples=250)
@given(st.sampled_from(keys_of(ScenarioFile)), _TEXTS)
def test_any_text_in_any_key_of_a_scenario(tmp_path_factory: Any, key: str, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(BASE)
    for case in answered(load_cases, path, [f"{key}={text}", "job.replicas=2"]) or ():
        try:
            result = run_case(case)
        except InfeasibleError:
            continue
        render_run([case], [result])
        to_text(result_json([case], [result]))
        assert math.isfinite(result.step.duration_s)


def sections(of: type[BaseModel] = Section) -> list[type[BaseModel]]:
    """Return every section that a file may have."""
    return [of, *(found for part in of.__subclasses__() for found in sections(part))]


QUANTITIES = [
    (section, key, unit)
    for section in sections()
    for key, field in section.model_fields.items()
    if (unit := (field.json_schema_extra or {}).get("unit"))  # type: ignore[union-attr]
]


@pytest.mark.parametrize(
    ("section", "key", "unit"), QUANTITIES, ids=lambda part: getattr(part, "__name__", part)
)
def test_no_quantity_of_a_file_is_negative(section: type[BaseModel], key: str, unit: str) -> None:
    """What may fall, as a price at an event, is read as text and by its meaning."""
    field = section.model_fields[key]
    adapter = TypeAdapter(Annotated[field.annotation, *field.metadata])  # type: ignore[valid-type]
    for number in ("-0.01", "-120", "-1e6"):
        text = f"{number} {next(iter(UNITS[{'share': 'fraction'}.get(unit, unit)]))}"
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


SECTIONS = {
    "purchase": (PURCHASE, load_inquiries),
    "compare": (COMPARE, load_comparisons),
    "stockpile": (
        "question: x\nstockpile: {need: 10, months: 24, price: 1 M CNY, shortage: 1 M CNY,"
        " hazard: 10 %/year}\n",
        partial(load_stockpiles, seed=None),
    ),
    "ramp": (
        "question: x\nramp: {production: ascend-910c, until: 2026-06}\n",
        partial(load_ramps, seed=None),
    ),
}
BUY_KEYS = [
    *keys_of(BuyFile),
    *(f"devices.a.{key}" for key in ("per_node", "price", "rent", "rentable", "lead_time", "supply",
      "transit", "quota", "failure_rate", "repaired", "repair_time", "power", "sold_from")),
    *(f"compare.options.a.{key}" for key in ("peak", "mfu", "rent", "server", "life", "interest",
      "sold", "premium", "seizure", "rent_drift", "failure_rate", "porting", "colo")),
    *(f"stockpile.{key}" for key in ("need", "months", "price", "shortage", "interest", "hazard")),
    *(f"ramp.{key}" for key in ("production", "until", "level", "set")),
    "jobs.j.tokens", "jobs.j.deadline", "jobs.j.flop_per_token", "jobs.j.rates.a.peak",
    "monte_carlo.inputs", "events", "compare.ask", "compare.work.tokens",
]  # fmt: skip


@settings(max_examples=250)
@given(st.sampled_from(sorted(SECTIONS)), st.sampled_from(BUY_KEYS), _TEXTS)
def test_any_text_in_any_key_of_a_purchase_file(
    tmp_path_factory: Any, section: str, key: str, text: str
) -> None:
    base, load = SECTIONS[section]
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(base)
    for case in answered(load, path, [f"{key}={text}"]) or ():
        if section == "compare":
            for told in answer_comparison(case):
                assert all(math.isfinite(cost.total) for cost in told.costs.values())


@settings(max_examples=100)
@given(st.sampled_from(["h800-8", "h800", "megatron-core"]), st.data(), _TEXTS)
def test_any_text_in_any_value_of_the_catalogue(
    tmp_path_factory: Any, name: str, data: st.DataObject, text: str
) -> None:
    room, load = {"h800-8": ("nodes", load_node), "h800": ("devices", load_device),
                  "megatron-core": ("stacks", load_stack)}[name]  # fmt: skip
    lines = (DATA / room / f"{name}.yaml").read_text().splitlines()
    at = data.draw(st.sampled_from([i for i, x in enumerate(lines) if "value:" in x]))
    head, _, tail = lines[at].partition("value:")
    lines[at] = f"{head}value: {text}{tail[tail.find(',') :]}"
    path = tmp_path_factory.getbasetemp() / f"{name}.yaml"
    path.write_text("\n".join(lines), "utf-8", errors="replace")
    found = answered(lambda path, _: load(str(path)), path, [])
    assert found is None or found.name == name
