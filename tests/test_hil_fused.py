"""Fused kernels of a stack: taken where a library is present and right, and named with its version."""

import re
import sys
import types
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from pretended import Timeline, pretended_torch  # noqa: E402

from ersatz.device_models.calibration.file import read_calibration, write_calibration  # noqa: E402
from ersatz.device_models.kernels.kernel import matmul, memory_kernel  # noqa: E402
from ersatz.sim.errors import InputError  # noqa: E402
from ersatz.sim.hil.benchmark import identity_of  # noqa: E402
from ersatz.sim.hil.device import attached as attached_module  # noqa: E402
from ersatz.sim.hil.device.attached import attach  # noqa: E402
from ersatz.sim.hil.device.fused import fused_pieces  # noqa: E402
from ersatz.sim.hil.device.measure import measure  # noqa: E402
from ersatz.sim.hil.device.parts import PLAIN, attend, norm  # noqa: E402
from ersatz.sim.hil.proof.transformer import build_network, training_step  # noqa: E402
from ersatz.sim.workload.model import Experts, Model  # noqa: E402

CPU = torch.device("cpu")
MOE = Model("moe", 2, 64, 4, 2, 16, 96, 256, experts=Experts(4, 2, 48, shared=1, dense_layers=1))


def of_groups(x: Any, weight: Any, ends: list[int], kind: int) -> Any:
    """What a grouped product gives: rows of x in groups times weights, or columns times rows."""
    starts = [0, *ends[:-1]]
    if kind == 2:
        return torch.stack([x[:, a:b] @ weight[a:b] for a, b in zip(starts, ends, strict=True)])
    return torch.cat([x[a:b] @ w for a, b, w in zip(starts, ends, weight, strict=True)])


class Library(types.ModuleType):
    """A module that counts the calls of its functions."""

    def __init__(self, name: str, version: str, **functions: Any) -> None:
        super().__init__(name)
        self.__version__, self.calls = version, []  # type: ignore[var-annotated]
        for key, function in functions.items():
            setattr(self, key, self.counted(key, function))

    def counted(self, key: str, function: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self.calls.append(key)
            return function(*args, **more)

        return call


def npu_attention(q, k, v, head_num, input_layout, *, atten_mask, scale, sparse_mode):  # type: ignore[no-untyped-def]
    assert (head_num, input_layout, sparse_mode) == (q.shape[2], "BSND", 2)
    assert atten_mask.shape == (2048, 2048)
    assert atten_mask[0, 1]
    assert not atten_mask[1, 0]
    assert scale == pytest.approx(q.shape[-1] ** -0.5)
    return attend(q, k, v).view(q.shape), None, None


def npu_grouped(x, weight, *, group_list, split_item, group_type):  # type: ignore[no-untyped-def]
    assert split_item == 3
    return [of_groups(x[0], weight[0], group_list.tolist(), group_type)]


def half_turned(x: Any) -> Any:
    low, high = x.chunk(2, dim=-1)
    return torch.cat((-high, low), dim=-1)


def swiglu(x: Any, dim: int = -1) -> Any:
    gate, value = x.chunk(2, dim=dim)
    return torch.nn.functional.silu(gate) * value


def made_npu(**other: Any) -> Library:
    functions = dict(
        npu_rms_norm=lambda x, gamma, epsilon: (norm(x, gamma), None),
        npu_rotary_mul=lambda x, r1, r2: x * r1 + half_turned(x) * r2,
        npu_swiglu=swiglu, npu_fusion_attention=npu_attention, npu_grouped_matmul=npu_grouped,
    )  # fmt: skip
    return Library("torch_npu", "2.7.1.post2", **(functions | other))


def made_aiter() -> dict[str, Any]:
    def gmm(x: Any, weight: Any, sizes: Any, dtype: Any) -> Any:
        assert sizes.dtype == torch.int32
        return of_groups(x, weight, sizes.cumsum(0).tolist(), 0)

    def ptgmm(x: Any, grad: Any, sizes: Any, dtype: Any) -> Any:
        return of_groups(x, grad, sizes.cumsum(0).tolist(), 2)

    def flash(q: Any, k: Any, v: Any, causal: bool) -> Any:
        assert causal
        return attend(q, k, v).view(q.shape)

    return {
        "aiter": Library("aiter", "0.1.9", flash_attn_func=flash),
        "aiter.ops": types.ModuleType("aiter.ops"),
        "aiter.ops.triton": types.ModuleType("aiter.ops.triton"),
        "aiter.ops.triton.rmsnorm": Library("rmsnorm", "", rms_norm=lambda x, w, e: norm(x, w)),
        "aiter.ops.triton.gmm": Library("gmm", "", gmm=gmm, ptgmm=ptgmm),
    }


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = made_npu()
    monkeypatch.setitem(sys.modules, "torch_npu", library)
    return library


def test_all_pieces_of_torch_npu_are_taken_and_named(npu: Library) -> None:
    pieces = fused_pieces(torch, "npu", CPU)
    assert pieces.libraries == (
        "torch_npu 2.7.1.post2: norm, rotary, swiglu, fusion attention, grouped matmul"
    )


def test_the_proof_and_the_benchmark_run_the_fused_kernels(npu: Library) -> None:
    pieces = fused_pieces(torch, "npu", CPU)
    npu.calls.clear()
    step = training_step(MOE, 2, 32, device=CPU, dtype=torch.float32, pieces=pieces)
    losses = [step() for _ in range(3)]
    assert set(npu.calls) == {"npu_rms_norm", "npu_rotary_mul", "npu_swiglu",
                              "npu_fusion_attention", "npu_grouped_matmul"}  # fmt: skip
    plain = training_step(MOE, 2, 32, device=CPU, dtype=torch.float32)
    assert losses == pytest.approx([plain() for _ in range(3)], rel=1e-4)  # gradients, too
    # a gated expert layer: 2 products forward, of each 2 backward
    assert npu.calls.count("npu_grouped_matmul") == 3 * 6
    assert build_network(MOE, 1, 8, device=CPU, dtype=torch.float32).pieces is PLAIN


KERNELS = {
    "npu_rms_norm": memory_kernel("norm", 1.0, dtype="bf16", m=64, n=32),
    "npu_rotary_mul": memory_kernel("rope", 1.0, dtype="bf16", m=8, n=64, k=16, groups=2),
    "npu_swiglu": memory_kernel("activation", 1.0, dtype="bf16", m=64, n=32, k=2),
    "npu_grouped_matmul": matmul("up wgrad", 16, 24, 8, "bf16", groups=4),
}


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_each_kernel_is_timed_as_the_library_runs_it(npu: Library, monkeypatch, name) -> None:  # type: ignore[no-untyped-def]
    timeline = Timeline(lambda n, args: 1e-6)
    fake = pretended_torch(timeline.module("Ascend910B3"), cuda=None)
    for key in (
        "ones",
        "arange",
        "full",
        "randn",
        "Generator",
        "autograd",
        "bool",
        "bfloat16",
        "int32",
    ):
        setattr(fake, key, getattr(torch, key))
    fake.npu = fake.cuda
    monkeypatch.setattr(attached_module, "import_torch", lambda: fake)
    attached = attach("npu")
    assert "torch_npu 2.7.1.post2" in identity_of(attached, 0)["libraries"]
    npu.calls.clear()
    measure(attached, KERNELS[name])
    assert set(npu.calls) == {name}
    plain = attach("npu", plain=True)
    assert plain.pieces is PLAIN
    assert "libraries" not in identity_of(plain, 0)
    npu.calls.clear()
    measure(plain, KERNELS[name])
    assert npu.calls == []


@pytest.mark.parametrize(("broken", "words"), [
    (dict(npu_swiglu=lambda x, dim: swiglu(x.flip(dim), dim)), r"not swiglu \(is \d+ % off PyTorch"),
    (dict(npu_fusion_attention=lambda *a, **k: 1 / 0), r"not fusion attention \(division by zero\)"),
    (dict(npu_rms_norm=lambda x, g, epsilon: (norm(x.detach(), g), None)), r"not norm \("),
])  # fmt: skip
def test_a_piece_that_is_wrong_is_refused_by_name(monkeypatch, broken, words) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "torch_npu", made_npu(**broken))
    pieces = fused_pieces(torch, "npu", CPU)
    assert re.search(words, pieces.libraries)
    assert "grouped matmul" in pieces.libraries.partition("; not")[0]
    wrong = {"npu_swiglu": "activate", "npu_fusion_attention": "attend", "npu_rms_norm": "norm"}
    piece = wrong[next(iter(broken))]
    assert getattr(pieces, piece) is getattr(PLAIN, piece)


