"""Valid values drawn from a schema, so that every key is tried, also those that no example has."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ersatz.device_models.catalog import reading
from ersatz.sim.workload.model_file import list_models

from .words import TEXTS, odd_value, quantity


@cache
def _names() -> Mapping[str, tuple[str, ...]]:
    """Return what a key of this name usually holds."""
    policies = ("fifo", "fill", "sjf", "easy", "priority:leaf", "fair", "las", "gavel", "fifo:fgd")
    return {
        "node": tuple(reading.list_nodes()), "device": tuple(reading.list_devices()),
        "model": tuple(list_models()), "stack": tuple(reading.list_stacks()),
        "network": tuple(reading.list_fabrics()), "policies": policies,
        "devices": ("h800", "h20", "910b", "all", "h800-8"), "dates": ("2025-03-24", "2023-10-17"),
        "date": ("2025-03-24", "2024-01-01"), "start": ("2025-03-24", "2024-01-01"),
        "until": ("2026-12", "2027-06"), "country": ("China", "CN", "US"), "to": ("China", "US"),
        "metric": ("step.duration_s", "step.mfu", "cost.total", "job.goodput", "memory.fits"),
        "schedule": ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipev"),
        "input": ("a.mfu", "*.rent", "work.tokens", "b.life"), "option": ("a", "b"), "against": ("a", "b"),
        "placement": ("packed", "striped", "scattered"), "production": ("ascend-910c",),
        "kind": ("company",), "buyer": ("company",),
    }  # fmt: skip


def draw_section(model: type[BaseModel], rng: random.Random, share: float = 0.3) -> dict[str, Any]:
    """Return a mapping with the section's required keys and a share of the others."""
    return {
        name: draw(field.annotation, rng, name, field.metadata, field.json_schema_extra)
        for name, field in model.model_fields.items()
        if field.is_required() or rng.random() < share
    }


def draw(
    kind: Any, rng: random.Random, key: str = "", metadata: Sequence[Any] = (), extra: Any = None
) -> Any:  # fmt: skip
    """Return a value of an annotation; now and then an odd one."""
    if rng.random() < 0.02:
        return odd_value(rng)
    if isinstance(extra, dict) and "unit" in extra:
        return quantity(rng, extra["unit"])
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        extras = [getattr(meta, "json_schema_extra", None) for meta in parts[1:]]
        return draw(parts[0], rng, key, parts[1:], next((e for e in extras if e), None))
    if origin is Literal:
        return rng.choice(parts)
    if origin in (Union, UnionType):
        return draw(rng.choice([p for p in parts if p is not NoneType]), rng, key)
    if origin is tuple:
        inner = parts[:-1] if Ellipsis in parts else parts
        return [draw(rng.choice(inner), rng, key) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    if origin is dict:
        count = rng.choice((0, 1, 2))
        return {draw_key(parts[0], rng): draw(parts[1], rng, key) for _ in range(count)}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return draw_section(kind, rng)
    return _plain(kind, rng, key)


def draw_key(kind: Any, rng: random.Random) -> Any:
    """Return a key of a mapping."""
    if kind is str:
        return rng.choice(("a", "b", "h800", "910b", "first", *TEXTS[-30:-20]))
    return rng.choice((0, 1, 2, 8))


def _plain(kind: Any, rng: random.Random, key: str) -> Any:
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.choice((0, 1, 1, 2, 2, 4, 8, 16, 64, 512, 4096))
    if kind is float:
        return rng.choice((0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 10.0, 100.0))
    if kind is str:
        return rng.choice(_names().get(key, ("a", "b", "h800")))
    return odd_value(rng)
