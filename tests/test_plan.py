"""`ersatz plan`: what it finds, what it says, and that no stop changes its answer."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from benchmarks.published import published_runs, ranked

import ersatz
from ersatz.device_models.shipped import DATA
from ersatz.sim.answers.cases import load
from ersatz.sim.answers.plan import plan
from ersatz.sim.cli.output import captured
from ersatz.sim.cli.pages.tours import refreshed
from ersatz.sim.errors import InfeasibleError, InputError
from ersatz.sim.scenario.scenario import layout_words
from ersatz.sim.search.journal import KEEP, Journal, Remembering
from ersatz.sim.search.planned import planned
from ersatz.sim.search.pricing import InPlace, Price, Row
from ersatz.sim.search.reading import find_node, read_question
from ersatz.sim.search.wish import Wish, front, in_place, round_numbers, seek
from ersatz.sim.search.workers import Pooled, many

ROOT = Path(__file__).resolve().parents[1]
SMALL = """question: How is a small model trained?
model: llama3-8b
cluster: {node: h100-8, nodes: 2}
training: {sequence_length: 8192, global_batch: 64, micro_batch: 2, tokens: 1 T tokens}
parallel: {tp: 8, pp: 2, schedule: 1f1b}
cost: {currency: USD, rent: 2 USD/h}
job: {replicas: 4}
"""
FEW = ["micro_batch", "schedule"]  # axes that stay, where what is asked does not need them all


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_the_plan_is_no_slower_than_the_files_layout_and_its_file_says_the_same(
    small: Path, tmp_path: Path
) -> None:
    answer = plan(small)
    record = answer.to_dict()
    assert record["given_step_s"] >= record["best"]["result"]["step"]["duration_s"]
    assert [p["step_s"] for p in record["plans"]] == sorted(p["step_s"] for p in record["plans"])
    text = str(answer)
    assert "the file's own layout takes" in text.splitlines()[2]
    assert max(map(len, text.splitlines())) <= 100
    files = answer.files()
    for number in (1, len(record["plans"])):
        again = tmp_path / "again.yaml"
        again.write_text(files[f"plan-{number:02}.yaml"])
        (result,) = ersatz.run(again).values()
        assert result.step.duration_s == record["plans"][number - 1]["step_s"]
    assert files["plan-memory.svg"].startswith("<svg")
    assert (
        "--tensor-model-parallel-size" in files["plan-01.txt"] or "torchrun" in files["plan-01.txt"]
    )


def test_the_files_layout_says_why_it_is_not_compared(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other devices, without a step, or with too much memory: each in words, none left out."""
    other = plan(small, on=["h200-8"], devices=[16], keep=FEW)
    assert other.to_dict()["given_step_s"] is None
    assert "the file's own layout is for other devices: not compared" in str(other)
    full = tmp_path / "full.yaml"
    full.write_text(SMALL.replace("tp: 8, pp: 2", "tp: 1, pp: 1"))
    record = plan(full, keep=FEW).to_dict()
    assert record["given_step_s"] > 0
    assert re.fullmatch(r"does not fit: it takes .* of 80\.0 GiB of memory", record["given_remark"])

    def none(scenario: object) -> float:
        raise InfeasibleError("the network cuts off a rank of the dp groups")

    monkeypatch.setattr("ersatz.sim.answers.plan.step_seconds", none)
    told = plan(small, keep=FEW)
    assert told.to_dict()["given_remark"] == (
        "cannot be run: the network cuts off a rank of the dp groups"
    )
    assert "the file's own layout cannot be run: the network" in str(told)


@pytest.mark.parametrize("days", ["nan", "inf", "-5", "0", "1e400", "soon"])
def test_days_that_are_none_are_refused(small: Path, days: str) -> None:
    with pytest.raises(InputError, match=r"--by: '.*' - "):
        plan(small, by=days)


