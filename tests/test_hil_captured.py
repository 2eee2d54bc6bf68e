"""Own ops of a captured script: read from a trace, timed one by one, looked up by an emulation."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from fuzz.launches import CAPTURED  # noqa: E402
from pretended import HostClock  # noqa: E402

from ersatz.device_models.calibration.file import read_calibration, write_calibration  # noqa: E402
from ersatz.device_models.calibration.measured import kernel_key  # noqa: E402
from ersatz.device_models.catalog.reading import load_device  # noqa: E402
from ersatz.device_models.kernels.kernel import Kernel  # noqa: E402
from ersatz.sim.answers.emulate import emulate  # noqa: E402
from ersatz.sim.cli.output import captured  # noqa: E402
from ersatz.sim.emulate.clock import Entry  # noqa: E402
from ersatz.sim.emulate.resting import rests_on  # noqa: E402
from ersatz.sim.emulate.trace import Task, Trace  # noqa: E402
from ersatz.sim.errors import InputError  # noqa: E402
from ersatz.sim.hil.benchmark import Journal  # noqa: E402
from ersatz.sim.hil.captured import Captured, calibrate_captured, read_captured  # noqa: E402
from ersatz.sim.hil.device import attached as attached_module  # noqa: E402
from ersatz.sim.hil.device.attached import Attached, attach  # noqa: E402
from ersatz.sim.hil.device.operators import heard, key_of, prepared, told  # noqa: E402
from ersatz.sim.report.measured.calibration import calibration_record  # noqa: E402

SCRIPT = Path(__file__).parent / "emulated" / "gpt.py"
GPT = ["--layers", "2", "--width", "128", "--heads", "2", "--block", "64"]
MILLISECOND = 1e-3


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attached]:
    threads = torch.get_num_threads()
    attached = attach("cpu")
    attached.flush = torch.zeros(1024)
    with HostClock() as clock:
        monkeypatch.setattr(attached_module, "time", clock.module())
        yield attached
    torch.set_num_threads(threads)


def saved(folder: Path, **changes: Any) -> Path:
    """A trace of two operators, the first of them changed."""
    data = json.loads(json.dumps(CAPTURED))
    data["otherData"]["operators"][0].update(changes)
    (folder / "trace.json").write_text(json.dumps(data))
    return folder / "trace.json"


def read(folder: Path, **changes: Any) -> Captured:
    return read_captured(saved(folder, **changes))


def test_a_signature_is_the_same_after_its_way_through_a_file() -> None:
    signature = ("aten.masked_fill.Scalar", (("tensor", (2, 3), (3, 1), "float32", "cuda"), -float("inf")),
                 (("dtype", ("dtype", "float32")),))  # fmt: skip
    text = told(signature)
    assert heard(text) == signature
    assert "Infinity" not in text
    assert key_of(text).startswith("aten.masked_fill.Scalar ")
    assert len({key_of(told((name, *signature[1:]))) for name in ("aten.a.b", "aten.a.c")}) == 2


def test_every_operator_is_timed_and_products_are_points(cpu: Attached, tmp_path: Path) -> None:
    made = calibrate_captured(cpu, load_device("cpu"), read(tmp_path))
    texts = [row["signature"] for row in CAPTURED["otherData"]["operators"]]  # type: ignore[index]
    assert set(made.operators) == {key_of(text) for text in texts}
    assert all(seconds > 0 for seconds in made.operators.values())
    assert [kernel_key(p.kernel) for p in made.points] == ["product fp32 64 16 32 1 0"]
    assert made.origin.scope == "2 operators of train.py"
    assert calibration_record(made, [], [])["operators"] == made.operators
    write_calibration(made, tmp_path / "own.yaml")
    again = read_calibration(tmp_path / "own.yaml")
    assert again.operators == pytest.approx(made.operators, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": '["aten.from_file.default",["passwd",true,8],[]]'}, "no operator of a training step"),
        ({"signature": '["mine.open.default",[["tensor",[1],[1],"float32","cuda"]],[]]'}, "no operator"),
        ({"signature": "["}, "Expecting value"),
        ({"signature": '["aten.mm",[],[]]'}, "is no signature"),
        ({"count": 0}, "count: expected"),
        ({"kernel": {"name": "mm", "kind": "matmul", "dtype": "fp32", "m": -1}}, "m: '-1'"),
        ({"kernel": 3}, "expected the kernel"),
    ],
)  # fmt: skip
def test_what_no_script_calls_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path, **changes)
    assert words in str(raised.value)
    assert "trace.json" in str(raised.value)
    assert "operators[0]" in str(raised.value)


def test_an_operator_that_pytorch_lacks_is_missing_and_not_fatal(
    cpu: Attached, tmp_path: Path
) -> None:
    text = '["aten.__dict__.clear",[["tensor",[4],[1],"float32","cuda"]],[]]'
    found = read(tmp_path)
    strange = replace(found.operators[1], text=text, signature=heard(text))
    made = calibrate_captured(
        cpu, load_device("cpu"), replace(found, operators=(found.operators[0], strange))
    )
    assert len(made.operators) == 1
    assert "PyTorch has no such operator" in made.missing[0]


def test_operands_beyond_the_memory_are_missing(cpu: Attached, tmp_path: Path) -> None:
    large = '["aten.add.Tensor",[["tensor",[1000000000000],[1],"float32","cuda"],1],[]]'
    found = read(tmp_path)
    strange = replace(found.operators[1], text=large, signature=heard(large))
    made = calibrate_captured(
        cpu, load_device("cpu"), replace(found, operators=(found.operators[0], strange))
    )
    assert "memory is too small" in made.missing[0]


def test_a_trace_without_operators_is_no_captured_one(tmp_path: Path) -> None:
    for text in ("", "{}", '{"otherData": {"operators": []}}', "[" * 5000):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(InputError, match=r"trace\.json that ersatz emulate"):
            read_captured(tmp_path / "t.json")


def test_operands_have_the_shapes_strides_and_formats_of_the_signature(cpu: Attached) -> None:
    transposed = ("tensor", (3, 2), (1, 3), "float64", "cuda")
    whole = ("tensor", (5,), (1,), "int64", "cuda")
    run, operands = prepared(cpu, ("aten.cat.default", ((transposed, transposed), 1), ()))
    assert [(tuple(x.shape), x.stride(), x.dtype) for x in operands] == [
        ((3, 2), (1, 3), torch.float64)] * 2  # fmt: skip
    made: Any = run()
    assert made.shape == (3, 4)
    _, (index,) = prepared(cpu, ("aten.neg.default", (whole,), ()))
    assert index.dtype is torch.int64


def test_a_proof_of_a_captured_trace_is_refused(tmp_path: Path) -> None:
    words = ["calibrate", "--device", "cpu", "--trace", str(saved(tmp_path)), "--prove"]
    said = captured(words)
    assert "running the script" in said
    assert "exit status 2" in said


def test_a_script_is_captured_and_its_operators_are_looked_up(tmp_path: Path) -> None:
    """With a millisecond for each distinct operator, the step is a millisecond for each that runs."""
    answer = emulate([str(SCRIPT), *GPT], "cpu-1")
    (tmp_path / "trace.json").write_text(str(dict(answer.files())["trace.json"]))
    found = read_captured(tmp_path / "trace.json")
    assert 40 <= len(found.operators) <= 250
    (product,) = (o for o in found.operators if o.kernel.n == 256 and o.kernel.name == "mm"
                  and o.kernel.m == 256 and o.kernel.k == 128)  # fmt: skip
    assert product.count == 1  # logits: 4 x 64 tokens by 256 letters
    known = read_calibration(_shipped())
    times = {key_of(o.text): MILLISECOND for o in found.operators}
    write_calibration(replace(known, operators=times), tmp_path / "own.yaml")
    own = str(tmp_path / "own.yaml")
    (result,) = emulate([str(SCRIPT), *GPT], "cpu-1", timer="table", calibration=own).values()
    expected = sum(o.count for o in found.operators) * MILLISECOND
    assert result.step_s == pytest.approx(expected, rel=1e-4)  # copies are beside them
    assert not any("has not timed" in line for line in result.assumptions)


def _step_of_own(folder: Path) -> Trace:
    """A step of 4 ms: two products of other shapes, a multiplication, and a kernel of Triton's, 1 ms each."""
    found = read(folder)
    tasks = [Task(o.kernel.name, "", 1e-3, o.kernel, signature=o.text) for o in found.operators]
    tasks.append(
        Task("triton mine", "", 1e-3, Kernel("mine", "elementwise", "memory", "fp8", 0.0, 1e6))
    )
    product = found.operators[0].kernel
    wider = replace(product, m=2 * product.m)
    tasks.append(Task("mm", "", 1e-3, wider, signature='["aten.mm.x",[],[]]'))
    entries = tuple(Entry(0, number, (), 0.0, False) for number in range(4))
    return Trace(0, tuple(tasks), entries, (0, 4), (4e-3,), {0: "compute"}, {}, {})


