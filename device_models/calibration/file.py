"""The file of a calibration: YAML with the measurements as CSV inside (`points: |`), for people to read.

`read_calibration` refuses a newer format and says every fault with its line; `write_calibration` is its
inverse.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from ersatz.device_models.calibration.measured import Calibration, Origin, Point, with_small
from ersatz.device_models.calibration.records import LARGEST, Blame, made, numbers
from ersatz.device_models.catalog.device import DTYPE_BYTES, Device
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.kernels.operations import PARTS
from ersatz.device_models.kernels.terms import TERMS, Machine, OperationFit
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.whole import write_whole
from ersatz.device_models.text.yamltext import Key, YamlText, read_yaml

SIGNED = ("mean_signed",)  # figures of a proof that may be negative
OPTIONAL = ("pretended", "source", "scope", "libraries")  # of an origin
TITLE = "# Written by ersatz calibrate"  # how the file begins
LONGEST_LINE = 10_000  # characters of a measured kernel
FORMAT = 1
SHIPPED = DATA / "calibrations"
LEAST_TOGETHER = 0.1  # of the parts of a small step: no step is a tenth of its kernels


def find_calibration(name: str) -> Path:
    """Return the path of a calibration file, or of the shipped one of that name."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    known = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    if name in known:
        return SHIPPED / f"{name}.yaml"
    hint = did_you_mean(name, known) or f" ({', '.join(known)})"
    raise InputError([Problem(name, 0, 0, "", "", f"no such calibration is shipped{hint}")])


# The kernel's columns, then the point's.
_KERNEL = ("name", "kind", "dtype", "m", "n", "k", "groups", "sequence", "flop", "nbytes")
_POINT = ("seconds", "warm_s", "spread", "samples", "host_s")
_WHOLE = ("groups", "sequence", "samples")
_WORDS = ("name", "kind", "dtype")


def point_row(point: Point) -> dict[str, Any]:
    """Return a point as plain columns."""
    return kernel_row(point.kernel) | {name: getattr(point, name) for name in _POINT}


def kernel_row(kernel: Kernel) -> dict[str, Any]:
    """Return what a measurement keeps of a kernel, as plain columns."""
    return {name: getattr(kernel, name) for name in _KERNEL}


def row_point(row: Mapping[str, Any]) -> Point:
    """Return the point of plain columns; raises `ValueError` that names the column."""
    return Point(row_kernel(row), *(_cell(name, row.get(name)) for name in _POINT))


def row_kernel(row: Mapping[str, Any]) -> Kernel:
    """Return the kernel of plain columns; raises `ValueError` that names the column."""
    kernel = {name: _cell(name, row.get(name)) for name in _KERNEL}
    return Kernel(category="", backward=kernel["name"].endswith("back"), **kernel)


def _cell(name: str, raw: Any) -> Any:
    """Return a cell as its column's kind; raises `ValueError`."""
    if raw is None:
        raise ValueError(f"{name}: the cell is missing")
    if name in _WORDS:
        return str(raw)
    try:
        value: float = int(raw) if name in _WHOLE else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = -1.0
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{name}: {str(raw)[:60]!r} - expected a number that is not negative")
    return value


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file; raises `OSError`."""
    head: dict[str, Any] = {
        "format": FORMAT,
        "origin": _told(asdict(calibration.origin)),
        "machine": {
            "cache_bytes": calibration.machine.cache_bytes,
            "tile": list(calibration.machine.tile),
            "units": calibration.machine.units,
            "ridge": {k: _short(v) for k, v in calibration.machine.ridge.items()},
        },
        "parameters": {k: _short(v) for k, v in calibration.parameters.items()},
        "missing": list(calibration.missing),
        "proof": {k: _short(v) for k, v in calibration.proof.items()},
        **{
            name: {k: _short(v) for k, v in figures.items()}
            for name in ("soak", "sentinels", "launches", "operators")
            if (figures := getattr(calibration, name))
        },
        "fits": [_fit_record(fit) for fit in calibration.fits.values()],
    }
    text = f"{TITLE}: measured kernels and what was fitted to them; SI units.\n{_yaml(head)}"
    text += _table(calibration.points)
    if calibration.small:
        small = calibration.small
        ratios = {"together": {part: _short(ratio) for part, ratio in small.together.items()}}
        fits = {"fits": [_fit_record(fit) for fit in small.fits.values()]}
        inner = _yaml((ratios if small.together else {}) | fits) + _table(small.points)
        text += "small:\n" + "".join(f"  {line}\n" for line in inner.splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _yaml(data: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, width=100, default_flow_style=None))


def _table(points: Sequence[Point]) -> str:
    """Return points as CSV inside YAML."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [*_KERNEL, *_POINT], lineterminator="\n")
    writer.writeheader()
    for point in points:
        row = point_row(point)
        writer.writerow({k: v if k in _WORDS else _short(float(v)) for k, v in row.items()})
    return "points: |\n" + "".join(f"  {line}\n" for line in table.getvalue().splitlines())


