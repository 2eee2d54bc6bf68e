"""Trainings in phases: what they add up to, how they begin anew, what files say of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import make_scenario

import ersatz
from ersatz.sim.answers.cases import load
from ersatz.sim.answers.plan import plan
from ersatz.sim.errors import BrokenAnswerError, InfeasibleError, InputError
from ersatz.sim.exporting.formats import export_scenario
from ersatz.sim.importing.cases import load_any
from ersatz.sim.importing.formats import import_file
from ersatz.sim.invariants import check_run
from ersatz.sim.job.conditions import ConditionPlan
from ersatz.sim.job.job import simulate_job, simulate_phases
from ersatz.sim.job.work import Work, starts_anew
from ersatz.sim.purchase.rates import plan_throughputs
from ersatz.sim.run import run_case
from ersatz.sim.scenario.phases import ramp_steps
from ersatz.sim.scenario.scenario import (
    CheckpointSpec,
    FailureSpec,
    JobSpec,
    Parallel,
    PauseSpec,
    Scenario,
    Training,
)
from ersatz.sim.search import planned
from ersatz.sim.step.step import step_seconds

QUIET: dict[str, Any] = {
    "failures": {"scale": 0},
    "replicas": 1,
    "checkpoint": {"interval": "100 years"},
}


def file(tmp_path: Path, training: dict[str, Any], **more: Any) -> Path:
    """A scenario of a small model on two nodes, without failures."""
    data = {"question": "how long?", "model": "llama3-8b", "stack": "megatron-core",
            "cluster": {"node": "h100-8", "nodes": 2}, "parallel": {"tp": 4, "dp": 4, "zero": 1},
            "training": {"sequence_length": 4096, "global_batch": 64, **training}, "job": QUIET}  # fmt: skip
    path = tmp_path / "phased.yaml"
    path.write_text(yaml.safe_dump(data | more))
    return path


def one(tmp_path: Path, training: dict[str, Any], **more: Any) -> Scenario:
    """The case of such a file."""
    (case,) = load(file(tmp_path, training, **more))
    return case


SHORT_LONG = [
    {"name": "short", "share": 0.9},
    {"name": "long", "sequence_length": 32768, "global_batch": 8,
     "parallel": {"cp": 4, "dp": 1, "recompute": "full"}},
]  # fmt: skip


def test_a_job_takes_the_tokens_of_each_phase_over_its_rate(tmp_path: Path) -> None:
    # 10 G tokens: 9 G in steps of 64 x 4,096 = 262,144 tokens are 34,333 steps; 1 G in steps of
    # 8 x 32,768, as many tokens, are 3,815. Nothing fails and nothing is saved but at the border, where
    # the job is started again: 8.03 G weights of 14 bytes written, 600 s, and read.
    case = one(tmp_path, {"tokens": "10 G tokens".replace("G", "B"), "phases": SHORT_LONG})
    short, long = case.parts
    assert (short.parallel.cp, long.parallel.cp, long.parallel.tp) == (1, 4, 4)
    result = run_case(case)
    assert result.job is not None
    assert result.energy is not None
    times = 34_333 * step_seconds(short), 3_815 * step_seconds(long)
    assert result.job.steps == 34_333 + 3_815
    assert result.job.productive_s == pytest.approx(sum(times))
    written = case.model.params() * 14.0 / min(100e9, 2 * 10e9)
    assert result.job.lost_s["checkpoint"] == pytest.approx(written)
    assert result.job.lost_s["restart"] == pytest.approx(600 + written)
    assert result.job.wall_s == pytest.approx(sum(times) + 600 + 2 * written)
    assert [p.productive_s for p in result.phases] == pytest.approx(times)
    assert [p.anew for p in result.phases] == [False, True]
    # each phase alone is the same step
    alone = [run_case(part).step for part in case.parts]
    assert [p.step_s for p in result.phases] == pytest.approx([s.duration_s for s in alone])
    assert result.step.duration_s == alone[0].duration_s  # of the phase with the most tokens


def test_energy_money_and_memory_follow_the_phases(tmp_path: Path) -> None:
    rent = {"cost": {"currency": "USD", "rent": "2 USD/h"}}
    case = one(tmp_path, {"tokens": "10 B tokens", "phases": SHORT_LONG}, **rent)
    result, parts = run_case(case), [run_case(part) for part in case.parts]
    assert result.job
    assert result.cost
    assert result.energy
    assert result.cost.total == pytest.approx(result.job.device_hours * 2)
    # energy: that of the phases alone, and what idles while the job is started again
    apart = [part.energy.kwh for part in parts if part.energy]
    assert sum(apart) < result.energy.kwh < sum(apart) * 1.02
    peaks = [part.memory.peak_bytes for part in parts]
    assert result.memory.peak_bytes == max(peaks)
    assert [p.peak_bytes for p in result.phases] == peaks


def test_memory_is_that_of_the_fullest_phase_and_says_what_helps(tmp_path: Path) -> None:
    long = {"name": "long", "sequence_length": 131072, "global_batch": 4, "share": 0.01}
    answer = ersatz.run(file(tmp_path, {"tokens": "10 B tokens", "phases": [{}, long]}))
    (result,) = answer.values()
    assert [p.verdict for p in result.phases] == ["fits", "does not fit"]
    assert not answer.feasible
    assert not result.memory.fits
    assert "does not fit into memory" in answer.reasons[0]
    assert set(answer.files()) >= {"phases.csv"}


def test_a_growing_batch_is_the_sum_over_its_sizes(tmp_path: Path) -> None:
    # From 16 by 16 to 64 over 3,000 sequences: three sizes of 1,000 sequences each.
    # 16: 63 steps to 1,008; 32: 992 more to 2,000 are 31 steps; 48: 1,000 more are 21 steps, to 3,008.
    assert list(ramp_steps(16, 16, 3, 3000)) == [(16, 63), (32, 31), (48, 21)]
    ramp = {"start": 16, "increment": 16, "sequences": 3000}
    case = one(tmp_path, {"tokens": 20_000 * 4096, "batch_ramp": ramp})
    rest = math.ceil((20_000 - 3008) / 64)
    result = run_case(case)
    assert [p.steps for p in result.phases] == [63, 31, 21, rest]
    assert [p.global_batch for p in result.phases] == [16, 32, 48, 64]
    sizes = [
        replace(case, phases=(), training=replace(case.training, global_batch=b))
        for b in (16, 32, 48, 64)
    ]
    worked = sum(p.steps * step_seconds(s) for p, s in zip(result.phases, sizes, strict=True))
    assert result.job
    assert result.job.wall_s == pytest.approx(worked)
    whole = run_case(replace(case, phases=())).job
    assert whole
    assert result.job.wall_s > whole.wall_s


def test_a_ramp_counts_as_megatron_counts() -> None:
    """The rule of Megatron's calculator, walked step by step: the batch by samples that are done."""
    for start, increment, count, samples in (
        (32, 32, 47, 1_000_000),
        (2, 2, 2, 10),
        (3, 5, 4, 11),
        (1, 1, 3, 1),
    ):
        done, walked = 0, [0] * count
        while done < samples:
            size = min(int(done * count / samples), count - 1)
            walked[size] += 1
            done += start + size * increment
        assert [steps for _, steps in ramp_steps(start, increment, count, samples)] == walked