def test_operators_that_were_not_timed_are_said(tmp_path: Path) -> None:
    """The product was timed by its signature, products of other shapes were, `mul` was not."""
    trace, cpu = _step_of_own(tmp_path), load_device("cpu")
    known, own = read_calibration(_shipped()), tmp_path / "own.yaml"
    product = trace.table[0].signature
    write_calibration(replace(known, operators={key_of(product): 1.0}), own)
    shares, modelled = rests_on("table", str(own), cpu, [trace])
    assert shares == (
        "kernels by their time: 25.0 % measured here, one by one, 25.0 % by kernels measured here,"
        " 50.0 % modelled"
    )
    assert modelled == (
        "2 kernels have shapes or operations that the calibration has not timed, and are modelled:"
        " 2.00 ms, 50.0 % of the step (mul 1.00 ms, triton mine 1.00 ms)"
    )
    other = replace(trace, rank=1, entries=trace.entries[2:3], marks=(0, 1), step_s=(1e-3,))
    _, modelled = rests_on("calibrated", str(own), cpu, [trace, other])
    assert modelled.startswith("1 kernels of rank 1 have shapes")
    assert "100.0 % of the step" in modelled


def test_a_calibration_that_does_not_count_is_said(tmp_path: Path) -> None:
    """It is of another device, or the timer is one that asks none; with none there is nothing to say."""
    trace = _step_of_own(tmp_path)
    shipped = str(_shipped())
    (words,) = rests_on("calibrated", shipped, load_device("h800"), [trace])
    assert words == (
        f"the calibration {shipped} is of cpu: none of it holds for h800, all of whose kernels are modelled"
    )
    (words,) = rests_on("roofline", shipped, load_device("cpu"), [trace])
    assert words == f"the timer roofline takes nothing of the calibration {shipped}"
    assert rests_on("calibrated", "", load_device("cpu"), [trace]) == []
    (words,) = rests_on("live", "", load_device("cpu"), [trace])
    assert words == "kernels by their time: 100.0 % measured here, one by one"
    live = replace(trace, facts={"modelled": [3]})
    assert "1 kernels could not be timed live, and are modelled: 1.00 ms, 25.0 %" in rests_on(
        "live", "", load_device("cpu"), [live]
    )[1]  # fmt: skip


def _shipped() -> Path:
    from ersatz.device_models.calibration.file import SHIPPED

    return SHIPPED / "cpu-epyc.yaml"


def test_a_journal_that_somebody_changed_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml.part"
    for line in ('{"kernel": 3}', "[]", '{"spent_s": 1, "kernel": "x", "point": {}}', "{"):
        path.write_text('{"identity": {}}\n' + line + "\n")
        with pytest.raises(InputError, match=r"c\.yaml\.part:2"):
            Journal(path, {}).open()


@pytest.mark.parametrize(
    "text",
    ["null", "1", '"a.b.c"', "[]", '["a.b.c", [], [1]]', '["a.b.c", [], [[1, 2]]]', "{}",
     '["a.b.c", [], ["ab"]]', "[1, 2, 3]"],
)  # fmt: skip
def test_what_is_no_signature_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no signature"):
        heard(text)
