"""Class defaults of every causal language model of transformers, counted on the meta device.

Each family is read right (all weights within 1 %, those of a token within 2 %), or refused with the
key or the kind of layer named; none is silently wrong. Runs where torch and transformers are.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.sim.workload.configs.reader import read_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

APART = re.compile(
    r"vision|visual|audio|projector|speech|image|img_|codec|patch|mm_|aligner|connector"
)
ROUTED = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
# Settings without which the library's own classes build no model: their defaults lack them.
NEEDED: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0, "kv_n_heads": 8}},
    "dots1": {"n_routed_experts": 16, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 128}, "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128}, "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "deepseek_v2": {"num_experts_per_tok": 6, "n_group": 8, "topk_group": 3},
}  # fmt: skip
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts",
         "moe_top_k")  # fmt: skip


def families() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def first(config: Any, names: tuple[str, ...]) -> int:
    parts = (config, getattr(config, "ffn_config", None))
    found = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in found if isinstance(value, int)), 0)


def counted(family: str, config: Any) -> tuple[float, float] | None:
    """Weights of the language model, all and those of a token; None where the library builds none."""
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception:  # some classes cannot be built from their own defaults
        return None
    text, total, expert = config.get_text_config(), 0.0, 0.0
    for name, weight in model.named_parameters():
        if not APART.search(name):
            total += weight.numel()
            routed = "experts." in name and "shared" not in name
            expert += weight.numel() * routed
    top_k, experts = first(text, TOP_K), first(text, ROUTED)
    if idle := getattr(text, "zero_expert_num", 0):  # the library allots products to idle experts
        real = expert / (2 * (experts + idle) + experts) * 3 * experts
        total, expert, top_k = total - (expert - real), real, top_k * experts // (experts + idle)
    return total, total - expert * (1 - top_k / experts if expert else 0.0)


DERIVES = ("hidden_size", "num_attention_heads")  # sizes from which classes derive others
ODD = ("helium",)  # whose own code multiplies shapes that then do not fit


def doubled(family: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Read files that say nothing, or give one size alone, twice the default; yield what came out."""
    for key in ("", *DERIVES) if family not in ODD else ():
        try:
            form = dict(NEEDED.get(family, {}))
            if key:
                form[key] = 2 * getattr(transformers.AutoConfig.for_model(family), key)
            config = transformers.AutoConfig.for_model(family, **form)
        except Exception:  # a class without it, or that wants more changed
            continue
        path = folder / "config.json"
        path.write_text(json.dumps({"model_type": family} | form))
        try:
            model = read_config(path)
        except InputError:
            continue
        if known := counted(family, config):
            off = abs(model.params() / known[0] - 1)
            yield (
                key,
                "wrong" if off > 0.01 else "right",
                f"{model.params():.4g} for {known[0]:.4g}",
            )


def judged(family: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Read the defaults as a file has them and as a saved file would, and yield what came out."""
    try:
        config = transformers.AutoConfig.for_model(family, **NEEDED.get(family, {}))
    except Exception:  # a class that refuses its own defaults
        yield "not built", ""
        return
    known: tuple[float, float] | None = None
    for form in (config.to_dict(), config.to_diff_dict()):
        path = folder / "config.json"
        path.write_text(json.dumps({"model_type": family} | form, default=str))
        try:
            model = read_config(path)
        except InputError as error:
            yield "refused", str(error)
            continue
        known = known or counted(family, config)
        if known is None:
            yield "not built", ""
            continue
        total, active = model.params(), model.params(active=True)
        off = (
            abs(total / known[0] - 1),
            min(abs(x / known[1] - 1) for x in (active, active + model.tables)),
        )
        yield (
            "right" if off[0] <= 0.01 and off[1] <= 0.02 else "wrong",
            f"{total:.4g} for {known[0]:.4g}",
        )


@pytest.mark.slow
def test_no_family_is_silently_wrong(tmp_path: Path) -> None:
    transformers.logging.set_verbosity_error()
    found = {family: list(judged(family, tmp_path)) for family in families()}
    outcomes = {family: {outcome for outcome, _ in said} for family, said in found.items()}
    wrong = {family: said for family, said in found.items() if "wrong" in outcomes[family]}
    refused = {family: said for family, said in found.items() if "refused" in outcomes[family]}
    decoders = [
        family for family in found if not any("encoders" in words for _, words in found[family])
    ]
    kept_out = [family for family in decoders if family in refused]
    print(f"families {len(found)}, decoders {len(decoders)}, refused {len(kept_out)}: {kept_out}")
    others = {(family, *row) for family in found for row in doubled(family, tmp_path)}
    assert not {row for row in others if row[2] == "wrong"}
    assert len(others) > 150
    print("not built:", [family for family, said in outcomes.items() if said == {"not built"}])
    assert not wrong
    assert all(re.search(r"not modelled|config\.json:\d+:\d+: |looked for", words)
               for said in refused.values() for _, words in said)  # fmt: skip
    assert len(kept_out) <= 0.12 * len(decoders)
