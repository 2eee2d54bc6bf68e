"""Calibrations without PyTorch: the file, the fit, the table, the timers, the journal, bad input."""

import builtins
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibrations import (
    copy,
    made_calibration,
    made_fit,
    made_points,
    product,
    product_seconds,
    round_device,
)
from factories import make_device, make_node, make_scenario, make_stack
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.calibration.file import read_calibration, write_calibration
from ersatz.device_models.calibration.measured import (
    Point,
    calibrated_device,
    calibrated_timer,
    kernel_key,
)
from ersatz.device_models.calibration.table_timer import sizes_of, table_timer, tables_of
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.kernel import Kernel, calibrated_time, matmul, memory_kernel
from ersatz.device_models.kernels.operations import operation_of
from ersatz.device_models.kernels.terms import machine_of, term_values, terms_of
from ersatz.sim.errors import InputError
from ersatz.sim.hil import benchmark
from ersatz.sim.hil.benchmark import FEWEST_ROUNDS, Journal, run_benchmark
from ersatz.sim.hil.device.attached import Attached, attach
from ersatz.sim.hil.device.identity import catalog_device
from ersatz.sim.hil.device.measure import Unmeasurable
from ersatz.sim.hil.device.recipes import RECIPES
from ersatz.sim.hil.fit import fit_calibration, fit_terms, summary_errors
from ersatz.sim.hil.live import LiveTimer
from ersatz.sim.hil.proof.proof import Judgement, half_width, proof_figures
from ersatz.sim.hil.proof.subjects import Subject
from ersatz.sim.hil.sentinels import chosen_points, pace_of
from ersatz.sim.hil.shapes import LARGE, SMALL, kernel_rounds
from ersatz.sim.hil.timers import Chosen, check_devices, choose
from ersatz.sim.scenario.scenario import Parallel, Pool


def test_the_fit_finds_the_law_behind_exact_points() -> None:
    # copies take 5 us a call and 0.1 ns an element, see tests/calibrations.py
    points = [p for p in made_points() if p.kernel.name == "copy"]
    costs = fit_terms(points, machine_of(round_device()))
    assert costs["call"] == pytest.approx(5e-6, rel=0.01)
    assert costs["elements"] == pytest.approx(1e-10, rel=0.01)


def test_held_out_points_of_an_exact_law_are_met() -> None:
    calibration, held = made_fit()
    assert len(held) == len(calibration.points) / 2
    assert summary_errors(held)["all kernels"]["median"] < 1e-3
    timer = calibrated_timer(calibration)
    kernel = product(777, 333, 555)
    assert timer(round_device(), kernel) == pytest.approx(product_seconds(kernel), rel=0.01)


def test_disturbed_samples_move_the_fit_little() -> None:
    # 8 of 80 points take three times as long: a plain mean would be 20 % too slow
    device = round_device()
    calibration, _ = fit_calibration(made_calibration().origin, device, made_points(outliers=8))
    kernel = product(900, 900, 900)
    found = calibrated_timer(calibration)(device, kernel)
    assert found == pytest.approx(product_seconds(kernel), rel=0.06)