@pytest.mark.heavy
def test_published_layouts_are_predicted_no_faster_than_the_planned_ones() -> None:
    # Layouts that their authors tuned: a search over all that the stack runs must not lose to them.
    for name in ("llama3-70b-mi300x", "ling-lite-ppu"):
        record = plan(name, keep=["micro_batch"]).to_dict()
        assert record["given_step_s"] is not None, name
        assert record["best"]["result"]["step"]["duration_s"] <= record["given_step_s"], name


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name",
    ["pap-0080", "mlperf-0003",
     *(pytest.param(name, marks=pytest.mark.slow) for name in ("pap-0008", "pap-0148"))],
)  # fmt: skip
def test_published_layouts_rank_among_the_best_tenth(name: str) -> None:
    """A few of the list of `tests/benchmarks/published.py`: GPT 310B and 175B, Llama 3 405B, Nemotron-4."""
    (run,) = [run for run in published_runs() if run.id == name]
    one = ranked(run)
    assert one.planned_s <= one.published_s
    assert one.fitting > 100
    assert one.share <= 0.10


def test_how_many_devices_for_a_date_from_two_names() -> None:
    answer = plan("llama3-8b", on=["910B2"], by=10, tokens="0.1 T tokens")
    (best,) = list(answer.values())[:1]
    assert best.wall_s <= 10 * 86_400
    record = answer.to_dict()
    (fewer,) = record["others"]
    assert fewer["devices"] < best.devices  # the next round number below is too few
    assert fewer["result"]["job"]["wall_s"] > 10 * 86_400
    assert "ascend-910b2" in str(answer).splitlines()[0]
    assert any(
        "shipped scenario" in words or "batch" in words for words in best.scenario.assumptions
    )


def test_a_budget_buys_the_soonest_end_that_it_pays_for(small: Path) -> None:
    spent = {
        option.devices: option
        for option in plan(small, budget="170 k USD", keep=FEW, most=64).values()
    }
    best = max(spent)
    cost = spent[best].result.cost
    assert cost is not None
    assert cost.total <= 400e3
    more = plan(small, devices=[best * 2], keep=FEW).to_dict()["best"]["result"]["cost"]["total"]
    assert more > cost.total


def test_choices_are_ordered_by_what_is_wished_for(small: Path) -> None:
    found = {what: next(iter(plan(small, devices=[16, 32], objective=what, keep=FEW)))
             for what in ("time", "devices")}  # fmt: skip
    assert found == {"time": "32 x h100", "devices": "16 x h100"}
    money = list(plan(small, devices=[16, 32], objective="money", keep=FEW).values())
    totals = [option.result.cost.total for option in money if option.result.cost]
    assert totals == sorted(totals)
    marked = front(money)
    assert [o.wall_s for o in marked] == sorted(o.wall_s for o in marked)


def test_what_is_left_out_is_planned_and_said(tmp_path: Path) -> None:
    path = tmp_path / "open.yaml"
    text = "\n".join(line for line in SMALL.splitlines() if not line.startswith("parallel"))
    path.write_text(text)
    (case,) = load(path)
    assert case.training.micro_batch == 2  # as given
    assert "parallel is not given: " in case.assumptions[0]
    (result,) = ersatz.run(path).values()
    fastest = plan(path, keep=["micro_batch"]).to_dict()["best"]["result"]["step"]["duration_s"]
    assert result.step.duration_s == fastest
    path.write_text(text.replace("nodes: 2", "nodes: 1").replace("llama3-8b", "llama3-405b"))
    with pytest.raises(InfeasibleError, match=r"none of .* layouts fits"):
        load(path)


def test_one_device_leaves_nothing_open() -> None:
    (case,) = load("small-llama-cpu")
    assert not case.open
    assert planned(case) is case


def test_a_journal_answers_what_was_priced_and_nothing_twice(small: Path, tmp_path: Path) -> None:
    question = read_question(str(small), keep=FEW)
    plain = seek(question, Wish())
    journal = Journal([tmp_path / "a.db"])
    asked: list[Remembering] = []

    def remembering(case, least):  # type: ignore[no-untyped-def]
        asked.append(Remembering(journal, "q", in_place(case, least)))
        return asked[-1]

    first = seek(question, Wish(), pricers=remembering)
    again = seek(question, Wish(), pricers=remembering)
    for other in (first, again):
        assert other.options[0].found == plain.options[0].found
    assert asked[0].asked == journal.count() > 0
    assert asked[1].asked == 0


class Stopped(Exception):
    """Stands for the end of the process."""