def works(case: Scenario, *step_s: float, anew: bool = False) -> tuple[Work, ...]:
    """Phases of 1,000 steps each."""
    return tuple(Work(1000, s, anew=anew and i > 0) for i, s in enumerate(step_s))


def small_job(**job: Any) -> Scenario:
    """A job of 2,000 steps of 64,000 tokens."""
    training = Training(1000, 64, 1, "bf16", 2000 * 64_000.0)
    return make_scenario(training=training, job=JobSpec(**job))


def test_phases_that_are_alike_are_one_job() -> None:
    failures = FailureSpec(node_rate=1e-5, device_repair_s=5000.0)
    saved = CheckpointSpec(700.0, "synchronous", 1e9 * 14.0 / 5.0)
    case = small_job(
        failures=failures, checkpoint=saved, replicas=16, evaluation=PauseSpec(3000.0, 100.0)
    )
    split = simulate_phases(case, works(case, 10.0, 10.0), 1e9)
    whole = simulate_job(case, 10.0, model_params=1e9)
    assert whole.interruptions > 0
    assert split.wall_s == pytest.approx(whole.wall_s, rel=1e-9)
    assert split.lost_s == pytest.approx(whole.lost_s, rel=1e-9)


def test_checkpoints_go_on_over_a_border_and_a_new_start_makes_one() -> None:
    # 10,000 s and 20,000 s of work, a checkpoint of 5 s after every 3,000 s: nine, none at the end.
    saved = CheckpointSpec(3000.0, "synchronous", 1e9 * 14.0 / 5.0)
    case = small_job(checkpoint=saved, replicas=1)
    job = simulate_phases(case, works(case, 10.0, 20.0), 1e9)
    assert job.wall_s == pytest.approx(30_000 + 9 * 5)
    # Started anew after 10,000 s: three before, one at the border, six after it (the last at 28,000).
    anew = simulate_phases(case, works(case, 10.0, 20.0, anew=True), 1e9)
    assert anew.lost_s["checkpoint"] == pytest.approx((3 + 1 + 6) * 5)
    assert anew.lost_s["restart"] == pytest.approx(600 + 5)


