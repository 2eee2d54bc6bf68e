"""The sizes of one layer: its attention, its recurrence, its MLP or experts, from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ersatz.sim.workload.configs.config import Config
from ersatz.sim.workload.configs.patterns import EXPERTS, indexer_rows
from ersatz.sim.workload.layer import Compressed, Experts, Indexer, LatentAttention
from ersatz.sim.workload.recurrence import Recurrence

Sizes = dict[str, Any]
HEADS = ("num_attention_heads_per_layer", "num_attention_heads", "n_head", "n_heads", "num_heads",
         "attention_heads")  # fmt: skip
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "attn_config.kv_n_heads")
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "dim_head")
HIDDEN = ("hidden_size", "n_embd", "d_model")
INNER = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "dff", "dim_ff")
EXPERT_INNER = ("moe_intermediate_size", "expert_ffn_hidden_size", "ffn_config.ffn_hidden_size")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k",
         "top_k_experts", "ffn_config.moe_top_k")  # fmt: skip
SHARED = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
SHARED_INNER = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
                "shared_intermediate_size", "shared_experts_intermediate_size",
                "share_expert_dim")  # fmt: skip


def mixer_sizes(config: Config, word: str, hidden: int) -> Sizes:
    """Return what a layer's mixer word means in sizes."""
    if word == "none":
        return {}
    if word == "conv":
        taps = config.whole("conv_L_cache", default=3, least=1)
        return {"recurrence": Recurrence("conv", hidden, 1, 1, conv=taps)}
    if word == "linear":
        return {"recurrence": recurrence(config, hidden)}
    sizes = attention(config, word, hidden)
    if word == "both" and not config.problems:
        sizes["recurrence"] = recurrence(config, hidden)
    return sizes


def attention(config: Config, word: str, hidden: int) -> Sizes:
    """Return the sizes of an attention block."""
    swa = word == "sliding"
    heads = _own(config, swa, "swa_num_attention_heads", *HEADS)
    sizes: Sizes = {"heads": heads, "gate": _gate(config), **_windows(config, word)}
    rank = config.get("kv_lora_rank")
    if rank or config.get("o_lora_rank") or config.family.known:  # a class that has none heeds none
        config.read.update(("q_lora_rank", "qk_head_dim", "qk_rope_head_dim", "qk_nope_head_dim"))
    if rank == 0 and config.given("kv_lora_rank"):
        config.blame(("kv_lora_rank",), 0, "expected a number above 0, or null without latents")
    if rank:
        config.read.update((*KV_HEADS, *HEAD_DIM))
        m = _latent(config)
        sizes |= {"latent": m, "kv_heads": heads, "head_dim": m.nope_dim + m.rope_dim}
    elif config.get("o_lora_rank"):
        config.read.update(KV_HEADS)
        sizes |= _compressed(config, word)
    else:
        sizes |= _by_heads(config, swa, hidden, heads)
    if word in ("indexed", "csa", "blocks") or (word == "full" and config.get("index_topk")):
        sizes["indexer"] = _indexer(config, word)
    return sizes | {"shares_keys": _shares_keys(config)}


def _shares_keys(config: Config) -> bool:
    """Tell whether a layer takes keys and values of an earlier one."""
    place, last = config.layer or 0, config.whole("num_kv_shared_layers")
    sources = config.row("kv_source_layers")
    factor = config.whole("cla_share_factor", default=1, least=1)
    if sources is not None:
        return bool(sources[place] != place)
    return place >= config.layers - last or bool(config.get("use_cla") and place % factor)


def _own(config: Config, own: bool, name: str, *names: str) -> int:
    """Return a size that windowed layers may have of their own."""
    if config.get(name) is not None and own:
        return config.whole(name, least=1)
    return config.needed("heads", *names)


def _gate(config: Config) -> str:
    if config.get("attn_output_gate", "mla_use_output_gate", "use_attention_gate"):
        return config.family.gate or "element"
    if config.family.gate and config.get("attn_output_gate") is False:
        config.blame(
            ("attn_output_gate",),
            False,
            "expected true: attention of this family always has a gate",
        )
    gating = config.get("gating")
    if config.family.gate and gating is False:
        config.blame(
            ("gating",), False, "expected true, per-head or per-element: this family always gates"
        )
    if isinstance(gating, str):
        found = next((word for word in ("head", "element") if word in gating), "")
        if not found:
            config.blame(("gating",), gating, "expected true, per-head or per-element")
        return found
    return config.family.gate