def test_device_parameters_come_out_of_the_measurements() -> None:
    parameters = made_calibration().parameters
    # the least absolute error in logarithms is at the median of the shares that the copies reach:
    # at most 8 bytes in 0.1 ns = 80 GB/s of the sheet's 1 TB/s, less what a call costs
    copies = [p for p in made_points() if p.kernel.name == "copy"]
    shares = sorted(p.kernel.nbytes / p.seconds / 1e12 for p in copies)
    assert shares[-1] < 0.08
    assert parameters["memory_bandwidth"] == 1e12
    low, high = shares[len(shares) // 2 - 1], shares[len(shares) // 2]
    assert 0.99 * low < parameters["memory_efficiency"] < 1.01 * high
    assert parameters["matrix_peak.fp32"] == 50e12
    assert 0.02 < parameters["matrix_ceiling.fp32"] < 0.2  # about 10 of 50 TFLOP/s at the most
    fitted = calibrated_device(round_device(), made_calibration())
    assert fitted.matrix_ceiling["fp32"] == parameters["matrix_ceiling.fp32"]
    assert fitted.matrix_ceiling["bf16"] == 1.0
    assert calibrated_device(make_device(name="other"), made_calibration()).memory_efficiency == 1.0


def test_terms_of_a_product_are_counted_by_hand() -> None:
    # (100, 30) x (30, 200) in fp32 on tiles of 100 x 100 and 100 units: 1 x 2 tiles fill one wave of
    # 100, so the device works as if on 100 tiles: 2 x 100 x 1e4 x 30 FLOP
    device = round_device()
    kernel = product(100, 200, 30)
    values = dict(zip(terms_of("product"), term_values(kernel, machine_of(device)), strict=True))
    assert values["flop"] == 2 * 100 * 200 * 30
    assert values["waves"] == 2 * 100 * 1e4 * 30
    assert (values["left"], values["right"], values["output"]) == (3000, 6000, 20000)
    assert values["spilled"] == 0.0


@given(st.floats(0.3, 1.2), st.floats(0.3, 1.2), st.floats(80, 2000), st.floats(80, 2000))
@settings(max_examples=40, deadline=None)
def test_the_table_reads_power_laws_exactly(a: float, b: float, m: float, n: float) -> None:
    rng = np.random.default_rng(3)
    sizes = np.exp(rng.uniform(4, 7.6, (40, 2)))
    points = [Point(copy(x, y), 1e-9 * x**a * y**b, 1.0, 0.0, 7) for x, y in sizes]
    seconds, _ = tables_of(points)["copy", "fp32"].read([m, n])
    # exact but for the weak pull of the slopes towards 1
    assert seconds == pytest.approx(1e-9 * m**a * n**b, rel=0.03)


def test_the_table_gives_measured_points_back() -> None:
    calibration = made_calibration(points=tuple(made_points(noise=0.2)))
    timer = table_timer(calibration)
    for point in calibration.points:
        assert timer(round_device(), point.kernel) == pytest.approx(point.seconds, rel=1e-9)
    assert (
        tables_of(calibration.points)["product", "fp32"].read(sizes_of(product(1e6, 1e6, 1e6)))[1]
        > 1
    )


def test_below_the_smallest_measured_sizes_a_call_costs_what_it_costs() -> None:
    points = [Point(copy(x, 100.0), 1e-6 * x, 1.0, 0.0, 7) for x in (10.0, 20.0, 40.0, 80.0)]
    table = tables_of(points)["copy", "fp32"]
    assert table.read([1.0, 1.0])[0] == pytest.approx(1e-5)  # what 10 x 100 takes
    assert table.read([160.0, 100.0])[0] == pytest.approx(1.6e-4, rel=0.01)


@pytest.mark.parametrize("make", [calibrated_timer, table_timer])
def test_only_the_calibrated_device_is_measured(make) -> None:  # type: ignore[no-untyped-def]
    calibration, kernel = made_calibration(), product(500, 500, 500)
    other = replace(round_device(), name="other")
    assert make(calibration)(other, kernel) == calibrated_time(other, kernel)
    ours = make(calibration)(round_device(), kernel)
    assert ours == pytest.approx(product_seconds(kernel), rel=0.1)


@pytest.mark.parametrize("make", [calibrated_timer, table_timer])
def test_another_stack_keeps_its_own_fusion(make) -> None:  # type: ignore[no-untyped-def]
    calibration = made_calibration()
    timer, device = make(calibration, "megatron-core"), round_device()
    modelled = calibrated_time(calibrated_device(device, calibration), copy(500, 500))
    assert timer(device, copy(500, 500)) == modelled
    kernel = product(500, 500, 500)
    assert timer(device, kernel) == pytest.approx(product_seconds(kernel), rel=0.1)


def test_what_was_not_measured_is_modelled_by_the_fitted_device() -> None:
    calibration, kernel = made_calibration(), memory_kernel("norm", 1e6, dtype="fp32", m=10, n=10)
    expected = calibrated_time(calibrated_device(round_device(), calibration), kernel)
    assert calibrated_timer(calibration)(round_device(), kernel) == expected


def test_a_file_holds_all_of_a_calibration(tmp_path: Path) -> None:
    calibration = made_calibration(missing=("grouped bf16: no kernel",), proof={"mean_error": 0.05})
    write_calibration(calibration, tmp_path / "c.yaml")
    again = read_calibration(tmp_path / "c.yaml")
    assert again.origin == calibration.origin
    assert again.missing == calibration.missing
    assert again.proof == calibration.proof
    assert again.machine == calibration.machine
    assert len(again.points) == len(calibration.points)
    kernel = product(300, 400, 500)
    times = [calibrated_timer(c)(round_device(), kernel) for c in (calibration, again)]
    assert times[0] == pytest.approx(times[1], rel=1e-4)  # six digits of each cost are kept
    write_calibration(again, tmp_path / "d.yaml")
    assert (tmp_path / "c.yaml").read_text() == (tmp_path / "d.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format: 1", "format: 9", "c.yaml:2:9: format: '9' - expected a format up to 1"),
        ("format: 1\n", "", "is no calibration file"),
        ("backend: cpu, ", "", "origin: 'backend' - key is missing"),
        ("\n  copy,memory,fp32", "\n  copy,memory,fp32,x", "points["),
        ("points: |", "other: |", "holds no measured kernel"),
        ("seed: 0", "seed: x", "origin.seed: 'x' - expected a whole number"),
        ("units: ", "units: -", "machine.units: '-"),
        ("dtype: fp32", "dtype: fp31", "fits[0].dtype: 'fp31' - expected one of"),
        ("{call: ", "{calls: ", "fits[0].seconds_per.calls: "),
        ("matrix_peak.fp32:", "matrix_peaks.fp32:", "is no parameter of a device, did you mean"),
        (",fp32,", ",fp31,", "points[0]: dtype: expected one of"),
    ],
)
def test_faults_of_a_file_are_said_with_their_place(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "c.yaml"
    write_calibration(made_calibration(), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_calibration(path)
    assert words in str(caught.value)


def test_a_broken_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    write_calibration(made_calibration(), path)
    lines = path.read_text().splitlines()
    place = lines.index("points: |") + 4  # the third measured kernel
    lines[place] = lines[place].replace(",", ";", 3)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        read_calibration(path)
    assert f"c.yaml:{place + 1}:" in str(caught.value)


def judgement(error: float, *others: float) -> Judgement:
    """A model whose step of 1 s was predicted with this error; other steps took so long."""
    times = (1.0, *others)
    return Judgement("x", 1, 1.0, 1.0 + error, 1.0, times, 10, 0, pace_of({}), 1.0 + error)


def test_the_interval_of_a_proof_covers_as_promised() -> None:
    # nine models of one step: 0.8 x (9 + 1) = the 8th smallest of their errors, 8 %
    judged = [judgement(i / 100) for i in range(1, 10)]
    figures = proof_figures(judged)
    assert figures["half_width"] == pytest.approx(0.08)
    assert figures["worst_error"] == pytest.approx(0.09)
    assert figures["mean_error"] == pytest.approx(0.05)
    assert made_calibration(proof=figures).step_error == pytest.approx(0.08)
    assert made_calibration().step_error < 0.05  # without a proof: the held-out kernels


def test_noisy_steps_widen_the_interval_and_models_weigh_the_same() -> None:
    # four models without error, one of them with steps 10 % slower three times in four: of the
    # weight 0.8 x 5 = 4 the exact ones bear 3.25, so that the slow ones are needed
    quiet = [judgement(0.0)] * 3
    assert half_width([*quiet, judgement(0.0, 1.1, 1.1, 1.1)]) == pytest.approx(0.1)
    assert half_width([judgement(0.0)] * 4) == 0.0
    often = judgement(0.0, *[1.0] * 99)  # a hundred steps of one model count as one model
    assert half_width([often, *[judgement(0.1)] * 3]) == pytest.approx(0.1)


def round_case(devices: int = 1, stack: str = "torch-eager"):  # type: ignore[no-untyped-def]
    node = make_node(device=round_device(), devices=devices, nics=1)
    pool = Pool("", node, 1, make_stack(name=stack))
    return make_scenario(pools=(pool,), parallel=Parallel(dp=devices))


def test_the_interval_of_a_proof_holds_for_what_was_proved() -> None:
    chosen = Chosen("calibrated", made_calibration(proof={"half_width": 0.07}))
    assert chosen.width(round_case()) == 0.07
    assert chosen.width(round_case(devices=8)) is None
    assert chosen.width(round_case(stack="megatron-core")) is None
    assert Chosen("roofline").width(round_case()) is None


def test_a_calibration_of_an_absent_device_is_refused() -> None:
    chosen = Chosen("table", made_calibration())
    check_devices(chosen, [round_case()])
    elsewhere = make_scenario(
        pools=(Pool("", make_node(device=make_device(name="x")), 1, make_stack()),)
    )
    with pytest.raises(InputError, match="is a calibration of round; the scenario runs on x"):
        check_devices(chosen, [elsewhere])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("guess", None), "expected one of calibrated"),
        (("table", None), "name them by --calibration"),
        (("calibrated", "nowhere"), "no such calibration is shipped"),
        (("calibrated", "nowhere.yaml"), "cannot be read"),
        (("roofline", None, ["cpu"]), "--attach goes with live and paced"),
    ],
)
def test_choices_that_cannot_be(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        choose(*arguments)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_without_pytorch_a_device_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object, **more: object) -> object:
        if name == "torch":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"is not installed; pip install 'ersatz\[hil\]'"):
        attach("cpu")


