"""The model of Megatron's flags: sizes as the scenario takes them, defaults as the framework has them."""

from __future__ import annotations

import math
from collections.abc import Callable

from ersatz.sim.importing.flags import Flags, Given, whole_number
from ersatz.sim.importing.known import named_model, tokenizer_size
from ersatz.sim.importing.megatron.kinds import hybrid_letters, put_expert_pattern, read_kinds
from ersatz.sim.importing.megatron.patterns import PatternError, number_list
from ersatz.sim.importing.models import put_model

DIVISIBLE = 128  # make_vocab_size_divisible_by
BACKENDS = ("auto", "flash", "fused", "unfused", "local")
_MIXERS = ("hybrid_layer_pattern", "hybrid_override_pattern", "is_hybrid_model", "mamba_num_heads",
           "hybrid_attention_ratio")  # fmt: skip
# What says something of the model: where it is asked for as a whole, none of these is unknown.
_OF_THE_MODEL = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "kv_channels",
    "num_query_groups", "group_query_attention", "swiglu", "squared_relu", "quick_geglu",
    "untie_embeddings_and_output_weights", "vocab_size", "make_vocab_size_divisible_by",
    "padded_vocab_size", "num_experts", "moe_router_topk", "moe_ffn_hidden_size", "moe_layer_freq",
    "moe_shared_expert_intermediate_size", "n_shared_experts", "first_k_dense_replace",
    "moe_router_num_groups", "moe_router_group_topk", "multi_latent_attention", "q_lora_rank",
    "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim", "mtp_num_layers",
    "window_size", "window_attn_skip_freq", "noop_layers", "position_embedding_type",
    "openai_gelu", "hybrid_layer_pattern", "hybrid_override_pattern", "is_hybrid_model",
)  # fmt: skip
_HANDED_ON = ("use_checkpoint_args", "model_config_path", "hf_model_path")


def read_sizes(flags: Flags) -> None:
    """Put the model of the flags into the draft."""
    draft = flags.draft
    letters = hybrid_letters(flags)
    if (mixer := flags.find(*_MIXERS)) and not letters:
        flags.take("model", *_MIXERS)
        draft.ask("model", f"{mixer.shown}: layers with a state space are not read from flags; name a"
                  " config.json, or give sizes of a model of attention", line=mixer.line)  # fmt: skip
        flags.take("model", *_OF_THE_MODEL)
        return
    layers = flags.whole("model.layers", "num_layers", "encoder_num_layers", "decoder_num_layers")
    if letters:  # a pattern of kinds wins over the number
        layers = len(letters)
    if layers is None and not draft.asked("model.layers"):
        _missing_model(flags)
        return
    hidden = flags.whole("model.hidden", "hidden_size")
    heads = flags.whole("model.heads", "num_attention_heads")
    for key, value in (("hidden", hidden), ("heads", heads)):
        if value is None:
            draft.ask(f"model.{key}", "the file does not give it")
    draft.put("model.name", plain_stem(draft.file))
    draft.put("model.layers", _without_fillers(flags, layers))
    draft.put("model.hidden", hidden)
    draft.put("model.heads", heads)
    _attention(flags, hidden, heads)
    ffn = _mlp(flags, hidden)
    _experts(flags, ffn, layers)
    read_kinds(flags, ffn)
    _vocabulary(flags)
    _extras(flags)


def plain_stem(file: str) -> str:
    """Return the name of a file without its ending, of letters that can be shown."""
    stem = file.replace("\\", "/").rsplit("/", 1)[-1].rpartition(".")[0]
    return "".join(c for c in stem if c.isprintable())[:60] or "imported"


