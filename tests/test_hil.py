"""The loop with PyTorch: kernels run, times agree, the proof holds, other devices are reached."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from calibrations import made_calibration  # noqa: E402
from factories import make_node, make_scenario, make_stack  # noqa: E402

from ersatz.device_models.catalog.reading import load_node, load_stack  # noqa: E402
from ersatz.device_models.kernels.kernel import Kernel, matmul, memory_kernel  # noqa: E402
from ersatz.device_models.kernels.operations import operation_of  # noqa: E402
from ersatz.sim.cli.output import captured  # noqa: E402
from ersatz.sim.errors import InfeasibleError, InputError  # noqa: E402
from ersatz.sim.hil.benchmark import origin_of, run_benchmark  # noqa: E402
from ersatz.sim.hil.device.attached import attach, dtype_of  # noqa: E402
from ersatz.sim.hil.device.measure import Unmeasurable, measure  # noqa: E402
from ersatz.sim.hil.device.parts import (  # noqa: E402
    Heads,
    attend,
    even_routing,
    norm,
    permute,
    rotary_table,
    rotate,
    unpermute,
)
from ersatz.sim.hil.device.recipes import RECIPES, Operands, prepare  # noqa: E402
from ersatz.sim.hil.fit import fit_calibration, summary_errors  # noqa: E402
from ersatz.sim.hil.live import LiveTimer, LocalSource  # noqa: E402
from ersatz.sim.hil.paced import Bench, paced_step  # noqa: E402
from ersatz.sim.hil.proof.proof import predict, prove  # noqa: E402
from ersatz.sim.hil.proof.subjects import Subject, scenario_of  # noqa: E402
from ersatz.sim.hil.proof.transformer import build_network, training_step  # noqa: E402
from ersatz.sim.hil.shapes import SMALL, kernel_rounds  # noqa: E402
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training  # noqa: E402
from ersatz.sim.step.step import step_seconds  # noqa: E402
from ersatz.sim.workload.model import Experts, Model  # noqa: E402

torch.set_num_threads(1)  # two cores, shared with other tests
TINY = Subject(Model("tiny", 2, 64, 4, 2, 16, 128, 256), 2, 32)


@pytest.fixture(scope="module")
def cpu():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    yield attach("cpu")
    torch.set_num_threads(threads)


def operands(dtype: str = "fp32") -> Operands:
    return Operands(torch.device("cpu"), dtype_of(dtype), torch.Generator().manual_seed(0))


def drawn() -> dict[str, Kernel]:
    """One small kernel of every operation."""
    rounds = kernel_rounds(replace(SMALL, tokens=(32, 64), hidden=(64, 128)), ["fp32"], 1)
    found: dict[str, Kernel] = {}
    while set(found) != set(RECIPES):
        found |= {operation_of(k): k for k in next(rounds)}
    return found


@pytest.mark.parametrize("operation", sorted(RECIPES))
def test_every_recipe_runs(operation: str) -> None:
    trial = prepare(drawn()[operation], operands())
    result = trial.run()
    parts = result if isinstance(result, tuple) else (result,)
    assert all(torch.isfinite(part).all() for part in parts if torch.is_tensor(part))
    assert trial.backward == ("back" in operation)


def test_products_have_the_shape_that_the_kernel_says() -> None:
    # 12 tokens, 5 outputs, 7 inputs: x W' is (12, 5), dy W (12, 7), dy' x (5, 7)
    sizes = {"up": (12, 5, 7), "up dgrad": (12, 7, 5), "up wgrad": (5, 7, 12)}
    for name, (m, n, k) in sizes.items():
        trial = prepare(matmul(name, m, n, k, "fp32"), operands())
        assert tuple(trial.run().shape) == (m, n)  # type: ignore[attr-defined]


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    heads = Heads(1, 6, 2, 1, 8)
    table = rotary_table(heads, torch.device("cpu"), torch.float32)
    same = torch.randn(1, heads.packed).repeat(6, 1)
    q, k, v = rotate(same, table, heads)
    assert torch.allclose(q.norm(dim=-1), q[:, :1].norm(dim=-1).expand(1, 6, 2), atol=1e-5)
    scores = q[0, :, 0] @ k[0, :, 0].T
    assert torch.allclose(scores[1, 0], scores[4, 3], atol=1e-4)
    assert torch.equal(v[0, 0], v[0, 5])


def test_attention_sees_no_future() -> None:
    q, k, v = torch.randn(1, 5, 2, 8), torch.randn(1, 5, 1, 8), torch.randn(1, 5, 1, 8)
    before = attend(q, k, v)
    v[0, 4] = 100.0
    assert torch.allclose(before[:4], attend(q, k, v)[:4], atol=1e-6)
    x = torch.randn(3, 16)
    assert torch.allclose(norm(x, torch.ones(16)).pow(2).mean(-1), torch.ones(3), atol=1e-3)


def test_the_network_of_the_proof_learns() -> None:
    step = training_step(TINY.model, 2, 32, device=torch.device("cpu"), dtype=torch.float32)
    losses = [step() for _ in range(15)]
    assert losses[0] == pytest.approx(math.log(256), rel=0.2)  # random weights know nothing
    assert losses[-1] < losses[0] - 0.02


MOE = Model("moe", 2, 64, 4, 2, 16, 96, 256, experts=Experts(4, 2, 48, shared=1, dense_layers=1))


@pytest.mark.parametrize("model", [TINY.model, MOE], ids=lambda model: model.name)
def test_the_network_has_the_weights_of_the_model(model: Model) -> None:
    network = build_network(model, 1, 8, device=torch.device("cpu"), dtype=torch.float32)
    assert sum(weight.numel() for weight in network.weights()) == model.params()


def test_tokens_are_dealt_evenly_and_come_back_to_their_place() -> None:
    # 6 tokens, 4 experts, 2 copies each: 3 places per expert; with gates of a half and experts that
    # do nothing every token comes back as it was
    routing = even_routing(6, 4, 2, torch.device("cpu"))
    assert torch.bincount(routing.expert.flatten()).tolist() == [3, 3, 3, 3]
    x = torch.randn(6, 5)
    dealt = permute(x, routing)
    assert torch.equal(dealt[:3], x[[0, 2, 4]])  # tokens 0, 2, 4 take experts 0 and 1
    assert torch.allclose(unpermute(dealt, torch.full((6, 2), 0.5), routing), x)


def test_a_network_of_experts_learns() -> None:
    step = training_step(MOE, 2, 32, device=torch.device("cpu"), dtype=torch.float32)
    losses = [step() for _ in range(15)]
    assert losses[-1] < losses[0] - 0.02


def test_a_kernel_is_measured_with_its_spread(cpu) -> None:  # type: ignore[no-untyped-def]
    point = measure(cpu, matmul("up", 256, 256, 256, "fp32"))
    assert 2 * 256**3 / point.seconds > 1e8  # a tenth of a GFLOP/s: any processor
    assert point.samples >= 3
    assert point.spread >= 0
    assert point.host_s == 0.0  # a CPU is its own host


def test_a_bigger_product_takes_longer(cpu) -> None:  # type: ignore[no-untyped-def]
    small, large = (measure(cpu, matmul("up", n, n, n, "fp32")).seconds for n in (64, 512))
    assert large > 8 * small  # 512 times the work


def test_too_much_memory_is_said_and_not_fatal(cpu) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unmeasurable, match="memory is too small"):
        measure(cpu, memory_kernel("copy", 1.0, dtype="fp32", m=2.0**33, n=2.0**12))
    with pytest.raises(Unmeasurable, match="has no recipe"):
        measure(cpu, memory_kernel("ring merge", 1.0, m=1, n=1))


@pytest.mark.parametrize("name", ["cuda", "rocm", "npu"])
def test_a_device_that_is_not_there_is_bad_input(name: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("an accelerator is attached")
    with pytest.raises(InputError, match="not attached"):
        attach(name)
    with pytest.raises(InputError, match="is unknown; expected auto"):
        attach("tpu")


def small_run(cpu, kernels: int = 90):  # type: ignore[no-untyped-def]
    """A benchmark of a few seconds, fitted."""
    from ersatz.device_models.catalog.reading import load_device

    journal = run_benchmark(cpu, ["fp32"], 10.0, most_kernels=kernels)
    return fit_calibration(origin_of(cpu, journal), load_device("cpu"), journal.points)


def single_case(subject: Subject = TINY) -> Scenario:
    return scenario_of(subject, load_node("cpu-1"), "fp32")


def test_the_live_timer_asks_once_for_each_distinct_kernel(cpu) -> None:  # type: ignore[no-untyped-def]
    asked: list[Kernel] = []

    class Source(LocalSource):
        def measure(self, kernel: Kernel):  # type: ignore[no-untyped-def]
            asked.append(kernel)
            return LocalSource.measure(self, kernel)

    timer = LiveTimer({"cpu": Source(cpu)})
    first = step_seconds(single_case(), timer)
    assert len(asked) == len(set(asked)) == len(timer.points)
    assert step_seconds(single_case(), timer) == first
    assert len(asked) == len(timer.points)
    assert "distinct kernels were run on cpu" in timer.summary()


def test_paced_runs_every_kernel_of_the_representative_in_order(cpu) -> None:  # type: ignore[no-untyped-def]
    scenario = single_case()
    timer = LiveTimer({"cpu": LocalSource(cpu)})
    found = paced_step(scenario, timer, Bench(cpu))
    # 2 layers: 6 + 5 forward (attention, MLP), 5 + 4 backward, 4 weight gradients; the head: norm,
    # product, loss, three backward, one weight gradient; the embedding both ways; the optimiser
    assert found.kernels == 2 * (11 + 9 + 4) + 7 + 2 + 1
    assert found.duration_s > 0


def test_a_stumble_in_mid_step_delays_the_whole_job() -> None:
    # dp 8: gradients meet at the end; rank 0 loses a second in one kernel, everybody waits for it
    scenario = make_scenario()
    calls = []

    def stumble(kernel: Kernel) -> float | None:
        calls.append(kernel)
        return 1.0 if len(calls) == 20 else None

    found = paced_step(scenario, lambda device, kernel: 1e-3, stumble)
    assert found.duration_s == pytest.approx(found.modelled_s + 1.0 - 1e-3, abs=1e-6)


def test_a_paced_step_of_thousands_of_ranks_is_refused() -> None:
    scenario = make_scenario(parallel=Parallel(dp=65536), training=Training(1000, 65536, 1),
                             pools=(Pool("", make_node(), 8192, make_stack()),))  # fmt: skip
    with pytest.raises(InfeasibleError, match="pace a smaller layout"):
        paced_step(scenario, lambda device, kernel: 1e-3, lambda kernel: None)


@pytest.mark.slow
def test_the_loop_closes_at_small_size(cpu) -> None:  # type: ignore[no-untyped-def]
    """Calibrate for half a minute, predict three models, train them; the machine may be busy."""
    calibration, held = small_run(cpu, kernels=400)
    errors = summary_errors(held)
    assert errors["matrix products"]["median"] < 0.15
    assert errors["all kernels"]["median"] < 0.25
    subjects = [
        Subject(Model("gpt", 3, 192, 6, 6, 32, 768, 2048, gated=False), 4, 128),
        Subject(Model("llama", 3, 256, 8, 4, 32, 688, 4096), 4, 64),
        Subject(Model("wide", 1, 512, 8, 8, 64, 1376, 1024), 1, 256),
    ]
    judged = prove(cpu, calibration, 0.1, subjects)
    assert max(abs(j.error) for j in judged) < 0.4
    assert sum(abs(j.error) for j in judged) / 3 < 0.25
    live = LiveTimer({"cpu": LocalSource(cpu)})
    case = single_case(subjects[0])
    assert step_seconds(case, live) == pytest.approx(
        predict(subjects[0], calibration, live),
        rel=0.01,  # but for the catalogue's launch cost
    )
    assert step_seconds(case, live) == pytest.approx(judged[0].predicted_s, rel=0.4)


# Devices on other hosts


@pytest.mark.slow
def test_two_ray_actors_serve_two_devices_to_one_simulation() -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra [dist])")
    from ersatz.sim.hil.actors import start_actor

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        sources = {
            s.device: s
            for s in (start_actor("cpu", "cpu"), start_actor("cpu", "h800", pretend=True))
        }
        assert set(sources) == {"cpu", "h800"}
        timer = LiveTimer(sources)
        scenario = two_devices()
        seconds = step_seconds(scenario, timer)
        served = {name for name, _ in timer.points}
        assert served == {"cpu", "h800"}
        slowest = max(p.seconds for p in timer.points.values())
        assert seconds > slowest
        with pytest.raises(Unmeasurable, match="has no recipe"):
            sources["cpu"].measure(memory_kernel("ring merge", 1.0, m=1, n=1))
        sources["h800"].close()
        again = LiveTimer(sources)
        assert step_seconds(scenario, again) > 0  # what a lost host cannot time is modelled
        assert any("is lost" in reason for reason in again.missing.values())
    finally:
        ray.shutdown()


def two_devices() -> Scenario:
    """A pipeline of two stages, one on a CPU core and one on what calls itself an H800."""
    node = load_node("h800-8")
    nodes = replace(load_node("cpu-1"), scale_out=node.scale_out), replace(node, devices=1, nics=1)
    stack = load_stack("torch-eager")
    pools = tuple(Pool(n.device.name, n, 1, stack) for n in nodes)
    return Scenario(
        "two", "?", 0, TINY.model, pools, Training(32, 4, 2, "bf16"),
        Parallel(pp=2, zero=0, sequence_parallel=False, stage_pools=("cpu", "h800")),
    )  # fmt: skip


def test_ray_without_such_a_device_is_bad_input() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [dist])")
    from ersatz.sim.hil.actors import start_actor

    with pytest.raises(InputError, match="with @ray one of cpu, cuda, rocm, npu"):
        start_actor("tpu", "")


# The command


def ersatz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ersatz", *arguments], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[1], timeout=300)  # fmt: skip


@pytest.mark.slow
def test_the_command_calibrates_runs_and_refuses(tmp_path: Path) -> None:
    out, scenario = tmp_path / "c.yaml", tmp_path / "s.yaml"
    done = ersatz("calibrate", "--device", "cpu", "--minutes", "0.2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "kernels measured in" in done.stdout.splitlines()[0]
    assert not out.with_name("c.yaml.part").exists()
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    scenario.write_text(
        "question: How long?\nmodel: {name: m, layers: 2, hidden: 256, heads: 4, kv_heads: 2,"
        " head_dim: 64, ffn_hidden: 688, vocab: 2048}\ncluster: {node: cpu-1, nodes: 1}\n"
        "stack: torch-eager\ntraining: {sequence_length: 128, global_batch: 2, precision: fp32}\n"
    )
    steps = {}
    for timer in ("calibrated", "table", "live", "paced"):
        run = ersatz(
            "run", str(scenario), "--timer", timer, "--calibration", str(out), "--json", "-"
        )
        assert run.returncode == 0, run.stderr
        data = json.loads(run.stdout)
        steps[timer] = data["step"]["duration_s"]
        assert any(line.startswith("kernel times") for line in data["sources"])
    assert max(steps.values()) < 3 * min(steps.values())
    refused = ersatz("run", "ling-plus-substitution", "--timer", "live", "--attach", "cpu")
    assert refused.returncode == 2
    assert "attached is cpu; the scenario runs on" in refused.stderr
    refused = ersatz("run", "ling-plus-substitution", "--calibration", str(out))
    assert refused.returncode == 2
    assert "is a calibration of cpu" in refused.stderr


def test_calibrations_of_another_device_are_not_proved(tmp_path: Path) -> None:
    from ersatz.device_models.calibration.file import write_calibration

    write_calibration(made_calibration(), tmp_path / "c.yaml")
    with pytest.raises(InputError, match=r"is of Round hardware \(round\); attached is"):
        captured(["calibrate", "--device", "cpu", "--prove", "--out", str(tmp_path / "c.yaml")])
