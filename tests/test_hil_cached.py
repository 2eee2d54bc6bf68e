"""Steps that stay in a host's cache: launch-bound training, predicted by kernels run in its order."""

from dataclasses import replace
from pathlib import Path

import pytest
from calibrations import made_calibration

from ersatz.device_models.calibration.file import (
    find_calibration,
    read_calibration,
    write_calibration,
)
from ersatz.device_models.calibration.measured import (
    Calibration,
    Point,
    calibrated_timer,
    kernel_key,
    with_small,
)
from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.kernels.kernel import matmul, memory_kernel
from ersatz.device_models.kernels.operations import PARTS, operation_of, part_of_step
from ersatz.device_models.kernels.terms import OperationFit
from ersatz.sim.errors import InputError
from ersatz.sim.hil.cached import cached_share, step_timer
from ersatz.sim.hil.ownops import own_step
from ersatz.sim.hil.proof.subjects import SMALL, SMALLEST, scenario_of, some_subjects
from ersatz.sim.hil.sentinels import undisturbed
from ersatz.sim.hil.shapes import small_kernels
from ersatz.sim.hil.together import ratios, small_subjects, with_ratios

PRODUCT = matmul("up", 16, 64, 64, "fp32")
COPY = memory_kernel("copy", 8e3, dtype="fp32", m=16, n=64)


def two_parts() -> Calibration:
    """A calibration whose products take 90 us, and 30 us in steps that stay in the cache."""
    plain = made_calibration(
        fits={(operation_of(k), "fp32"): fit(operation_of(k), 90e-6) for k in (PRODUCT, COPY)}
    )
    small = {(operation_of(PRODUCT), "fp32"): fit(operation_of(PRODUCT), 30e-6)}
    return with_small(plain, small, [Point(PRODUCT, 30e-6, 30e-6, 0.0, 60)])


def fit(operation: str, call_s: float) -> OperationFit:
    return OperationFit(operation, "fp32", {"call": call_s}, 4, 0.1, 0.1, 0.1)


def case(number: int):  # type: ignore[no-untyped-def]
    return scenario_of(SMALL[number], load_node("cpu-1"), "fp32")


def of_cache(nbytes: float) -> Calibration:
    made = two_parts()
    return replace(made, machine=replace(made.machine, cache_bytes=nbytes))


def test_what_a_step_keeps_in_memory_says_how_far_it_stays_in_the_cache() -> None:
    # 131,392 weights in fp32 with gradients and two moments: 2.1 MB at the fullest moment, the update
    held = case(0)
    assert cached_share(held, of_cache(64e6)) == 1.0
    assert cached_share(held, of_cache(1e6)) == 0.0
    part = of_cache(3e6)
    share = cached_share(held, part)
    assert 0.0 < share < 1.0
    kept = 3e6 * (
        1 - share / 2
    )  # bytes: the share falls from 1 at half the cache to 0 at the whole
    assert kept == pytest.approx(16 * SMALL[0].model.params(), rel=0.01)
    assert cached_share(held, replace(part, small=None)) == 0.0


def test_the_part_that_fits_the_step_tells_its_kernels() -> None:
    device = load_node("cpu-1").device
    times = {}
    for name, cache in (("all", 64e6), ("none", 1e6), ("some", 3e6)):
        calibration = of_cache(cache)
        calibration = replace(calibration, origin=replace(calibration.origin, device="cpu"))
        calibration = with_small(calibration, calibration.small.fits, calibration.small.points)  # type: ignore[union-attr]
        timer = step_timer(calibrated_timer, calibration, case(0))
        times[name] = timer(device, PRODUCT)
        assert timer(device, COPY) == pytest.approx(90e-6)  # of which the small part knows nothing
    share = cached_share(case(0), of_cache(3e6))
    assert times["all"] == pytest.approx(30e-6)
    assert times["none"] == pytest.approx(90e-6)
    assert times["some"] == pytest.approx(90e-6 - 60e-6 * share)


