"""How long kernels take in an emulation: by the catalogue's models, or by a calibration."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.device_models.calibration.file import find_calibration, read_calibration
from ersatz.device_models.calibration.measured import calibrated_device, calibrated_timer
from ersatz.device_models.calibration.table_timer import table_timer
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Timer, calibrated_time, roofline_time


def kernel_timer(timer: str, calibration: str, device: Device) -> Timer:
    """Return a timer of that name; with a calibration, for the device as that has it.

    Raises `InputError` for a calibration that cannot be read.
    """
    if timer == "roofline":
        return roofline_time
    if not calibration:
        return calibrated_time
    measured = read_calibration(find_calibration(calibration))
    made = (table_timer if timer == "table" else calibrated_timer)(measured)
    found = calibrated_device(device, measured)
    return lambda _, kernel: made(found, kernel)


def own_operators(timer: str, calibration: str, device: Device) -> Mapping[str, float]:
    """Return the seconds of operators that a calibration of this device has timed one by one."""
    if not calibration or timer in ("roofline", "live"):
        return {}
    measured = read_calibration(find_calibration(calibration))
    return measured.operators if measured.origin.device == device.name else {}