def _missing_model(flags: Flags) -> None:
    """A script that takes its sizes from a checkpoint or a file of its own."""
    given = flags.take("model", *_HANDED_ON)
    named = flags.find("model_name", "model", "load", "tokenizer_name_or_path", "tokenizer_model")
    known = named_model(named.value) if named and not named.unknown else None
    why = "the file gives no sizes (num_layers)"
    if given:
        why = f"{given.shown}: sizes come from elsewhere"
    flags.draft.ask("model", f"{why}; name a model, a config.json or give sizes",
                    (known.name,) if known else ())  # fmt: skip
    flags.take("model", *_OF_THE_MODEL)


def filler_layers(flags: Flags) -> tuple[int, ...]:
    """Return the places of layers that do nothing (MindSpeed's no-op layers)."""
    given = flags.take("model.layers", "noop_layers")
    if given is None or given.unknown:
        return ()
    try:
        return number_list(given.value)
    except PatternError as error:
        flags.draft.blame("model.layers", given.line, given.shown, given.value, str(error))
        return ()


def _without_fillers(flags: Flags, layers: int | None) -> int | None:
    fillers = set(filler_layers(flags))
    if layers is None:
        return None
    if any(not 0 <= place < layers for place in fillers):
        flags.draft.contradict(f"noop_layers names layers beyond the {layers} of num_layers")
    return layers - len(fillers)