def _windows(config: Config, word: str) -> Sizes:
    if word in ("sliding", "csa", "hca", "window"):
        names = ("sliding_window", "sliding_window_size", "attention_window_size", "window_size")
        return {"window": config.needed("the window", *names)}
    if word == "chunked":
        return {"window": config.needed("the chunk", "attention_chunk_size"), "chunked": True}
    return {}


def _latent(config: Config) -> LatentAttention:
    return LatentAttention(
        config.whole("q_lora_rank"), config.whole("kv_lora_rank", least=1),
        config.needed("rotary size", "qk_rope_head_dim") if config.get("qk_rope_head_dim") != 0 else 0,
        config.needed("the size of a key", "qk_nope_head_dim"),
        _value_of_latent(config),
    )  # fmt: skip


def _value_of_latent(config: Config) -> int:
    """Return the size of a value of latent attention; MiniCPM 3 derives it from the hidden size."""
    if config.family.name == "minicpm3" and config.get("v_head_dim") is None:
        return config.whole(*HIDDEN, least=1) // config.whole(*HEADS, least=1)
    return config.needed("the size of a value", "v_head_dim")


def _compressed(config: Config, word: str) -> Sizes:
    names = {
        "csa": ("compressed_sparse_attention", 4),
        "hca": ("heavily_compressed_attention", 128),
    }
    ratio = 0
    if word in names:
        key, usual = names[word]
        if not isinstance(config.get("compress_rates", default={}), Mapping):
            config.blame(("compress_rates",), config.get("compress_rates"), "expected a mapping")
        ratio = config.whole(f"compress_rates.{key}", default=usual, least=1)
    found = Compressed(config.needed("q_lora_rank", "q_lora_rank"), config.whole("o_lora_rank"),
                       config.whole("o_groups", default=1, least=1), ratio)  # fmt: skip
    return {"compressed": found, "kv_heads": 1, "keys_are_values": True,
            "head_dim": config.needed("the size of a head", "head_dim")}  # fmt: skip


def _by_heads(config: Config, swa: bool, hidden: int, heads: int) -> Sizes:
    whole = (
        config.get("attention_k_eq_v") and not swa and config.given("num_global_key_value_heads")
    )
    kv_heads = _kv_heads(config, swa, heads)
    if whole:
        kv_heads = config.whole("num_global_key_value_heads", least=1)
    dim = _head_dim(config, swa, hidden, heads)
    value = "swa_v_head_dim" if swa and config.given("swa_v_head_dim") else "v_head_dim"
    config.read.update(("v_head_dim", "swa_v_head_dim", "swa_head_dim", "swa_num_key_value_heads"))
    return {"kv_heads": kv_heads, "head_dim": dim, "keys_are_values": bool(whole),
            "value_dim": config.whole(value)}  # fmt: skip


def _kv_heads(config: Config, swa: bool, heads: int) -> int:
    if config.family.name == "falcon":
        new = config.flag("new_decoder_architecture")
        config.read.update(("multi_query", "num_kv_heads"))
        if config.flag("multi_query", default=True) and not new:
            return 1
        return config.whole("num_kv_heads", default=heads, least=1) if new else heads
    if config.get("multi_query"):
        config.read.update(KV_HEADS)
        return 1
    if config.given("multi_query") and not any(map(config.given, KV_HEADS)):
        return heads  # whatever the class's usual number is of one head
    if config.get("multi_query_attention") and config.get("multi_query_group_num"):
        return config.whole("multi_query_group_num", least=1)
    if swa and config.get("swa_num_key_value_heads"):
        return config.whole("swa_num_key_value_heads", least=1)
    kind = config.get("attn_config.attn_type")
    if kind == "multiquery_attention":
        config.read.update(KV_HEADS)
        return 1
    if kind == "grouped_query_attention" and not config.get(*KV_HEADS):
        config.blame(("attn_config.attn_type",), kind, "needs kv_n_heads beside it")
    if (size := config.whole("attn_config.sliding_window_size", default=-1, least=-1)) > 0:
        config.blame(("attn_config.sliding_window_size",), size, "a window here is not read; expected"
                     " sliding_window, beside layer_types")  # fmt: skip
    inside = config.get("attn_config.kv_n_heads")
    if inside and config.given("num_key_value_heads"):
        outside = config.whole("num_key_value_heads", least=1)
        if inside != outside:
            config.blame(KV_HEADS, outside, f"attn_config.kv_n_heads says {inside}")
    if config.get("num_key_value_heads") is None and swa is False:
        config.read.add("swa_num_key_value_heads")
    if config.get(*KV_HEADS) is None and config.family.known:
        config.assumed["num_key_value_heads"] = heads
    return config.whole(*KV_HEADS, default=heads, least=1)