def test_a_search_that_stops_anywhere_ends_with_the_same_answer(
    small: Path, tmp_path: Path
) -> None:
    question, whole = (
        read_question(str(small), keep=FEW),
        seek(read_question(str(small), keep=FEW), Wish()),
    )
    for after in (1, 5, 12):
        journal, priced = Journal([tmp_path / f"{after}.db"]), []

        class Ending(InPlace):
            def price(self, row, after=after, priced=priced) -> Price:  # type: ignore[no-untyped-def]
                if len(priced) == after:
                    raise Stopped
                priced.append(row)
                return super().price(row)

        def make(case, least, kind=InPlace, journal=journal):  # type: ignore[no-untyped-def]
            return Remembering(journal, "q", kind(case, least))

        with pytest.raises(Stopped):
            seek(question, Wish(), pricers=lambda c, v, make=make, kind=Ending: make(c, v, kind))
        assert journal.count() == after
        assert seek(question, Wish(), pricers=make).options[0].found == whole.options[0].found


@pytest.mark.heavy
def test_killed_by_nine_and_begun_again_it_writes_the_same_bytes(
    small: Path, tmp_path: Path
) -> None:
    def begin(*more: str) -> subprocess.Popen[bytes]:
        words = [
            sys.executable,
            "-m",
            "ersatz",
            "plan",
            str(small),
            "--json",
            "-",
            "--keep",
            ",".join(FEW),
            *more,
        ]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)

    journal = tmp_path / "kept.db"
    stopped = begin("--journal", str(journal))
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    stopped.send_signal(signal.SIGKILL)
    stopped.communicate()
    ended, undisturbed = begin("--journal", str(journal)), plan(small, keep=FEW)
    out, _ = ended.communicate(timeout=120)
    assert json.loads(out) == json.loads(undisturbed.to_json())
    assert out.decode() == undisturbed.to_json()


def test_shards_merge_into_the_answer_of_one(small: Path, tmp_path: Path) -> None:
    journals = [tmp_path / f"{i}.db" for i in (1, 2)]
    for part, journal in enumerate(journals, start=1):
        plan(small, journals=[journal], shard=(part, 2), keep=FEW)
    merged = tmp_path / "merged.db"
    answer = plan(small, journals=[merged, *journals], keep=FEW)
    assert answer.to_json() == plan(small, keep=FEW).to_json()
    known = Journal([merged])
    assert known.count() < 10  # beside the winner's proof, which the shards hold


def _dies_at(keep: int, when: str) -> None:
    """Let the process kill itself at the so many-th price: before it is noted, half-way, or after."""
    whole, count = Journal.keep, iter(range(1, keep))

    def noting(self: Journal, question: str, row: Row, price: Price) -> None:
        if next(count, None) is not None:
            return whole(self, question, row, price)
        if when == "half-way":  # written, but not committed
            self._open[0].execute(KEEP, (question, " ".join(map(str, row)), *price))
        if when == "after":
            whole(self, question, row, price)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    Journal.keep = noting  # type: ignore[method-assign]


@pytest.mark.slow
def test_killed_ten_times_a_sharded_search_ends_with_the_same_bytes(
    small: Path, tmp_path: Path
) -> None:
    rng, kills = random.Random(10), 0
    journals = [tmp_path / f"{part}.db" for part in (1, 2, 3)]
    for part, journal in enumerate(journals, start=1):
        ended = False
        while not ended:
            dies = kills < (4, 7, 10)[part - 1]
            at, when = rng.choice((1, 1, 1, 2, 3)), rng.choice(("before", "half-way", "after"))
            child = os.fork()
            if not child:
                with contextlib.suppress(BaseException):
                    if dies:
                        _dies_at(at, when)
                    plan(small, journals=[journal], shard=(part, 3), keep=FEW)
                    os._exit(0)
                os._exit(1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, -signal.SIGKILL)
            kills += status != 0
            ended = status == 0
    assert kills == 10
    merged = plan(small, journals=[tmp_path / "merged.db", *journals], keep=FEW)
    assert merged.to_json() == plan(small, keep=FEW).to_json()


