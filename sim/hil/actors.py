"""Devices on other hosts as Ray actors: each owns one accelerator and times kernels on request.

The accelerator is a Ray resource (`num_gpus` for CUDA and ROCm, `NPU` for Ascend), so Ray finds the
host and keeps others off it; a CPU device takes one core. Without a running cluster a local one is
started, on loopback and with a token of its own: who reaches a Ray without one can run anything.
Kernels travel as plain columns: both sides need ersatz, not the same Python.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ersatz.device_models.calibration.file import point_row, row_point
from ersatz.device_models.calibration.measured import Point, kernel_key
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.errors import InputError
from ersatz.sim.hil.device.attached import attach, unusable
from ersatz.sim.hil.device.measure import Unmeasurable
from ersatz.sim.hil.live import LocalSource

RESOURCES: dict[str, dict[str, Any]] = {
    "cpu": {"num_cpus": 1}, "cuda": {"num_gpus": 1}, "rocm": {"num_gpus": 1},
    "npu": {"num_cpus": 1, "resources": {"NPU": 1}},
}  # fmt: skip
LOOPBACK = "127.0.0.1"
FIRST_WITH_TOKENS = (2, 52)  # docs.ray.io, "Ray token authentication", read in November 2026
START_S = 120.0  # longest wait for a host with such a device


class DeviceActor:
    """Runs on the host of a device; one per accelerator."""

    def __init__(self, backend: str, catalog_name: str, pretend: bool) -> None:
        attached = attach(backend, catalog_name=catalog_name, pretend=pretend)
        self.source = LocalSource(attached)
        self.described = {
            "device": attached.catalog_name, "hardware": attached.hardware,
            "framework": attached.framework,
        }  # fmt: skip

    def describe(self) -> dict[str, str]:
        """Say what is attached."""
        return self.described

    def measure(self, kernel: Kernel) -> dict[str, Any]:
        """Return the columns of the measured kernel, or why there is none."""
        try:
            return point_row(self.source.measure(kernel))
        except Unmeasurable as reason:
            return {"missing": str(reason)}


@dataclass(slots=True)
class RemoteSource:
    """What the simulation holds of an actor."""

    actor: Any
    device: str
    hardware: str

    def measure(self, kernel: Kernel) -> Point:
        """Ask the other host; raises `Unmeasurable` as the device does, or when its host is lost."""
        import ray

        try:
            row = ray.get(self.actor.measure.remote(kernel))
        except ray.exceptions.RayError as error:
            raise Unmeasurable(
                f"{kernel_key(kernel)}: host of {self.device} is lost: {error}"
            ) from error
        if "missing" in row:
            raise Unmeasurable(row["missing"])
        point = row_point(row)
        return Point(kernel, point.seconds, point.warm_s, point.spread, point.samples, point.host_s)

    def close(self) -> None:
        """Give the device back to the cluster."""
        import ray

        with suppress(ray.exceptions.RayError):
            ray.kill(self.actor)


def _cluster_is_there() -> bool:
    """Tell whether a cluster is named, or noted where `ray start` notes it."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    return bool(os.environ.get("RAY_ADDRESS")) or (folder / "ray_current_cluster").exists()


def _import_ray() -> Any:
    """Import Ray, which looks at that moment whether it shall ask for a token."""
    if "ray" not in sys.modules and not _cluster_is_there():
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # "0" keeps Ray on loopback on any system; else it exchanges 127.0.0.1 for the host's address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        raise unusable("Ray", "is not installed; pip install 'ersatz[dist]'") from error
    return ray


def _join_or_start(ray: Any) -> None:
    """Join the cluster that is there, as its owner has secured it, or start one for this run alone."""
    there = _cluster_is_there()
    release = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if not there and (release < FIRST_WITH_TOKENS or os.environ.get("RAY_AUTH_MODE") != "token"):
        raise unusable("Ray", "would start without a token, and anybody could run anything here; expected"
                       " release 2.52 or later, not imported before or with RAY_AUTH_MODE=token")  # fmt: skip
    local = {"address": "local", "_node_ip_address": LOOPBACK, "include_dashboard": False}
    try:
        ray.init(**({"address": "auto"} if there else local), log_to_driver=False,
                 logging_level=logging.ERROR)  # fmt: skip
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        what = "its running cluster cannot be joined" if there else "cannot be started"
        raise unusable("Ray", f"{what}: {str(error).splitlines()[0][:200]}") from error


def start_actor(backend: str, catalog_name: str, *, pretend: bool = False) -> RemoteSource:
    """Start the actor of a device; raises `InputError` when Ray or the device is not there."""
    ray = _import_ray()
    kind = backend.partition(":")[0]
    if kind not in RESOURCES:
        raise unusable(backend, f"is unknown; with @ray one of {', '.join(RESOURCES)}")
    if not ray.is_initialized():
        _join_or_start(ray)
    remote: Any = ray.remote(DeviceActor).options(**RESOURCES[kind])
    actor: Any = remote.remote(backend, catalog_name, pretend)
    try:
        described: dict[str, str] = ray.get(actor.describe.remote(), timeout=START_S)
    except ray.exceptions.GetTimeoutError as error:
        raise unusable(backend, "no host of the Ray cluster has such a device free") from error
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        text = str(cause) if isinstance(cause, InputError) else str(error).splitlines()[-1]
        raise unusable(backend, f"cannot be used on its host: {text}") from error
    return RemoteSource(actor, described["device"], described["hardware"])
