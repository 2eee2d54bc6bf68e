"""The model that a row describes, with usual values for the cells that are blank."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from ersatz.sim.validation.reading.rules import Filling, Refused, fits, is_lora, known_of, rules
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.validation.reading.words import DENIES, affirmed, says
from ersatz.sim.workload.model import Experts, LatentAttention, Model

RANK = re.compile(
    r"(?<![a-z])rank\W{0,2}\s?(\d{1,4})\b|(?<![a-z\d])r\s?[=:]\s?(\d{1,4})\b|lora[-_ ](?:\()?r ?(\d{1,4})\b"
    r"|lora[-_ (]{1,3}(?:dim\w*|size)[ =:_]{0,3}(\d{1,4})\b",
    re.I,
)
BRACKETED = re.compile(r"lora[^;|]{0,25}\(((?:[qkvo](?:_proj)?[ ,/+&]{0,3}){1,4})\)", re.I)
# Modules in words, and the letters of their matrices.
MODULES = (
    (r"all[- ](?:the )?(?:linear|layers|modules|matrices|proj)|every (?:linear|matrix)|\*", ""),
    (
        r"att(?:entio)?n\w*[^;,|]{0,20}(?:mlp|ffn|feed-?forward)|(?:mlp|ffn)[^;,|]{0,20}att(?:entio)?n",
        "",
    ),
    (r"\bq\W?k\W?v\W?o\b|\batt(?:entio)?n\b", "q k v o"),
    (r"\bqkv|query_key_value", "q k v"),
    (r"\b(?:mlp|ffn|feed-?forward)\b", "gate up down"),
)
ON = re.compile(
    r"(?:lora|adapters?)\b[^;|]{0,20}?\b(?:on|for|in|to|targets?|modules?)\b[ :=]{1,2}(?P<on>[^;|)]{2,40})"
    r"|(?P<alone>\b(?:attention|attn|mlp|ffn|qkv|all[- ]linear))[- ]?(?:only )?(?:lora|adapters?)",
    re.I,
)
_SMALL = {"one": 1, "two": 2, "three": 3, "four": 4}
DENSE_FIRST = re.compile(
    r"\b(\d+|one|two|three|four) (?:leading |initial |first )?dense layers?"
    r"|\b(\d+) of (?:the )?\d+ layers (?:is |are )?dense"
    r"|layers? 0(?:-\d+)? (?:is |are )?(dense)|"
    r"(?:first|leading) (\d+)?\s?layers?(?: \w+)? dense|first (\d+|layer) (?:is|are) dense"
    r"|first_k_dense_replace\W+(\d+)",
    re.I,
)
PREDICTS = r"\bMTP\b|multi-?token[- ]predict\w*|\bnextn\b"
PREDICTS_COUNTED = re.compile(
    r"\b(\d{1,2}) (?:MTP|multi-?token[- ]prediction|nextn)\b|MTP(?:[- ](?:depth|layers?|modules?"
    r"|heads?))?\s?(?:of|=|:)?\s?(\d{1,2})\b",
    re.I,
)
USUAL_GROUPS = 8  # of heads that share keys and values
# "MoE every 2nd layer", "moe_layer_freq=2", "alternating dense and MoE layers".
_NTH = r"(?:(?:other|second|alternate)|(\d)(?:nd|rd|th)?) (?:layer|block)"
EVERY = re.compile(
    rf"(?:moe|expert)s?(?: layers?)?(?: in| at)? (?:every|each) {_NTH}"
    r"|moe[-_ ](?:layer[-_ ])?(?:freq\w*|interval|step|period) ?[=:]? ?(\d)\b"
    rf"|every {_NTH} (?:is|has|uses?|being) (?:an? )?(?:moe|expert)"
    r"|(?:alternat|interleav)\w*[^;,|]{0,20}(?:dense[^;,|]{0,12}moe|moe[^;,|]{0,12}dense|moe layers)",
    re.I,
)
SHARED_WIDTH = re.compile(
    r"shared[- ]experts?[^;,|]{0,20}(?:width|wide|size|dim|inner|ffn|intermediate|hidden)\w{0,9}"
    r"(?: (?:size|dim\w{0,6}))?(?: of| is| ?=| ?:)? ?(\d{2,6})\b",
    re.I,
)
SHARED_COUNT = re.compile(r"\b(\d+) shared[- ]expert", re.I)
TARGETS = re.compile(  # "on q,v", "targets: q_proj v_proj"
    r"\b(?:on|to|targets?|modules?)[ :=]{1,2}(?:only )?"
    r"((?:(?:[qkvo]|gate|up|down)(?:_proj)?(?: ?[,/+&] ?| and | )?){1,7})(?![\w*])"
)
HEADS_SAID = re.compile(
    r"(\d{1,5}) ?(?:kv|key[- ]?value)[- ]?(?:heads?|groups?)|(?:gqa|groups?|kv)[- =](\d{1,5})\b(?! ?:)",
    re.I,
)
SHARE_SAID = re.compile(
    r"\b(\d{1,5}) ?: ?1\b|\b(\d{1,5}) (?:query|q) heads? (?:per|for each)", re.I
)
UNLIKE_ATTENTION = re.compile(
    r"linear|lightning|mamba|\bssm\b|state[- ]space|sparse|\b[dn]sa\b"
    r"|rwkv|reten\w+|delta|\bkda\b|\bmoba\b|hyena|recurren\w+"
    r"|cross[- ]?attention|encoder|bidirectional|differential|\bprefix[- ]lm\b|(?<!non-)(?<!non)\bnon-?causal"
    r"|mixture of heads|parallel attention and mlp|\bchunked\b|softmax-free"
)
CLOSE, UNLIKE = 0.03, 0.25  # of stated parameters: said, refused


VOCAB = re.compile(r"\bvocab ~?(\d+)k\b", re.I)


def _vocab(fill: Filling) -> int:
    """Return the vocabulary of a row: its cell, about what its notes say, or a usual one."""
    said = VOCAB.search(fill.run.text("notes"))
    if said:
        return fill.count("vocab", 1000 * int(said[1]), "as the notes say")
    return fill.count("vocab", 64000, "a usual vocabulary")


def model_of(fill: Filling) -> Model:
    """Return the model of a row; raises `Refused` when its shape cannot be known."""
    run = fill.run
    for rule in rules("models_refused"):
        if fits(rule, run):
            raise Refused(f"model {run.text('model_name')!r} has {rule['why']}")
    layers, hidden = run.count("layers"), run.count("hidden")
    if not layers or not hidden:
        raise Refused("no shape: layers or hidden is blank")
    heads = fill.count("heads", max(hidden // 128, 1), "heads of 128", [max(hidden // 64, 1)])
    latent = _latent(fill)
    kv_heads = heads if latent else _kv_heads(fill, heads)
    if not run.number("head_dim") and hidden % heads:
        raise Refused(
            f"no shape: hidden {hidden} is not divided by {heads} heads and head_dim is blank"
        )
    head_dim = int(run.number("head_dim") or hidden // heads)
    vocab = _vocab(fill)
    experts = _experts(fill)
    gated = known_of(run, "gated", None)
    if gated is None:
        gated = fill.assume("gated MLP", True, "as most models today; no column states it")
    ffn = run.number("ffn_hidden")
    if not ffn:
        usual = 256 * math.ceil(hidden * 8 / 3 / 256) if gated else 4 * hidden
        ffn = fill.assume("ffn_hidden", usual, "the usual ratio to hidden")
    window, windowed = _window(fill, layers)
    model = Model(
        name=run.text("model_name"), layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ffn_hidden=int(ffn), vocab=vocab, gated=gated,
        experts=experts, latent=latent,
        window=window, window_layers=windowed, predict_layers=_predict_layers(fill),
        fused_attention=known_of(run, "fused_attention", True),
        fused_activation=known_of(run, "fused_activation", True),
        lora_rank=_lora_rank(fill) if is_lora(run) else 0, lora_targets=_lora_targets(fill),
    )  # fmt: skip
    model = _as_gated(fill, replace(model, tied=_is_tied(run, model)))
    _compare_parameters(fill, model)
    return model


def _lora_rank(fill: Filling) -> int:
    """Return the rank of adapters: what the notes say, or a usual one."""
    said = RANK.search(f"{fill.run.text('model_name')} {fill.run.text('notes')}")
    if said:
        rank = int(next(rank for rank in said.groups() if rank))
        other = re.match(r"\s?(?:/|-|–|→|->|or|to|,)\s?(\d{1,4})\b", said.string[said.end() :])
        if other:
            words = f"the notes say {said[0] + other[0]!r}: rank {{}}"
            return int(fill.note("lora_rank", rank, words, [int(other[1])]))
        return rank
    return int(fill.assume("lora_rank", known_of(fill.run, "lora_rank", 0), "a usual one"))


def _lora_targets(fill: Filling) -> str:
    """Return the modules that have adapters where the notes name them; empty: all."""
    run = fill.run
    if not is_lora(run):
        return ""
    text = f"{run.text('notes')} ; {run.text('model_name')}"
    if said := TARGETS.search(text) or BRACKETED.search(text):
        return " ".join(re.findall(r"[qkvo](?![a-z])|gate|up|down", said[1].replace("_proj", "")))
    named = ON.search(text)
    where = next((part for part in named.groups() if part), "") if named else ""
    if not named or re.match(r"[*\w]*_?proj", where):
        return ""
    found = next((letters for words, letters in MODULES if re.search(words, where, re.I)), None)
    if found is None or re.search(r"\b(?:experts?|layers? \d|last|first|half|not)\b", where, re.I):
        fill.assumptions.append(f"the row says {named[0]!r}: adapters are taken on all matrices")
    return found or ""


def _kv_heads(fill: Filling, heads: int) -> int:
    """Return the heads of keys and values: the cell, or what the kind of attention says of them."""
    kind = fill.run.text("attention_kind").lower()
    noted = (
        p.lower()
        for p in affirmed(fill.run.text("notes"))
        if re.search(r"gqa|mqa|kv[- ]heads?", p, re.I)
    )
    kind = " ; ".join(affirmed(kind))
    kind = f"{kind} {' '.join(noted)}".strip() if not fill.run.number("kv_heads") else kind
    stated = _heads_stated(kind, heads)
    if stated and fill.run.count("kv_heads", stated) != stated:
        fill.assumptions.append(f"kv_heads is {fill.run.count('kv_heads')} in its cell, which is taken;"
                                f" attention is {kind!r}")  # fmt: skip
    if stated:
        return fill.count("kv_heads", stated, f"attention is {kind!r}")
    if re.search(r"\bgqa\b|grouped", kind) and heads > USUAL_GROUPS:
        return fill.count("kv_heads", USUAL_GROUPS, "grouped, a usual number", [heads // 2])
    return fill.count("kv_heads", heads, "as many as heads")


def _heads_stated(kind: str, heads: int) -> int:
    """Return the heads of keys and values that words state; 0: none."""
    if re.search(r"\bmqa\b|multi-?query", kind):
        return 1
    said, share = HEADS_SAID.search(kind), SHARE_SAID.search(kind)
    if said and (groups := int(said[1] or said[2])) and heads % groups == 0:
        return groups
    ratio = int(share[1] or share[2]) if share and "local" not in kind else 0
    return heads // ratio if ratio and heads % ratio == 0 else 0


def _window(fill: Filling, layers: int) -> tuple[int, int]:
    """Return the window of attention in tokens and the layers that have one (0: half of them).

    Raises `Refused` for attention that is not over all tokens before, or a window of them.
    """
    kind = fill.run.text("attention_kind").lower()
    other = UNLIKE_ATTENTION.search(kind)
    if other and not DENIES.search(kind[: other.start()][-12:]):
        raise Refused(f"attention {other[0]!r} is not described by the columns of a table")
    windowed = re.search(r"sliding|\bswa\b|window|\blocal\b", kind)
    if not windowed or DENIES.search(kind[: windowed.start()][-12:]):
        return known_of(fill.run, "window", 0), 0
    said = re.search(r"(\d+(?:\.\d+)?)(k?)\b", kind[windowed.start() :])
    if said is None:
        raise Refused(f"attention {kind!r}: the window is not stated")
    window = int(float(said[1]) * (1024 if said[2] else 1))
    if re.search(r"altern|every (other|second)|half|1:1", kind):
        return window, 0
    whole = re.search(r"(?:full|global)[^;,|]{0,20}every (\d)(?:th|rd|nd)", kind)
    if whole:
        return window, layers - layers // max(int(whole[1]), 1)
    ratio = re.search(r"(\d+) ?: ?1\b", kind)
    if ratio:
        return window, layers - layers // (int(ratio[1]) + 1)
    words = f"attention {kind!r}: the window is taken in {{}} layers (how many is not stated)"
    return window, int(fill.note("window_layers", layers, words, [max(layers // 2, 1)]))


def _as_gated(fill: Filling, model: Model) -> Model:
    """Return the model with the feed-forward part, gated or not, that its stated parameters tell."""
    stated = (fill.run.number("params_total_b") or 0.0) * 1e9
    if not stated:
        return model
    other = replace(model, gated=not model.gated)
    other = replace(other, tied=_is_tied(fill.run, other))
    off, off_other = (abs(m.params() / stated - 1.0) for m in (model, other))
    if off <= CLOSE or off_other > CLOSE:
        return model
    kind = "gated" if other.gated else "plain"
    fill.assumptions.append(
        f"the feed-forward part is {kind}: with it the shape has the parameters stated"
    )
    return other


def _compare_parameters(fill: Filling, model: Model) -> None:
    """State how far the parameters of the shape are from those that the row states."""
    stated = fill.run.number("params_total_b")
    if not stated:
        return
    off = model.params() / (stated * 1e9) - 1.0
    if abs(off) > UNLIKE:
        raise Refused(
            f"its shape has {model.params() / 1e9:.3g} B parameters where {stated:g} B are stated"
        )
    if abs(off) > CLOSE:
        fill.assumptions.append(f"the shape has {model.params() / 1e9:.4g} B parameters, {off:+.0%} of the"
                                f" {stated:g} B stated: some layers are not as described")  # fmt: skip


def _is_tied(run: Run, model: Model) -> bool:
    """Tell whether the stated parameters count the vocabulary once; of no meaning when blank."""
    stated = (run.number("params_total_b") or 0.0) * 1e9
    said = says(r"(?<![a-z])(?:un)?tied|shared? (?:input and output )?embedding", run.text("notes"))
    if not stated and said is not None:
        return said and not re.search(r"\buntied", run.text("notes"), re.I)
    once, twice = (replace(model, tied=tied).params() for tied in (True, False))
    return abs(stated - once) < 0.02 * once and abs(stated - once) < abs(stated - twice)


def _predict_layers(fill: Filling) -> int:
    """Return the prediction modules that the notes state, else those that the model is known for."""
    run, usual = fill.run, int(known_of(fill.run, "predict_layers", 0))
    said = says(PREDICTS, run.text("notes"))
    if said is None:
        return usual
    if not said:
        return 0
    counted = PREDICTS_COUNTED.search(run.text("notes"))
    if counted:
        count = int(next(n for n in counted.groups() if n))
        return int(fill.note("predict_layers", count, "the notes say {} prediction modules"))
    words = "the notes speak of prediction modules and not of how many: {}"
    return int(fill.note("predict_layers", usual or 1, words))


def _latent(fill: Filling) -> LatentAttention | None:
    sizes = known_of(fill.run, "latent", None)
    if not sizes:
        return None
    words = "latent attention: ranks {0} and {1}, heads of {3} + {2} and {4}, as DeepSeek's"
    fill.assumptions.append(f"{words.format(*sizes)} (no column states them)")
    return LatentAttention(*sizes)


def _experts(fill: Filling) -> Experts | None:
    run = fill.run
    routed = run.count("n_experts")
    if routed <= 1:
        return None
    hidden = run.number("moe_ffn_hidden")
    if not hidden and run.number("ffn_hidden"):
        hidden = fill.assume(
            "moe_ffn_hidden", run.count("ffn_hidden"), "as wide as ffn_hidden says"
        )
    if not hidden:
        raise Refused("no shape: the experts' inner size is blank")
    notes = run.text("notes")
    first = DENSE_FIRST.search(notes)
    dense = known_of(run, "dense_layers", 0)
    if first:
        said = next((n for n in first.groups() if n), "1")
        count = int(said) if said.isdigit() else _SMALL.get(said.lower(), 1)
        dense = fill.note("dense_layers", count, "the notes say {} dense layers")
    elif every := EVERY.search(" ; ".join(affirmed(notes))):
        period = int(next((n for n in every.groups() if n and n.isdigit()), 2))
        layers = run.count("layers")
        words = f"the notes say {every[0]!r}: {{}} dense layers, taken to be the first"
        dense = fill.note("dense_layers", layers - layers // max(period, 1), words)
    limit = known_of(run, "groups_limit", 0)
    said = SHARED_COUNT.search(notes)
    shared = run.count("shared_experts") or (
        fill.note("shared_experts", int(said[1]), "the notes say {} shared experts") if said else 0
    )
    width = SHARED_WIDTH.search(notes)
    whole = width and re.match(
        r" ?\(?(?:in )?(?:total|together|combined|all\b)", notes[width.end() :], re.I
    )
    together = int(width[1]) * (1 if whole else max(shared, 1)) if width else 0
    if width:
        fill.assumptions.append(
            f"the notes say {width[0]!r}: shared experts are {together} wide together"
        )
    return Experts(
        routed, fill.count("top_k", 2, "a usual number", [1, 8]), int(hidden), shared, dense, limit,
        shared_hidden=together,
    )  # fmt: skip