def _told(origin: dict[str, Any]) -> dict[str, Any]:
    """Leave out what there is nothing to say of."""
    return {k: v for k, v in origin.items() if v != "" or k not in OPTIONAL}


def _short(value: float) -> float | int:
    """Six digits are more than a measurement has; sizes stay whole."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")


def _fit_record(fit: OperationFit) -> dict[str, Any]:
    record = {f.name: getattr(fit, f.name) for f in fields(fit)}
    record["seconds_per"] = {k: _short(v) for k, v in fit.seconds_per.items()}
    return {k: _short(v) if isinstance(v, float) else v for k, v in record.items()}


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file; raises `InputError` with every fault."""
    text = read_yaml(path)
    data = text.data if isinstance(text.data, dict) else {}
    problems: list[Problem] = []
    if "format" not in data:
        expected = "is no calibration file: key is missing (ersatz calibrate writes one)"
        raise InputError([text.problem((), "format", expected)])
    if not isinstance(data["format"], int) or data["format"] > FORMAT:
        expected = f"expected a format up to {FORMAT}: written by a newer ersatz, which can read it"
        raise InputError([text.problem(("format",), data["format"], expected)])
    calibration = _made(text, data, problems)
    if problems or calibration is None:
        raise InputError(problems)
    return replace(calibration, file=str(path))


def _made(text: YamlText, data: Mapping[str, Any], problems: list[Problem]) -> Calibration | None:
    """Return what the parts of a file say; every fault is noted, and None comes back then."""

    def blame(path: Key, value: object, expected: str) -> None:
        problems.append(text.problem(path, value, expected))

    for key in ("origin", "machine", "parameters", "fits"):
        if key not in data:
            blame((), key, "key is missing")
    told = data.get("origin")
    silent = dict.fromkeys(OPTIONAL, "")
    origin = made(
        Origin, {**silent, **told} if isinstance(told, dict) else told, ("origin",), blame
    )
    machine = made(Machine, data.get("machine"), ("machine",), blame)
    if machine and not machine.units:
        blame(("machine", "units"), 0, "expected a number above 0")
    if machine and machine.cache_bytes < 0:
        blame(("machine", "cache_bytes"), machine.cache_bytes, "expected bytes, not below 0")
    missing = data.get("missing", [])
    if not isinstance(missing, list) or not all(isinstance(word, str) for word in missing):
        blame(("missing",), None, "expected a list of texts")
    parameters = _parameters(data.get("parameters"), blame)
    proof = numbers(data.get("proof", {}), ("proof",), blame)
    for key, error in proof.items():
        if key not in SIGNED and error < 0:
            blame(("proof", key), error, "expected a number that is not negative")
    soak = _soak(data.get("soak", {}), blame)
    kinds = ("sentinels", "launches", "operators")
    sentinels, launches, operators = (_times(data, name, blame) for name in kinds)
    fits = _fits(data.get("fits"), ("fits",), blame)
    points = _points(text, data, ("points",), problems)
    small = data.get("small")
    if small is not None and not isinstance(small, dict):
        blame(("small",), None, "expected keys and values")
    inner = small if isinstance(small, dict) else {}
    small_fits = _fits(inner.get("fits", []), ("small", "fits"), blame)
    small_points = _points(text, inner, ("small", "points"), problems) if inner else ()
    together = _together(inner.get("together", {}), blame)
    if problems or origin is None or machine is None:
        return None
    found = Calibration(
        origin, machine, parameters, fits, points, tuple(missing), proof, soak, sentinels, launches,
        operators,
    )  # fmt: skip
    return with_small(found, small_fits, small_points, together) if small_points else found