def test_drivers_names_find_their_device() -> None:
    assert catalog_device("NVIDIA H100 80GB HBM3") == "h100"
    assert catalog_device("NVIDIA H200") == "h200"
    assert catalog_device("NVIDIA H20") == "h20"
    assert catalog_device("AMD Instinct MI300X") == "mi300x"
    assert catalog_device("Ascend910B3") == "ascend-910b3"
    assert catalog_device("GeForce") == ""
    assert catalog_device("NVIDIA A100-SXM4-40GB") == "a100-40"
    assert catalog_device("NVIDIA A100") == ""  # of 40 or of 80 GB


# The benchmark, with a device that does as it is told


def fake_attached(backend: str = "cpu") -> Attached:
    return Attached(backend, None, None, "cpu", "Fake processor", "", "torch 0")


class Bench:
    """Stands in for `measure`: counts calls, and dies or refuses where told."""

    def __init__(self, dies_after: int = 10**9, lacks: str = "") -> None:
        self.calls: list[str] = []
        self.dies_after, self.lacks = dies_after, lacks

    def __call__(self, attached: Attached, kernel: Kernel, **_: object) -> Point:
        if len(self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        self.calls.append(kernel_key(kernel))
        if self.lacks and operation_of(kernel) == self.lacks:
            raise Unmeasurable(f"{self.lacks}: the device's memory is too small")
        return Point(kernel, 1e-3, 1e-3, 0.0, 7)


class MadeWatch:
    """Stands in for `Watch`: every sentinel takes a millisecond."""

    def __init__(
        self, attached: Attached, points: list[Point], seed: int, *, in_order: bool = False,
        small: bool = False,
    ) -> None:  # fmt: skip
        self.keys = [kernel_key(point.kernel) for point in points]

    def turn(self) -> dict[str, float]:
        return dict.fromkeys(self.keys, 1e-3)

    def passes(self) -> dict[str, list[float]]:
        return {key: [1e-3] for key in self.keys}


class MadeSteps:
    """Whole steps whose parts take a second each."""

    def __init__(self, attached: object, subjects: Sequence[Subject]) -> None:
        self.names = [subject.model.name for subject in subjects]

    def turn(self) -> dict[str, list[list[float]]]:
        return {name: [[1.0, 1.0, 1.0]] for name in self.names}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def install(**how: object) -> Bench:
        made = Bench(**how)  # type: ignore[arg-type]
        monkeypatch.setattr(benchmark, "measure", made)
        monkeypatch.setattr(benchmark, "engine_start", lambda attached: 0.0)
        monkeypatch.setattr(benchmark, "Watch", MadeWatch)
        monkeypatch.setattr(benchmark, "WholeSteps", MadeSteps)
        return made

    return install


def test_a_killed_benchmark_goes_on_without_repeating(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.part"
    first = bench(dies_after=17)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(fake_attached(), ["fp32"], 1.0, journal_path=path, most_kernels=40)
    with path.open("a") as file:
        file.write('{"kernel": "cut of')  # what a kill in mid-write leaves
    second = bench()
    journal = run_benchmark(fake_attached(), ["fp32"], 1.0, journal_path=path, most_kernels=40)
    assert journal.resumed == 17
    assert len(journal.points) == 40
    assert not set(first.calls) & set(second.calls)
    whole = bench()
    straight = run_benchmark(fake_attached(), ["fp32"], 1.0, most_kernels=40)
    assert first.calls + second.calls == whole.calls
    assert [p.kernel.name for p in straight.points] == [p.kernel.name for p in journal.points]


def test_a_journal_of_something_else_is_refused(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bench()
    path = tmp_path / "x.part"
    run_benchmark(fake_attached(), ["fp32"], 1.0, journal_path=path, most_kernels=2)
    other = replace(fake_attached(), hardware="Another")
    with pytest.raises(InputError, match="holds measurements of Fake processor"):
        run_benchmark(other, ["fp32"], 1.0, journal_path=path)
    path.write_text(path.read_text() + "no json\n")
    with pytest.raises(InputError, match="is no JSON"):
        run_benchmark(fake_attached(), ["fp32"], 1.0, journal_path=path)


def test_kernels_that_a_device_lacks_are_kept_as_such(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bench(lacks="norm")
    path = tmp_path / "x.part"
    journal = run_benchmark(fake_attached(), ["fp32"], 1.0, journal_path=path, most_kernels=60)
    assert journal.missing
    assert all("memory is too small" in line for line in journal.missing)
    assert len(journal.points) + len(journal.missing) == 60
    again = Journal(path, json.loads(path.read_text().splitlines()[0])["identity"])
    again.open()
    assert again.missing == journal.missing
    again.close()
    assert not path.exists()


def test_without_time_a_benchmark_measures_the_fewest_rounds(bench) -> None:  # type: ignore[no-untyped-def]
    made = bench()
    run_benchmark(fake_attached(), ["fp32"], 0.0)
    rounds = kernel_rounds(SMALL, ["fp32"], 0)
    least = [kernel_key(k) for _ in range(FEWEST_ROUNDS) for k in next(rounds)]
    assert made.calls == list(dict.fromkeys(least))


def test_sentinels_stay_the_same_when_a_benchmark_goes_on(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bench()
    path = tmp_path / "x.part"
    first = run_benchmark(fake_attached(), ["fp32"], 0.0, journal_path=path)
    assert len(first.turns) == 1  # without any time left, too
    assert set(first.sentinels()) == {kernel_key(p.kernel) for p in chosen_points(first.points)}
    later = run_benchmark(fake_attached(), ["fp32"], 1e-4, journal_path=path)
    assert len(later.turns) > 1
    assert later.sentinels() == first.sentinels()
    assert len(later.whole) == 10
    assert {len(steps) for steps in later.whole.values()} == {len(later.turns)}


def test_every_drawn_kernel_has_a_recipe_and_every_recipe_is_drawn() -> None:
    for ranges, dtypes in ((SMALL, ["fp32"]), (LARGE, ["bf16"])):
        rounds = kernel_rounds(ranges, dtypes, 3)
        drawn = [kernel for _ in range(6) for kernel in next(rounds)]
        operations = {operation_of(kernel) for kernel in drawn}
        assert operations == set(RECIPES)
        assert all(k.flop <= ranges.most_flop and k.nbytes <= ranges.most_bytes for k in drawn)
    again = kernel_rounds(LARGE, ["bf16"], 3)
    assert [next(again) for _ in range(6)] == _rounds(LARGE, "bf16", 6)


def _rounds(ranges, dtype: str, count: int):  # type: ignore[no-untyped-def]
    rounds = kernel_rounds(ranges, [dtype], 3)
    return [next(rounds) for _ in range(count)]


def test_rounds_of_eight_bits_hold_products_only() -> None:
    kernels = next(kernel_rounds(LARGE, ["fp8"], 0))
    assert {kernel.dtype for kernel in kernels} == {"fp8"}
    assert {kernel.kind for kernel in kernels} == {"matmul"}


def test_a_live_timer_runs_only_what_holds_for_the_stack() -> None:
    # A fused stack has its own element-wise kernels: PyTorch's would be the wrong ones to run.
    device = load_device("cpu")
    product, norm = matmul("qkv", 64, 64, 64, "fp32"), memory_kernel("norm", 1e6)

    class Ran:
        def measure(self, kernel: Kernel) -> Point:
            return Point(kernel, 7.0, 7.0, 0.0, 3, 0.0)

    eager = LiveTimer({"cpu": Ran()})
    assert (eager(device, product), eager(device, norm)) == (7.0, 7.0)
    fused = LiveTimer({"cpu": Ran()}, stacks={"cpu": "megatron-core"})
    assert fused(device, product) == 7.0
    assert fused(device, norm) == calibrated_time(device, norm)


def test_a_kill_in_mid_write_leaves_the_old_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    write_calibration(made_calibration(), path)
    before = path.read_text()

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)  # the text is written beside, not yet in its place
    with pytest.raises(KeyboardInterrupt):
        write_calibration(made_calibration(proof={"steps": 1.0}), path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("key", ["half_width", "worst_error", "p80_error", "cache_bytes"])
def test_errors_and_sizes_are_not_negative(tmp_path: Path, key: str) -> None:
    """A width below 0 had gone through, and the interval stood the wrong way round."""
    path = tmp_path / "c.yaml"
    proof = {"half_width": 0.09, "worst_error": 1.0, "mean_signed": -0.05}
    write_calibration(replace(made_calibration(), proof=proof), path)
    assert read_calibration(path).proof == proof
    wrong, count = re.subn(rf"\b{key}: [^,}}\n]+", f"{key}: -0.1", path.read_text(), count=1)
    assert count == 1
    path.write_text(wrong)
    with pytest.raises(InputError, match=rf"{key}: .*(negative|below 0)"):
        read_calibration(path)