def test_workers_price_the_same_and_one_that_dies_is_replaced(small: Path) -> None:
    question = read_question(str(small), keep=FEW)
    told: list[str] = []
    before = {*multiprocessing.active_children()}
    assert (
        seek(question, Wish(), pricers=many(2, told.append)).options[0].found
        == seek(question, Wish()).options[0].found
    )
    assert {*multiprocessing.active_children()} == before
    scenario = seek(question, Wish(kinds=1)).options[0].found.scenario
    pooled = Pooled(scenario, "fits", 1, told.append)
    row = seek(question, Wish(kinds=1)).options[0].found.plans[0].row
    expected = pooled.price(row)
    for _ in range(4):
        if pooled._pool is not None:
            for process in list(pooled._pool._processes.values()):
                process.kill()
                process.join()
        assert pooled.price(row) == expected == InPlace(scenario).price(row)
    pooled.close()
    assert {*multiprocessing.active_children()} == before
    assert "a worker died: what it had begins again" in told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"on": ["h1000"]}, r"--on: 'h1000' - is neither a node nor a device"),
        ({"keep": ["tpp"]}, r"--keep: 'tpp' - is no axis of a layout, did you mean 'tp'"),
        ({"devices": [12]}, r"--devices: '12' - is no whole number of nodes of 8 devices"),
        ({"by": "soon"}, r"--by: 'soon'"),
        ({"budget": "much"}, r"--budget: 'much'"),
        ({"objective": "fun"}, r"--for: 'fun' - expected one of time, money, energy, devices"),
        ({"memory": "any"}, r"--memory: 'any' - expected one of tight, fits"),
        ({"legal_on": "2025-01-01"}, r"--legal: '2025-01-01' - needs the devices"),
    ],
)
def test_bad_wishes_are_named(small: Path, more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(small, **more)  # type: ignore[arg-type]


def test_what_cannot_be_asked_is_said(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file, nor a shipped scenario or a model"):
        plan("no-such-thing")
    with pytest.raises(InputError, match="which devices"):
        plan("llama3-8b")
    with pytest.raises(InfeasibleError, match="cannot train"):
        plan(small, on=["hanguang-800"])
    data_parallel = {"training.global_batch": 7, "parallel": "{tp: 1, pp: 1, cp: 1}"}
    with pytest.raises(InfeasibleError, match=r"dp divides|global batch"):
        plan(small, data_parallel, keep=["tp", "pp", "cp"])
    late = plan(small, by="1 h", most=64, keep=FEW)
    assert not late.feasible
    assert "No choice of devices is done in" in str(late)
    other = tmp_path / "other.db"
    other.write_text("a text")
    with pytest.raises(InputError, match="holds something else than a journal"):
        plan(small, journals=[other])
    with pytest.raises(InputError, match="expected I/N with I from 1 to N"):
        captured(["plan", str(small), "--shard", "3/2"])


def test_devices_that_may_not_be_bought_are_left_out(small: Path) -> None:
    answer = plan(small, on=["h100", "910b2"], devices=[16], legal_on="2025-06-01", keep=FEW)
    assert list(answer) == ["16 x ascend-910b2"]
    assert any(
        "h100 may not be bought on 2025-06-01" in words for words in answer.to_dict()["failed"]
    )
    with pytest.raises(InfeasibleError, match="may not be bought"):
        plan(small, on=["h100"], devices=[16], legal_on="2025-06-01")
    half = plan(small, on=["ascend-910c-die-16"], devices=[16], legal_on="2025-06-01", keep=FEW)
    assert list(half) == ["16 x ascend-910c-die"]  # half a package is bought as a whole one


def test_names_and_numbers() -> None:
    assert find_node("910C").name == "ascend-910c-8"
    assert find_node("h100-8").device.name == "h100"
    assert list(round_numbers(16)) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]
    (case,) = load("llama3-70b-mi300x")
    assert layout_words(case) == "dp 64, zero 3, recompute full, micro_batch 1"


@pytest.mark.heavy
def test_the_page_on_plans_quotes_what_its_commands_print() -> None:
    text = (ROOT / "docs" / "plan.md").read_text()
    assert text.count("$ ersatz ") >= 3
    assert refreshed(text) == text, "python -m ersatz.sim.cli.generated, and read the difference"


def test_what_the_search_took_for_granted_is_on_the_screen_and_in_the_record(small: Path) -> None:
    """How far it looked bounds its proof; the screen shows few assumptions, the record lists all."""
    answer = plan(small, keep=FEW)
    (*_, reach) = answer.to_dict()["best"]["search"]["remarks"]
    assert reach.endswith("beyond, nothing is proved")
    assert reach in " ".join(str(answer).split())


def test_a_launch_file_and_a_configuration_of_a_model_ask_a_question_too(tmp_path: Path) -> None:
    """A script that names no machine runs on the one of `on`; a config.json is trained as is usual."""
    script = tmp_path / "pretrain.sh"
    script.write_text(
        "torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --num-layers 16 --hidden-size 2048"
        " --ffn-hidden-size 8192 --num-attention-heads 16 --seq-length 4096 --vocab-size 32000"
        " --tensor-model-parallel-size 8 --micro-batch-size 1 --global-batch-size 64 --bf16"
        " --train-iters 1000 --tokenizer-type NullTokenizer --max-position-embeddings 4096\n"
    )
    record = plan(script, on=["910B2"]).to_dict()
    assert (record["best"]["node"], record["best"]["devices"]) == ("ascend-910b2-8", 16)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192,
        "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000,
    }))  # fmt: skip
    answer = plan(config, on=["h800"], devices=[16], keep=["micro_batch"])
    again = tmp_path / "again.yaml"
    again.write_text(answer.files()["plan-01.yaml"])
    (result,) = ersatz.run(again).values()
    assert result.step.duration_s == answer.to_dict()["plans"][0]["step_s"]
    with pytest.raises(InputError, match="does not name a machine"):
        plan(script)


