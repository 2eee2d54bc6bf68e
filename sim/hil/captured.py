"""Own ops of a script: the distinct operators of a step that `ersatz emulate` captured.

The trace that an emulation leaves (`--out DIR`, trace.json) tells the operators of one step of
somebody's script by their signatures. They are timed on the attached device, one by one, in the order
of the step, and an emulation with this calibration looks each up as it is. Nothing is fitted to them;
products and attention are kept as measured kernels, too.

Not timed: copies between host and device, collectives, operators of other libraries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ersatz.device_models.calibration.file import row_kernel
from ersatz.device_models.calibration.measured import Calibration
from ersatz.device_models.catalog.device import DTYPE_BYTES, Device
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.kernels.operations import COMPUTE, operation_of
from ersatz.device_models.text.files import MAX_TABLE_BYTES, read_text_file
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.benchmark import Progress, refuse_impostor
from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.measure import unmeasurable
from ersatz.sim.hil.device.operators import Signature, heard, key_of, prepared, refuse_strange
from ersatz.sim.hil.device.recipes import Trial
from ersatz.sim.hil.fit import fit_calibration
from ersatz.sim.hil.ownops import Asked, measure_own, origin_of_own

MOST = 5000  # distinct operators of a step
EXPECTED = "expected the trace.json that ersatz emulate --out writes"
KINDS = ("matmul", "attention", "memory")


@dataclass(frozen=True, slots=True)
class Operator:
    """One distinct operator of a captured step."""

    text: str  # its signature
    signature: Signature
    kernel: Kernel
    count: int  # times in a step

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.signature[0]} x {self.count}"


@dataclass(frozen=True, slots=True)
class Captured:
    """The operators of one step of a script."""

    script: str
    operators: tuple[Operator, ...]


def read_captured(path: Path) -> Captured:
    """Read a captured trace; raises `InputError` with every fault."""
    text = read_text_file(path, "JSON", MAX_TABLE_BYTES)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(path, "", f"is no JSON: {EXPECTED}") from error
    other = data.get("otherData") if isinstance(data, dict) else None
    rows = other.get("operators") if isinstance(other, dict) else None
    if not isinstance(rows, list) or not rows:
        raise _fault(path, "otherData.operators", f"tells no operators of a step; {EXPECTED}")
    if len(rows) > MOST:
        raise _fault(path, "otherData.operators", f"holds {len(rows):,}; expected at most {MOST:,}")
    found, problems = [], []
    for number, row in enumerate(rows):
        try:
            found.append(_operator(row))
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            place = f"otherData.operators[{number}]"
            problems.append(Problem(str(path), 0, 0, place, "", str(error)[:200]))
    if problems:
        raise InputError(problems)
    return Captured(str(other.get("script", path.name))[:200] if other else "", tuple(found))


def _operator(row: Any) -> Operator:
    """Return the operator of a record; raises `ValueError`, or `TypeError` where it is none."""
    if not isinstance(row, dict) or not isinstance(row.get("signature"), str):
        raise ValueError("expected an operator with its signature")
    kernel = row.get("kernel")
    if not isinstance(kernel, Mapping):
        raise ValueError("expected the kernel that the operator is")
    made = row_kernel(kernel)
    if made.kind not in KINDS or made.dtype not in DTYPE_BYTES:
        expected = f"{', '.join(KINDS)}, and a dtype of {', '.join(DTYPE_BYTES)}"
        raise ValueError(f"kernel: expected a kind of {expected}")
    count = row.get("count")
    if not isinstance(count, int) or not 0 < count <= 10**9:
        raise ValueError("count: expected a whole number above 0")
    signature = heard(row["signature"])
    with suppress(MemoryError):  # the device's affair, and said when it is timed
        refuse_strange(signature)
    return Operator(row["signature"], signature, made, count)


def calibrate_captured(
    attached: Attached, device: Device, captured: Captured, seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:  # fmt: skip
    """Return a calibration of the operators of a captured step.

    Raises `InputError` when none of its products can be measured.
    """
    asked = [Asked(o.kernel, o.label, partial(_trial, attached, o)) for o in captured.operators]
    keys = {id(one): key_of(o.text) for one, o in zip(asked, captured.operators, strict=True)}
    found, missing, spent = measure_own(attached, asked, progress)
    points = [p for _, p in found if operation_of(p.kernel).startswith(COMPUTE)]
    if not points:
        why = "; ".join(missing[:8]) or "none of its operators is one"
        words = f"no product or attention of {captured.script} was measured: {why}"
        raise InputError([Problem(attached.hardware, 0, 0, "", "", words)])
    refuse_impostor(attached, device, points)
    scope = f"{len(found)} operators of {captured.script}"
    origin = origin_of_own(attached, seed, spent, scope)
    calibration, _ = fit_calibration(origin, device, points, missing)
    return replace(calibration, operators={keys[id(one)]: p.seconds for one, p in found})


def _trial(attached: Attached, operator: Operator) -> Trial:
    """Return an operator ready to run, its first operand as the one before has left it."""
    try:
        refuse_strange(operator.signature)
        run, operands = prepared(attached, operator.signature)
        run()
    except Exception as error:  # PyTorch raises of every kind for what it cannot do
        raise unmeasurable(attached, operator.kernel, error) from error
    return Trial(run, tuple(operands[:1]))


def _fault(path: Path, key: str, expected: str) -> InputError:
    return InputError([Problem(str(path), 0, 0, key, "", expected)])
