"""Tables of the keys of a file: what each holds, in words that people use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ersatz.device_models.text.units import (
    BASE_UNITS,
    UNITS,
    example_text,
    format_duration,
    format_si,
)

PLAIN: dict[Any, str] = {
    bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any value",
}  # fmt: skip
ALIKE = {"share": "fraction"}  # words of schemas for a dimension within bounds
SAFETY = 1e6  # a bound so high is there against slips of the pen; an error names it
HEAD = ("| key | kind | default | meaning |", "|---|---|---|---|")


def key_tables(schema: type[BaseModel]) -> Iterator[str]:
    """Yield a table of keys for each section of a schema, the top level first."""
    for path, section in _sections("", schema):
        yield from ("", f"## {path or 'top level'}", "", str(section.__doc__).splitlines()[0], "")
        yield from HEAD
        for key, field in section.model_fields.items():
            default = "required" if field.is_required() else _default(field)
            yield f"| `{key}` | {field_words(field)} | {default} | {field.description} |"


def unit_table() -> Iterator[str]:
    """Yield the table of quantities and the units that they may have."""
    yield from ("| kind | base unit | units |", "|---|---|---|")
    for dimension, units in UNITS.items():
        names = ", ".join(f"`{name}`" for name in list(units)[:40] if name)
        yield f"| {spoken(dimension)} | {BASE_UNITS[dimension]} | {names} |"


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for key, field in model.model_fields.items():
        extra = field.json_schema_extra
        elsewhere = isinstance(extra, dict) and "as_in" in extra  # its table stands there
        for inner in () if elsewhere else _models(field.annotation):
            yield from _sections(f"{path}.{key}".strip("."), inner)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def field_words(field: FieldInfo) -> str:
    """Say what a key holds: "quantity of time, e.g. `90 s`", "whole number, 1 or more"."""
    dimension = _dimension([field.json_schema_extra])
    return quantity_words(dimension) if dimension else kind_words(field.annotation, field.metadata)


def quantity_words(dimension: str) -> str:
    """Say what a quantity looks like."""
    example = example_text(ALIKE.get(dimension, dimension)).replace("'", "`")
    return f"{spoken(dimension)}, e.g. {example}"


def kind_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say in words what a type of Python admits."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(parts)
    if origin in (Union, UnionType):
        return _either([kind_words(p, metadata) for p in parts if p is not type(None)])
    if origin is Literal:
        named = ", ".join(f"`{part}`" for part in parts)
        return f"one of {named}" if len(parts) > 1 else named
    if origin is tuple:
        return _listed(parts)
    if origin in (dict, Mapping):
        named = kind_words(parts[1])
        return (
            f"by name: {named}"
            if named.count("list") < 2 and parts[1] is not Any
            else "keys and values"
        )
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return PLAIN[annotation] + _bounds(metadata)


def _either(said: Sequence[str]) -> str:
    """Join what a key may hold; the same for all or by name is said once."""
    first, *others = dict.fromkeys(said)
    others = ["so by name" if other == f"by name: {first}" else other for other in others]
    return ("; or " if "e.g." in first else " or ").join((first, *others))


def _annotated(parts: Sequence[Any]) -> str:
    """Say what an annotated type is: a quantity, or a plain type within bounds."""
    dimension = _dimension(getattr(part, "json_schema_extra", None) for part in parts[1:])
    inner = [meta for part in parts[1:] for meta in getattr(part, "metadata", (part,))]
    return quantity_words(dimension) if dimension else kind_words(parts[0], inner)


def _listed(parts: Sequence[Any]) -> str:
    if len(parts) == 2 and parts[1] is Ellipsis:
        inner, _, bounds = kind_words(parts[0]).partition(", ")
        plural = f"{inner}s" if inner in ("section", "text", "number", "whole number") else ""
        return f"list of {plural}" if plural else f"list, each: {inner}{bounds and f', {bounds}'}"
    return f"list of {len(parts)}: {', '.join(kind_words(part) for part in parts)}"


def _dimension(extras: Any) -> str:
    return next((str(e["unit"]) for e in extras if isinstance(e, dict) and "unit" in e), "")


def _bounds(metadata: Sequence[Any]) -> str:
    """Say between which bounds a number lies."""
    flat = [m for meta in metadata for m in getattr(meta, "metadata", (meta,))]
    least = next((f"{_bound(m.ge)} or more" for m in flat if isinstance(m, Ge)), "")
    least = least or next((f"above {_bound(m.gt)}" for m in flat if isinstance(m, Gt)), "")
    most = next((f"at most {_bound(m.le)}" for m in flat
                 if isinstance(m, Le) and float(str(m.le)) < SAFETY), "")  # fmt: skip
    most = most or next((f"below {_bound(m.lt)}" for m in flat if isinstance(m, Lt)), "")
    return "".join(f", {words}" for words in (least, most) if words)


def _bound(value: Any) -> str:
    return f"{value:,}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:g}"


def spoken(dimension: str) -> str:
    """Return what a dimension is called in a sentence."""
    names = {
        "share": "share of a whole", "fraction": "ratio", "tokens": "number of tokens",
        "money": "amount of money",
        "rate": "rate of events", "money_rate": "amount of money per time",
        "carbon_intensity": "carbon per energy", "energy_price": "price of energy",
        "flop_rate": "rate of operations",
    }  # fmt: skip
    plain = f"quantity of {dimension}" if dimension in UNITS else dimension
    return names.get(dimension, plain)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "open"
    if isinstance(value, BaseModel):
        return "see its section"
    if value in ((), {}, ""):
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value, _dimension_of(field))
    return str(value)


def _dimension_of(field: FieldInfo) -> str:
    found = [field.json_schema_extra]
    for part in (field.annotation, *get_args(field.annotation)):
        found += [getattr(m, "json_schema_extra", None) for m in getattr(part, "__metadata__", ())]
    return _dimension(found)


def _number(value: float, dimension: str) -> str:
    """Write a default as people do."""
    if dimension == "time" and value:
        return re.sub(r"\.0+(?= )", "", format_duration(value))
    if dimension == "bandwidth":
        return format_si(value, "B/s")
    if dimension in ("fraction", "share"):
        return f"{100 * value:.4g} %"
    if dimension == "carbon_intensity":
        return f"{value * 3.6e6:.4g} kg/kWh"
    if dimension == "mass":
        return f"{value:.6g} kg"
    return f"{value:.6g}"
