"""Recipes of 8 and 4 bits: what their casts move, and how that changes a step."""

import json
from pathlib import Path

import pytest

from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.formats import cast_factor, recipes
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import simulate_step


def case(
    tmp_path: Path, stack: str, recipe: str, node: str = "h100-8", precision: str = "fp8"
) -> Scenario:
    """A small model in 8 bits on one node."""
    training = {"sequence_length": 4096, "global_batch": 8, "precision": precision}
    data = {"question": "q", "model": "llama3-8b", "stack": stack, "cluster": {"node": node, "nodes": 1},
            "training": training | ({"recipe": recipe} if recipe else {}), "parallel": {"tp": 8}}  # fmt: skip
    path = tmp_path / "narrow.yaml"
    path.write_text(json.dumps(data))
    return load_cases(path)[0]


def cast_seconds(scenario: Scenario) -> float:
    """Time of the casts in a step."""
    return simulate_step(scenario).breakdown["cast"]


def test_bytes_of_a_cast_are_what_is_read_and_written() -> None:
    # 2 bytes read; an operand and its transpose written with their scales; a maximum first: 2 more
    both = {name: 2 + 2 * (0.5 if r.precision == "fp4" else 1.0) + 2 * r.scale_bytes
            for name, r in recipes().items()}  # fmt: skip
    before = {"tensorwise": 2, "rowwise": 2, "nvfp4": 2}
    assert {n: r.cast_bytes for n, r in recipes().items()} == {
        n: b + before.get(n, 0) for n, b in both.items()
    }


def test_a_recipe_moves_the_casts_in_proportion_to_its_bytes(tmp_path: Path) -> None:
    own = cast_seconds(case(tmp_path, "megatron-core", "delayed"))
    assert cast_seconds(case(tmp_path, "megatron-core", "")) == own
    slower = cast_seconds(case(tmp_path, "megatron-core", "tensorwise"))
    assert slower == pytest.approx(1.5 * own, rel=0.03)  # but for the time to begin a kernel
    assert cast_factor("delayed", "torchtitan") == pytest.approx(4 / 6)


def test_a_stack_of_several_recipes_keeps_its_own_and_says_so(tmp_path: Path) -> None:
    said = case(tmp_path, "megatron-core-2025", "tensorwise")
    assert cast_seconds(said) == cast_seconds(case(tmp_path, "megatron-core-2025", ""))
    assert any("whatever their recipe" in words for words in said.assumptions)
    other = case(tmp_path, "megatron-core", "tensorwise")
    assert any("1.50 times the bytes of delayed" in words for words in other.assumptions)


def test_four_bits_are_nvfp4(tmp_path: Path) -> None:
    four = case(tmp_path, "megatron-core", "", "b200-8", "fp4")
    assert four.training.recipe == "nvfp4"
    assert any("1.28 times the bytes of delayed" in words for words in four.assumptions)
