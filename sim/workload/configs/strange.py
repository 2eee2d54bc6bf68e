"""What a configuration says that its family's class does not: another head, more parts, foreign keys.

None of it is passed over: it is an assumption in words, or refused by name where it is another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ersatz.sim.workload.configs.config import PARTS, Config
from ersatz.sim.workload.configs.parts import EXPERT_INNER, SHARED, SHARED_INNER, TOP_K
from ersatz.sim.workload.configs.patterns import EXPERTS
from ersatz.sim.workload.configs.special import DEPTH, TOWERS, WIDTH

# Heads in the place of the vocabulary's product, and classes that have none.
OTHER_HEAD = re.compile(
    r"For(?!CausalLM|ConditionalGeneration|.*Generation|(?!Masked|PreTrain).*LM)\w+|(?<!Head)Model$|Reward"
)
SHARED_KEYS = (*SHARED, *SHARED_INNER)
NOT_CAUSAL = re.compile(r"(?<!non_)causal(?!_conv)")  # false
BOTH_WAYS = re.compile(
    r"bidirectional_att|^(?:is_)?bidirectional$|prefix_lm|non_causal|noncausal"
)  # true
GATED = ("attn_output_gate", "mla_use_output_gate", "use_attention_gate")
EAGER = ("_attn_implementation", "attn_implementation", "attn_impl", "attn_config.attn_impl")


def refuse_other_attention(config: Config) -> None:
    """Blame what says that tokens see those after them, and latents that are switched off."""
    seen = {
        **config.own,
        **{f"attn_config.{k}": v for k, v in _section(config, "attn_config").items()},
    }
    for key, value in seen.items():
        last = key.rpartition(".")[2]
        if (NOT_CAUSAL.search(last) and value is False) or (
            BOTH_WAYS.search(last) and value is True
        ):
            config.blame((key,), value, "attention to later tokens is not modelled: expected a causal"
                         " language model")  # fmt: skip
    if config.own.get("use_mla") is False and config.own.get("kv_lora_rank"):
        config.blame(
            ("use_mla",), False, "kv_lora_rank is given all the same: expected one of the two"
        )
    rows = config.own.get("moe_layer_freq")
    if isinstance(rows, str):
        config.blame(("moe_layer_freq",), rows, "expected a whole number, or one for every layer")


def _section(config: Config, key: str) -> Mapping[str, Any]:
    found = config.own.get(key)
    return found if isinstance(found, Mapping) else {}


def strange_words(config: Config) -> Iterator[str]:
    """Yield what is assumed of heads, other parts, foreign keys and stored formats."""
    named = config.own.get("architectures") or config.outer.get("architectures")
    head = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    if OTHER_HEAD.search(head):
        yield f"model: {head} has another head, or none: the product with the vocabulary is taken"
    stored = config.own.get("quantization_config") or config.outer.get("quantization_config")
    if isinstance(stored, Mapping) and stored:
        how = str(stored.get("quant_method", "some way"))[:20]
        yield (f"model: quantization_config: the file's weights are stored by {how}; they are trained in"
               " training.precision")  # fmt: skip
    eager = next((key for key in EAGER if config.get(key) == "eager"), "")
    if eager:
        yield f"model: {eager} is eager: the stack's attention is taken"
    if config.own.get("mask_token_id") is not None:
        yield ("model: mask_token_id: a model that fills in tokens sees those after them as well; causal"
               " attention is taken")  # fmt: skip
    positions = config.own.get("position_embedding_type")
    if (
        not config.family.known
        and isinstance(positions, str)
        and not re.search(r"rop|rotary|alibi|none|nope", positions)
    ):
        yield f"model: position_embedding_type {positions}: a table of positions is not counted"
    routed = next((key for key in EXPERTS if config.own.get(key)), "")
    if routed and config.own.get("top_k") and not any(map(config.given, TOP_K)):
        yield "model: top_k is taken as how many tokens are sampled from, not as experts of a token"
    if routed and config.own.get("top_k") and any(map(config.given, TOP_K)):
        yield f"model: top_k {config.own['top_k']}: taken to be of sampling, not of experts"
    own = next((key for key in EXPERTS if config.family.defaults.get(key)), "")
    paired = {"num_experts", "num_local_experts"}
    if routed and own and routed != own and own not in config.own and not {routed, own} <= paired:
        yield f"model: {routed} is taken for {own}, as the class of {config.family.name} calls it"
    count = next((config.own[key] for key in SHARED if isinstance(config.own.get(key), int)), 0)
    width = next((key for key in SHARED_INNER if config.own.get(key)), "")
    if (
        width
        and count > 1
        and not config.family.known
        and width != "shared_experts_intermediate_size"
    ):
        yield f"model: {width} is taken as that of all {count} shared experts together"
    yield from _parts(config)
    yield from _foreign(config)


def _parts(config: Config) -> Iterator[str]:
    """Models beside the language model that no list knows: a talker, a decoder of codes."""
    for key, part in {**config.outer, **config.own}.items():
        known = key in (*PARTS, *TOWERS)
        if known or not isinstance(part, Mapping) or not _has_layers(part):
            continue
        config.read.add(key)
        yield f"model: {key} has layers of its own, which are left out: the language model alone is trained"


def _has_layers(part: Mapping[str, Any]) -> bool:
    inner = [part, *(value for value in part.values() if isinstance(value, Mapping))]
    return any(
        any(isinstance(p.get(k), int) for k in WIDTH)
        and any(isinstance(p.get(k), int) for k in DEPTH)
        for p in inner
    )


def _foreign(config: Config) -> Iterator[str]:
    """Keys of experts that the class of a known family does not have."""
    usual = config.family.defaults
    if not config.family.known or not any(
        key in usual for key in ("hidden_size", "n_embd", "d_model")
    ):
        return  # its class is not known
    routed = (*EXPERTS, *TOP_K, *EXPERT_INNER, "enable_moe_block")
    marks = {
        EXPERTS: routed,
        EXPERT_INNER: EXPERT_INNER if any(key in usual for key in EXPERTS) else routed,
        SHARED_KEYS: (*SHARED_KEYS, "shared_like_expert"),
        ("kv_lora_rank",): ("kv_lora_rank",),
        ("num_nextn_predict_layers",): routed,
    }
    if (
        usual.get("kv_lora_rank")
        and "kv_lora_rank" in config.own
        and config.own["kv_lora_rank"] is None
    ):
        yield (f"model: kv_lora_rank is null: heads with keys of their own are taken, which the class of"
               f" {config.family.name} does not have")  # fmt: skip
    foreign = [
        key
        for kind, of_class in marks.items()
        if not any(mark in usual for mark in of_class)
        for key in kind
        if config.own.get(key) not in ((None, False, 0, 1) if kind is EXPERTS else (None, False, 0))
    ]
    foreign += [key for key in sorted(config.family.without) if config.own.get(key) is not None]
    if not config.family.gate and any(config.own.get(key) for key in GATED):
        foreign.append(next(key for key in GATED if config.own.get(key)))
    for key in foreign:
        yield (f"model: {key}: the class of {config.family.name} has no such key; it is taken"
               " to mean what it means elsewhere")  # fmt: skip
