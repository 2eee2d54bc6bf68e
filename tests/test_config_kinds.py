"""Keys of configurations that were passed over, or read for another: each is read, said or refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.test_configs import LLAMA, ROUTED, read, refusal, words

NOVEL = {**LLAMA, "model_type": "novel"}
EXPERTS = {**ROUTED, "model_type": "novel_moe"}
DEEPSEEK = {"model_type": "deepseek_v3", "num_hidden_layers": 4}


def said(tmp_path: Path, config: dict[str, Any]) -> str:
    return " | ".join(read(tmp_path, config).notes)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NOVEL | {"num_kv_heads": 4}, "num_key_value_heads: '8' - num_kv_heads says 4"),
        (NOVEL | {"kv_channels": 64, "head_dim": 128}, "they mean the same"),
        (NOVEL | {"ffn_dim": 11008}, "they mean the same"),
        (NOVEL | {"n_head": 16}, "they mean the same"),
        (EXPERTS | {"expert_ffn_hidden_size": 1536}, "they mean the same"),
        (EXPERTS | {"n_shared_experts": 1, "num_shared_experts": 2}, "they mean the same"),
        (
            NOVEL | {"tie_word_embeddings": True, "tie_embeddings": False},
            "tie_word_embeddings says true",
        ),
    ],
)
def test_two_names_of_one_size_that_differ_are_refused(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(tmp_path, config)


@pytest.mark.parametrize(
    "more",
    [
        {"attention_chunk_size": 8192},
        {"window_size": 1024},
        {"sliding_window_size": 1024},
        {"attention_window_size": 2048},
        {"attention_window_length": 1024},
        {"qk_head_dim": 192},
        {"q_lora_rank": 1536},
        {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64},
        {"ffn_multiplier": 1.5},
        {"moe_interleave": 2},
        {"first_k_dense": 3},
        {"mtp_depth": 1},
        {"num_repeats": 2},
        {"ffn_dims": [4096] * 32},
        {"layers": [{"type": "attention"}] * 32},
        {"kv_sharing_map": {"3": 2}},
        {"text_config": {}, "total_ut_steps": 4},
    ],
)
def test_sizes_of_what_is_not_found_in_a_strange_model_are_refused(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """They were marked as read, or taken for harmless by the ends of their names."""
    assert "seems to shape the model and is not understood" in refusal(tmp_path, NOVEL | more)


def test_windows_that_are_off_or_of_another_kind_of_layer_say_nothing(tmp_path: Path) -> None:
    off = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
    assert read(tmp_path, NOVEL | off).window == 0
    listed = {"layer_types": ["full_attention"] * 32, "sliding_window": 512}
    assert read(tmp_path, NOVEL | listed).window == 0
    on = read(tmp_path, NOVEL | {"use_sliding_window": True, "sliding_window": 512})
    assert words(on) == " ".join(["Wd"] * 32)
    assert "expected true or false" in refusal(
        tmp_path, NOVEL | {"sliding_window": 512, "use_sliding_window": "false"}
    )


def test_any_size_may_have_a_value_for_each_layer(tmp_path: Path) -> None:
    """That of the first was every layer's."""
    half = [64] * 16 + [128] * 16
    assert [kind.head_dim for kind, _ in read(tmp_path, NOVEL | {"head_dim": half}).runs] == [
        64,
        128,
    ]
    routed = read(tmp_path, EXPERTS | {"num_experts_per_tok": [8] * 24 + [4] * 24}).runs
    assert [kind.experts.top_k for kind, _ in routed if kind.experts] == [8, 4]


@pytest.mark.parametrize(
    ("more", "gated"),
    [
        ({"mlp_gate": False}, False),
        ({"gated_ffn": False}, False),
        ({"use_gated_mlp": False}, False),
        ({"gated_mlp": True, "hidden_act": "relu"}, True),
        ({"hidden_act": "geglu"}, True),
        ({"mlp_type": "swiglu", "hidden_act": "relu"}, True),
        ({"mlp_type": "gelu", "hidden_act": "gelu"}, False),
    ],
)
def test_a_gate_in_any_name(tmp_path: Path, more: dict[str, Any], gated: bool) -> None:
    assert read(tmp_path, NOVEL | more).gated == gated


def test_a_gated_kind_of_mlp_in_a_family_without(tmp_path: Path) -> None:
    mpt = {"model_type": "mpt", "d_model": 1024, "n_layers": 2, "n_heads": 16, "vocab_size": 1000}
    assert not read(tmp_path, mpt).gated
    assert read(tmp_path, mpt | {"ffn_config": {"ffn_type": "mptglu"}}).gated


