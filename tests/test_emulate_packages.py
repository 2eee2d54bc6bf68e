"""Training packages at the size that people run them at; each is skipped where it is absent."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_emulate_torch import SCRIPTS, emulated

from tests.pace import pace

pytest.importorskip("torch", reason="the emulator runs scripts under PyTorch")

WEIGHTS = 8_030_261_248  # of Llama 3 8B
CPU_S = 8.0  # that a step may take of a quiet core


def moved(result: Any, kind: str, size: int, stride: int = 1) -> float:
    """Return the bytes that collectives of one kind and group move in a step."""
    rows = result["collectives"]
    found = [r for r in rows if (r["kind"], r["size"], r["stride"]) == (kind, size, stride)]
    return float(sum(r["count"] * r["nbytes"] for r in found))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_shards_8b_over_256_ranks(stage: int) -> None:
    """Gradients are reduced once in bf16; weights come back once, or for each pass where they are sharded."""
    pytest.importorskip("deepspeed")
    words = ["deepspeed", str(SCRIPTS / "zero.py"), "--stage", str(stage), "--layers", "32"]
    options = ["--node", "h800-8", "--nodes", "32", "--steps", "2"]
    result, said = emulated(SCRIPTS, options, [*words, "--hidden", "4096"])
    assert "loss 1.0" in said
    reduced = moved(result, "reduce_scatter" if stage == 3 else "all_reduce", 256)
    assert reduced == pytest.approx(2 * WEIGHTS, rel=0.01)
    gathered = moved(result, "all_gather", 256)
    if stage < 3:
        assert gathered == pytest.approx(2 * WEIGHTS, rel=0.01)
    else:  # what ends the forward pass and begins the backward stays
        assert 3.5 * WEIGHTS < gathered < 4 * WEIGHTS
    row = result["ranks"][0]
    assert row["cpu_s"] < pace() * (3 * CPU_S + 4)  # three steps and what comes before them
    assert row["rss_bytes"] < 3e9


def written_data(folder: Path) -> Path:
    """Write words and a tokenizer of them where torchtitan's test data would lie."""
    tokenizers = pytest.importorskip("tokenizers")
    draw = random.Random(0)
    words = sorted({"".join(draw.choices("abcdefghij", k=4)) for _ in range(3000)})[:1900]
    text = folder / "tests" / "assets" / "c4_test" / "data.json"
    text.parent.mkdir(parents=True)
    rows = [{"text": " ".join(draw.choices(words, k=3000))} for _ in range(60)]
    text.write_text("\n".join(map(json.dumps, rows)))
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    place = folder / "tokenizer"
    place.mkdir()
    made.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    return place


def torchtitan(folder: Path, nodes: int, config: str, *options: str) -> tuple[Any, str]:
    """Return an emulation of torchtitan's own training program."""
    for name in ("torchtitan", "datasets", "triton"):
        pytest.importorskip(name)
    words = ["torchrun", "--nproc-per-node", "8", "-m", "torchtitan.train", "--module", "llama3",
             "--config", config, "--hf_assets_path", str(written_data(folder)), "--dataloader.dataset",
             "c4_test", "--metrics.log_freq", "1", "--metrics.no-enable_tensorboard",
             "--profiler.no-enable_profiling", "--validator.no-enable",
             "--parallelism.spmd_backend", "partial_dtensor", *options]  # fmt: skip
    return emulated(folder, ["--node", "h800-8", "--nodes", str(nodes), "--steps", "2"], words)


@pytest.mark.slow
def test_torchtitan_shards_8b_over_64_ranks(tmp_path: Path) -> None:
    """Gathers of 34 groups of weights in each pass, one reduction of each; captured as a graph."""
    result, said = torchtitan(tmp_path, 8, "llama3_8b")
    assert "Recorded CUDA graph" in said
    assert "tps:" in said
    assert moved(result, "reduce_scatter", 64) == pytest.approx(4 * WEIGHTS, rel=0.01)
    assert 3.5 * WEIGHTS < moved(result, "all_gather", 64) < 4.2 * WEIGHTS
    assert any("CUDA graphs" in line for line in result["assumptions"])
    assert not any(
        "half of all keys" in line for line in result["assumptions"]
    )  # its mask is known
    assert result["ranks"][0]["cpu_s"] < pace() * 3 * CPU_S
    assert result["ranks"][0]["rss_bytes"] < 3e9


@pytest.mark.slow
def test_torchtitan_splits_tensors_of_8b_in_eight(tmp_path: Path) -> None:
    """Eight ranks of a node hold an eighth of each product, eight nodes an eighth of that."""
    result, _ = torchtitan(tmp_path, 8, "llama3_8b", "--parallelism.tensor_parallel_degree", "8")
    assert moved(result, "reduce_scatter", 8, 8) == pytest.approx(4 * WEIGHTS / 8, rel=0.02)
    activations = 8192 * 4096 * 2  # of a layer's borders: each is gathered and scattered whole
    rows = {(r["kind"], r["size"], r["stride"]): r for r in result["collectives"]}
    inside = rows["reduce_scatter", 8, 1]
    assert inside["nbytes"] == pytest.approx(activations, rel=0.03)
    assert inside["count"] >= 4 * 32
    assert rows["all_gather", 8, 1]["count"] > inside["count"]  # recomputed layers gather once more
