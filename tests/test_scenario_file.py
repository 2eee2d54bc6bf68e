"""Scenario files: everything that can be wrong is named with its place, all at once."""

from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.scenario.case_file import read_cases
from ersatz.sim.scenario.file import load_cases

GOOD = """# What?
question: What?
model: llama2-7b
stack: megatron-core
cluster: {node: h800-8, nodes: 2}
training: {sequence_length: 4096, global_batch: 64, tokens: 1 T tokens}
parallel: {tp: 2, dp: 8}
cost: {rent: 27.5 CNY/h}
"""


def load(tmp_path: Path, text: str, *overrides: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return load_cases(path, overrides)


def faults(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, *overrides)
    return [str(p).replace(f"{tmp_path}/", "") for p in caught.value.problems]


def test_a_good_file(tmp_path: Path) -> None:
    (case,) = load(tmp_path, GOOD)
    assert case.devices == 16
    assert case.training.tokens == 1e12
    assert case.parallel.zero == 1
    assert case.cost is not None
    assert case.cost.rent[""] == pytest.approx(27.5 / 3600)
    assert any("parallel.zero is not given: 1" in a for a in case.assumptions)


def test_cases_merge_and_overrides_hold_in_all(tmp_path: Path) -> None:
    text = GOOD + "cases:\n  a: {}\n  b: {training: {global_batch: 128}}\n"
    assert [c.training.global_batch for c in load(tmp_path, text)] == [64, 128]
    assert [c.training.global_batch for c in load(tmp_path, text, "training.global_batch=32")] == [
        32,
        32,
    ]
    assert [c.name for c in load(tmp_path, text)] == ["a", "b"]


def test_seed_and_quantity_overrides(tmp_path: Path) -> None:
    (case,) = load_cases(_write(tmp_path, GOOD), ["job.detection=2 min", "parallel.zero=2"], seed=9)
    assert (case.seed, case.job.detection_s, case.parallel.zero) == (9, 120.0, 2)


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("question: What?", "questoin: What?", "s.yaml:2:1: questoin: unknown key, did you mean 'question'"),
        ("tokens: 1 T tokens", "tokens: 0.5", "training.tokens: '0.5' - expected at least 1 tokens"),
        ("tokens: 1 T tokens", "tokens: 5 GB", "unknown unit 'GB'"),
        ("global_batch: 64", "global_batch: -64", "s.yaml:6:49: training.global_batch: '-64'"),
        ("global_batch: 64", "global_batch: .nan", "is not a finite number"),
        ("global_batch: 64", "global_batch: 1e400", "not a finite number"),
        ("global_batch: 64", "global_batch: 63", "is not a multiple of micro_batch 1 x dp 8"),
        ("dp: 8", "dp: 4", "tp 2 x pp 1 x cp 1 x dp 4 = 8 ranks do not make 16 devices; dp 8 would"),
        ("tp: 2, dp: 8", "tp: 3", "does not divide the 32 heads"),
        ("tp: 2, dp: 8", "tp: 1, pp: 33", "33 chunks for 32 layers"),
        ("tp: 2, dp: 8", "ep: 2, dp: 16", "llama2-7b has no experts"),
        ("tp: 2, dp: 8", "tp: 2, dp: 8, schedule: 1f2b", "expected one of gpipe"),
        ("tp: 2, dp: 8", "pp: 2, vp: 2, dp: 8, schedule: 1f1b", "need schedule: interleaved"),
        ("tp: 2, dp: 8", "tp: 2, dp: 8, zero: 5", "s.yaml:7:32: parallel.zero: '5'"),
        ("tp: 2, dp: 8", "cp: 2, dp: 8, cp_comm: a2a+p2p", "expected a divisor of cp 2"),
        ("tp: 2, dp: 8", "cp: 2, cp_inner: 2, dp: 8", "belongs to cp_comm: a2a+p2p"),
        ("tp: 2, dp: 8", "tp: 8, cp: 8, cp_comm: a2a, dp: 1", "cannot share the 4 heads"),
        ("tp: 2, dp: 8", "tp: 2, dp: 8, recompute_modules: [scores]", "parallel.recompute_modules"),
        ("h800-8", "h80-8", "no such name in the catalogue of nodes, did you mean 'h800-8'"),
        ("h800-8", "hanguang-800-8", "cannot train: it is an inference chip"),
        ("llama2-7b", "llama2-8b", "no such model in the catalogue, did you mean"),
        ("megatron-core", "megatron-coer", "did you mean 'megatron-core'"),
        ("node: h800-8, nodes: 2", "node: h800-8", "nodes is missing"),
        ("node: h800-8, nodes: 2", "node: h800-8, devices: 20", "no whole number of nodes of 8"),
        ("node: h800-8, nodes: 2", "node: h800-8, nodes: 3, devices: 16", "is not what 3 nodes of 8"),
        ("27.5 CNY/h", "27.5 USD/h", "expected the currency of the section, CNY"),
        ("27.5 CNY/h", "27.5", "has no unit"),
        ("nodes: 2", "nodes: 99999999999", "s.yaml:5:32: cluster.nodes"),
    ],
)  # fmt: skip
def test_bad_values(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    found = faults(tmp_path, GOOD.replace(old, new, 1))
    assert any(expected in line for line in found), found


MIXED = GOOD.replace("llama2-7b", "mixtral-8x7b").replace("tp: 2, dp: 8", "tp: 2, dp: 8, ep: 8")


def test_layouts_of_experts_that_the_software_refuses(tmp_path: Path) -> None:
    """Megatron has no experts under tensor parallelism without sequence parallelism; DeepSpeed has.
    Strided groups slice experts over tp and lie within dp."""
    plain = MIXED.replace("ep: 8", "ep: 8, sequence_parallel: false")
    words = "experts under tensor parallelism need sequence parallelism in megatron-core"
    assert any(words in line for line in faults(tmp_path, plain))
    assert load(tmp_path, plain.replace("stack: megatron-core", "stack: deepspeed"))
    strided = MIXED.replace("ep: 8", "ep: 8, expert_layout: strided")
    assert any("expected 2, or expert_layout: folded" in line for line in faults(tmp_path, strided))
    assert load(tmp_path, strided.replace("strided", "strided, etp: 2"))


def test_stacks_that_say_what_no_one_understands(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    leaf = "{value: %s, source: OWN, date: 2026-11, confidence: high}"
    path.write_text(
        "name: own\nbased_on: megatron-core\nsources: {OWN: own}\n"
        f"zero2_reduce: {leaf % 'sometimes'}\nselective_recompute: {leaf % 'norms'}\n"
    )
    found = faults(tmp_path, GOOD.replace("megatron-core", str(path)))
    assert any("'sometimes' - expected one of micro-batch, run" in line for line in found)
    assert any("'norms' - expected one of core_attn" in line for line in found)


def test_a_dtype_that_the_device_lacks(tmp_path: Path) -> None:
    text = GOOD.replace("h800-8", "ascend-910b2-8").replace("tokens:", "precision: fp8, tokens:")
    (line,) = faults(tmp_path, text)
    assert "training.precision: 'fp8' - Ascend 910B2 multiplies" in line


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("question", "questoin").replace("1 T tokens", "five").replace("tp: 2", "tq: 2")
    )
    found = faults(tmp_path, text)
    assert len(found) >= 4  # unknown key twice, the missing question, the unreadable tokens


def test_faults_of_a_case_point_into_the_case(tmp_path: Path) -> None:
    text = GOOD + "cases:\n  a: {}\n  b:\n    training: {global_batch: 63}\n"
    assert any(
        line.startswith("s.yaml:12:30: cases.b.training.global_batch")
        for line in faults(tmp_path, text)
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [("training.batch=3", "unknown key"), ("novalue", "expected key=value"),
     ("stage_pools[4]=x", "--set"), ("parallel.tp=[", "--set")],
)  # fmt: skip
def test_bad_overrides(tmp_path: Path, override: str, words: str) -> None:
    found = faults(tmp_path, GOOD, override)
    assert any(words in line and "--set" in line for line in found), found


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2]", b"a: &x [*x]", b"just text",
                                     b"\x00\x01", b"a" * 5_000_000])  # fmt: skip
