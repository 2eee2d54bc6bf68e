"""Switches of a configuration: gates, tied embeddings, parts that are off, in whatever name they have.

A switch that is off leaves nothing to read, so it was once passed over; what it means is read, or said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ersatz.sim.workload.configs.config import Config

_ON = r"(?:(?:is|use|uses|enable|enabled|with|has|do)_)?"
GATES = re.compile(
    rf"{_ON}(?:swi|ge|re)?glu(?:_mlp|_ffn|_act)?|{_ON}gated?(?:_linear_unit|_act)?(?:_mlp|_ffn|_ffw|_feed_forward)"
    rf"|{_ON}(?:mlp|ffn|ffw)_(?:gates?|gated|gating|glu|is_gated|use_glu|use_gate)|is_gated_act"
)
TIES = re.compile(
    r"(?:use_)?(?:tie|tied|share|shared)_(?:(?:input_output|word|in_out|lm_head|output|decoder)_)?"
    r"(?:embeddings?|embed|emb|weights?|lm_head|word_embeddings_and_lm_head)(?:_weights?|_with_lm_head)?"
    r"|weight_tying|(?:use_)?tied_embeddings?|share_embeddings_and_output_weights|share_input_output_embed"
)
OFF = {
    "moe": re.compile(rf"{_ON}moe(?:_block|_layers?|_mlp)?|moe_(?:enabled?|on)|{_ON}experts"),
    "mtp": re.compile(
        rf"{_ON}mtp(?:_module|_head|_layers?)?|mtp_(?:enabled?|on)|{_ON}nextn(?:_predict)?"
    ),
}
# What a switch is of that shapes a model; others that are off are none of its parts.
SUBJECTS = re.compile(
    r"moe|expert|mla|latent|mtp|nextn|window|swa|glu|gat(?:e|ing)|tie|tying|shar(?:e|ing)|multi_query|mqa|gqa"
    r"|alibi|linear_att|sparse|mamba|ssm|recurr|hybrid|mlp|ffn|lora|conv"
)
ACTS = ("mlp_hidden_act", "hidden_act", "activation_function")
KINDS = ("ffn_config.ffn_type", "ffn_type", "mlp_type")


def switched_on(config: Config, part: str) -> str:
    """Return a key that says that a part (moe, mtp) is there; empty: none does."""
    return next(
        (key for key in config.own if OFF[part].fullmatch(key) and config.own[key] is True), ""
    )


def switched_off(config: Config, part: str) -> bool:
    """Tell whether a key says that a part (moe, mtp) is off, whatever else is there of it."""
    found = [key for key in config.own if OFF[part].fullmatch(key)]
    config.read.update(found if any(isinstance(config.own[key], bool) for key in found) else ())
    return any(config.own[key] is False for key in found)


def is_gated(config: Config) -> bool:
    """Tell whether the MLP has a gate.

    The family decides; an activation's name or a switch does so only where the family is not known.
    """
    config.read.update((*ACTS, "hidden_activation", "activation", "afn"))
    kind = config.get(*KINDS)
    if isinstance(kind, str) and "glu" in kind.lower():
        return True
    if config.family.known:
        return not config.family.plain
    said = [
        key for key, value in config.own.items() if GATES.fullmatch(key) and isinstance(value, bool)
    ]
    config.read.update(said)
    if said:
        off = next((key for key in said if config.own[key] is False), "")
        note = f"{off} is false: the MLP has two matrices" if off else ""
        config.notes += [note] if note and note not in config.notes else []
        return not off
    act = str(config.get(*ACTS, default="silu")).lower()
    if act in ("silu", "swish") or "glu" in act:
        if isinstance(kind, str):
            _once(config, f"{kind!r} of the MLP's type is not understood: it is taken as gated")
        return True
    gated = act.startswith("gelu") and not isinstance(kind, str)
    taken = "gated" if gated else "not gated"
    config.notes.append(f"activation {act}: the MLP is taken as {taken}, which no key tells")
    return gated


def _once(config: Config, note: str) -> None:
    config.notes += [] if note in config.notes else [note]


def is_tied(config: Config) -> bool:
    """Tell whether the product with the vocabulary has the embedding's weights."""
    if config.family.defaults.get("never_tied"):
        if config.get("tie_word_embeddings"):
            config.notes.append(
                "tie_word_embeddings is true, which the family's class does not heed: untied"
            )
        return False
    inner, outer = (values.get("tie_word_embeddings") for values in (config.own, config.outer))
    if isinstance(inner, bool) and isinstance(outer, bool) and inner != outer:
        config.notes.append(f"tie_word_embeddings is {str(inner).lower()} inside and"
                            f" {str(outer).lower()} outside: taken as outside")  # fmt: skip
        return outer
    tied = config.flag("tie_word_embeddings")
    for key, value in config.own.items():
        if not TIES.fullmatch(key) or not isinstance(value, bool) or key == "tie_word_embeddings":
            continue
        config.read.add(key)
        if config.given("tie_word_embeddings") and value != tied:
            config.blame((key,), value, f"tie_word_embeddings says {str(tied).lower()}")
        elif not config.given("tie_word_embeddings"):
            config.notes.append(f"{key} is taken as tie_word_embeddings: {str(value).lower()}")
            return value
    return tied


def said_of_switches(config: Config) -> Iterator[str]:
    """Say which switches of parts that shape a model are off and that nobody read."""
    off = [key for key, value in config.own.items()
           if value is False and key not in config.read and not config.family.is_harmless(key)
           and SUBJECTS.search(key)]  # fmt: skip
    if off and not config.family.known:
        yield f"model: switched off, of which nothing is made: {', '.join(off[:12])}"
