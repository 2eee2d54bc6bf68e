"""Kinds of layer: weights against counts of built models, FLOPs worked out, and work that is both."""

import math
from dataclasses import replace
from typing import Any

import pytest
from factories import make_model, make_scenario
from test_rank_work import comms, make_shard

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.plan.layout import chunk_loads, chunk_params, load_split, split_layers
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.plan.memory.activations import chunk_kept, chunk_working
from ersatz.sim.plan.memory.state import gathered_weights
from ersatz.sim.scenario.scenario import Parallel
from ersatz.sim.step.build import build_program
from ersatz.sim.workload.layer import Compressed, Experts, Indexer, LatentAttention, Layer
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.ops import kind_work
from ersatz.sim.workload.pieces import PartWork
from ersatz.sim.workload.recurrence import Recurrence

V3 = LatentAttention(q_rank=1536, kv_rank=512, rope_dim=64, nope_dim=128, v_dim=128)
DELTA = Recurrence("gated_delta", 32, 128, 128, key_heads=16)
KDA = Recurrence("kda", 32, 128, 128, rank=128)
LIGHTNING = Recurrence("lightning", 64, 96, 96, chunk=256)
MAMBA2 = Recurrence("mamba2", 128, 128, 64, key_heads=8, chunk=128)
MAMBA1 = Recurrence("mamba1", 8192, 16, 1, rank=256)
SPARSE = Indexer(heads=64, dim=128, top_k=2048)


# Millions of weights of attention or recurrence, counted on models that transformers built.
@pytest.mark.parametrize(
    ("layers", "kind", "millions"),
    [
        (61, Layer(7168, 128, 128, 192, latent=V3), 11413.42),  # DeepSeek-V3
        (61, Layer(7168, 128, 128, 192, latent=V3, indexer=SPARSE), 11413.42 + 851.5),  # V3.2
        (12, Layer(2048, 16, 2, 256, gate="element"), 327.16),  # Qwen3-Next, full
        (36, Layer(2048, recurrence=DELTA), 1213.86),  # Qwen3-Next, DeltaNet
        (21, Layer(2304, recurrence=KDA), 829.80),  # Kimi Linear
        (40, Layer(4096, recurrence=MAMBA2), 4385.0),  # Nemotron 3 Super
        (28, Layer(4096, recurrence=MAMBA1), 2948.6),  # Jamba
        (10, Layer(2048, recurrence=Recurrence("conv", 2048, 1, 1, conv=3)), 167.83),  # LFM2-1.2B
        (26, Layer(4096, recurrence=Recurrence("rg_lru", 4096, 1, 1, key_heads=16)), 1364.4),
        (60, Layer(6144, 64, 4, 128, indexer=Indexer(4, 128, 2176, weighted=False)),
         60 * 6144 * (64 + 4) * 256e-6 + 224.1 / 57 * 60),  # MiniMax M3, were all layers sparse
    ],
)  # fmt: skip
def test_weights_are_those_of_built_models(layers: int, kind: Layer, millions: float) -> None:
    assert layers * kind.mixer_params() / 1e6 == pytest.approx(millions, rel=2e-3)


def test_weights_of_compressed_attention_are_those_of_deepseek_v4() -> None:
    """V4-Flash: 2 layers of a window alone, 21 of CSA and 20 of HCA, 5,079.87 M in all; a CSA
    compressor is 4 h d + 8 d, an HCA one 2 h d + 128 d."""
    alone = Layer(4096, 64, 1, 512, keys_are_values=True, compressed=Compressed(1024, 1024, 8))
    picks = Indexer(64, 128, 512)
    csa = replace(alone, compressed=Compressed(1024, 1024, 8, 4), indexer=picks)
    hca = replace(alone, compressed=Compressed(1024, 1024, 8, 128))
    total = 2 * alone.mixer_params() + 21 * csa.mixer_params() + 20 * hca.mixer_params()
    assert total / 1e6 == pytest.approx(5079.87, rel=2e-3)
    index = 4096 * 4 * 128 + 1024 * 64 * 128 + 4096 * 64
    assert csa.mixer_params() - alone.mixer_params() == 4 * 4096 * 512 + 8 * 512 + index
    assert hca.mixer_params() - alone.mixer_params() == 2 * 4096 * 512 + 128 * 512