def test_both_parts_come_back_from_a_file(tmp_path: Path) -> None:
    write_calibration(two_parts(), tmp_path / "c.yaml")
    again = read_calibration(tmp_path / "c.yaml")
    assert again.small is not None
    assert again.small.origin.scope == "steps that stay in the cache"
    (point,) = again.small.points
    assert (kernel_key(point.kernel), point.seconds) == (kernel_key(PRODUCT), 30e-6)
    assert again.small.fits == two_parts().small.fits  # type: ignore[union-attr]
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("call: 3.0e-05", "call: -1"))
    with pytest.raises(InputError, match="seconds that are not negative"):
        read_calibration(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(text[: text.index("small:")] + "small: 3\n")
    with pytest.raises(InputError, match="expected keys and values"):
        read_calibration(tmp_path / "c.yaml")


def test_what_kernels_take_together_goes_with_their_part_of_a_step(tmp_path: Path) -> None:
    """Forward passes at 0.9, backward ones at 0.5 of the sum of their kernels: 27 us and 15 us of 30."""
    grad = matmul("up dgrad", 16, 64, 64, "fp32")
    made = of_cache(64e6)
    fits = {(operation_of(k), "fp32"): fit(operation_of(k), 30e-6) for k in (PRODUCT, grad)}
    made = replace(made, origin=replace(made.origin, device="cpu"))
    made = with_small(
        made, fits, [Point(PRODUCT, 30e-6, 30e-6, 0.0, 60)], {"forward": 0.9, "backward": 0.5}
    )
    write_calibration(made, tmp_path / "c.yaml")
    device = load_node("cpu-1").device
    timer = step_timer(calibrated_timer, read_calibration(tmp_path / "c.yaml"), case(0))
    assert timer(device, PRODUCT) == pytest.approx(27e-6)
    assert timer(device, grad) == pytest.approx(15e-6)
    text = (tmp_path / "c.yaml").read_text()
    for wrong, said in (
        ("backwards: 0.5", "did you mean 'backward'"),
        ("backward: 50", "from 0.1 to 10"),
    ):
        (tmp_path / "c.yaml").write_text(text.replace("backward: 0.5", wrong))
        with pytest.raises(InputError, match=said):
            read_calibration(tmp_path / "c.yaml")


def test_every_kernel_has_its_part_of_a_step() -> None:
    parts = {operation_of(k): part_of_step(k) for k in small_kernels("fp32", 0)}
    assert {o for o, part in parts.items() if part == "update"} == {"optimizer"}
    assert {
        "product dgrad",
        "product wgrad",
        "norm back",
        "loss back",
        "activation back gated",
    } <= {o for o, part in parts.items() if part == "backward"}
    assert {"product", "norm", "loss", "rope"} <= {o for o, p in parts.items() if p == "forward"}


def test_ratios_are_those_of_the_middle_model_in_its_quickest_steps() -> None:
    """Kernels of 30 us; the parts of three models take 0.8, 0.9 and 1.4 times their sum at best.

    A layer runs two norms, four products, rotation, attention, activation and two sums; back there are
    as many without the sums, of each product two. Embedding, last norm, head and loss come once.
    """
    made = of_cache(64e6)
    made = replace(made, origin=replace(made.origin, device="cpu"))
    kinds = {operation_of(k) for k in small_kernels("fp32", 0)}
    small = {(kind, "fp32"): fit(kind, 30e-6) for kind in kinds}
    made = with_small(made, small, [Point(PRODUCT, 30e-6, 30e-6, 0.0, 60)])
    subjects = small_subjects(["fp32"], 0)[:3]
    assert [s.model.layers for s in small_subjects(["fp32"], 0)] != [1] * 10
    samples = {}
    for subject, share in zip(subjects, (0.8, 0.9, 1.4), strict=True):
        layers = subject.model.layers
        counts = 11 * layers + 4, 13 * layers + 5, 1  # kernels of the parts
        best = [30e-6 * share * count for count in counts]
        samples[subject.model.name] = [[3 * s for s in best]] * 9 + [best]
    found = ratios(made, subjects, samples)
    assert found == pytest.approx({"forward": 0.9, "backward": 0.9, "update": 0.9})
    assert with_ratios(made, subjects, {}).small == made.small
    none = replace(made, machine=replace(made.machine, cache_bytes=1e3))  # stays in the cache
    assert ratios(none, subjects, samples) == {}


def test_the_launch_bound_models_of_the_proof_stay_in_the_cache_and_no_others() -> None:
    machine = read_calibration(find_calibration("cpu-epyc")).machine
    calibration = replace(two_parts(), machine=machine)
    shares = [cached_share(case(number), calibration) for number in range(len(SMALL))]
    assert shares == [1.0] * SMALLEST + [0.0] * (len(SMALL) - SMALLEST)
    assert some_subjects("cpu", 6)[:SMALLEST] == SMALL[:SMALLEST]


def test_small_steps_are_drawn_alike_and_hold_what_the_proof_asks() -> None:
    drawn = small_kernels("fp32", 0)
    assert drawn == small_kernels("fp32", 0)
    counts = {o: sum(operation_of(k) == o for k in drawn) for o in map(operation_of, drawn)}
    assert min(counts.values()) >= 4  # as many as a fit needs
    assert {"product", "norm back", "rope", "attention back", "loss", "optimizer"} <= set(counts)
    asked: set[str] = set()
    for number in range(SMALLEST):
        step = own_step(case(number), "cpu")
        asked |= {operation_of(k) for k in step.kernels}
        products = {k for k in step.kernels if k.kind == "matmul"}
        assert not products & set(drawn)  # shapes of no calibration
    assert asked <= set(counts)


def test_the_passes_that_were_quickest_as_a_whole_count() -> None:
    # twenty passes over two kernels; the first was quick in the third pass, the second in the fifth,
    # but both together took least in the last two
    first, second = [5.0] * 20, [5.0] * 20
    first[2] = second[4] = 1.0
    first[18:], second[18:] = [2.0, 3.0], [2.0, 2.0]
    assert undisturbed([first, second]) == [2.5, 2.0]


def test_a_launch_bound_step_is_predicted_by_calls_that_find_their_code(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A host on which whatever is called after the cache was emptied takes three times as long."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")
    from pretended import HostClock

    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil import benchmark, sentinels
    from ersatz.sim.hil.device import attached as attached_module
    from ersatz.sim.hil.device.attached import attach
    from ersatz.sim.hil.fit import fit_calibration, with_small_steps
    from ersatz.sim.hil.proof.proof import prove
    from ersatz.sim.hil.shapes import SMALL as RANGES

    class Host(HostClock):
        left = 0  # operations that still find nothing in the cache

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            before = self.seconds
            result = super().__torch_dispatch__(func, types, args, kwargs)
            if self.left:
                self.seconds += 2 * (self.seconds - before)
                self.left -= 1
            if func.overloadpacket.__name__ == "add_" and args[0] is cpu.flush:
                self.left = 40
            return result

    cpu = attach("cpu")
    cpu.flush = torch.zeros(1024)
    few = replace(RANGES, hidden=(64, 192), tokens=(32, 128), sequence=(16, 64), vocab=(256, 512))
    monkeypatch.setattr(benchmark, "ranges_of", lambda backend: few)
    monkeypatch.setattr(benchmark, "WATCH_TURNS", 1)  # on this clock every pass is alike
    monkeypatch.setattr(sentinels, "PASSES", 2)
    with Host() as clock:
        monkeypatch.setattr(attached_module, "time", clock.module())
        journal = benchmark.run_benchmark(cpu, ["fp32"], 1e-4)
        device = load_device("cpu")
        plain, _ = fit_calibration(benchmark.origin_of(cpu, journal), device, journal.points)
        whole = with_small_steps(plain, device, journal.small_points())
        whole = with_ratios(whole, small_subjects(["fp32"], 0), journal.whole)
        assert whole.small is not None
        assert whole.small.together.keys() == set(PARTS)
        (judged,) = prove(cpu, whole, 0.0, [SMALL[0]])
        (without,) = prove(cpu, plain, 0.0, [SMALL[0]])
    assert judged.error == pytest.approx(0.0, abs=0.06)
    assert without.error > 1.0