def _parameters(raw: Any, blame: Blame) -> dict[str, float]:
    """Return the fitted parameters; each is a field of a device, or a dtype of one."""
    found = numbers(raw, ("parameters",), blame)
    kinds = {f.name: str(f.type) for f in fields(Device)}
    for key, value in found.items():
        name, dot, dtype = key.partition(".")
        wanted = "Mapping[str, float]" if dot else "float"
        if kinds.get(name) != wanted or (dot and dtype not in DTYPE_BYTES):
            blame(
                ("parameters", key), None, f"is no parameter of a device{did_you_mean(name, kinds)}"
            )
        elif value < 0 or (not value and not name.endswith("_s")):
            blame(("parameters", key), value, "expected a number above 0")
    return found


def _fits(raw: Any, path: Key, blame: Blame) -> dict[tuple[str, str], OperationFit]:
    """Return what was fitted, by operation and dtype."""
    found: dict[tuple[str, str], OperationFit] = {}
    if not isinstance(raw, list):
        blame(path, None, "expected a list of fits")
        return found
    for number, row in enumerate(raw):
        fit = made(OperationFit, row, (*path, number), blame)
        if fit is None:
            continue
        if fit.dtype not in DTYPE_BYTES:
            blame((*path, number, "dtype"), fit.dtype, f"expected one of {', '.join(DTYPE_BYTES)}")
        for name, cost in fit.seconds_per.items():
            if name not in TERMS or cost < 0:
                expected = f"expected one of {', '.join(TERMS)}, and seconds that are not negative"
                blame((*path, number, "seconds_per", name), cost, expected)
        for name in ("median_error", "mean_error", "p80_error"):
            if (error := getattr(fit, name)) < 0:
                expected = "expected a relative error, not below 0"
                blame((*path, number, name), error, expected)
        found[(fit.operation, fit.dtype)] = fit
    return found


def _soak(raw: Any, blame: Blame) -> dict[str, float]:
    """Return the figures of a soak; the sustained share slows products and must be one."""
    figures = numbers(raw, ("soak",), blame)
    if not 0 < figures.get("sustained", 1.0) <= 1:
        blame(("soak", "sustained"), figures["sustained"], "expected a share above 0 and at most 1")
    return figures


def _together(raw: Any, blame: Blame) -> dict[str, float]:
    """Return ratios by part of a step."""
    figures = numbers(raw, ("small", "together"), blame)
    for part, ratio in figures.items():
        if part not in PARTS:
            expected = f"expected one of {', '.join(PARTS)}{did_you_mean(part, PARTS)}"
            blame(("small", "together", part), None, expected)
        elif not LEAST_TOGETHER <= ratio <= 1 / LEAST_TOGETHER:
            expected = f"expected a ratio from {LEAST_TOGETHER} to {1 / LEAST_TOGETHER:g}"
            blame(("small", "together", part), ratio, expected)
    return figures


def _times(data: Mapping[str, Any], name: str, blame: Blame) -> dict[str, float]:
    """Return times by what took them; others are divided by them, so none is zero."""
    found = numbers(data.get(name, {}), (name,), blame)
    for key, seconds in found.items():
        if seconds <= 0:
            blame((name, key), seconds, "expected seconds above 0")
    return found


def _points(
    text: YamlText, data: Mapping[str, Any], path: Key, problems: list[Problem]
) -> tuple[Point, ...]:
    found = []
    line = text.values.get(path, (0, 0))[0]
    lines = str(data.get("points", "")).splitlines()
    if max(map(len, lines), default=0) > LONGEST_LINE:
        problems.append(text.problem(path, None, "holds a line that is too long"))
        return ()
    for number, row in enumerate(csv.DictReader(lines)):
        try:
            point = row_point(row)
            if not (point.seconds > 0 and point.samples > 0):
                raise ValueError("seconds and samples must be above 0")
            if point.kernel.dtype not in DTYPE_BYTES:
                raise ValueError(f"dtype: expected one of {', '.join(DTYPE_BYTES)}")
            found.append(point)
        except ValueError as error:
            place = line + 2 + number
            problems.append(
                Problem(
                    text.file, place, 1, f"{'.'.join(map(str, path))}[{number}]", "", str(error)
                )
            )
    if not found and not problems:
        problems.append(text.problem(path, None, "holds no measured kernel"))
    return tuple(found)
