"""The model that a row describes, with usual values for the cells that are blank."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from sim.validation.reading import Filling, Refused, is_lora
from sim.validation.table import Run
from sim.workload.model import Experts, LatentAttention, Model

PLAIN_MLP = re.compile(r"gpt|mpt|bloom|nemotron|opt|falcon|megatron|gemma-plain|starcoder", re.I)
PLAIN_EXCEPTIONS = re.compile(r"gpt[ -]?oss|nemotron_3", re.I)
ALIBI = re.compile(r"bloom", re.I)  # no fused kernel takes its bias on Ascend
CLAMPED = re.compile(r"gpt[-_ ]?oss", re.I)  # biased, clamped gate: no fused kernel


def model_of(fill: Filling) -> Model:
    """Return the model of a row; raises `Refused` when its shape cannot be known."""
    run = fill.run
    layers, hidden = run.count("layers"), run.count("hidden")
    if not layers or not hidden:
        raise Refused("no shape: layers or hidden is blank")
    heads = fill.count("heads", max(hidden // 128, 1), "heads of 128")
    latent = _latent(run)
    kv_heads = heads if latent else fill.count("kv_heads", heads, "as many as heads")
    head_dim = int(run.number("head_dim") or hidden // heads)
    vocab = fill.count("vocab", 64000, "a usual vocabulary")
    experts = _experts(fill)
    gated = not PLAIN_MLP.search(run.text("model_name")) or bool(
        PLAIN_EXCEPTIONS.search(run.text("model_name"))
    )
    ffn = run.number("ffn_hidden")
    if not ffn:
        usual = 256 * math.ceil(hidden * 8 / 3 / 256) if gated else 4 * hidden
        ffn = fill.assume("ffn_hidden", usual, "the usual ratio to hidden")
    model = Model(
        name=run.text("model_name"), layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ffn_hidden=int(ffn), vocab=vocab, gated=gated,
        experts=experts, latent=latent,
        window=128 if "sliding" in run.text("attention_kind") else 0,
        predict_layers=_predict_layers(run),
        fused_attention=not (
            "alibi" in run.text("attention_kind")
            or (ALIBI.search(run.text("model_name")) and run.text("vendor") == "huawei")
        ),
        fused_activation=not CLAMPED.search(run.text("model_name")),
        lora_rank=16 if is_lora(run) else 0,
    )  # fmt: skip
    return replace(model, tied=_is_tied(run, model))


def _is_tied(run: Run, model: Model) -> bool:
    """Tell whether the stated parameters count the vocabulary once; of no meaning when blank."""
    stated = (run.number("params_total_b") or 0.0) * 1e9
    once, twice = (replace(model, tied=tied).params() for tied in (True, False))
    return abs(stated - once) < 0.02 * once and abs(stated - once) < abs(stated - twice)


def _predict_layers(run: Run) -> int:
    deepseek = re.search(r"deepseek[-_ ]?v3", run.text("model_name"), re.I)
    return int(bool(deepseek) and "w/o mtp" not in run.text("notes").lower())


def _latent(run: Run) -> LatentAttention | None:
    """DeepSeek's sizes; the lite model projects queries directly."""
    if "mla" not in run.text("attention_kind"):
        return None
    lite = (run.number("hidden") or 0) <= 2048
    return LatentAttention(0 if lite else 1536, 512, 64, 128, 128)


def _experts(fill: Filling) -> Experts | None:
    run = fill.run
    routed = run.count("n_experts")
    if routed <= 1:
        return None
    hidden = run.number("moe_ffn_hidden") or run.number("ffn_hidden")
    if not hidden:
        raise Refused("no shape: the experts' inner size is blank")
    name = run.text("model_name").lower()
    dense = 3 if "deepseek" in name and run.count("layers") > 30 else int("deepseek" in name)
    dense = 1 if "kimi" in name else dense
    limit = 4 if re.search(r"deepseek[-_ ]?v3", name) else 0  # its router picks experts of 4 nodes
    shared = run.count("shared_experts")
    return Experts(routed, run.count("top_k", 2), int(hidden), shared, dense, limit)