def test_files_that_are_no_scenario(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_cases(path)


def test_custom_schedules_are_checked(tmp_path: Path) -> None:
    orders = "schedule: {orders: [[[F, 0, 0], [B, 0, 0]]]}"
    text = GOOD.replace("tp: 2, dp: 8", f"tp: 2, dp: 8, {orders}").replace("batch: 64", "batch: 8")
    (case,) = load(tmp_path, text)
    assert case.parallel.custom_schedule == ((("F", 0, 0), ("B", 0, 0)),)
    wrong = text.replace("[B, 0, 0]", "[B, 0, 1]")
    assert any("expected another shape" in line for line in faults(tmp_path, wrong))


def test_pools(tmp_path: Path) -> None:
    text = GOOD.replace(
        "cluster: {node: h800-8, nodes: 2}",
        "cluster:\n  pools:\n    - {name: a, node: h800-8, nodes: 1}\n"
        "    - {name: b, node: ascend-910b2-8, nodes: 1}",
    )
    stages = text.replace("tp: 2, dp: 8", "tp: 2, pp: 2, dp: 4, stage_pools: [a, b]")
    (case,) = load(tmp_path, stages)
    assert [p.name for p in case.pools] == ["a", "b"]
    wrong = faults(tmp_path, stages.replace("[a, b]", "[a, c]"))
    assert any("stage_pools[1]: 'c' - expected one of a, b" in line for line in wrong)
    replicas = text.replace("tp: 2, dp: 8", "tp: 2, dp: 8, mixed: replicas")
    assert load(tmp_path, replicas)[0].parallel.mixed == "replicas"


def test_a_file_holds_at_most_a_thousand_cases(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("cases:\n" + "".join(f"  c{i}: {{}}\n" for i in range(1001)))
    with pytest.raises(InputError, match=r"cases: .*expected at most 1,000 cases"):
        read_cases(path)
