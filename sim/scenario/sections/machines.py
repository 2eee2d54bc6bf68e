"""What a job runs on: its nodes or pools, what joins them, and the network with what is wrong with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ersatz.sim.scenario.sections.quantities import (
    Bandwidth,
    Count,
    Degree,
    Name,
    Nodes,
    Section,
    Share,
    Time,
)


class PoolSection(Section):
    """Nodes of one kind."""

    name: Name = Field(description="by which stages, prices and reports call it")
    node: str = Field(description="node of the catalogue, or path of a node file")
    nodes: Nodes = Field(description="how many")
    network: str | dict[str, Any] | None = Field(
        None,
        description="network between nodes in place of the node's: a name, a path, or its values",
    )
    stack: str | None = Field(None, description="software stack of this pool, or path of a file")


class JointSection(Section):
    """What ties pools of several kinds together. What is left out is said as an assumption."""

    path: Literal["direct", "host"] | None = Field(
        None,
        description="from card to card, or copied through the hosts; by default through the hosts"
        " between two vendors, else direct",
    )
    node_bandwidth: Bandwidth | None = Field(
        None, description="of one node into it; by default its cards, through hosts 100 Gbit/s"
    )
    bandwidth: Bandwidth | None = Field(None, description="of all of it; by default no limit")
    latency: Time | None = Field(
        None, description="beside the network's; by default none, through hosts 100 us"
    )
    copy_bandwidth: Bandwidth | None = Field(
        None, description="between a device and its host; by default 20 GB/s"
    )


class ClusterSection(Section):
    """The machines: one kind of node, or several pools."""

    node: str | None = Field(None, description="node of the catalogue, or path of a node file")
    nodes: Nodes | None = Field(None, description="how many")
    devices: Degree | None = Field(
        None, description="how many in all, in place of nodes: a whole number of nodes of that kind"
    )
    network: str | dict[str, Any] | None = Field(
        None,
        description="network between nodes in place of the node's: a name, a path, or its values",
    )
    pools: tuple[PoolSection, ...] = Field((), description="several kinds of node in one job")
    joint: JointSection = Field(JointSection(), description="between the pools; see below")

    @model_validator(mode="after")
    def one_way(self) -> ClusterSection:
        """Either node and nodes (or devices), or pools."""
        if bool(self.pools) == bool(self.node or self.nodes or self.devices):
            raise ValueError("expected either node and nodes, or pools")
        if self.node and self.nodes is None and self.devices is None:
            raise ValueError("nodes is missing: how many?")
        return self


class FaultSection(Section):
    """A part of the network that is broken or slow."""

    part: Literal["card", "port", "leaf", "uplink", "spine", "plane", "core"] = Field(
        description="kind of part"
    )
    at: tuple[Count, ...] = Field(
        description="which, counted from 0: card [node, card], port [node, card, port], leaf [leaf],"
        " uplink [leaf, uplink], spine [spine], plane [plane], core [pod]"
    )
    left: Share = Field(0.0, description="share of its capacity (or time) that is left")


class FabricSection(Section):
    """Where the job stands in its network, how that routes, and what is wrong with it."""

    size: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="nodes of the whole fabric; by default the job's"
    )
    placement: str | tuple[Count, ...] = Field(
        "packed", description="packed, striped (over the leaves), scattered, or a list of positions"
    )
    rank_order: Literal["packed", "dealt"] = Field(
        "packed", description="neighbouring ranks on one node, or dealt over all nodes"
    )
    routing: Literal["spread", "hashed"] = Field(
        "spread", description="over all uplinks evenly, or by a hash per connection (ECMP)"
    )
    connections: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="connections of each pair that a hash spreads"
    )
    background: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the links above the leaves that other jobs use"
    )
    contention: bool = Field(
        False, description="collectives that run at the same time share links (engine L3)"
    )
    faults: tuple[FaultSection, ...] = Field((), description="what is broken; see below")