def _head_dim(config: Config, swa: bool, hidden: int, heads: int) -> int:
    config.read.update(("global_head_dim", "swa_head_dim"))
    if swa and config.get("swa_head_dim"):
        return config.whole("swa_head_dim", least=1)
    if not swa and config.get("global_head_dim") and not config.of_layer("head_dim"):
        return config.whole("global_head_dim", least=1)
    if config.get(*HEAD_DIM) is not None:
        return config.whole(*HEAD_DIM, least=1)
    if hidden % heads and config.family.defaults.get("floor_head_dim"):
        note = f"head_dim is not in the file: {hidden} / {heads} rounded down, as its class does"
        config.notes += [] if note in config.notes else [note]
    elif hidden % heads and not config.problems:
        config.blame(
            HEADS, heads, f"does not divide the hidden size {hidden}, and no head_dim is given"
        )
    return max(hidden // heads, 1)


def _indexer(config: Config, word: str) -> Indexer:
    inner = "sparse_attention_config."
    if word == "blocks":
        block = config.whole(f"{inner}sparse_block_size", "index_block_size", default=128, least=1)
        some = config.whole(f"{inner}sparse_topk_blocks", "index_topk_blocks", default=16, least=1)
        local = config.whole(f"{inner}sparse_local_block", "index_local_blocks", default=1)
        return Indexer(
            config.needed("index heads", f"{inner}sparse_num_index_heads", "index_n_heads"),
            config.needed("index size", f"{inner}sparse_index_dim", "index_head_dim"),
            (some + local) * block, weighted=False,
        )  # fmt: skip
    rows = indexer_rows(config)
    shared = rows is not None and config.layer is not None and rows[config.layer] == "shared"
    return Indexer(config.needed("index heads", "index_n_heads"),
                   config.needed("index size", "index_head_dim"),
                   config.needed("tokens picked", "index_topk"), shared)  # fmt: skip


def recurrence(config: Config, hidden: int) -> Recurrence | None:
    """Return the recurrence of a configuration's linear layers; sizes of nothing are faults."""
    found = _recurrence(config, hidden)
    if found is None:
        return None
    sizes = {name: getattr(found, name) for name in ("heads", "key_dim", "value_dim", "chunk")}
    for name, size in sizes.items():
        if size < 1:
            words = (
                f"{name.replace('_', ' ')} of its {found.kind} layers is {size}; expected 1 or more"
            )
            config.blame((), "", words)
    if found.kind == "gated_delta" and found.key_heads > 0 and found.heads % found.key_heads:
        config.blame(("linear_num_key_heads",), found.key_heads, f"expected a divisor of the {found.heads}"
                     " heads of values")  # fmt: skip
    return replace(found, **{name: max(size, 1) for name, size in sizes.items()})


def _recurrence(config: Config, hidden: int) -> Recurrence | None:
    """Return the recurrence by whichever sizes the configuration has."""
    kind = config.family.recurrence
    if config.family.name == "olmo_hybrid" and not config.given("linear_num_value_heads"):
        return _of_attention(config, hidden)
    if kind == "gated_delta" or config.get("linear_num_value_heads"):
        return Recurrence(
            "gated_delta", config.needed("heads of values", "linear_num_value_heads"),
            config.needed("the size of a key", "linear_key_head_dim"),
            config.needed("the size of a value", "linear_value_head_dim"),
            config.needed("heads of keys", "linear_num_key_heads"),
            config.whole("linear_conv_kernel_dim", default=4),
        )  # fmt: skip
    if kind == "kda":
        return _kda(config)
    if kind == "lightning" or config.get("linear_silu", "group_norm_size") is not None:
        dim = config.whole(*HEAD_DIM, default=hidden // max(config.whole(*HEADS), 1), least=1)
        heads = config.needed("heads", *HEADS)
        return Recurrence(
            "lightning", heads, dim, dim, chunk=config.whole("block_size", default=256)
        )
    if kind == "rg_lru":
        width = config.whole("lru_width", default=hidden, least=1)
        config.read.add("conv1d_width")
        return Recurrence("rg_lru", width, 1, 1, config.whole(*HEADS, default=1), 4)
    if kind == "mamba1":
        return _mamba1(config, hidden)
    if config.get("mamba_n_heads", "mamba_num_heads") or kind == "mamba2":
        return _mamba2(config, hidden)
    config.blame(
        ("layer_types",), "", "has linear layers of a kind that no key tells: not modelled"
    )
    return None


def _of_attention(config: Config, hidden: int) -> Recurrence:
    """OLMo Hybrid: the heads of attention, keys of three quarters of theirs, values of twice that."""
    heads = config.whole(*HEADS, least=1)
    key = config.whole("linear_key_head_dim", default=3 * hidden // (4 * heads), least=1)
    value = config.whole("linear_value_head_dim", default=2 * key, least=1)
    groups = config.whole("linear_num_key_heads", default=heads, least=1)
    taps = config.whole("linear_conv_kernel_dim", default=4)
    return Recurrence("gated_delta", heads, key, value, groups, taps)


def _kda(config: Config) -> Recurrence:
    inner = "linear_attn_config."
    heads = config.needed("heads", f"{inner}num_heads", "linear_num_heads", "num_attention_heads")
    dim = config.needed("the size of a head", f"{inner}head_dim", "linear_head_dim", "head_dim")
    full = config.get(f"{inner}use_full_rank_gate", "use_full_rank_gate") or config.family.name in (
        "bailing_hybrid",
    )
    taps = config.whole(f"{inner}short_conv_kernel_size", "linear_conv_kernel_dim",
                        "short_conv_kernel_size", default=4)  # fmt: skip
    return Recurrence("kda", heads, dim, dim, conv=taps, rank=0 if full else dim)


def _mamba1(config: Config, hidden: int) -> Recurrence:
    inner = config.whole("mamba_expand", "expand", default=2, least=1) * hidden
    if config.family.defaults.get("no_mlp") and config.given("intermediate_size"):
        inner = config.whole("intermediate_size", least=1)  # the channels, not an MLP's
    ranks = ("mamba_dt_rank", "time_step_rank")
    usual = -(-hidden // 16)
    step = usual if config.get(*ranks) == "auto" else config.whole(*ranks, default=usual, least=1)
    return Recurrence("mamba1", inner, config.whole("mamba_d_state", "state_size", default=16), 1,
                      conv=config.whole("mamba_d_conv", "conv_kernel", default=4), rank=step)  # fmt: skip


def _mamba2(config: Config, hidden: int) -> Recurrence:
    heads = config.needed("heads of Mamba-2", "mamba_n_heads", "mamba_num_heads", "num_heads")
    inner = (
        config.whole("mamba_d_ssm", default=0)
        or config.whole("mamba_expand", "expand", default=2) * hidden
    )
    dims, usual = ("mamba_d_head", "mamba_head_dim", "mamba_headdim"), inner // heads
    if config.get(*dims) == "auto":
        size = usual
    else:
        stated = config.get(*dims) is not None
        size = config.whole(*(dims if stated else ("head_dim",)), default=max(usual, 1), least=1)
    config.read.update(("mamba_expand", "expand"))
    wide = config.get("mamba_d_ssm")
    if wide and wide != heads * size and not config.problems:
        config.blame(("mamba_d_ssm",), wide, f"expected the {heads} heads of {size} of Mamba-2")
    groups = config.whole("mamba_n_groups", "n_groups", "mamba_ngroups", default=1, least=1)
    if heads % groups and not config.problems:
        config.blame(("mamba_n_groups", "n_groups", "mamba_ngroups"), groups,
                     f"expected a divisor of the {heads} heads of Mamba-2")  # fmt: skip
    return Recurrence(
        "mamba2", heads, config.needed("the state", "mamba_d_state", "ssm_state_size", "state_size"), size,
        groups,
        config.whole("mamba_d_conv", "conv_kernel", default=4),
        config.whole("mamba_chunk_size", "chunk_size", default=256, least=1),
    )  # fmt: skip


def feed_sizes(config: Config, word: str, hidden: int) -> Sizes:
    """Return what a layer's feed-forward word means in sizes."""
    if word == "none":
        return {}
    if word == "moe":
        return {"experts": experts(config)}
    return {"ffn_hidden": dense_inner(config, hidden)}


def dense_inner(config: Config, hidden: int) -> int:
    """Return the inner size of a dense MLP."""
    config.read.update((*INNER, "intermediate_size_mlp", "dense_intermediate_size"))
    for own in (
        "intermediate_size_mlp",
        "dense_intermediate_size",
        "prefix_dense_intermediate_size",
    ):
        if config.get(own):
            return config.whole(own, least=1)
    inner = config.get(*INNER)
    if inner is None:
        ratio = ("expansion_ratio", "intermediate_multiple_size")
        if config.get(*ratio) is None and not config.family.plain:
            return config.needed("the inner size of the MLP", *INNER)
        return config.whole(*ratio, default=4, least=1) * hidden
    size = config.whole(*INNER, least=1)
    if config.family.defaults.get("halved_inner"):  # the key counts both halves of the gated pair
        return size // 2
    if config.get("block_auto_adjust_ff_dim"):
        multiple = config.whole("block_multiple_of", default=256, least=1)
        times = config.get("block_ffn_dim_multiplier", default=1.0)
        if isinstance(times, bool) or not isinstance(times, (int, float)) or not 0 < times < 100:
            config.blame(("block_ffn_dim_multiplier",), times, "expected a number from 0 to 100")
            times = 1.0
        size = int(times * (2 * size // 3))
        return -(-size // multiple) * multiple
    return size


def experts(config: Config) -> Experts:
    """Return the experts of a layer."""
    routed = config.whole(*EXPERTS, least=1)
    names = INNER if config.get(*EXPERT_INNER) is None else EXPERT_INNER
    null = next((key for key in EXPERT_INNER if key in config.own and config.own[key] is None), "")
    if null and names is INNER and config.family.defaults.get(null):
        config.blame((null,), None, "null: expected the inner size of an expert")
    inner = config.needed("the inner size of an expert", *names)
    top_k = config.needed("how many experts a token visits", *TOP_K)
    if top_k > routed and not config.problems:
        config.blame(TOP_K, top_k, f"expected at most the {routed} experts")
    count = config.whole(*SHARED)
    shared, own = 0, config.get(*SHARED_INNER)
    void = next((key for key in SHARED_INNER if key in config.own and config.own[key] is None), "")
    if void and config.family.defaults.get(void):
        config.blame((void,), None, "null: expected the width of the shared experts, or 0 for none")
    config.read.update((*SHARED, *SHARED_INNER))
    if own:
        times = max(count, 1) if config.get("shared_experts_intermediate_size") else 1
        shared = config.whole(*SHARED_INNER) * times
    if config.family.defaults.get("shared_like_expert"):
        count = 1
    if config.get("zero_expert_num"):  # LongCat: beside the experts, which join one sub-layer later
        shared = config.needed("the dense MLP", "ffn_hidden_size")
    if config.get("enable_moe_block"):  # a dense MLP beside the experts of the same layer
        shared = config.whole("intermediate_size", least=1)
    latent = config.whole("moe_latent_size", "routed_expert_hidden_size")
    return Experts(routed, top_k, inner, 0 if shared else count, groups_limit=_node_limit(config),
                   shared_hidden=shared, latent=latent,
                   zero=config.whole("zero_expert_num"))  # fmt: skip


def _node_limit(config: Config) -> int:
    """Return how many groups of experts a token may choose from; all of them is no limit."""
    groups, kept = config.get("n_group", "num_expert_group"), config.get("topk_group")
    if groups is None or kept is None:
        return 0
    groups = config.whole("n_group", "num_expert_group", least=1)
    kept = config.whole("topk_group", least=1)
    return kept if kept < groups else 0