def test_parts_that_are_switched_off_are_none(tmp_path: Path) -> None:
    for key in ("use_moe", "moe_enabled", "is_moe"):
        assert read(tmp_path, EXPERTS | {key: False}).experts is None
    for key in ("enable_mtp", "use_mtp"):
        config = DEEPSEEK | {"num_nextn_predict_layers": 1, key: False}
        assert read(tmp_path, config).predict_layers == 0
    assert "of which nothing is made: enable_lora_mlp" in said(
        tmp_path, NOVEL | {"enable_lora_mlp": False}
    )


@pytest.mark.parametrize(
    "more", [{"causal_mask": False}, {"use_causal_mask": False}, {"prefix_lm": True}]
)
def test_attention_to_later_tokens_in_any_name(tmp_path: Path, more: dict[str, Any]) -> None:
    assert "attention to later tokens is not modelled" in refusal(tmp_path, NOVEL | more)


def test_ties_in_any_name(tmp_path: Path) -> None:
    gemma = {"model_type": "gemma", "num_hidden_layers": 4}
    assert not read(tmp_path, gemma | {"tie_embeddings": False}).tied
    assert "weight_tying is taken as tie_word_embeddings: true" in said(
        tmp_path, NOVEL | {"weight_tying": True}
    )


def test_positions_and_masks(tmp_path: Path) -> None:
    assert not read(tmp_path, NOVEL | {"position_embedding_type": "alibi"}).fused_attention
    assert not read(tmp_path, NOVEL | {"use_alibi": True}).fused_attention
    assert "a table of positions is not counted" in said(
        tmp_path, NOVEL | {"position_embedding_type": "learned"}
    )
    assert "causal attention is taken" in said(tmp_path, NOVEL | {"mask_token_id": 5})
    assert "has another head" in said(tmp_path, NOVEL | {"architectures": ["NovelForMaskedLM"]})


@pytest.mark.parametrize(
    ("outside", "expected"),
    [
        (
            {"num_hidden_layers": 24},
            "num_hidden_layers is 32 in the language part, which is taken, and 24",
        ),
        (
            {"num_experts": 8, "num_experts_per_tok": 2},
            "so the wrapper's: num_experts, num_experts_per_tok",
        ),
        ({"num_loops": 4}, "keys of the wrapper that are not read: num_loops"),
        ({"vision_tower": "some/tower"}, "vision_tower some/tower: a tower"),
        ({"vision_feature_layer": -2, "image_token_id": 5, "mm_hidden_size": 1024}, ""),
    ],
)
def test_what_a_wrapper_says_beside_its_language_part(
    tmp_path: Path, outside: dict[str, Any], expected: str
) -> None:
    notes = said(tmp_path, {"model_type": "wrapped", "text_config": LLAMA, **outside})
    assert expected in notes if expected else not notes


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EXPERTS | {"top_k": 2}, "top_k 2: taken to be of sampling"),
        (DEEPSEEK | {"num_experts": 64}, "num_experts is taken for n_routed_experts"),
        (
            EXPERTS | {"num_shared_experts": 2, "shared_expert_intermediate_size": 768},
            "of all 2 shared",
        ),
        (
            NOVEL | {"padded_vocab_size": 131072},
            "vocab_size 128256 is taken, not padded_vocab_size",
        ),
        (NOVEL | {"layers_block_type": ["attention"] * 32}, "each is taken as a block of one part"),
    ],
)
def test_what_may_mean_two_things_is_said(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    assert expected in said(tmp_path, config)


def test_heads_of_keys_where_a_family_has_one_and_the_file_says_many(tmp_path: Path) -> None:
    many = {
        "model_type": "gpt_bigcode",
        "multi_query": False,
        "n_embd": 2048,
        "n_head": 16,
        "n_layer": 24,
    }
    assert read(tmp_path, many).kv_heads == 16
    assert read(tmp_path, many | {"multi_query": True}).kv_heads == 1


def test_numbers_of_layers_in_a_text_are_refused(tmp_path: Path) -> None:
    for key in ("moe_layers", "mlp_only_layers"):
        assert "expected a list of the numbers of layers" in refusal(
            tmp_path, EXPERTS | {key: "0,1"}
        )


@pytest.mark.parametrize("family", ["gla", "gated_deltanet", "rwkv7", "Dream", "llada"])
def test_families_of_other_models_are_refused_by_name(tmp_path: Path, family: str) -> None:
    assert f"model_type: '{family}'" in refusal(tmp_path, LLAMA | {"model_type": family})


SMALL = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32000,
         "intermediate_size": 4096, "num_hidden_layers": 8}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "more", "key"),
    [
        (
            "mixtral",
            {"num_local_experts": 8, "moe_intermediate_size": 512},
            "moe_intermediate_size",
        ),
        ("mixtral", {"num_local_experts": 8, "n_shared_experts": 1}, "n_shared_experts"),
        ("llama", {"sliding_window": 512}, "sliding_window"),
        ("mistral", {"layer_types": ["full_attention"] * 8}, "layer_types"),
        ("llama", {"attn_output_gate": True}, "attn_output_gate"),
        ("llama", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers"),
        ("gpt_neox", {}, "num_key_value_heads"),
    ],
)
def test_keys_that_the_class_of_a_known_family_does_not_have_are_said(
    tmp_path: Path, family: str, more: dict[str, Any], key: str
) -> None:
    config = SMALL | {"model_type": family} | more
    assert f"{key}: the class of {family} has no such key" in said(tmp_path, config)


