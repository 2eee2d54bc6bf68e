"""Models: published parameter counts, FLOPs by hand, and every way to name one."""

import json
from pathlib import Path

import pytest
import yaml
from factories import make_model

from ersatz.device_models.text.problems import InputError
from ersatz.sim.cli.pages.model import EXAMPLE
from ersatz.sim.workload.model_file import list_models, load_model


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("ling-lite", 16.8, 2.75), ("ling-plus", 292.5, 30.9), ("deepseek-v3", 671, 37.5),
        ("llama3-405b", 405.9, 405.9), ("llama3-70b", 70.6, 70.6), ("llama2-70b", 69.0, 69.0),
        ("llama2-7b", 6.74, 6.74), ("mixtral-8x7b", 46.7, 12.9), ("qwen3-30b-a3b", 30.5, 3.35),
        ("pangu-ultra-moe", 718, 39),
    ],
)  # fmt: skip
def test_published_parameter_counts(name: str, total: float, active: float) -> None:
    model = load_model(name)
    assert model.params() / 1e9 == pytest.approx(total, rel=0.005)
    assert model.params(active=True) / 1e9 == pytest.approx(active, rel=0.04)


def test_every_model_names_its_source() -> None:
    assert all(load_model(name).source for name in list_models())


def test_flop_per_token_by_hand() -> None:
    # 8 layers: attention 4 x 1000^2, gated MLP 3 x 1000 x 4000, two norms of 1000; head 1000 x 10000
    model = make_model()
    weights = 8 * (4e6 + 12e6 + 2000) + 1e7
    assert model.flop_per_token(1000, causal=True, rule="6n") == 6 * weights
    # attention forward per token: 2 x 10 heads x (100 + 100) x span x 8 layers, times 3 with backward
    square = 3 * 2 * 10 * 200 * 1000 * 8
    assert model.flop_per_token(1000, causal=False) == 6 * weights + square
    assert model.flop_per_token(1000, causal=True) == 6 * weights + square / 2


LLAMA = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "hidden_act": "silu",
}  # fmt: skip


def write_config(tmp_path: Path, config: object) -> str:
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


def test_hugging_face_llama(tmp_path: Path) -> None:
    model = load_model(write_config(tmp_path, LLAMA))
    assert model.params() == load_model("llama3-8b").params()
    assert model.kv_heads == 8


def test_hugging_face_deepseek(tmp_path: Path) -> None:
    config = {
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168,
        "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18432,
        "vocab_size": 129280, "moe_intermediate_size": 2048, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128, "topk_group": 4, "num_nextn_predict_layers": 1, "hidden_act": "silu",
    }  # fmt: skip
    model = load_model(write_config(tmp_path, config))
    assert model.params() == load_model("deepseek-v3").params()
    assert model.runs == load_model("deepseek-v3").runs


def test_hugging_face_gpt2_is_plain_and_tied(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257,
              "activation_function": "gelu_new"}  # fmt: skip
    model = load_model(write_config(tmp_path, config))
    assert not model.gated
    assert model.tied
    assert model.params() / 1e6 == pytest.approx(124, rel=0.01)  # the published size


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "config.json:1"),
        ({"architectures": ["x"]}, "is no model config"),
        ({"hidden_size": 100}, "lacks what gives layers"),
        (
            dict(LLAMA, num_hidden_layers="many"),
            "num_hidden_layers: 'many' - expected a whole number",
        ),
        (dict(LLAMA, vocab_size=0), "vocab_size: '0' - expected a number above 0"),
    ],
)
def test_bad_configs(tmp_path: Path, config: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(write_config(tmp_path, config))
    assert words in str(caught.value)


def test_inline_models_report_every_fault() -> None:
    with pytest.raises(InputError) as caught:
        load_model({"layers": 2, "hiden": 64, "heads": 4, "vocab": -1})
    text = str(caught.value)
    assert "did you mean 'hidden'" in text
    assert "hidden - key is missing" in text or "'hidden' - key is missing" in text
    assert "vocab" in text


def test_kinds_of_layer_in_a_model_file_as_the_page_shows_them() -> None:
    """Qwen3-Next: 79.67 B counted, 3.87 B of a token; 36 of 48 layers have a state."""
    model = load_model(yaml.safe_load(EXAMPLE))
    assert model.params() / 1e9 == pytest.approx(79.67, rel=0.01)
    assert model.params(active=True) / 1e9 == pytest.approx(3.87, rel=0.02)
    assert sum(count for kind, count in model.runs if kind.recurrence) == 36
    assert all(bool(kind.heads) != bool(kind.recurrence) for kind in model.kinds)


SMALL = {"layers": 4, "hidden": 64, "heads": 4, "vocab": 100}
STATE = {"kind": "mamba2", "heads": 4, "key_dim": 16, "value_dim": 16}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"blocks": {"AB": {}}, "pattern": "A"}, "expected a letter for each kind"),
        ({"blocks": {"A": {}}, "pattern": "AB"}, "expected letters among A"),
        ({"blocks": {"A": {}}}, "expected letters among A"),
        ({"blocks": {"A": {}}, "pattern": "AAA"}, "do not divide the 4 layers"),
        ({"blocks": {"A": {"layers": 3}}, "pattern": "A"}, "unknown key"),
        ({"blocks": {"A": {"recurrence": STATE | {"kind": "rnn"}}}, "pattern": "A"}, "one of gated_delta"),
        ({"blocks": {"A": {"recurrence": {"kind": "conv"}}}, "pattern": "A"}, "keys are missing: heads"),
        ({"blocks": {"A": {"heads": 0, "ffn_hidden": 0}}, "pattern": "A"}, "has neither attention"),
        ({"blocks": {"A": {"kv_heads": 3}}, "pattern": "A"}, "expected a divisor of the 4 heads"),
        ({"gate": "both"}, "expected head or element"),
        ({"indexer": {"heads": 4, "dim": 0, "top_k": 8}}, "expected a number above 0"),
    ],
)  # fmt: skip
def test_kinds_of_layer_that_make_no_sense_are_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(SMALL | more)
    assert words in str(caught.value)


def test_unknown_names_suggest() -> None:
    with pytest.raises(InputError, match="did you mean 'deepseek-v3'"):
        load_model("deepseek-v4")
