"""Which layer is what: from whatever way a configuration says it, two words for every layer.

The mixer of a layer is full, sliding, chunked, indexed, blocks (MiniMax-M3), csa or hca or window
(DeepSeek-V4), linear, conv, both (attention beside a recurrence) or none; its feed-forward is dense,
moe or none. `layer_types` and `mlp_layer_types` win over every older key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ersatz.sim.workload.configs.config import Config
from ersatz.sim.workload.configs.switches import switched_off, switched_on

WORDS = {
    "full_attention": "full", "attention": "full", "global": "full", "full": "full",
    "sliding_attention": "sliding", "local": "sliding",
    "sliding_window_attention": "sliding", "sliding": "sliding",
    "chunked_attention": "chunked", "linear_attention": "linear", "mamba": "linear",
    "mamba2": "linear", "recurrent": "linear", "rglru": "linear", "conv": "conv",
    "indexed_attention": "indexed", "minimax_m3_sparse": "blocks",
    "compressed_sparse_attention": "csa", "heavily_compressed_attention": "hca",
}  # fmt: skip
INKLING = {
    "hybrid": "full",
    "hybrid_sliding": "sliding",
}  # elsewhere a block that several places share
LETTERS = {
    "M": ("linear", "none"),
    "*": ("full", "none"),
    "-": ("none", "dense"),
    "E": ("none", "moe"),
}
BLOCKS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*",
          "mlp": "-", "moe": "E", "hybrid": "?"}  # fmt: skip
EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts",
           "ffn_config.moe_num_experts")  # fmt: skip

# Keys that say nothing where no layer is of their kind, or where a newer key says it all.
ATTENTION_KEYS = ("num_attention_heads", "num_key_value_heads", "head_dim", "attn_layer_indices")
WINDOW_KEYS = ("sliding_window", "sliding_window_size", "attention_window_size", "attention_chunk_size",
               "max_window_layers", "use_sliding_window", "swa_num_attention_heads",
               "swa_num_key_value_heads", "swa_head_dim", "swa_v_head_dim", "window_size")  # fmt: skip
LINEAR_KEYS = ("linear_", "mamba_", "ssm_")
EXPERT_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts",
               "moe_intermediate_size", "n_group", "topk_group", "shared_intermediate_size",
               "shared_expert_intermediate_size", "num_shared_experts", "n_shared_experts",
               "num_shared_expert", "moe_layer_num_skipped", "num_experts", "num_local_experts")  # fmt: skip
OLDER_PATTERNS = ("layer_group_size", "no_rope_layers", "no_rope_layer_interval", "max_window_layers",
                  "_sliding_window_pattern", "attention_types", "use_sliding_window")  # fmt: skip
OLDER_FEEDS = ("first_k_dense_replace", "moe_layer_freq", "num_dense_layers", "mlp_only_layers",
               "decoder_sparse_step", "moe_layers", "interleave_moe_layer_step",
               "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval",
               "expert_layer_period", "expert_layer_offset")  # fmt: skip

Words = list[str]


def settled(config: Config, words: list[tuple[str, str]]) -> None:
    """Mark as read the keys of kinds of layer that the model does not have, and superseded ones."""
    mixed, fed = ({word[part] for word in words} for part in (0, 1))
    config.read.update((*OLDER_PATTERNS, *_RULES, *OLDER_FEEDS, "layers_block_type"))
    if not mixed & {
        "full",
        "sliding",
        "chunked",
        "indexed",
        "blocks",
        "csa",
        "hca",
        "window",
        "both",
    }:
        config.read.update(ATTENTION_KEYS)
    if not mixed & {"sliding", "chunked", "csa", "hca", "window"} and _windows_are_off(config):
        config.read.update(WINDOW_KEYS)
    known = config.family.known and config.family.defaults.get("both_mixers") is None
    if not mixed & {"linear", "both"} and known:  # of a stranger they say that there is more
        config.read.update(key for key in config.own if key.startswith(LINEAR_KEYS))
    if "conv" not in mixed:
        config.read.add("conv_L_cache")
    if not mixed & {"indexed", "blocks", "csa"} and not config.get("index_topk"):
        config.read.update(key for key in config.own if key.startswith("index_"))
    if config.given("indexer_types"):
        config.read.update(("index_topk_freq", "index_skip_topk_offset", "index_topk_pattern"))
    if "moe" not in fed:
        config.read.update(EXPERT_KEYS)
    if "dense" not in fed:
        config.read.update(
            (
                "intermediate_size",
                "intermediate_size_mlp",
                "dense_intermediate_size",
                "ffn_hidden_size",
                "ffn_dim",
            )
        )


def _windows_are_off(config: Config) -> bool:
    """Tell whether sizes of windows mean nothing: switched off, in no layer listed, or not of the class."""
    off = config.get("use_sliding_window") is False or config.given("layer_types")
    sizes = (
        key for key in WINDOW_KEYS if "window_layers" not in key and not key.startswith("use_")
    )
    return off or config.family.known or not any(config.given(key) for key in sizes)


def one_block_pattern(config: Config) -> list[tuple[str, str]] | None:
    """Return mixer and feed-forward of layers that are one block each (Nemotron-H), if they are."""
    pattern = config.get("hybrid_override_pattern")
    if (
        pattern is None and config.given("layers_block_type")
    ) or config.family.name == "nemotron_h":
        rows = config.get("layers_block_type") if pattern is None else pattern
        if isinstance(rows, list):
            pattern = "".join(BLOCKS.get(str(row), "?") for row in rows)
    if pattern is None:
        return None
    if not config.family.known:
        key = (
            "layers_block_type"
            if config.get("hybrid_override_pattern") is None
            else "hybrid_override_pattern"
        )
        config.notes.append(f"{key}: each is taken as a block of one part, as Nemotron-H's are")
    if not isinstance(pattern, str) or not pattern or set(pattern) - set(LETTERS):
        config.blame(("hybrid_override_pattern", "layers_block_type"), pattern,
                     "expected M (Mamba-2), * (attention), - (MLP) and E (experts)")  # fmt: skip
        return None
    return [LETTERS[letter] for letter in pattern]


def mixers(config: Config) -> Words:
    """Return the mixer of every layer."""
    count = config.layers
    given = config.row("layer_types")
    words = WORDS | (INKLING if config.family.name.startswith("inkling") else {})
    if given is not None and all(str(word) in words for word in given):
        if "sliding_attention" in given and config.own.get("use_sliding_window") is False:
            config.notes.append(
                "use_sliding_window is false, and layer_types lists windows: they are taken"
            )
        return [words[str(word)] for word in given]
    if given is not None:
        unknown = sorted({str(word) for word in given} - set(words))
        layers = sum(str(word) in unknown for word in given)
        config.blame(("layer_types",), unknown[0], f"is a kind of layer that is not modelled"
                     f" ({layers} of {count} layers)")  # fmt: skip
        return ["full"] * count
    for key, rule in _RULES.items():
        if config.given(key) and (found := rule(config, count)) is not None:
            return found
    if config.family.defaults.get("needs_types"):
        config.needed("the kinds of layer", "layer_types", *_RULES)
    pattern = config.family.defaults.get("layer_pattern")
    if pattern:
        config.assumed["layer_types"] = " ".join(pattern)
        return [WORDS[pattern[place % len(pattern)]] for place in range(count)]
    for key, rule in _RULES.items():
        if config.get(key) is not None and (found := rule(config, count)) is not None:
            return found
    return _plain_windows(config, count)


def _plain_windows(config: Config, count: int) -> Words:
    """No pattern: a window, if there is one, is that of every layer (or of Qwen's last ones)."""
    window = config.get("sliding_window")
    if window is None or not config.flag("use_sliding_window", default=True):
        if window is None and config.own.get("use_sliding_window"):
            config.notes.append(
                "use_sliding_window is true and no key gives a window: none is taken"
            )
        return ["full"] * count
    if config.get("use_sliding_window") and config.get("max_window_layers") is not None:
        first = config.whole("max_window_layers", default=count)
        return ["full" if place < first else "sliding" for place in range(count)]
    if isinstance(window, list):
        rows = config.row("sliding_window") or [None] * count
        if not all(row is None or isinstance(row, int) for row in rows):
            config.blame(("sliding_window",), str(rows)[:60], "expected whole numbers or null")
        return ["sliding" if row else "full" for row in rows]
    if not config.family.all_windows:
        config.notes.append(f"sliding_window: {window} is taken as that of every layer:"
                            " no key says which layers have it")  # fmt: skip
    return ["sliding"] * count


def _last_of(config: Config, key: str, last: str, others: str, count: int) -> Words:
    period = config.whole(key, least=1)
    return [last if (place + 1) % period == 0 else others for place in range(count)]


def _kda_lists(config: Config, count: int) -> Words | None:
    linear = config.get("linear_attn_config.kda_layers")
    full = config.get("linear_attn_config.full_attn_layers")
    if not (isinstance(linear, list) and isinstance(full, list)):
        return None
    numbers = [*linear, *full]
    if not _whole_numbers(numbers) or sorted(numbers) != list(range(1, count + 1)):
        config.blame(
            ("linear_attn_config",), None, f"its lists do not make {count} layers, from 1 on"
        )
        return None
    return ["linear" if place + 1 in linear else "full" for place in range(count)]


def _ratios(config: Config, count: int) -> Words | None:
    """DeepSeek-V4: one entry for each layer, and one for each prediction module."""
    rows = config.get("compress_ratios")
    words = {0: "window", 4: "csa", 128: "hca"}
    more = config.whole("num_nextn_predict_layers")
    fine = isinstance(rows, list) and len(rows) in (count, count + more) and _whole_numbers(rows)
    if not fine or not set(rows) <= set(words):
        config.blame(("compress_ratios",), rows, f"expected 0, 4 or 128 for each of {count} layers")
        return None
    return [words[ratio] for ratio in rows[:count]]


def _sparse_blocks(config: Config, count: int) -> Words | None:
    if not config.flag("sparse_attention_config.use_sparse_attention", default=True):
        return None
    rows = config.get("sparse_attention_config.sparse_attention_freq")
    if not isinstance(rows, list) or len(rows) != count:
        config.blame(("sparse_attention_config",), None, "expected sparse_attention_freq, one for each"
                     f" of {count} layers")  # fmt: skip
        return None
    return ["blocks" if row else "full" for row in rows]


def _window_pattern(config: Config, count: int) -> Words | None:
    pattern = config.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(pattern, str) and pattern and not set(pattern) - set("LG"):
        return ["sliding" if pattern[i % len(pattern)] == "L" else "full" for i in range(count)]
    return _last_of(config, "sliding_window_pattern", "full", "sliding", count)


def _period_offset(config: Config, key: str, found: str, other: str, count: int) -> Words:
    period, offset = config.whole(f"{key}_period", least=1), config.whole(f"{key}_offset")
    return [found if place % period == offset else other for place in range(count)]


def _indices(config: Config, key: str, other: str, count: int) -> Words | None:
    places = config.get(key)
    if not isinstance(places, list) or not _whole_numbers(places):
        config.blame((key,), places, "expected the numbers of layers")
        return None
    return ["full" if place in places else other for place in range(count)]


def _whole_numbers(rows: list[Any]) -> bool:
    return all(isinstance(row, int) for row in rows)


def _numbered(config: Config, key: str, words: dict[int, str]) -> Words | None:
    rows = config.row(key)
    if rows is None or not _whole_numbers(rows) or not set(rows) <= set(words):
        config.blame((key,), rows and str(rows[:5]), f"expected {sorted(words)} for every layer")
        return None
    return [words[row] for row in rows]


def _repeated(config: Config, key: str, count: int) -> Words | None:
    rows = config.get(key)
    if not isinstance(rows, list) or not rows or not all(str(row) in WORDS for row in rows):
        config.blame((key,), rows, f"expected kinds of layer among {', '.join(sorted(WORDS))}")
        return None
    words = (
        WORDS | {"attention": "sliding"} if key == "block_types" else WORDS
    )  # RecurrentGemma's is local
    return [words[str(rows[place % len(rows)])] for place in range(count)]


_RULES: dict[str, Callable[[Config, int], Words | None]] = {
    "attn_type_list": lambda c, n: _numbered(c, "attn_type_list", {0: "linear", 1: "full"}),
    "hybrid_layer_pattern": lambda c, n: _numbered(c, "hybrid_layer_pattern", {0: "full", 1: "sliding"}),
    "linear_attn_config": _kda_lists,
    "compress_ratios": _ratios,
    "sparse_attention_config": _sparse_blocks,
    "full_attention_interval": lambda c, n: _last_of(c, "full_attention_interval", "full", "linear", n),
    "layer_group_size": lambda c, n: _last_of(c, "layer_group_size", "full", "linear", n),
    "global_attn_every_n_layers": lambda c, n: _last_of(c, "global_attn_every_n_layers", "full",
                                                        "sliding", n),
    "attn_layer_period": lambda c, n: _period_offset(c, "attn_layer", "full", "linear", n),
    "attn_layer_indices": lambda c, n: _indices(c, "attn_layer_indices", "linear", n),
    "full_attn_idxs": lambda c, n: _indices(c, "full_attn_idxs", "conv", n),
    "attention_layers": lambda c, n: _repeated(c, "attention_layers", n),
    "block_types": lambda c, n: _repeated(c, "block_types", n),
    "no_rope_layers": lambda c, n: _no_rope(c, n),
    "sliding_window_pattern": _window_pattern,
}  # fmt: skip


def _no_rope(config: Config, count: int) -> Words | None:
    """Llama 4: layers without rope see all, the others their chunk; elsewhere rope says nothing."""
    if not config.family.defaults.get("attention_chunk_size"):
        return None
    rows = config.get("no_rope_layers")
    if not rows:
        step = config.whole("no_rope_layer_interval", default=4, least=1)
        rows = [int((place + 1) % step != 0) for place in range(count)]
    if not isinstance(rows, list) or len(rows) != count:
        config.blame(("no_rope_layers",), rows, f"expected one for each of {count} layers")
        return None
    return ["chunked" if row else "full" for row in rows]


def indexer_rows(config: Config) -> list[str] | None:
    """Return for every layer whether it has an indexer (full) or takes an earlier one's choice (shared).

    By a list, by letters F and S, or full in every n-th layer from an offset on and in all before
    it (GLM-5.2); None where all have one.
    """
    if config.get("indexer_types") is not None:
        return config.row("indexer_types")
    letters = config.get("index_topk_pattern")
    if isinstance(letters, str):
        if len(letters) != config.layers or set(letters) - set("FS"):
            expected = f"expected F or S for each of {config.layers} layers"
            config.blame(("index_topk_pattern",), letters, expected)
            return None
        return [{"F": "full", "S": "shared"}[letter] for letter in letters]
    if config.get("index_topk_freq") is None:
        return None
    every = config.whole("index_topk_freq", default=1, least=1)
    offset = config.whole("index_skip_topk_offset", default=2)
    return ["full" if max(place - offset + 1, 0) % every == 0 else "shared"
            for place in range(config.layers)]  # fmt: skip


def feeds(config: Config) -> Words:
    """Return the feed-forward of every layer."""
    count = config.layers
    routed = config.get(*EXPERTS)
    if config.family.name == "doge" and config.get("is_moe"):
        config.blame(("is_moe",), True, "a mixture of single-column experts is not modelled")
    off = config.get("enable_moe_block") is False or switched_off(config, "moe")
    named = [key for key in EXPERTS if key in config.own and config.family.defaults.get(key)]
    if routed is None and named:
        config.blame((named[0],), None, "null: expected how many experts, or 0 for none")
    beside = config.family.defaults.get("shared_like_expert")  # a single expert is not all there is
    on = switched_on(config, "moe") if not routed and not config.family.known else ""
    if on and not config.problems:
        config.blame((on,), True, "says that there are experts: expected a key that says how many")
    if not routed or off or (routed == 1 and not beside):
        return ["dense"] * count
    given = config.row("mlp_layer_types")
    if given is not None:
        words = {"dense": "dense", "sparse": "moe", "moe": "moe", "hash_moe": "moe"}
        unknown = sorted({str(row) for row in given} - set(words))
        if unknown:
            config.blame(("mlp_layer_types",), unknown[0], "is a kind of MLP that is not modelled")
        return [words.get(str(row), "dense") for row in given]
    dense = config.whole("first_k_dense_replace", "num_dense_layers", "moe_layer_num_skipped")
    if dense > count:
        config.blame(
            ("first_k_dense_replace", "num_dense_layers"),
            dense,
            f"expected at most the {count} layers",
        )
        return ["dense"] * count
    return [_feed(config, place) for place in range(count)]


def _feed(config: Config, place: int) -> str:
    """Tell dense from experts by whichever keys the family has."""
    rows = config.get("moe_layer_freq")
    if isinstance(rows, list):
        listed = config.row("moe_layer_freq")
        return "moe" if listed and listed[place] else "dense"
    places = config.get("moe_layers")
    if places not in (None, []):
        return "moe" if place in _listed(config, "moe_layers") else "dense"
    tests = (
        place >= config.whole("first_k_dense_replace", "num_dense_layers", "moe_layer_num_skipped"),
        place not in _listed(config, "mlp_only_layers"),
        (place + 1) % config.whole("decoder_sparse_step", "interleave_moe_layer_step",
                                   "moe_layer_interval", default=1, least=1) == 0,
        place >= _least(config.get("moe_layer_start_index"), 0),
        place <= _end(config),
        (place - config.whole("expert_layer_offset"))
        % config.whole("expert_layer_period", default=1, least=1) == 0,
        not isinstance(rows, int) or rows < 2 or place % rows == 0,
    )  # fmt: skip
    return "moe" if all(tests) else "dense"


def _end(config: Config) -> int:
    end = config.get("moe_layer_end_index")
    last = _least(end, config.layers - 1)
    return config.layers - 1 if last < 0 else last


def _least(value: Any, default: int) -> int:
    """Return a number, or the text part's of a list (ERNIE-VL has one for text, one for pictures)."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) else default


def _listed(config: Config, key: str) -> list[Any]:
    """Return the numbers of layers that a key lists; one that is none of theirs is a fault."""
    value = config.get(key)
    if value is not None and not isinstance(value, list):
        config.blame((key,), value, "expected a list of the numbers of layers")
    places = _as_list(value)
    strange = [p for p in places if not isinstance(p, int) or not 0 <= p < config.layers]
    if strange and not config.problems:
        config.blame(
            (key,), strange[0], f"expected the numbers of layers, 0 to {config.layers - 1}"
        )
    return places


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
