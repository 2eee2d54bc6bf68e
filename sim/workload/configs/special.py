"""What only some configurations have: a block of its own for each layer (NAS), a vision tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ersatz.sim.workload.configs.config import MAX_LAYERS, Config
from ersatz.sim.workload.layer import Layer

TOWERS = ("vision_config", "audio_config", "speech_config", "vision_tower_config")
WIDTH = ("embed_dim", "hidden_size", "vt_hidden_size", "d_model", "width")
DEPTH = (
    "num_hidden_layers",
    "depth",
    "vt_num_hidden_layers",
    "layers",
    "encoder_layers",
    "num_layers",
)
OTHER = ("replace_with_linear", "sparsify", "unshifted_sink", "window_length",
         "use_prefill_window_in_sink_attention")  # fmt: skip
INNER = ("intermediate_size", "vt_intermediate_size", "mlp_dim", "encoder_ffn_dim")


def nas_layers(config: Config, hidden: int) -> list[Layer] | None:
    """Return the layers of a network-architecture search (Nemotron-NAS), None where there is none.

    k = heads / n_heads_in_group; the MLP is 2/3 x ffn_mult x hidden, rounded up to 256; a part that is
    a `no_op` is missing, and one that is a linear map is refused.
    """
    blocks = config.get("block_configs")
    if not isinstance(blocks, list):
        return None
    config.read.update(("num_hidden_layers", "num_key_value_heads", "intermediate_size"))
    config.layers = len(blocks)
    stated = config.get("num_hidden_layers")
    if not 0 < len(blocks) <= MAX_LAYERS or stated not in (None, len(blocks)):
        config.blame(("block_configs",), f"[{len(blocks)}]", f"expected {stated} layers")
        return []
    heads = config.needed("heads", "num_attention_heads")
    dim = config.whole("head_dim", default=hidden // heads, least=1)
    return [_nas_layer(config, block, hidden, heads, dim) for block in blocks]


def _nas_layer(config: Config, block: Any, hidden: int, heads: int, dim: int) -> Layer:
    parts = [
        block.get(name) if isinstance(block, Mapping) else None for name in ("attention", "ffn")
    ]
    attention, ffn = (part if isinstance(part, Mapping) else {} for part in parts)
    for part in (attention, ffn):
        for key in OTHER:
            if part.get(key):
                config.blame(("block_configs",), f"{key}: {part[key]}", "is not modelled")
    sizes: dict[str, Any] = {}
    if not attention.get("no_op"):
        group = attention.get("n_heads_in_group")
        if not isinstance(group, int) or group < 1 or heads % group:
            config.blame(
                ("block_configs",), f"n_heads_in_group: {group}", f"expected a divisor of {heads}"
            )
            group = 1
        sizes |= {"heads": heads, "kv_heads": heads // group, "head_dim": dim}
    if not ffn.get("no_op"):
        times = ffn.get("ffn_mult")
        inner = ffn.get("intermediate_size")
        if inner is None and isinstance(times, (int, float)) and 0 < times < 1e4:
            inner = -(-int(2 * times * hidden / 3) // 256) * 256
        if not isinstance(inner, int):
            config.blame(("block_configs",), f"ffn_mult: {times}", "expected a number above 0")
            inner = 1
        sizes["ffn_hidden"] = inner
    return Layer(hidden, **sizes)


def vision_words(config: Config) -> Iterator[str]:
    """Say which towers are left out, and how large they are as far as the file tells."""
    for key in TOWERS:
        tower = config.outer.get(key) or config.own.get(key)
        config.read.add(key)
        if not isinstance(tower, Mapping) or not tower:
            continue
        size = _tower_params(tower)
        large = (
            f"about {size / 1e9:.2g} B weights" if size else "of a size that the file does not tell"
        )
        yield f"model: {key.removesuffix('_config')} tower left out, {large}: only text is trained here"


def _tower_params(tower: Mapping[str, Any]) -> int:
    """Weights of a plain encoder: four matrices of attention and two of an MLP for each layer."""
    found = [
        next((tower[k] for k in keys if isinstance(tower.get(k), int)), 0)
        for keys in (WIDTH, DEPTH, INNER)
    ]
    width, depth, inner = found
    return depth * width * (4 * width + 2 * (inner or 4 * width))
