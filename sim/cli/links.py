"""`ersatz calibrate --links`: time collectives under torchrun, or read tables of nccl-tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ersatz.sim.cli.app import Failure
from ersatz.sim.cli.output import cannot_be_written, deliver
from ersatz.sim.cli.process.terminal import say
from ersatz.sim.errors import EXIT_CANNOT_WRITE

if TYPE_CHECKING:
    from ersatz.sim.hil.links.network_file import LinkOrigin
    from ersatz.sim.hil.links.timing import Timing


def time_links(device: str, as_: str, pretend: bool, out: Path | None, json: str | None) -> None:
    """Time collectives with the other processes of torchrun; the first of them writes the files."""
    from ersatz.sim.hil.device.attached import attach
    from ersatz.sim.hil.links.network_file import LinkOrigin
    from ersatz.sim.hil.links.session import LIBRARIES, Session, joined, world_of

    world = world_of()
    kind = device.partition(":")[0]
    if kind != "cpu" and ":" not in device:
        device = f"{kind}:{world.local_rank}" if kind != "auto" else _own_device(world.local_rank)
    attached = attach(device, catalog_name=as_, pretend=pretend)
    session = Session(attached, world, _teller(world.rank))
    with joined(attached):
        session.run()
    if world.rank:
        return
    layout = f"{world.hosts} x {world.local_size} processes"
    origin = LinkOrigin(LIBRARIES[attached.backend], attached.hardware, attached.framework, layout,
                        date.today().isoformat(), session.contention, session.clock)  # fmt: skip
    _finish(session.rows, session.missing, attached.catalog_name, origin, out, json)


def _own_device(local_rank: int) -> str:
    """Return the accelerator of this process, or the CPU where none is attached."""
    from ersatz.sim.hil.device.attached import attach

    backend = attach("auto").backend
    return "cpu" if backend == "cpu" else f"{backend}:{local_rank}"


def _teller(rank: int):  # type: ignore[no-untyped-def]
    from ersatz.sim.cli.process.terminal import telling

    return telling if rank == 0 else lambda words: None


def read_links(
    tables: Sequence[str], as_: str, ranks: int, per_node: int, out: Path | None, json: str | None
) -> None:
    """Take tables of nccl-tests and its kin for what `--links` would have measured."""
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil.links.network_file import LinkOrigin
    from ersatz.sim.hil.links.tables import read_table

    if not as_:
        raise Failure(2, ["--table: name the device that it was measured on by --as"])
    name = load_device(as_).name
    rows = []
    for word in tables:
        operation, _, file = word.rpartition("=")
        rows += read_table(Path(file), operation, ranks, per_node)
    files = " ".join(Path(word.rpartition("=")[2]).name for word in tables)
    layout = f"up to {max(r.members for r in rows)} ranks"
    origin = LinkOrigin(f"tables {files}", name, "", layout, date.today().isoformat())
    _finish(rows, [], name, origin, out, json)


def _finish(
    rows: Sequence[Timing], missing: Sequence[str], device: str, origin: LinkOrigin,
    out: Path | None, json: str | None,
) -> None:  # fmt: skip
    """Fit, write and report."""
    from ersatz.sim.hil.links.found import fit_and_write, node_with
    from ersatz.sim.report.links import links_record, render_links

    node = node_with(device)
    path = out or Path(f"{device}.network.yaml")
    try:
        found = fit_and_write(rows, node, origin, path)
    except OSError as error:
        raise Failure(EXIT_CANNOT_WRITE, [cannot_be_written(path, error)]) from error
    view = render_links(found, node, origin, missing)
    deliver("links", links_record(found, origin, missing), view, json)
    for f in found:
        say(f"written: {f.path} and its rows in {f.path.with_suffix('.csv').name}")