def test_an_old_library_lacks_pieces_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", Library("torch_npu", "2.1.0"))
    pieces = fused_pieces(torch, "npu", CPU)
    assert pieces.libraries.startswith("torch_npu 2.1.0: nothing; not norm (")
    assert pieces.norm is PLAIN.norm


def test_nothing_is_taken_where_no_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch_npu", "aiter"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    for backend in ("cpu", "cuda", "npu", "rocm"):
        assert fused_pieces(torch, backend, CPU) == PLAIN


def with_hipblaslt(preferred: str) -> Any:
    """PyTorch on ROCm, as far as it tells which library multiplies."""
    fake = types.SimpleNamespace()
    fake.backends = types.SimpleNamespace(
        cuda=types.SimpleNamespace(preferred_blas_library=lambda name: preferred)
    )
    rows = (("PT_VERSION", "2.9.0"), ("HIPBLASLT_VERSION", "100100-0f1c2d3"))
    fake.cuda = types.SimpleNamespace(tunable=types.SimpleNamespace(get_validators=lambda: rows))
    return fake


def test_aiter_and_hipblaslt_are_named_with_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in made_aiter().items():
        monkeypatch.setitem(sys.modules, name, module)
    fake = with_hipblaslt("_BlasBackend.Cublaslt")
    assert fused_pieces(fake, "rocm", CPU).libraries == (
        "AITER 0.1.9: norm, flash attention, grouped matmul; hipBLASLt 100100-0f1c2d3: products"
    )
    for name in made_aiter():
        monkeypatch.setitem(sys.modules, name, None)
    assert fused_pieces(fake, "rocm", CPU).libraries == "hipBLASLt 100100-0f1c2d3: products"
    assert fused_pieces(with_hipblaslt("_BlasBackend.Cublas"), "rocm", CPU) == PLAIN


def test_a_calibration_of_other_kernels_is_not_proved(tmp_path, npu: Library) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from calibrations import made_calibration

    from ersatz.sim.cli.measured.bench import same_device

    attached = attach("cpu")
    plain = made_calibration()
    origin = replace(plain.origin, device="cpu", hardware=attached.hardware)
    fused = replace(plain, origin=replace(origin, libraries="torch_npu 2.7.1: norm"))
    path = tmp_path / "c.yaml"
    write_calibration(fused, path)
    assert read_calibration(path).origin.libraries == "torch_npu 2.7.1: norm"
    with pytest.raises(
        InputError, match=r"timed with torch_npu 2.7.1: norm; attached is PyTorch's own"
    ):
        same_device(path, attached)
    write_calibration(replace(plain, origin=origin), path)
    assert same_device(path, attached).origin == origin
