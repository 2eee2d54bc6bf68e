"""The model that a row describes, with usual values for the cells that are blank."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from ersatz.sim.validation.reading.rules import Filling, Refused, is_lora, known_of
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.workload.model import Experts, LatentAttention, Model

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
    layers, hidden = run.count("layers"), run.count("hidden")
    if not layers or not hidden:
        raise Refused("no shape: layers or hidden is blank")
    heads = fill.count("heads", max(hidden // 128, 1), "heads of 128", [max(hidden // 64, 1)])
    latent = _latent(run)
    kv_heads = heads if latent else fill.count("kv_heads", heads, "as many as heads")
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
    model = Model(
        name=run.text("model_name"), layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ffn_hidden=int(ffn), vocab=vocab, gated=gated,
        experts=experts, latent=latent,
        window=known_of(run, "window", 0), predict_layers=_predict_layers(run),
        fused_attention=known_of(run, "fused_attention", True),
        fused_activation=known_of(run, "fused_activation", True),
        lora_rank=known_of(run, "lora_rank", 0) if is_lora(run) else 0,
    )  # fmt: skip
    model = replace(model, tied=_is_tied(run, model))
    _compare_parameters(fill, model)
    return model


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
    once, twice = (replace(model, tied=tied).params() for tied in (True, False))
    return abs(stated - once) < 0.02 * once and abs(stated - once) < abs(stated - twice)


def _predict_layers(run: Run) -> int:
    without = "w/o mtp" in run.text("notes").lower()
    return 0 if without else int(known_of(run, "predict_layers", 0))


def _latent(run: Run) -> LatentAttention | None:
    sizes = known_of(run, "latent", None)
    return LatentAttention(*sizes) if sizes else None


def _experts(fill: Filling) -> Experts | None:
    run = fill.run
    routed = run.count("n_experts")
    if routed <= 1:
        return None
    hidden = run.number("moe_ffn_hidden") or run.number("ffn_hidden")
    if not hidden:
        raise Refused("no shape: the experts' inner size is blank")
    dense = known_of(run, "dense_layers", 0)
    limit = known_of(run, "groups_limit", 0)
    shared = run.count("shared_experts")
    return Experts(
        routed, fill.count("top_k", 2, "a usual number", [1, 8]), int(hidden), shared, dense, limit
    )