def test_experts_in_a_latent_and_idle_ones() -> None:
    """40 layers of Nemotron 3 Super: 112,743 M in experts of a latent of 1,024, two matrices each;
    LongCat chooses 12 of 512 + 256 idle ones, so 8 real ones on average."""
    latent = Experts(512, 22, 2688, latent=1024, shared_hidden=5376)
    kind = Layer(4096, gated=False, experts=latent)
    assert 40 * kind.expert_params() * 512 / 1e6 == pytest.approx(112743, rel=1e-4)
    assert kind.whole_mlp_params() == 4096 * (512 + 2 * 1024)
    assert 40 * kind.shared_params() / 1e6 == pytest.approx(1761.6, rel=1e-4)
    assert Experts(512, 12, 2048, zero=256).visited == 8


# MFLOP of a token, forward, of one layer; counted by a FLOP counter on built layers at 1,024 tokens.
@pytest.mark.parametrize(
    ("kind", "weights", "core", "counted"),
    [
        (Layer(2048, 16, 2, 256, gate="element"), 54.53, 16.78, 71.303),
        (Layer(7168, 128, 128, 192, latent=V3), 374.21, 83.89, 458.097),
        (Layer(6144, recurrence=Recurrence("lightning", 64, 128, 128, chunk=256)), 503.32, 12.58,
         515.899),
        (Layer(2048, recurrence=DELTA), 67.37, 4.72 + 0.52, 72.155 - 0.07 + 0.52),
        (Layer(2304, recurrence=KDA), 78.92, 4.72 + 0.52, 83.739 - 0.10 + 0.52),
    ],
)  # fmt: skip
def test_flops_are_those_counted(kind: Layer, weights: float, core: float, counted: float) -> None:
    """The counter sees the whole square of softmax scores, and neither convolutions as products nor
    the triangular solve of the delta rule, 32 x 64 x 256 FLOPs."""
    matrices = sum(product.n * product.k for product in kind.products())
    assert 2e-6 * matrices == pytest.approx(weights, rel=2e-3)
    assert 1e-6 * kind.core_flop(1024, causal=False) == pytest.approx(core, rel=5e-3)
    assert weights + core == pytest.approx(counted, rel=2e-3)


KINDS = {
    "window": Layer(1000, 10, 5, 100, ffn_hidden=4000, window=100),
    "chunks": Layer(1000, 10, 5, 100, ffn_hidden=4000, window=100, chunked=True),
    "gate by element": Layer(1000, 10, 5, 100, 60, gate="element", ffn_hidden=400),
    "gate by head": Layer(1000, 10, 5, 100, gate="head", ffn_hidden=400, gated=False),
    "keys of an earlier layer": Layer(1000, 10, 5, 100, shares_keys=True, ffn_hidden=400),
    "keys are values": Layer(1000, 10, 5, 100, keys_are_values=True, ffn_hidden=400),
    "latent": Layer(1000, 10, 10, 150, latent=LatentAttention(200, 100, 50, 100, 80)),
    "latent without q": Layer(1000, 10, 10, 150, latent=LatentAttention(0, 100, 50, 100, 80)),
    "sparse": Layer(1000, 10, 10, 192, latent=LatentAttention(200, 100, 50, 100, 80),
                    indexer=Indexer(4, 64, 100)),
    "sparse, choice shared": Layer(1000, 10, 5, 100, indexer=Indexer(4, 64, 100, shared=True)),
    "compressed": Layer(1000, 10, 1, 100, keys_are_values=True, window=50, indexer=Indexer(4, 64, 100),
                        compressed=Compressed(200, 100, 2, 4)),
    "delta": Layer(1000, recurrence=Recurrence("gated_delta", 8, 64, 64, key_heads=4), ffn_hidden=400),
    "kda": Layer(1000, recurrence=Recurrence("kda", 8, 64, 64, rank=64), ffn_hidden=400),
    "lightning": Layer(1000, recurrence=Recurrence("lightning", 8, 64, 64), ffn_hidden=400),
    "mamba2": Layer(1000, recurrence=Recurrence("mamba2", 8, 64, 64, key_heads=2)),
    "mamba1": Layer(1000, recurrence=Recurrence("mamba1", 2000, 16, 1, rank=64)),
    "conv": Layer(1000, recurrence=Recurrence("conv", 1000, 1, 1, conv=3), ffn_hidden=400),
    "both": Layer(1000, 10, 5, 100, recurrence=Recurrence("mamba2", 8, 64, 64), ffn_hidden=400),
    "mlp alone": Layer(1000, ffn_hidden=4000, gated=False),
    "latent experts": Layer(1000, gated=False, experts=Experts(16, 2, 500, latent=200, shared_hidden=300)),
    "idle experts": Layer(1000, 10, 5, 100, experts=Experts(16, 3, 500, zero=8)),
}  # fmt: skip


