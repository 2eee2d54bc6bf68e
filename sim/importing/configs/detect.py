"""Tell the formats of YAML and TOML apart by their top keys."""

from __future__ import annotations

from collections.abc import Set

# The first whose keys all stand on top counts.
MARKS: tuple[tuple[str, frozenset[str]], ...] = (
    ("primus-yaml", frozenset({"modules"})),
    ("flagscale-yaml", frozenset({"experiment"})),
    ("flagscale-yaml", frozenset({"system", "model", "data"})),
    ("automodel-yaml", frozenset({"step_scheduler", "model"})),
    ("bridge-yaml", frozenset({"model", "train", "ddp"})),
    ("bridge-yaml", frozenset({"model", "train", "optimizer"})),
    ("megatron-yaml", frozenset({"MODEL_ARGS"})),
    ("llamafactory-yaml", frozenset({"model_name_or_path"})),
    ("axolotl-yaml", frozenset({"base_model"})),
    ("accelerate-yaml", frozenset({"distributed_type"})),
    ("verl-yaml", frozenset({"actor_rollout_ref"})),
    ("infragraph-yaml", frozenset({"devices", "instances"})),
    ("infragraph-yaml", frozenset({"components", "links"})),
)


def yaml_format(tops: Set[str]) -> str | None:
    """Return the format of a YAML file with these top keys, or None."""
    return next((name for name, keys in MARKS if keys <= tops), None)
