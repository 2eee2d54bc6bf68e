"""Configurations: published models counted, each way of saying which layer is what, and what is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.step.build import build_program
from ersatz.sim.step.folded import folded_step
from ersatz.sim.workload.configs.families import family_names, family_of
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import load_model
from ersatz.sim.workload.recurrence import RECURRENCES

PUBLISHED = json.loads((Path(__file__).parent / "data" / "model_configs.json").read_text())[
    "models"
]


def unpacked(value: Any) -> Any:
    """Write out a list that is stored as what is repeated, and what stands before and after."""
    if isinstance(value, dict) and "repeat" in value:
        head, period = value.get("head", []), value["repeat"]
        length = value["to"] - len(head)
        middle = (period * (length // len(period) + 1))[:length]
        return [*head, *middle, *value.get("tail", [])]
    if isinstance(value, dict):
        return {key: unpacked(inner) for key, inner in value.items()}
    return value


def config_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = unpacked(PUBLISHED[name]["config"])
    return found


def read(tmp_path: Path, config: object) -> Model:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config, indent=1))
    return load_model(str(path))


def refusal(tmp_path: Path, config: object) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, config)
    return str(caught.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_counted_right(tmp_path: Path, name: str) -> None:
    """All weights within 1 %, those of a token within 2 %; none of these is refused."""
    stated, model = PUBLISHED[name], read(tmp_path, config_of(name))
    assert model.params() / 1e6 == pytest.approx(stated["total"], rel=0.01)
    assert model.params(active=True) / 1e6 == pytest.approx(stated["active"], rel=0.02)


def words(model: Model) -> str:
    """Write the layers as letters: A attention, W a window, S sparse, R a recurrence; d, m or nothing."""
    letters = []
    for kind, count in model.runs:
        mixer = "S" if kind.indexer else "W" if kind.window else "A" if kind.heads else ""
        mixer += "R" if kind.recurrence else ""
        feed = "m" if kind.experts else "d" if kind.ffn_hidden else ""
        letters += [mixer + feed] * count
    return " ".join(letters)


SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
         "intermediate_size": 128, "num_hidden_layers": 4}  # fmt: skip
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
         "linear_value_head_dim": 16}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}


@pytest.mark.parametrize(
    ("family", "more", "expected"),
    [
        ("qwen3_moe", MOE | {"decoder_sparse_step": 2}, "Ad Am Ad Am"),
        ("qwen3_moe", MOE | {"mlp_only_layers": [0, 3]}, "Ad Am Am Ad"),
        ("glm4_moe", MOE | {"first_k_dense_replace": 2, "head_dim": 16}, "Ad Ad Am Am"),
        ("glm4_moe", MOE | {"mlp_layer_types": ["sparse", "dense", "sparse", "dense"],
                            "first_k_dense_replace": 3}, "Am Ad Am Ad"),
        ("ernie4_5_moe", {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 32,
                          "moe_layer_start_index": 1, "moe_layer_end_index": 2}, "Ad Am Am Ad"),
        ("jamba", MOE | {"attn_layer_period": 4, "attn_layer_offset": 2}, "Rd Rm Ad Rm"),
        ("llama4_text", {"num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
                         "intermediate_size_mlp": 256}, "Wd Wm Wd Am"),
        ("qwen3_next", MOE | DELTA | {"head_dim": 32}, "Rm Rm Rm Am"),
        ("qwen3_5_text", DELTA | {"layer_types": ["full_attention"] + ["linear_attention"] * 3},
         "Ad Rd Rd Rd"),
        ("gemma3_text", {"num_hidden_layers": 7}, "Wd Wd Wd Wd Wd Ad Wd"),
        ("gemma2", {}, "Wd Ad Wd Ad"),
        ("mistral", {}, "Wd Wd Wd Wd"),
        ("mistral", {"sliding_window": None}, "Ad Ad Ad Ad"),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": False}, "Ad Ad Ad Ad"),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 3}, "Ad Ad Ad Wd"),
        ("exaone4", {"sliding_window_pattern": "LLG"}, "Wd Wd Ad Wd"),
        ("granitemoehybrid", MAMBA | {"layer_types": ["mamba", "attention"] * 2, "num_local_experts": 0},
         "Rd Ad Rd Ad"),
        ("bamba", MAMBA | {"attn_layer_indices": [3]}, "Rd Rd Rd Ad"),
        ("falcon_h1", MAMBA | {"mamba_d_ssm": 128}, "ARd ARd ARd ARd"),
        ("lfm2", {"full_attn_idxs": [1, 3]}, "Rd Ad Rd Ad"),
        ("recurrent_gemma", {}, "Rd Rd Wd Rd"),
        ("minimax_m1", {"num_local_experts": 4, "num_experts_per_tok": 2, "attn_type_list": [0, 0, 0, 1]},
         "Rm Rm Rm Am"),
        ("mamba2", {"num_heads": 8, "head_dim": 16, "state_size": 16}, "R R R R"),
        ("gpt_neo", {"attention_layers": ["global", "local"]}, "Ad Wd Ad Wd"),
        ("doge_like", MOE, "Am Am Am Am"),
    ],
)  # fmt: skip
def test_which_layer_is_what(
    tmp_path: Path, family: str, more: dict[str, Any], expected: str
) -> None:
    assert words(read(tmp_path, SMALL | {"model_type": family} | more)) == expected


def test_one_block_patterns_and_blocks_of_a_search(tmp_path: Path) -> None:
    nano = config_of("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    letters = words(read(tmp_path, nano)).split(" ")
    assert (
        "".join({"R": "M", "m": "E", "A": "*"}[word] for word in letters)
        == nano["hybrid_override_pattern"]
    )
    nas = read(tmp_path, config_of("nvidia--Llama-3_3-Nemotron-Super-49B-v1"))
    assert sum(count for kind, count in nas.runs if not kind.heads) == 31
    assert len({kind.ffn_hidden for kind in nas.kinds}) > 5


def kinds(tmp_path: Path, family: str, more: dict[str, Any]) -> list[Layer]:
    model = read(tmp_path, SMALL | {"model_type": family} | more)
    return [kind for kind, count in model.runs for _ in range(count)]


def test_heads_experts_and_keys_may_differ_by_layer(tmp_path: Path) -> None:
    found = kinds(
        tmp_path, "laguna", {"num_attention_heads_per_layer": [4, 8, 4, 8], "head_dim": 16}
    )
    assert [kind.heads for kind in found] == [4, 8, 4, 8]
    assert all(kind.gate == "head" for kind in found)
    over = {"per_layer_config": {"03": {"head_dim": 32}}, "head_dim": 16}
    assert [kind.head_dim for kind in kinds(tmp_path, "gemma4_text", over)] == [16, 16, 16, 32]
    shared = kinds(tmp_path, "gemma4_text", {"num_kv_shared_layers": 2})
    assert [kind.shares_keys for kind in shared] == [False, False, True, True]
    across = kinds(tmp_path, "hunyuan", {"use_cla": True, "cla_share_factor": 2})
    assert [kind.shares_keys for kind in across] == [False, True, False, True]
    lists = {"num_experts": 8, "moe_topk": [1, 2, 1, 2], "moe_intermediate_size": [32, 32, 16, 16]}
    routed = [kind.experts for kind in kinds(tmp_path, "hunyuan", lists)]
    assert [(e.top_k, e.hidden) for e in routed if e] == [(1, 32), (2, 32), (1, 16), (2, 16)]


def test_indexers_are_shared_where_the_file_says_so(tmp_path: Path) -> None:
    model = read(tmp_path, config_of("zai-org--GLM-5.2"))
    found = [
        kind.indexer.shared for kind, count in model.runs for _ in range(count) if kind.indexer
    ]
    assert (found.count(False), found.count(True)) == (21, 57)


@pytest.mark.parametrize(
    ("more", "limit"),
    [({"n_group": 1, "topk_group": 1}, 0), ({"topk_group": 1}, 0), ({"n_group": 8, "topk_group": 4}, 4),
     ({"n_group": 4, "topk_group": 4}, 0), ({"n_group": None, "topk_group": None}, 0)],
)  # fmt: skip
def test_groups_of_experts_limit_nodes_only_if_some_are_left_out(
    tmp_path: Path, more: dict[str, Any], limit: int
) -> None:
    found = kinds(tmp_path, "kimi_k2", MOE | more)[0].experts
    assert found
    assert found.groups_limit == limit


def test_the_language_part_is_found_however_deep_and_towers_are_said(tmp_path: Path) -> None:
    plain = SMALL | {"model_type": "qwen3", "head_dim": 16}
    tower = {"hidden_size": 1000, "depth": 10, "intermediate_size": 4000}
    deep = {"model_type": "x", "thinker_config": {"vision_config": tower, "text_config": plain},
            "tie_word_embeddings": True}  # fmt: skip
    model = read(tmp_path, deep)
    assert model.runs == read(tmp_path, plain).runs
    assert model.tied
    said = "vision tower left out, about 0.12 B weights"  # 10 x (4 + 8) x 1000^2
    assert any(said in note for note in model.notes)


def test_an_absent_key_has_the_default_of_its_class_and_that_is_said(tmp_path: Path) -> None:
    small = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    model = read(
        tmp_path, small | {"model_type": "cohere", "num_attention_heads": 64, "hidden_size": 1024}
    )
    assert model.tied
    assert model.kv_heads == 64
    assert any(
        "num_key_value_heads 64" in note and "class default of cohere" in note
        for note in model.notes
    )


def test_a_family_nobody_knows_is_read_and_said(tmp_path: Path) -> None:
    model = read(tmp_path, SMALL | {"model_type": "novel", "hidden_act": "silu", "colour": "red"})
    assert any("novel" in note and "not known" in note for note in model.notes)
    assert any("colour" in note for note in model.notes)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"novel_rank": 8}, "config.json:8:1: novel_rank: '8' - seems to shape the model"),
        ({"model_type": "rwkv"}, "model_type: 'rwkv' - RWKV is not modelled"),
        ({"model_type": "bert"}, "encoders and their kin are not modelled"),
        ({"is_encoder_decoder": True}, "encoders are not modelled"),
        ({"n_routed_experts": 8, "moe_intermediate_size": 32}, "how many experts a token visits"),
        ({"layer_types": ["full_attention", "retention"] * 2}, "is not modelled (2 of 4 layers)"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "ME*"}, "the pattern has 3 layers"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "MEX-"}, "expected M (Mamba-2)"),
        ({"num_key_value_heads": 3}, "expected a divisor of the 4 heads"),
        ({"hidden_size": 66}, "does not divide the hidden size 66, and no head_dim is given"),
        ({"layer_types": ["sliding_attention"] * 4}, "lacks what gives the window"),
        ({"mlp_layer_types": ["dense", "gated"] * 2} | MOE, "a kind of MLP that is not modelled"),
        ({"compress_ratios": [0, 4], "o_lora_rank": 8}, "expected 0, 4 or 128"),
        ({"model_type": "lfm3"}, "lacks what gives the kinds of layer"),
        ({"model_type": "opt", "word_embed_proj_dim": 32}, "another width"),
        ({"linear_attn_config": {"kda_layers": [0, 1], "full_attn_layers": [2, 3]}}, "from 1 on"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, more: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(tmp_path, SMALL | more)


MPT = {"model_type": "mpt", "d_model": 1024, "n_layers": 2, "n_heads": 16, "vocab_size": 1000}


def test_keys_within_a_section_are_read_or_refused(tmp_path: Path) -> None:
    """A section of which one key was read had hidden all others: many heads for one, no window."""

    def mpt(**attention: object) -> dict[str, object]:
        return {**MPT, "attn_config": {"attn_type": "multihead_attention", **attention}}

    assert read(tmp_path, mpt(attn_impl="flash", qk_ln=True)).kv_heads == 16
    assert read(tmp_path, mpt(attn_type="multiquery_attention")).kv_heads == 1
    assert read(tmp_path, mpt(attn_type="grouped_query_attention", kv_n_heads=4)).kv_heads == 4
    assert "needs kv_n_heads beside it" in refusal(
        tmp_path, mpt(attn_type="grouped_query_attention")
    )
    assert "attn_config.kv_dim: '64' - seems to shape" in refusal(tmp_path, mpt(kv_dim=64))
    assert "a window here is not read" in refusal(tmp_path, mpt(sliding_window_size=512))
    assert read(tmp_path, mpt(sliding_window_size=-1)).window == 0


def test_every_family_has_an_entry_that_is_understood() -> None:
    for name in family_names():
        family = family_of(name)
        assert family.known
        assert family.recurrence in ("", *RECURRENCES)
        assert family.gate in ("", "head", "element")
        assert family.refused or isinstance(family.defaults, dict)


SCENARIO = """question: How long is a step?
model: {model}
cluster: {{node: {node}, nodes: {nodes}}}
training: {{sequence_length: {sequence}, global_batch: 64, micro_batch: 1, precision: bf16}}
parallel: {parallel}
"""


def step(
    tmp_path: Path, model: str, nodes: int, sequence: int, parallel: str, node: str = "h800-8"
) -> float:
    path = tmp_path / "scenario.yaml"
    path.write_text(
        SCENARIO.format(model=model, node=node, nodes=nodes, sequence=sequence, parallel=parallel)
    )
    return float(folded_step(build_program(load_cases(path)[0])[0]))


def write(tmp_path: Path, name: str, **more: Any) -> str:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(config_of(name) | more))
    return str(path)


def test_gpt_oss_by_config_is_the_same_model_inline(tmp_path: Path) -> None:
    layout = "{tp: 4, ep: 16, cp: 4, recompute: full}"
    inline = ("{layers: 36, hidden: 2880, heads: 64, kv_heads: 8, head_dim: 64, vocab: 201088, window: 128,"
              " experts: {routed: 128, top_k: 4, hidden: 2880}}")  # fmt: skip
    by_file = step(tmp_path, write(tmp_path, "openai--gpt-oss-120b"), 8, 131072, layout)
    assert by_file == step(tmp_path, inline, 8, 131072, layout)
    whole = inline.replace("window: 128,", "")
    assert step(tmp_path, whole, 8, 131072, layout) > 1.3 * by_file


def test_traffic_of_kimi_k2_does_not_depend_on_topk_group(tmp_path: Path) -> None:
    layout = "{pp: 8, ep: 8, recompute: full}"
    name = "moonshotai--Kimi-K2-Instruct"
    as_is = step(tmp_path, write(tmp_path, name), 8, 4096, layout)
    without = step(tmp_path, write(tmp_path, name, topk_group=None), 8, 4096, layout)
    assert as_is == without


def test_sparse_attention_of_deepseek_v32_is_not_quadratic(tmp_path: Path) -> None:
    model = read(tmp_path, config_of("deepseek-ai--DeepSeek-V3.2"))
    dense = read(tmp_path, config_of("deepseek-ai--DeepSeek-V3"))
    index = 61 * 2.0 * 64 * 129 / 2
    core = {n: model.attention_flop_per_token(n, causal=True) - index * n for n in (65536, 131072)}
    assert core[131072] == pytest.approx(core[65536], rel=0.02)
    assert dense.attention_flop_per_token(131072, causal=True) > 9 * core[131072]
    layout = "{pp: 8, ep: 8, cp: 8, recompute: full}"
    sparse, full = (step(tmp_path, write(tmp_path, f"deepseek-ai--DeepSeek-{v}"), 8, 131072, layout)
                    for v in ("V3.2", "V3"))  # fmt: skip
    assert sparse < 0.6 * full


def test_a_step_of_nemotron_3_nano_is_that_of_a_hybrid(tmp_path: Path) -> None:
    """3.6 B active of 31.6 B: 6 FLOPs for each and little attention, so a few seconds, not minutes."""
    name = "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"
    seconds = step(tmp_path, write(tmp_path, name), 1, 8192, "{ep: 8}", node="h100-8")
    model = read(tmp_path, config_of(name))
    ideal = 64 * 8192 * model.flop_per_token(8192, causal=True) / (8 * 989.4e12)
    assert ideal < 2
    assert 1.8 * ideal < seconds < 6 * ideal
    recurrent = sum(count for kind, count in model.runs if kind.recurrence)
    assert (recurrent, sum(count for kind, count in model.runs if kind.heads)) == (23, 6)


def test_uneven_layers_are_dealt_out_by_load_and_said(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    model = write(tmp_path, "deepseek-ai--DeepSeek-V3")
    path.write_text(SCENARIO.format(model=model, node="h800-8", nodes=16, sequence=4096,
                                    parallel="{pp: 16, ep: 8}"))  # fmt: skip
    scenario = load_cases(path)[0]
    assert any("61 layers do not divide over 16 chunks and are dealt out by load" in words
               for words in scenario.assumptions)  # fmt: skip
    assert len(plan_memory(scenario, advise=False).by_stage) == 16


def test_prediction_modules_are_as_many_as_are_used(tmp_path: Path) -> None:
    """MiniMax-M2.5 has three modules of one layer; they may be off, or have two layers each."""
    config = config_of("MiniMaxAI--MiniMax-M2.5")
    assert read(tmp_path, config).predict_layers == 3
    assert read(tmp_path, config | {"use_mtp": False}).predict_layers == 0
    assert read(tmp_path, config | {"mtp_transformer_layers": 2}).predict_layers == 6


def test_what_a_family_does_not_heed_is_said_or_refused(tmp_path: Path) -> None:
    """Classes that always gate, or never tie, whatever a key says."""
    qwen = config_of("Qwen--Qwen3.5-27B")
    inner = qwen.get("text_config", qwen)
    inner["attn_output_gate"] = False
    assert "attention of this family always has a gate" in refusal(tmp_path, qwen)
    hybrid = config_of("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16") | {
        "tie_word_embeddings": True
    }
    said = read(tmp_path, hybrid)
    assert not said.tied
    assert any("does not heed" in words for words in said.notes)


def test_ratios_of_compression_are_as_many_as_layers(tmp_path: Path) -> None:
    config = config_of("deepseek-ai--DeepSeek-V4-Flash")
    rows = config["compress_ratios"]
    assert "for each of" in refusal(tmp_path, config | {"compress_ratios": [*rows, 4, 4]})
    assert "for each of" in refusal(tmp_path, config | {"compress_ratios": rows[:-5]})


LLAMA = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}  # fmt: skip
ROUTED = {"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
          "moe_intermediate_size": 768, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
          "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "has another head, or none"),
        ({"architectures": ["LlamaModel"]}, "has another head, or none"),
        ({"_attn_implementation": "eager"}, "the stack's attention is taken"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "are stored by gptq"),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, "the class of llama has no such key"),
        (
            {"talker_config": {"hidden_size": 896, "num_hidden_layers": 24}},
            "talker_config has layers of its own, which are left out",
        ),
    ],
)
def test_what_the_class_of_a_family_does_not_have_is_said(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    assert said in " | ".join(read(tmp_path, LLAMA | keys).notes)


def test_nothing_is_said_of_what_a_class_has(tmp_path: Path) -> None:
    for name in ("LlamaForCausalLM", "GPT2LMHeadModel", "Qwen3VLMoeForConditionalGeneration"):
        assert read(tmp_path, LLAMA | {"architectures": [name]}).notes == ()
    assert "no such key" not in " | ".join(read(tmp_path, ROUTED).notes)
    shared = read(tmp_path, ROUTED | {"shared_expert_intermediate_size": 768}).notes
    assert "the class of qwen3_moe has no such key" in " | ".join(shared)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (LLAMA | {"is_causal": False}, "is_causal"),
        (LLAMA | {"use_mla": False, "kv_lora_rank": 512}, "use_mla"),
        (LLAMA | {"model_type": "ouro", "total_ut_steps": 4}, "total_ut_steps"),
        (LLAMA | {"model_type": "foo", "mtp_config": {"num_layers": 2}}, "mtp_config"),
        (LLAMA | {"model_type": "foo", "attn_pattern": "SSSF"}, "attn_pattern"),
        (LLAMA | {"model_type": "foo", "ffn_dim_multiplier": 1.3}, "ffn_dim_multiplier"),
        (LLAMA | {"model_type": "foo", "hyper_connection_rate": 4}, "hyper_connection_rate"),
        (ROUTED | {"moe_layer_freq": "([0]*3+[1]*45)"}, "moe_layer_freq"),
        (ROUTED | {"moe_intermediate_size": None}, "moe_intermediate_size"),
    ],
)
def test_keys_of_another_model_are_refused_by_name(
    tmp_path: Path, config: dict[str, Any], key: str
) -> None:
    """Were read as if they were not there."""
    assert f"{key}:" in refusal(tmp_path, config)


def test_a_window_of_each_layer_is_that_layer_s(tmp_path: Path) -> None:
    """Was the first one's, in all."""
    rows = [4096] * 16 + [None] * 16
    model = read(tmp_path, LLAMA | {"model_type": "foo", "sliding_window": rows})
    assert [(kind.window, count) for kind, count in model.blocks] == [(4096, 16), (0, 16)]


def test_a_gate_that_is_switched_off_is_none(tmp_path: Path) -> None:
    plain = read(tmp_path, LLAMA | {"model_type": "foo", "use_swiglu": False})
    assert not plain.gated
    assert "use_swiglu is false" in " | ".join(plain.notes)


def test_a_tower_s_width_is_not_that_of_its_results(tmp_path: Path) -> None:
    """Qwen2-VL: 32 layers of 1,280, which are projected to the model's own 3,584."""
    tower = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4}
    notes = read(tmp_path, LLAMA | {"vision_config": tower}).notes
    assert "about 0.63 B weights" in " | ".join(notes)