def _attention(flags: Flags, hidden: int | None, heads: int | None) -> None:
    draft = flags.draft
    latent = flags.on("model.latent", "multi_latent_attention")
    if latent:
        _latent(flags)
    elif given := flags.find("kv_lora_rank", "q_lora_rank"):
        names = ("kv_lora_rank", "q_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim")
        flags.take("model.latent", *names)
        draft.assume("model.latent", "none", f"{given.shown} without multi_latent_attention: attention is"
                     " taken to be by heads")  # fmt: skip
    width = flags.whole("model.head_dim", "kv_channels")
    if width is None and hidden and heads and not draft.asked("model.head_dim"):
        width = hidden // heads
        if hidden % heads and "model.latent.kv_rank" not in draft.values:
            draft.contradict(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    draft.put("model.head_dim", width)
    groups = flags.whole("model.kv_heads", "num_query_groups")
    direct = flags.whole("model.kv_heads", "num_key_value_heads", "n_head_kv")
    if direct:
        groups = direct
    elif flags.on("model.kv_heads", "group_query_attention"):
        if groups is None and not draft.asked("model.kv_heads"):
            draft.assume("model.kv_heads", 1, "num_query_groups is not given: Megatron's default")
            groups = 1
    elif not draft.asked("model.kv_heads"):
        if groups and heads and groups not in (heads, 1):
            draft.assume("model.kv_heads", heads, "num_query_groups counts only with"
                         " group_query_attention, which is not given")  # fmt: skip
        groups = heads
    draft.put("model.kv_heads", groups)
    _window(flags)


def _latent(flags: Flags) -> None:
    """Multi-head latent attention, with the defaults of the command line."""
    defaults = {"q_rank": ("q_lora_rank", 0), "kv_rank": ("kv_lora_rank", 32),
                "rope_dim": ("qk_pos_emb_head_dim", 64), "nope_dim": ("qk_head_dim", 128),
                "v_dim": ("v_head_dim", 128)}  # fmt: skip
    older = {"rope_dim": "qk_rope_head_dim", "nope_dim": "qk_nope_head_dim"}
    for key, (name, default) in defaults.items():
        at = f"model.latent.{key}"
        value = flags.whole(at, name, *([older[key]] if key in older else ()))
        if value is None and not flags.draft.asked(at):
            value = default
            if key != "q_rank":
                flags.draft.assume(
                    at, default, f"{name} is not given: the default of the command line"
                )
        flags.draft.put(at, value)


def _window(flags: Flags) -> None:
    draft = flags.draft
    given = flags.take("model.window", "window_size", "sliding_window_size", "sliding_window")
    skip = flags.take("model.window_layers", "window_attn_skip_freq")
    if given is None or given.unknown:
        return
    layers = draft.values.get("model.layers")
    try:
        numbers = number_list(given.value)
    except PatternError as error:
        draft.blame("model.window", given.line, given.shown, given.value, str(error))
        return
    if not numbers or numbers[0] <= 0 or not layers:
        return
    full = _full_layers(flags, skip.value if skip and not skip.unknown else "", layers)
    if flags.find("interleave_sliding_window"):
        full = layers // 2
    draft.put("model.window", numbers[0])
    draft.put("model.window_layers", layers - full)
    if layers == full:
        draft.drop("model.window")


def _full_layers(flags: Flags, pattern: str, layers: int) -> int:
    """Return how many layers have no window: every n-th, or those with 0 in a list."""
    if not pattern:
        return 0
    number = whole_number(pattern)
    if number is not None:
        return layers // number if number > 0 else 0
    try:
        return layers - sum(1 for one in number_list(pattern) if one)
    except PatternError as error:
        flags.draft.contradict(f"window_attn_skip_freq: {error}")
        return 0


def _rounded_up(flags: Flags, hidden: int, multiple: int, widened: Given | None) -> int | None:
    """Return the width of a gated MLP as Llama's code has it: 8/3 hidden, widened, up to a multiple."""
    try:
        factor = float(widened.value) if widened and not widened.unknown else 1.0
    except ValueError:
        factor = math.nan
    if not 0 < factor < 1000 or multiple < 1:
        named = widened or flags.given["multiple_of"]
        flags.draft.blame(
            "model.ffn_hidden", named.line, named.shown, named.value, "expected a number above 0"
        )
        return None
    return -(-int(int(4 * hidden * 2 / 3) * factor) // multiple) * multiple


def _mlp(flags: Flags, hidden: int | None) -> int | None:
    draft = flags.draft
    gated = flags.on("model.gated", "swiglu")
    gated = flags.on("model.gated", "quick_geglu", "geglu") or gated
    flags.on("model.gated", "squared_relu", "openai_gelu", "gelu_tanh")
    kind = flags.text("model.gated", "fc_type")  # MindSpeed-LLM's: an MLP without a gate is up_down
    gated = gated and kind != "up_down"
    draft.put("model.gated", gated)
    ffn = flags.whole("model.ffn_hidden", "ffn_hidden_size")
    multiple = flags.whole("model.ffn_hidden", "multiple_of")
    widened = flags.take("model.ffn_hidden", "hidden_dim_multiplier")
    if ffn is None and hidden and multiple and gated and not draft.asked("model.ffn_hidden"):
        ffn = _rounded_up(flags, hidden, multiple, widened)
    if ffn is None and hidden and not draft.asked("model.ffn_hidden"):
        ffn = int(4 * hidden * 2 / 3 / 64) * 64 if gated else 4 * hidden
        draft.assume("model.ffn_hidden", ffn, "ffn_hidden_size is not given: Megatron's default of"
                     f" {'two thirds of ' if gated else ''}4 x hidden_size")  # fmt: skip
    draft.put("model.ffn_hidden", ffn)
    draft.put("model.tied", not flags.on("model.tied", "untie_embeddings_and_output_weights"))
    return ffn


def _experts(flags: Flags, ffn: int | None, layers: int | None) -> None:
    draft = flags.draft
    routed = flags.whole("model.experts.routed", "num_experts", "num_moe_experts")
    if routed is None:
        return
    if routed <= 1:  # Megatron-DeepSpeed writes its default: no experts
        flags.take("model.experts.routed", "moe_router_topk", "topk")
        return
    inner = flags.whole("model.experts.hidden", "moe_ffn_hidden_size", "moe_intermediate_size")
    if inner is None and not draft.asked("model.experts.hidden"):
        inner = ffn
        draft.assume(
            "model.experts.hidden", ffn, "moe_ffn_hidden_size is not given: ffn_hidden_size"
        )
    top = flags.whole("model.experts.top_k", "moe_router_topk", "topk")
    if top is None and not draft.asked("model.experts.top_k"):
        top = 2
        draft.assume("model.experts.top_k", 2, "moe_router_topk is not given: Megatron's default")
    draft.put("model.experts.routed", routed)
    draft.put("model.experts.top_k", top)
    draft.put("model.experts.hidden", inner)
    draft.put("model.experts.shared", _shared(flags, inner))
    draft.put(
        "model.experts.latent", flags.whole("model.experts.latent", "moe_latent_size") or None
    )
    draft.put("model.experts.zero", flags.whole("model.experts.zero", "num_zero_experts") or None)
    draft.put("model.experts.dense_layers", _dense_layers(flags, layers))
    _groups(flags)


def _shared(flags: Flags, inner: int | None) -> int | None:
    draft, key = flags.draft, "model.experts.shared"
    width = flags.whole(key, "moe_shared_expert_intermediate_size")
    count = flags.whole(key, "n_shared_experts", "num_shared_experts")
    if draft.asked(key):
        return None
    if not width or not inner:
        return count or 0
    if width % inner:
        draft.put("model.experts.shared_hidden", width)
        draft.assume("model.experts.shared_hidden", width, f"shared experts are {width} wide together,"
                     f" {width / inner:.2f} times the {inner} of a routed one")  # fmt: skip
        return max(round(width / inner), 1)
    return width // inner


def _dense_layers(flags: Flags, layers: int | None) -> int | None:
    """Return how many layers have a dense MLP; those in between count as leading ones, and it is said."""
    draft, key = flags.draft, "model.experts.dense_layers"
    first = flags.whole(key, "first_k_dense_replace")
    given = flags.take(key, "moe_layer_freq")
    if draft.asked(key) or layers is None:
        return None
    if given is None or given.unknown:
        return max(first or 0, 0)
    step = whole_number(given.value)
    if step is not None:
        if step <= 1:
            return max(first or 0, 0)
        pattern = tuple(int(i % step == 0) for i in range(layers))
    else:
        try:
            pattern = number_list(given.value)
        except PatternError as error:
            draft.blame(key, given.line, given.shown, given.value, str(error))
            return None
    if len(pattern) != layers:
        draft.contradict(f"moe_layer_freq has {len(pattern)} entries for {layers} layers")
    dense = pattern.count(0)
    if 1 in pattern and pattern.index(1) != dense and len(pattern) == layers:
        if draft.values.get("model.layers") == layers and "model.window" not in draft.values:
            put_expert_pattern(flags, pattern, draft.values.get("model.ffn_hidden"))
            return dense
        draft.assume(key, dense, "layers with and without experts alternate: all dense ones are taken to"
                     " stand first, which moves work between pipeline stages, not the sum")  # fmt: skip
    return dense


def _groups(flags: Flags) -> None:
    """A token may visit `group_topk` of `num_groups` groups: a limit only where it is fewer."""
    key = "model.experts.groups_limit"
    limit = flags.whole(key, "moe_router_group_topk", "topk_group")
    groups = flags.whole(key, "moe_router_num_groups", "n_group")
    if limit and groups and limit < groups:
        flags.draft.put(key, limit)


def _vocabulary(flags: Flags) -> None:
    draft, key = flags.draft, "model.vocab"
    padded = flags.whole(key, "padded_vocab_size", "pad_vocab_size_to")
    if padded:
        for name in ("vocab_size", "make_vocab_size_divisible_by"):
            flags.take(key, name)
        draft.put(key, padded)
        return
    words = flags.whole(key, "vocab_size")
    extra = flags.whole(key, "extra_vocab_size") or 0
    kind = flags.take(key, "tokenizer_type")
    if words is None and not draft.asked(key):
        words = _tokenizer(flags, kind.value if kind else "")
    elif words and kind and kind.value == "NullTokenizer":
        _null_tokenizer(flags, words)
    if words is None:
        flags.take(key, "make_vocab_size_divisible_by")
        draft.ask(key, "only a tokenizer is named: give the padded size of its vocabulary")
        return
    draft.put(key, _padded(flags, words + extra))


def named_sizes(given: Given | None) -> Callable[[Flags], None]:
    """Return the reader of a model that is named; sizes among the flags win over its own."""

    def read(flags: Flags) -> None:
        draft = flags.draft
        put_model(draft, given)
        if draft.asked("model"):
            flags.take("model", *_OF_THE_MODEL)
            return
        for key, names in _OWN_SIZES.items():
            if flags.find(*names):
                draft.put(f"model.{key}", flags.whole(f"model.{key}", *names))
        if flags.find("untie_embeddings_and_output_weights"):
            draft.put(
                "model.tied", not flags.on("model.tied", "untie_embeddings_and_output_weights")
            )
        if words := draft.values.get("model.vocab"):
            draft.put("model.vocab", _padded(flags, words))
        flags.take("model", *_OF_THE_MODEL)

    return read


_OWN_SIZES = {
    "layers": ("num_layers",), "hidden": ("hidden_size",), "heads": ("num_attention_heads",),
    "kv_heads": ("num_query_groups",), "head_dim": ("kv_channels",),
    "ffn_hidden": ("ffn_hidden_size",), "vocab": ("padded_vocab_size",),
    "experts.routed": ("num_experts",), "experts.top_k": ("moe_router_topk",),
    "experts.hidden": ("moe_ffn_hidden_size",), "predict_layers": ("mtp_num_layers",),
    "lora_rank": ("lora_rank", "lora_r"),
}  # fmt: skip


def _null_tokenizer(flags: Flags, words: int) -> None:
    """Up to core 0.12 the null tokenizer adds a word; it is said where that changes the padded size."""
    if _padded(flags, words) != _padded(flags, words + 1):
        flags.draft.assume("model.vocab", _padded(flags, words), "the null tokenizer adds no word, as"
                           f" now; up to core 0.12 it does: {_padded(flags, words + 1)}")  # fmt: skip


def _tokenizer(flags: Flags, kind: str) -> int | None:
    for name in ("tokenizer_model", "tokenizer_name_or_path", "load"):
        given = flags.find(name)
        size = tokenizer_size(given.value) if given and not given.unknown else None
        if given and size:
            flags.take("model.vocab", name)
            flags.draft.assume("model.vocab", size, f"words of the tokenizer {given.value}")
            return size
    if not kind and flags.find("merge_file"):
        kind = "GPT2BPETokenizer"  # what vocabulary and merges in two files are of
    size = tokenizer_size(kind)
    if size:
        flags.draft.assume("model.vocab", size, f"words of {kind}")
    return size


def _padded(flags: Flags, words: int) -> int:
    """Return the vocabulary filled up to a multiple that tensor ranks share."""
    key = "model.vocab"
    divisible = flags.whole(key, "make_vocab_size_divisible_by") or DIVISIBLE
    unit = divisible * (flags.draft.values.get("parallel.tp") or 1)
    return -(-words // unit) * unit


def _extras(flags: Flags) -> None:
    draft = flags.draft
    draft.put("model.predict_layers", flags.whole("model.predict_layers", "mtp_num_layers") or None)
    draft.put("model.lora_rank", flags.whole("model.lora_rank", "lora_r", "lora_rank") or None)
    embedding = flags.text("model.fused_attention", "position_embedding_type")
    backend = flags.text("model.fused_attention", "attention_backend")
    word = (backend or "auto").rsplit(".", 1)[-1].lower()
    if word not in BACKENDS and (given := flags.find("attention_backend")):
        draft.leave_out(given.shown, given.value, given.line, "a kernel of attention that is not known: taken"
                        " as one that keeps no scores", given.file)  # fmt: skip
    plain = flags.on("model.fused_attention", "no_flash", "alibi")
    if embedding == "alibi" or word in ("unfused", "local") or plain:
        draft.put("model.fused_attention", False)