def test_a_condition_slows_each_phase_as_it_does() -> None:
    # It lasts all the time (begins at once, ends after the job): twice as long, then three times.
    def slow(factor: float) -> tuple[ConditionPlan, ...]:
        return (ConditionPlan("busy", 1e6, 1e9, factor),)

    case = small_job(replicas=1, checkpoint=CheckpointSpec(1e9, "synchronous"))
    phases = Work(1000, 10.0, None, slow(2.0)), Work(1000, 10.0, None, slow(3.0))
    assert simulate_phases(case, phases, 1.0).wall_s == pytest.approx(50_000, rel=1e-3)


def test_lost_nodes_slow_each_phase_as_they_do() -> None:
    # Full steps of 10 s take 12 s and 30 s without a node; fewer nodes are never a gain.
    slowed = [Work(1, 10.0, lambda lost, s=s: s).slowdown for s in (12.0, 30.0, 8.0)]  # type: ignore[misc]
    assert [slow((1,)) for slow in slowed] == [1.2, 3.0, 1.0]
    assert [slow((0,)) for slow in slowed] == [1.0, 1.0, 1.0]


def test_only_a_batch_changes_while_a_job_runs() -> None:
    case = small_job()
    grown = replace(case, training=replace(case.training, global_batch=128, tokens=1.0))
    assert not starts_anew(case, grown)
    assert starts_anew(case, replace(case, training=replace(case.training, sequence_length=2000)))
    assert starts_anew(case, replace(case, parallel=Parallel(dp=8, recompute="full")))


def test_a_phase_without_a_layout_is_planned_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planned, "MOST_TIMED", 5)  # the best of a few is enough here
    data = yaml.safe_load(file(tmp_path, {"tokens": "10 B tokens", "phases": [
        {"name": "short"}, {"name": "long", "share": 0.1, "sequence_length": 65536, "global_batch": 4},
    ], "batch_ramp": {"start": 24, "increment": 40, "sequences": 1000}}).read_text())  # fmt: skip
    data.pop("parallel")
    data["cluster"]["nodes"] = 1
    path = tmp_path / "open.yaml"
    path.write_text(yaml.safe_dump(data))
    (case,) = load(path)
    ramp, short, long = case.parts
    assert not case.open
    assert not any(phase.open for phase in case.phases)
    assert ramp.parallel == short.parallel != long.parallel
    assert (
        24 % (short.training.micro_batch * short.parallel.dp) == 0
    )  # the smaller batch goes round, too
    assert sum("parallel is not given" in words for words in case.assumptions) == 2
    assert all(p.verdict == "fits" for p in run_case(case).phases)


def test_the_report_tells_phases_in_a_small_table(tmp_path: Path) -> None:
    training = {"tokens": "10 B tokens", "phases": SHORT_LONG,
                "batch_ramp": {"start": 16, "increment": 16, "sequences": 3000}}  # fmt: skip
    answer = ersatz.run(file(tmp_path, training))
    text = str(answer)
    assert max(map(len, text.splitlines())) <= 100
    assert "ramp, 3 sizes" in text
    assert "16 - 48" in text
    assert "saved and started again before long" in text
    record = json.loads(answer.to_json())
    assert [p["name"] for p in record["phases"]][-2:] == ["short", "long"]
    assert sum(p["tokens"] for p in record["phases"]) == pytest.approx(10e9)