def flops(work: PartWork) -> tuple[float, float]:
    """FLOPs of the forward pass, and of a backward one less what it computes again."""
    again = [
        p.flop - p.repeated for p in (*work.input_grad, *work.weight_grad) if isinstance(p, Kernel)
    ]
    return math.fsum(p.flop for p in work.forward if isinstance(p, Kernel)), math.fsum(again)


@pytest.mark.parametrize("name", KINDS)
def test_the_work_of_a_kind_is_its_weights_and_its_core(name: str) -> None:
    """Forward 2 FLOPs for each weight that a token meets and what no weight has, and backward twice:
    but for the indexer, whose gradient is of the tokens picked alone."""
    kind = KINDS[name]
    weights = sum(product.n * product.k for product in kind.products())
    weights += kind.mlp_params(active=True)
    forward, backward = flops(kind_work(make_shard(kind=kind)))
    indexer = kind.indexer
    weighing = 2.0 * indexer.heads * kind.index_reach(1000) if indexer else 0.0
    assert forward == pytest.approx(1000 * (2 * weights + kind.core_flop(1000) - weighing))
    if not indexer:
        assert backward == pytest.approx(2 * forward)


@pytest.mark.parametrize("name", KINDS)
def test_ranks_of_a_tensor_group_share_the_work_of_a_kind(name: str) -> None:
    """What is whole on every rank is done once for its own rows, the rest in halves."""
    kind = KINDS[name]
    one = flops(kind_work(make_shard(kind=kind)))
    two = flops(kind_work(make_shard(kind=kind, tp=2, sequence_parallel=True)))
    repeated = 1.0 if kind.keys_are_values else 0.0  # a single head of keys is on both ranks
    for whole, half in zip(one, two, strict=True):
        assert half == pytest.approx(whole / 2, rel=0.1 if repeated else 1e-9)


def test_sparse_attention_does_not_grow_with_the_sequence_and_its_indexer_does() -> None:
    """V3.2 at 128k: 2 x 128 x 1,088 x 2,048 = 570 MFLOP for a token's scores and values, as at 64k;
    the indexer's 2 x 64 x 129 x half of the sequence doubles. Short sequences are worked whole."""
    kind = Layer(7168, 128, 128, 192, latent=V3, indexer=SPARSE)
    index = {span: 2.0 * 64 * 129 * span / 2 for span in (4096, 65536, 131072)}
    core = {span: kind.core_flop(span) - index[span] for span in index}
    assert core[131072] == pytest.approx(2 * 128 * 1088 * 2048, rel=0.01)
    assert core[65536] == pytest.approx(core[131072], rel=0.01)
    dense = replace(kind, indexer=None)
    assert core[4096] == dense.core_flop(4096)
    assert dense.core_flop(131072) > 9 * core[131072]


