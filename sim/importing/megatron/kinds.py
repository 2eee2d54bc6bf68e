"""Layers of several kinds in Megatron's flags, as blocks and a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ersatz.sim.importing.flags import Flags

PATTERN = ("hybrid_layer_pattern", "hybrid_override_pattern")
LETTERS = {"M": "M", "*": "A", "-": "F", "E": "E"}  # Mamba-2, attention, dense MLP, experts
STATE, HEAD, GROUPS = 128, 64, 8  # Megatron's defaults of Mamba-2
INDEX = {"heads": ("index_n_heads", "dsa_indexer_n_heads"),
         "dim": ("index_head_dim", "dsa_indexer_head_dim"),
         "top_k": ("index_topk", "dsa_indexer_topk")}  # fmt: skip
LINEAR = {"heads": "linear_num_value_heads", "key_dim": "linear_key_head_dim",
          "value_dim": "linear_value_head_dim", "key_heads": "linear_num_key_heads"}  # fmt: skip


def hybrid_letters(flags: Flags) -> str:
    """Return the layers of a hybrid, one letter each; none where no pattern that is known gives them."""
    given = flags.find(*PATTERN)
    if given is None or given.unknown:
        return ""
    main = given.value.split("/")[0].replace("|", "").replace(" ", "")
    if not main or set(main) - set(LETTERS):
        return ""
    return "".join(LETTERS[letter] for letter in main)


def read_kinds(flags: Flags, ffn: int | None) -> None:
    """Put blocks and pattern into the draft where layers differ by more than dense or experts."""
    draft = flags.draft
    if letters := hybrid_letters(flags):
        _hybrid(flags, letters, ffn)
        return
    _indexer(flags)
    if flags.find(*LINEAR.values()):
        _linear(flags)
    elif given := flags.find("hybrid_attention_ratio", "mamba_num_heads"):
        draft.ask("model", f"{given.shown}: no pattern of layers is given", line=given.line)


def put_blocks(flags: Flags, blocks: Mapping[str, Any], pattern: str) -> None:
    """Put kinds of layer by letter, and their order."""
    flags.draft.drop("model.blocks")
    flags.draft.put("model.blocks", dict(blocks))
    flags.draft.put("model.pattern", pattern)


def put_expert_pattern(flags: Flags, pattern: Sequence[int], ffn: int | None) -> None:
    """Put layers that alternate between a dense MLP (0) and experts (1)."""
    letters = "".join("E" if one else "D" for one in pattern)
    put_blocks(flags, {"D": {"ffn_hidden": ffn}, "E": {}}, shortest(letters))


def shortest(letters: str) -> str:
    """Return the shortest pattern whose repetition is `letters`."""
    return next(letters[:n] for n in range(1, len(letters) + 1)
                if len(letters) % n == 0 and letters[:n] * (len(letters) // n) == letters)  # fmt: skip


def _hybrid(flags: Flags, letters: str, ffn: int | None) -> None:
    draft, key = flags.draft, "model.blocks"
    flags.take(
        "model.pattern", *PATTERN, "is_hybrid_model", "hybrid_attention_ratio", "hybrid_mlp_ratio"
    )
    hidden = draft.values.get("model.hidden") or 0
    state = flags.whole(key, "mamba_state_dim") or STATE
    head = flags.whole(key, "mamba_head_dim") or HEAD
    groups = flags.whole(key, "mamba_num_groups") or GROUPS
    heads = flags.whole(key, "mamba_num_heads") or 2 * hidden // head
    mamba = {"kind": "mamba2", "heads": heads, "key_dim": state, "value_dim": head, "key_heads": groups,
             "chunk": 128}  # fmt: skip
    blocks = {
        "M": {"recurrence": mamba, "ffn_hidden": 0},
        "A": {"ffn_hidden": 0},
        "F": {"heads": 0, "kv_heads": 0, "ffn_hidden": ffn},
        "E": {"heads": 0, "kv_heads": 0},
    }
    if "E" in letters and "model.experts.routed" not in draft.values:
        draft.ask(
            "model.experts.routed",
            "the pattern has layers of experts, and num_experts is not given",
        )
    put_blocks(flags, {k: v for k, v in blocks.items() if k in letters}, letters)
    draft.drop("model.experts.dense_layers")


def _indexer(flags: Flags) -> None:
    """Sparse attention whose tokens an indexer picks (DeepSeek-V3.2)."""
    if not flags.find("enable_dsa_indexer", "index_topk", "dsa_indexer_topk"):
        return
    sizes = {name: flags.whole(f"model.indexer.{name}", *names) for name, names in INDEX.items()}
    flags.take("model.indexer", "enable_dsa_indexer", "experimental_attention_variant")
    for name, value in sizes.items():
        flags.draft.put(f"model.indexer.{name}", value)
        if value is None:
            flags.draft.ask(f"model.indexer.{name}", f"{INDEX[name][0]} is not given")


def _linear(flags: Flags) -> None:
    """Gated DeltaNet in most layers, full attention in the last of every n (Qwen3-Next)."""
    draft, key = flags.draft, "model.blocks"
    sizes = {name: flags.whole(key, flag) for name, flag in LINEAR.items()}
    every = flags.whole("model.pattern", "full_attention_interval", "linear_attention_freq")
    taps = flags.whole(key, "linear_conv_kernel_dim") or 4
    gated = flags.on(key, "attention_output_gate", "use_gated_attention")
    if every is None or None in sizes.values():
        draft.ask(
            "model", "layers of linear attention: their sizes and how often attention is full"
        )
        return
    recurrence = {"kind": "gated_delta", **sizes, "conv": taps}
    full: dict[str, Any] = {"gate": "element"} if gated else {}
    put_blocks(flags, {"L": {"recurrence": recurrence}, "F": full}, "L" * (every - 1) + "F")