def test_sizes_that_do_not_go_together_or_are_null_are_refused(tmp_path: Path) -> None:
    falcon = SMALL | {"model_type": "falcon_h1", "mamba_n_heads": 8, "mamba_d_head": 16}
    assert "expected the 8 heads of 16" in refusal(tmp_path, falcon | {"mamba_d_ssm": 256})
    moe = {"model_type": "qwen2_moe", "shared_expert_intermediate_size": None}
    assert "expected the width of the shared experts" in refusal(tmp_path, SMALL | moe)


def test_gates_and_heads_of_keys_that_a_class_does_not_have_are_refused(tmp_path: Path) -> None:
    laguna = SMALL | {"model_type": "laguna", "num_attention_heads_per_layer": [16] * 8}
    gates = {kind.gate for kind, _ in read(tmp_path, laguna | {"gating": "per-element"}).runs}
    assert gates == {"element"}
    assert "this family always gates" in refusal(tmp_path, laguna | {"gating": False})
    delta = SMALL | {"model_type": "qwen3_next", "linear_num_key_heads": 48}
    assert "expected a divisor of the 32 heads of values" in refusal(tmp_path, delta)


def test_a_part_that_is_switched_on_and_not_there_is_said_or_refused(tmp_path: Path) -> None:
    assert "says that there are experts" in refusal(tmp_path, NOVEL | {"use_moe": True})
    assert "none are taken" in said(tmp_path, NOVEL | {"use_mtp": True})
    assert "none is taken" in said(tmp_path, NOVEL | {"use_sliding_window": True})


@pytest.mark.parametrize(
    "tower", [{"depth": 2, "hidden_size": 10**400}, {"depth": 10**101, "hidden_size": 64}]
)
def test_a_number_that_no_size_has_is_refused_wherever_it_stands(
    tmp_path: Path, tower: dict[str, int]
) -> None:
    config = {"model_type": "novel", "text_config": LLAMA, "vision_config": tower}
    assert "a number that is too large" in refusal(tmp_path, config)


NEMOTRON = {"hidden_size": 256, "num_attention_heads": 4, "vocab_size": 1000, "intermediate_size": 512,
            "hybrid_override_pattern": "ME*-", "mamba_num_heads": 8, "ssm_state_size": 16,
            "n_routed_experts": 16, "num_experts_per_tok": 2, "model_type": "novel_hybrid"}  # fmt: skip
MAMBA = {"model_type": "mamba", "hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 1000,
         "state_size": 16}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (NEMOTRON, "moe_latent_size", -64),
        (NEMOTRON, "moe_latent_size", "64"),
        (NEMOTRON, "mamba_head_dim", 0),
        (NEMOTRON, "mamba_head_dim", "wide"),
        (MAMBA, "time_step_rank", -3),
        (MAMBA, "time_step_rank", "many"),
        (LLAMA, "v_head_dim", -128),
        (LLAMA, "v_head_dim", "128"),
        (NOVEL, "attn_config", {"sliding_window_size": "wide"}),
    ],
)
def test_a_size_that_is_no_number_above_0_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], key: str, value: object
) -> None:
    read(tmp_path, config)
    assert key in refusal(tmp_path, config | {key: value})


def test_a_rank_and_a_size_that_a_class_works_out_itself_may_be_auto(tmp_path: Path) -> None:
    usual = [kind for kind, _ in read(tmp_path, MAMBA).runs]
    assert [kind for kind, _ in read(tmp_path, MAMBA | {"time_step_rank": "auto"}).runs] == usual
    read(tmp_path, NEMOTRON | {"mamba_head_dim": "auto"})