def test_a_recurrence_costs_the_same_for_each_token_of_any_sequence() -> None:
    short, long = (make_shard(kind=KINDS["delta"], sequence=n) for n in (1000, 64000))
    assert flops(kind_work(short)) == flops(kind_work(long))


def test_context_parallelism_passes_states_instead_of_keys() -> None:
    """4 ranks of one sequence: 8 heads of 64 x 64 states in fp32, gathered from all: 0.52 MB; where
    heads are exchanged, two all-to-alls each way."""
    shard = make_shard(kind=KINDS["delta"], cp=4, sequence=4000)
    sent = comms(kind_work(shard).forward, "cp")
    assert sent == [("all_gather", pytest.approx(4 * 8 * 64 * 64 * 4 / 1e6))]
    exchanged = comms(kind_work(replace(shard, cp_comm="a2a")).forward, "cp")
    assert [kind for kind, _ in exchanged] == ["all_to_all"] * 2


HYBRID = make_model(
    layers=10, blocks=((KINDS["mlp alone"], 4), (KINDS["mamba2"], 4), (KINDS["latent experts"], 2)),
)  # fmt: skip


def test_chunks_of_a_hybrid_hold_its_layers_in_order() -> None:
    first, last = split_layers(HYBRID, Parallel(pp=2))
    assert first.runs == ((KINDS["mlp alone"], 4), (KINDS["mamba2"], 1))
    assert last.runs == ((KINDS["mamba2"], 3), (KINDS["latent experts"], 2))
    whole = [sum(chunk_params(HYBRID, chunk, Parallel(pp=2))) for chunk in (first, last)]
    assert sum(whole) == pytest.approx(HYBRID.params() - 1000)  # the final norm is left out


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_weights_of_ranks_add_up_to_those_of_the_model(tp: int) -> None:
    """Of each kind: what is split over tp ranks, and what each of them holds whole."""
    for kind in KINDS.values():
        if kind.heads and (kind.heads % tp or kind.kv_heads % tp):
            continue
        model = make_model(layers=3, blocks=((kind, 3),))
        chunk = split_layers(model, Parallel())[0]
        dense, expert = chunk_params(model, chunk, Parallel(tp=tp, etp=tp))
        whole = 3 * (kind.whole_mixer_params() + kind.whole_mlp_params() + 1000 * kind.blocks)
        total = tp * (dense - whole) + tp * expert + whole
        assert total == pytest.approx(model.params() - 1000, rel=1e-9)