def test_what_if_finds_the_best_layout_of_another_machine(small: Path, tmp_path: Path) -> None:
    """Each change against what it must do, and one against a plan on a node that has it."""
    answer = plan(small, keep=FEW, what_if=True)
    told = {one["with"]: one for one in answer.to_dict()["what_if"]}
    now = answer.to_dict()["best"]["result"]["step"]["duration_s"]
    slow, fast = told["the network half as fast"], told["the network twice as fast"]
    assert fast["step_s"] <= now <= slow["step_s"] <= slow["unchanged_layout_s"]
    assert told["twice the memory"]["step_s"] <= now
    assert "the network half as fast" in str(answer)
    node = yaml.safe_load((DATA / "nodes/h100-8.yaml").read_text())
    node["nics"]["value"] //= 2  # as many bytes as cards of half the rate
    (tmp_path / "half.yaml").write_text(yaml.safe_dump(node))
    half = plan(small, {"cluster.node": str(tmp_path / "half.yaml")}, keep=FEW).to_dict()
    assert half["best"]["result"]["step"]["duration_s"] == pytest.approx(slow["step_s"], rel=0.02)
    alone = plan(small, {"cluster.nodes": 1}, keep=FEW, what_if=True).to_dict()
    assert not any("network" in one["with"] for one in alone["what_if"])


def test_a_rent_that_is_said_stays_whatever_devices_are_looked_at(small: Path) -> None:
    """The file's rent belongs to its H100; one on the command line to what is asked about."""
    rented = "cost={currency: USD, rent: 3 USD/h}"
    for node in ("h800-8", "ascend-910c-8"):
        answer = plan(small, [rented], on=[node], devices=[16], keep=FEW).to_dict()
        assert answer["best"]["result"]["cost"]["per_device_hour"] == pytest.approx(3.0)
    silent = plan(small, on=["ascend-910c-8"], devices=[16], keep=FEW)
    assert silent.to_dict()["best"]["result"]["cost"] is None
    assert "no cost: no rent is known" in str(silent)


def test_a_journal_is_begun_when_there_is_something_to_price(tmp_path: Path) -> None:
    """A scenario that cannot be read leaves the file as it was."""
    broken, book = tmp_path / "x.yaml", tmp_path / "book"
    broken.write_text("cluster:\n  nodes: 1\n")
    book.write_bytes(b"")
    with pytest.raises(InputError):
        plan(broken, journals=[book])
    assert book.read_bytes() == b""
    with pytest.raises(InputError, match="something else than a journal"):
        plan("llama3-405b-h100", journals=[broken])