def ramped(tokens: float, start: int, increment: int, sequences: int) -> dict[str, Any]:
    """A growing batch."""
    ramp = {"start": start, "increment": increment, "sequences": sequences}
    return {"tokens": tokens, "batch_ramp": ramp}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"steps": 5, "phases": [{}]}, "training.steps", "steps in each phase"),
    ({"tokens": 1e9, "phases": [{}, {}]}, "training.phases[1]", "tokens, steps or share"),
    ({"phases": [{"share": 0.5}, {"tokens": 1e9}]}, "training.phases[0].share", "not given"),
    ({"tokens": 1e9, "phases": [{"tokens": 1e9}, {}]}, "training.phases[1]", "no tokens are left"),
    ({"tokens": 3e9, "phases": [{"tokens": 1e9}]}, "training.tokens", "add up to 1e+09"),
    ({"phases": [{"tokens": 1e9, "steps": 1}]}, "training.phases[0].steps", "one of tokens and steps"),
    ({"phases": [{"steps": 9, "global_batch": 30}]}, "training.phases[0].global_batch", "multiple"),
    ({"phases": [{"steps": 9, "parallel": {"cp": 3}}]}, "parallel", "ranks"),
    ({"phases": [{"steps": n, "name": "a"} for n in (8, 9)]}, "training.phases[1].name", "same name"),
    ({"phases": [{"steps": 9, "parallel": {"tpp": 3}}]}, "training.phases[0].parallel.tpp", "unknown key"),
    (ramped(1e9, 64, 8, 9), "batch_ramp.start", "increments"),
    (ramped(1e9, 16, 15, 9), "batch_ramp.start", "increments"),
    (ramped(1e9, 30, 2, 9), "batch_ramp.start", "multiple"),
    (ramped(1e7, 16, 16, 9999), "sequences", "grows over"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("training", "key", "words"), WRONG, ids=[f"{w[1]}-{i}" for i, w in enumerate(WRONG)]
)
def test_what_cannot_be_is_refused_where_it_stands(
    tmp_path: Path, training: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        one(tmp_path, training)
    assert any(key in p.key and words in p.expected for p in caught.value.problems), caught.value


def test_a_ramp_of_one_step_alone_is_said_to_be_without_effect(tmp_path: Path) -> None:
    case = one(tmp_path, {"batch_ramp": {"start": 16, "increment": 16, "sequences": 9}})
    assert not case.phases
    assert any("batch_ramp: one step is of the full batch" in words for words in case.assumptions)


def test_who_looks_for_one_layout_refuses_phases_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training.phases.*plan one phase"):
        plan(file(tmp_path, {"tokens": "10 B tokens", "phases": SHORT_LONG}))


def test_a_purchase_refuses_a_plan_in_phases(tmp_path: Path) -> None:
    case = one(tmp_path, {"tokens": "10 B tokens", "phases": SHORT_LONG})
    with pytest.raises(InfeasibleError, match=r"training.phases; a purchase takes one rate"):
        plan_throughputs([case], {"ours": case.pools[0].node.name})


def test_a_result_whose_phases_do_not_add_up_is_no_answer(tmp_path: Path) -> None:
    result = run_case(one(tmp_path, {"tokens": "10 B tokens", "phases": SHORT_LONG}))
    with pytest.raises(BrokenAnswerError, match="other steps than the job"):
        check_run(replace(result, phases=result.phases[:1]), 1e30, 0.0)


SCRIPT = """#!/bin/bash
torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --num-layers 8 --hidden-size 1024 \\
  --num-attention-heads 16 --vocab-size 32000 --seq-length 4096 --max-position-embeddings 4096 \\
  --micro-batch-size 1 --bf16 --tensor-model-parallel-size 2 --use-distributed-optimizer {more}
"""


def imported(tmp_path: Path, more: str) -> Any:
    """What is found of a script with some flags more."""
    path = tmp_path / "pretrain.sh"
    path.write_text(SCRIPT.format(more=more))
    return import_file(path, ["cluster.node=h100-8"])


def test_megatrons_ramp_is_read_and_written_back(tmp_path: Path) -> None:
    found = imported(
        tmp_path, "--global-batch-size 64 --rampup-batch-size 16 16 3000 --train-samples 20000"
    )
    assert found.scenario["training"]["batch_ramp"] == {
        "start": 16,
        "increment": 16,
        "sequences": 3000,
    }
    assert found.scenario["training"]["tokens"] == f"{20000 * 4096} tokens"
    assert not [n for n in found.not_modelled if "ramp" in n.flag]
    (case,) = load_any(tmp_path / "pretrain.sh", ["cluster.node=h100-8"])
    assert [p.training.global_batch for p in case.phases] == [16, 32, 48, 64]
    for to, ending in (
        ("megatron", "sh"),
        ("mindspeed", "sh"),
        ("slurm", "sh"),
        ("primus", "yaml"),
    ):
        path = tmp_path / f"again.{ending}"
        exported = export_scenario(case, to)
        path.write_text(exported.text)
        assert not any("phases" in words for words in exported.unsaid)
        more = ["cluster.node=h100-8", *(["cluster.nodes=2"] if to == "primus" else [])]
        (again,) = load_any(path, more)
        assert (again.ramp, [p.training for p in again.phases]) == (
            case.ramp,
            [p.training for p in case.phases],
        )


def test_steps_of_a_batch_at_given_tokens_are_phases(tmp_path: Path) -> None:
    found = imported(
        tmp_path, '--step-batch-size-schedule "0:32 10M:64 0.03B:128" --train-samples 20000'
    )
    phases = found.scenario["training"]["phases"]
    assert [(p["global_batch"], p.get("tokens")) for p in phases] == [
        (32, "10000000 tokens"), (64, "20000000 tokens"), (128, None)]  # fmt: skip
    (case,) = load_any(tmp_path / "pretrain.sh", ["cluster.node=h100-8"])
    assert case.training.global_batch == 128
    assert [p.training.tokens for p in case.phases] == [10e6, 20e6, 20000 * 4096 - 30e6]


def test_steps_over_sizes_that_grow_at_given_tokens(tmp_path: Path) -> None:
    # 10 M tokens are 2,441 sequences of 4,096: 77 steps of 32, to 2,464. 20 M more are 4,882 (7,323 in
    # all): 4,859 more are 76 steps of 64. What is left of 200 steps is of 128.
    schedule = (
        '--global-batch-size 128 --step-batch-size-schedule "0:32 10M:64 30M:128" --train-iters'
    )
    phases = imported(tmp_path, f"{schedule} 200").scenario["training"]["phases"]
    assert [(p["global_batch"], p["steps"]) for p in phases] == [(32, 77), (64, 76), (128, 47)]
    (case,) = load_any(tmp_path / "pretrain.sh", ["cluster.node=h100-8"])
    job = run_case(replace(case, job=JobSpec(failures=FailureSpec(scale=0.0), replicas=1))).job
    assert job
    assert job.steps == 200
    short = imported(tmp_path, f"{schedule} 100").scenario["training"]["phases"]
    assert [(p["global_batch"], p["steps"]) for p in short] == [(32, 77), (64, 23)]
    other = imported(tmp_path, schedule.replace("128 --", "512 --") + " 200")
    assert any("--global-batch-size says 512" in words for words in other.wrong)


@pytest.mark.parametrize(("more", "words"), [
    ("--global-batch-size 64 --rampup-batch-size 16 16 --train-samples 9", "three whole numbers"),
    ("--step-batch-size-schedule 0:32,5 --train-samples 9", "TOKENS:BATCH"),
    ("--step-batch-size-schedule '5M:32 9M:64' --train-samples 9", "from 0"),
])  # fmt: skip
def test_a_ramp_that_cannot_be_read_is_blamed(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        imported(tmp_path, more)


def test_a_ramp_with_iterations_is_a_contradiction_and_asked(tmp_path: Path) -> None:
    found = imported(
        tmp_path, "--global-batch-size 64 --rampup-batch-size 16 16 3000 --train-iters 100"
    )
    assert any("--train-samples" in words for words in found.wrong)
    assert [q.key for q in found.questions] == ["training.tokens"]


@pytest.mark.parametrize("to", ["megatron", "primus", "torchtitan", "automodel", "deepspeed"])
def test_an_export_says_which_phase_it_is(tmp_path: Path, to: str) -> None:
    case = one(tmp_path, {"tokens": "10 B tokens", "phases": SHORT_LONG})
    exported = export_scenario(case, to)
    assert any(
        "training.phases: this is short alone" in words and "long" in words
        for words in exported.unsaid
    )
    if to == "megatron":
        assert "--train-iters 34332" in exported.text  # 9 G / 262,144, as a launch of its own
        assert "--rampup" not in exported.text
