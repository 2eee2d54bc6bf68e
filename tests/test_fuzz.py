"""A short part of the attacks of `tests/fuzz`, and that these notice what they are for."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fuzz import kinds, logs, pages, recorded, seeds, trainings
from fuzz.__main__ import attack
from fuzz.judge import Input, run
from fuzz.kill import kill_many
from fuzz.laws import LAWS, violations
from fuzz.plans import Plan, drawn_plans
from fuzz.pool import Bounds, Pool
from fuzz.purchases import EASIER, check_purchases
from fuzz.shrink import shrunk

from tests.pace import pace

FOUND = Path(__file__).parent / "data" / "found.jsonl"
VERBS = {
    "RUN": "run", "EXPERTS": "run", "POOLS": "run", "ORDERS": "run", "NAMED": "run", "CALIBRATED": "run",
    "FABRIC": "fabric", "BUY": "buy", "PLANNED": "buy", "OPTIONS": "buy", "STOCKPILE": "buy", "RAMP": "buy",
    "LEGAL": "legal",    "FLEET": "schedule", "STEPS": "schedule", "TRACED": "schedule",
}  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(patient()) as made:
        yield made


def patient() -> Bounds:
    """Bounds of 20 seconds on a quiet core."""
    return Bounds(cpu_s=20.0 * pace(), silent_s=200.0 * pace())


# -- inputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VERBS)
def test_seeds_are_sound(pool: Pool, name: str) -> None:
    # a mutation of what is refused anyway tries nothing
    files = {"itself.yaml": getattr(seeds, name).encode(), "data.yaml": seeds.RULES.encode(),
             "itself.csv": seeds.TRACES["csv"][1].encode(), "plans.yaml": seeds.NAMED.encode()}  # fmt: skip
    outcome = pool.given(Input("seed", files, (VERBS[name], "@/itself.yaml", "--json", "@/o.json")))
    assert (outcome.signature, outcome.status) == ("", 0), outcome.detail


@pytest.mark.parametrize("kind", seeds.TRACES)
def test_seeds_of_traces_are_sound(pool: Pool, kind: str) -> None:
    name, text, beside = seeds.TRACES[kind]
    files = {
        key: value.encode() for key, value in {**beside, **({name: text} if text else {})}.items()
    }
    argv = ("schedule", "@/fleet.yaml", "--trace", f"{kind.partition('-')[0]}:@/{name}")
    outcome = pool.given(Input("seed", files | {"fleet.yaml": seeds.TRACED.encode()}, argv))
    assert (outcome.signature, outcome.status) == ("", 0), outcome.detail


@pytest.mark.parametrize("name", recorded.SEEDS)
def test_seeds_of_recorded_steps_are_sound(pool: Pool, name: str) -> None:
    files = recorded.SEEDS[name]
    argv = ("import", *(f"@/{file}" for file in files), "--node", "h800-8", "--out", "@/o.yaml")
    outcome = pool.given(Input("seed", files, argv))
    assert (outcome.signature, outcome.status) == ("", 0), outcome.detail


@pytest.mark.parametrize("name", trainings.NAMED)
def test_seeds_of_trainings_are_sound(pool: Pool, name: str) -> None:
    verb = "plan" if name in ("PLAN", "MIX") else "run"
    files = {"itself.yaml": getattr(trainings, name).encode()}
    outcome = pool.given(Input("seed", files, (verb, "@/itself.yaml", "--json", "@/o.json")))
    assert (outcome.signature, outcome.status) == ("", 0), outcome.detail


def test_seeds_of_logs_recordings_and_results_are_sound(pool: Pool) -> None:
    given = [Input("seed", {"itself.log": log.encode(), **({"nodes": beside.encode()} if beside else {})},
                   ("schedule", "--judge", "@/itself.log", *(("--fleet", "@/nodes") if beside else ())))
             for log, beside in logs.SOUND.values()]  # fmt: skip
    ranks = recorded.to_json(recorded.recorded())
    given.append(Input("seed", {"itself.yaml": recorded.REPLAY.encode(), "ranks.json": ranks},
                       ("run", "@/itself.yaml", "--json", "@/o.json")))  # fmt: skip
    for kind in ("run", "legal", "schedule"):
        folder = {f"folder/{name}": raw for name, raw in pages.results(kind).items()}
        given.append(Input("seed", folder, ("report", "@/folder", "--html", "@/o.html")))
    for one in given:
        outcome = pool.given(one)
        assert (outcome.signature, outcome.status) == ("", 0), (one.argv, outcome.detail)


def test_a_seed_decides_every_input() -> None:
    for kind in kinds.KINDS:
        one, two, other = kinds.make(kind, 1, 0), kinds.make(kind, 1, 0), kinds.make(kind, 2, 0)
        assert (one.files, one.argv) == (two.files, two.argv), kind
        assert (one.files, one.argv) != (other.files, other.argv), kind


@pytest.mark.heavy
def test_no_input_breaks_the_program() -> None:
    tally = attack(list(kinds.KINDS), 180, 20261129, None, patient())
    assert not tally.faults
    ends = sum((count for count in tally.ends.values()), start=type(tally.ends["run"])())
    assert ends[0] > 20 < ends[2], "some inputs are answered and some are refused"


def stored() -> list[dict[str, object]]:
    return [json.loads(line) for line in FOUND.read_text("utf-8").splitlines()]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "case", stored(), ids=lambda case: f"{case['kind']}: {case['signature']}"[:60]
)
def test_what_once_broke_it_no_longer_does(pool: Pool, case: dict[str, dict[str, str]]) -> None:
    files = {name: text.encode("latin-1") for name, text in case["files"].items()}
    outcome = pool.given(Input(str(case["kind"]), files, tuple(case["argv"])))
    assert not outcome.signature, outcome.detail


# -- the judge notices -----------------------------------------------------------------------------------


def stray_process(folder: Path) -> None:
    subprocess.Popen(["sleep", "60"])


@pytest.mark.parametrize(
    ("call", "signature"),
    [
        (lambda folder: 1 // 0, "crash ZeroDivisionError"),
        (lambda folder: sys.exit(3), "crash SystemExit"),
        (
            lambda folder: print("a 'NoneType' is no number", file=sys.stderr),
            "crash Python's words",
        ),
        (lambda folder: print("\x1b[31mred"), "control character on stdout"),
        (lambda folder: print("it takes nan days"), "nonsense"),
        (lambda folder: print("x" * 101), "wide lines"),
        (lambda folder: (folder / "o.json").write_text('{"a": NaN}'), "JSON with NaN"),
        (lambda folder: (folder / "o.svg").write_text("<svg>"), "SVG that is none"),
        (
            lambda folder: (folder / "o.html").write_text("<p>\"'><x-mark onx=1>"),
            "foreign tag in a page",
        ),
        (
            lambda folder: (folder / "o.svg").write_text("<svg><x-mark/></svg>"),
            "foreign tag in a pic",
        ),
        (lambda folder: (folder / "o.0.et").write_bytes(b"\x07\x01"), "ET that is none"),
        (lambda folder: (folder / "more").write_text(""), "escape: a file that nobody asked for"),
        (lambda folder: (folder.parent / "more").write_text(""), "escape from the folder"),
        (lambda folder: (folder / "text").write_text("changed"), "escape: an input was changed"),
        (stray_process, "escape: a process was left behind"),
        (lambda folder: [None for _ in iter(int, 1)], "overtime"),
    ],
)
def test_the_judge_notices(tmp_path: Path, call: Callable[[Path], object], signature: str) -> None:
    given = Input("made", {"text": b"x"}, call=call)  # type: ignore[arg-type]
    assert run(given, tmp_path, limit_s=0.3).signature.startswith(signature)


def test_what_waits_for_ever_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.CALLS, "waits", lambda folder: time.sleep(60))
    with Pool(Bounds(blocked_s=0.5)) as pool:
        assert pool.given(Input("waits")).signature.startswith("blocked")


def test_the_judge_allows_a_good_end(tmp_path: Path) -> None:
    assert run(Input("made", call=lambda folder: print("12 s")), tmp_path).signature == ""


@pytest.mark.parametrize(
    ("raw", "signature"), [(b"", ""), (b"mine", "escape: an input was changed")]
)
def test_an_empty_file_may_become_a_journal(tmp_path: Path, raw: bytes, signature: str) -> None:
    def begin(folder: Path) -> object:
        return (folder / "book").write_bytes(b"prices")

    given = Input("made", {"book": raw}, ("plan", "--journal", "@/book"), call=begin)
    assert run(given, tmp_path).signature == signature


def test_a_child_that_dies_is_noticed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.CALLS, "dies", lambda folder: os.kill(os.getpid(), 9))
    with Pool(patient()) as pool:
        assert pool.given(Input("dies")).signature == "crash: the process ended with SIGKILL"
        assert pool.given(Input("units", {"text": b"3 days"})).signature == ""


def test_the_smallest_input_is_found() -> None:
    given = Input(
        "made",
        {"a.yaml": b"x: 1\ny: {z: [1, bad, 3], w: 4}\n", "b": b"1"},
        ("run", "@/a.yaml", "--x", "1"),
    )
    small = shrunk(given, lambda less: b"bad" in less.files.get("a.yaml", b""))
    assert (small.files, small.argv) == ({"a.yaml": b"y:\n  z:\n  - bad\n"}, ("run",))


# -- laws ------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_plans_keep_the_laws() -> None:
    broken = [(name, words, dict(plan.data)) for plan in drawn_plans(6, 20261129)
              for name, words in violations(plan)]  # fmt: skip
    assert broken == []


@pytest.mark.heavy
def test_purchases_keep_the_laws() -> None:
    assert list(check_purchases(1, 20261129)) == []
    assert len(EASIER) == 7


def test_broken_laws_are_noticed() -> None:
    plan = next(p for p in drawn_plans(20, 1) if p.result.job and p.result.cost)
    step, memory, job, cost = (
        plan.result.step,
        plan.result.memory,
        plan.result.job,
        plan.result.cost,
    )
    assert job is not None
    assert cost is not None
    seconds = step.duration_s
    doctored = {
        "the breakdown adds up": replace(plan.result, step=replace(step, breakdown={"compute": seconds * 2})),
        "the interval holds the value": replace(plan.result, step=replace(step, low80_s=seconds * 2)),
        "utilisation is bounded": replace(plan.result, step=replace(step, hfu=1.2)),
        "tokens per second are tokens over time": replace(plan.result, step=replace(step, tokens=1.0)),
        "memory adds up": replace(plan.result, memory=replace(memory, peak_bytes=1.0)),
        "the wall time adds up": replace(plan.result, job=replace(job, goodput=1.1)),
        "money and energy add up": replace(plan.result, cost=replace(cost, total=1.0)),
        "less latency is not slower": replace(plan.result, step=replace(step, duration_s=seconds * 1e-3)),
        "more work takes more time": replace(plan.result, step=replace(step, duration_s=seconds * 1e3)),
    }  # fmt: skip
    for law, result in doctored.items():
        worse = Plan(plan.data, plan.scenario)
        worse.__dict__["result"] = result
        assert LAWS[law](worse), law


# -- kills -----------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_killed_runs_leave_nothing_torn(capsys: pytest.CaptureFixture[str]) -> None:
    assert kill_many(3, 20261129, ("run",)) == 0, capsys.readouterr().out
