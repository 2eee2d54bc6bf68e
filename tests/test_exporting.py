"""What is exported is read back as the same model, training and layout, for what both can say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.exporting.formats import WRITERS, export_scenario
from ersatz.sim.importing.cases import load_any
from ersatz.sim.importing.formats import import_file
from ersatz.sim.plan.layout import even_or_by_load, pipeline_length
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Scenario

ROOT = Path(__file__).resolve().parents[1]
ENDINGS = {"primus": "yaml", "automodel": "yaml", "torchtitan": "toml", "deepspeed": "json"}
SHIPPED = [path for path in sorted((ROOT / "scenarios").glob("*.yaml"))
           if re.search(r"^(cases|parallel|training):", path.read_text(), re.M)]  # fmt: skip


def scenarios() -> list[Scenario]:
    """Every case of every shipped scenario of a training job."""
    found = []
    for path in SHIPPED:
        found += [replace(case, name=f"{path.stem}/{case.name}") for case in load_cases(path)]
    return found


CASES = scenarios()
LAYOUT = ("tp", "pp", "vp", "cp", "ep", "zero", "dp", "recompute", "shard")
SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "gated", "tied", "latent",
         "predict_layers", "lora_rank", "fused_attention")  # fmt: skip


def back(tmp_path: Path, case: Scenario, to: str) -> Scenario:
    """Export a case and import it again on the same machines."""
    path = tmp_path / f"x.{ENDINGS.get(to, 'sh')}"
    path.write_text(export_scenario(case, to).text)
    pool = case.pools[0]
    more = [f"cluster.node={pool.node.name}"]
    asked = {q.key for q in import_file(path).questions}
    if "cluster.nodes" in asked:
        more.append(f"cluster.nodes={pool.nodes}")
    (again,) = load_any(path, more)
    return again


@pytest.mark.parametrize("to", ["megatron", "mindspeed", "slurm", "primus"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_import_of_export_is_the_same(tmp_path: Path, case: Scenario, to: str) -> None:
    if len(case.pools) > 1:
        assert any("pools" in words for words in export_scenario(case, to).unsaid)
        return
    again, said = back(tmp_path, case, to), " ".join(export_scenario(case, to).unsaid)
    for key in SIZES:
        assert getattr(again.model, key) == getattr(case.model, key), key
    a, b = again.model.experts, case.model.experts
    assert (a and replace(a, groups_limit=0)) == (b and replace(b, groups_limit=0))
    for key in LAYOUT:
        if key == "shard" and case.parallel.shard in (0, case.parallel.dp):
            continue
        assert getattr(again.parallel, key) == getattr(case.parallel, key), key
    if case.model.experts:
        assert again.parallel.etp == case.parallel.etp
    if "schedule" not in said:
        assert again.parallel.schedule == case.parallel.schedule or case.parallel.pp == 1
        length = pipeline_length(case.parallel)
        dealt = case.parallel.chunk_layers or even_or_by_load(case.model, length)
        assert (again.parallel.chunk_layers or even_or_by_load(again.model, length)) == dealt
    if case.parallel.cp > 1:
        assert again.parallel.cp_comm == case.parallel.cp_comm
    for key in ("sequence_length", "global_batch", "micro_batch", "precision"):
        assert getattr(again.training, key) == getattr(case.training, key), key
    if case.training.tokens:
        step = case.training.global_batch * case.training.sequence_length
        assert abs(again.training.tokens - case.training.tokens) <= step  # whole steps


def test_torchtitan_and_automodel_of_a_known_model(tmp_path: Path) -> None:
    """Llama 3 8B on 64 devices: both name it; what they cannot say is listed."""
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "question: q\nmodel: llama3-8b\nstack: torchtitan\ncluster: {node: h100-8, nodes: 8}\n"
        "training: {sequence_length: 8192, global_batch: 64, micro_batch: 2, steps: 100}\n"
        "parallel: {tp: 2, zero: 3, recompute: full}\n"
    )
    (case,) = load_cases(scenario)
    for to in ("torchtitan", "automodel"):
        again = back(tmp_path, case, to)
        assert replace(again.model, name="", source="") == replace(case.model, name="", source="")
        assert again.training == case.training
        for key in LAYOUT:
            if key != "shard":
                assert getattr(again.parallel, key) == getattr(case.parallel, key), (to, key)


def test_deepspeed_settings(tmp_path: Path) -> None:
    """64 = 2 x 4 rounds x dp 8; the model and the machines stand in the command."""
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "question: q\nmodel: llama3-8b\ncluster: {node: h100-8, nodes: 1}\n"
        "training: {sequence_length: 8192, global_batch: 64, micro_batch: 2}\nparallel: {zero: 2}\n"
    )
    found = export_scenario(load_cases(scenario)[0], "deepspeed")
    path = tmp_path / "ds.json"
    path.write_text(found.text)
    read = import_file(path).scenario
    assert read["training"]["global_batch"] == 64
    assert read["training"]["micro_batch"] == 2
    assert read["parallel"]["zero"] == 2
    assert '"gradient_accumulation_steps": 4' in found.text
    assert any("model" in words for words in found.unsaid)


def test_what_cannot_be_said_is_listed_and_remarked() -> None:
    case = next(c for c in CASES if len(c.pools) == 1 and c.model.experts)
    odd = replace(case, parallel=replace(case.parallel, schedule="zb-h1"))
    found = export_scenario(odd, "megatron")
    assert any("zb-h1" in words for words in found.unsaid)
    assert "# not said: parallel.schedule zb-h1" in found.text


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'megatron'"):
        export_scenario(CASES[0], "megatorn")
    assert set(WRITERS) == {
        "megatron",
        "mindspeed",
        "primus",
        "torchtitan",
        "automodel",
        "deepspeed",
        "slurm",
    }