def test_layers_that_do_not_divide_are_dealt_out_by_load() -> None:
    """10 layers of 1 and a head of 2 on 3 positions: 12 in all, so 4, 4 and 2 beside the head."""
    layer = Layer(1000, ffn_hidden=1000 - 1, gated=False)
    model = make_model(layers=10, vocab=2 * layer.params() // 1000, blocks=((layer, 10),))
    assert load_split(model, 3) == (4, 4, 2)
    heavy = replace(layer, ffn_hidden=3000)
    mixed = replace(model, vocab=10, blocks=((heavy, 2), (layer, 8)))
    # 6, 6 and eight of 2 on 3 positions: 28 in all; 12 and 8 and 8, or 6, 12 and 10, none better
    assert max(chunk_loads(mixed, load_split(mixed, 3))) == pytest.approx(12e6, rel=1e-3)
    assert load_split(replace(model, layers=3, blocks=((layer, 3),)), 3) == (1, 1, 1)


def test_a_windowed_model_is_its_two_kinds() -> None:
    """By `window` half of the layers look back at it, the first among them: as in gpt-oss."""
    model = make_model(layers=5, window=100, window_layers=2)
    kinds = [bool(kind.window) for kind, count in model.runs for _ in range(count)]
    assert kinds == [True, False, False, True, False] or sum(kinds) == 2
    alternating = make_model(layers=4, window=100)
    assert [bool(kind.window) for kind, _ in alternating.runs] == [True, False, True, False]


def test_streams_widen_what_stages_send_and_layers_keep() -> None:
    plain, wide = make_scenario(), make_scenario()
    wide = replace(wide, model=replace(wide.model, streams=4))
    kept = [plan_memory(s).parts["activations"] for s in (plain, wide)]
    assert kept[1] > kept[0]
    model: Model = wide.model
    assert model.body_params() - plain.model.body_params() == 8 * 2 * 24 * 4 * 1000


KEPT = {  # kind of layer: elements of a token that it keeps, one row of the residual stream among them
    "mlp": (Layer(1000, ffn_hidden=4000), 1000 + 1000 + 3 * 4000),
    "lightning": (  # queries, keys, values; gate and output; a state in fp32 every 100 tokens
        Layer(1000, recurrence=Recurrence("lightning", 10, 100, 100, chunk=100)),
        1000 + 1000 + 3 * 1000 + 2 * 1000 + 2 * 100_000 / 100,
    ),
    "experts": (  # two of eight and eight idle ones: one, in a latent of 250
        Layer(1000, experts=Experts(8, 2, 500, latent=250, zero=8)),
        1000 + 1000 + 250 + 3 * 500,
    ),
    "attention": (  # queries, output and its gate, two heads of keys and of values
        Layer(1000, 10, 2, 100, gate="element"), 1000 + 1000 + 2 * 1000 + 1000 + 2 * 200,
    ),
}  # fmt: skip
FOUR = make_model(layers=8, blocks=tuple((kind, 1) for kind, _ in KEPT.values()) * 2)


def held(**parallel: Any) -> tuple[Any, Any, Any]:
    scenario = make_scenario(model=FOUR, parallel=Parallel(dp=8, **parallel))
    return scenario, scenario.pools[0], split_layers(FOUR, scenario.parallel)[0]


def test_layers_keep_what_they_have() -> None:
    """1000 tokens of two bytes, each kind twice; a half over two ranks, but of the input all."""
    elements = [count for _, count in KEPT.values()]
    assert chunk_kept(*held()) == pytest.approx(2 * 2000 * sum(elements))
    assert chunk_kept(*held(recompute="full")) == pytest.approx(8 * 2000 * 1000)
    first = chunk_kept(*held(recompute="full", recompute_layers=1))
    assert first == pytest.approx(2000 * (2 * sum(elements) - elements[0] + 1000))
    assert chunk_kept(*held(tp=2, sequence_parallel=False)) == pytest.approx(
        2 * 1000 * (sum(elements) + 8 * 1000)
    )


def test_a_group_of_kinds_holds_what_each_has_dropped() -> None:
    """An MLP and a recurrence, each but half a row of the residual stream; and the MLP's gradients:
    a row, and half of what it keeps beside one."""
    mlp, lightning = (KEPT[name][1] for name in ("mlp", "lightning"))
    gradients = 1000 + (mlp - 1000) / 2
    found = chunk_working(*held(recompute="full", recompute_group=2))
    assert found == pytest.approx(2000 * (mlp + lightning - 1000 + gradients))
    assert chunk_working(*held()) == pytest.approx(2000 * gradients)


def test_two_neighbours_of_other_kinds_are_gathered_at_once() -> None:
    """Lightning's and the MLP's 12.001 M in bf16, or the embedding's 10 M and the MLP's."""
    scenario, pool, chunk = held(zero=3)
    params = {name: kind.params() for name, (kind, _) in KEPT.items()}
    most = max(params["mlp"] + 10_000_000, params["mlp"] + params["lightning"],
               params["mlp"] + params["attention"])  # fmt: skip
    assert gathered_weights(scenario, pool.stack, chunk) == pytest.approx(2 * most)


def test_a_hybrid_runs_through_every_engine() -> None:
    scenario: Any = replace(make_scenario(), model=HYBRID)
    program, executed = build_program(scenario)
    tokens = scenario.training.global_batch * scenario.training.sequence_length
    model = HYBRID.flop_per_token(scenario.training.sequence_length, causal=True)
    assert executed == pytest.approx(tokens * model, rel=0.02)
    assert program.blocks
