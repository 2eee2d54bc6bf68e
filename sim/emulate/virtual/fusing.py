"""Which operators of a compiled graph are one kernel, and what that kernel moves.

One rule, after Inductor's: an element-wise operator joins the kernel that made one of its inputs, if both go
over as many elements; a reduction goes over its input, and what goes over its result joins it, too. A kernel
has one shape of reduction. Nothing is joined round an operator of another kind, so that no kernel waits for
itself: every other input comes of a kernel that is nearer to the graph's inputs. A kernel reads what comes
from outside and writes what is needed outside, each once. An element-wise operator that only other kernels
need is computed in each of them, from at most four tensors, and never written.

Not modelled: siblings joined because they read the same, products that end in an element-wise operator;
these would move fewer bytes still.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.sim.emulate.virtual.costs import touched
from ersatz.sim.emulate.virtual.nature import nature

REDUCTIONS = frozenset({"sum", "mean", "amax", "amin", "var", "var_mean", "prod", "any", "all"})
ALSO = frozenset({"convert_element_type", "_to_copy", "clone", "full", "full_like", "where", "iota",
                  "embedding", "index", "gather", "constant_pad_nd", "copy", "select_scatter",
                  "slice_scatter", "cat", "stack"})  # fmt: skip
MOST_NAMED = 4
MOST_READ = 4  # tensors for which an operator is computed once more


@dataclass(slots=True, eq=False)
class Group:
    """Operators that are one kernel."""

    level: int  # kernels on the longest way from the graph's inputs
    space: int  # elements that it goes over
    reduced: int = 0  # elements that its reductions leave; 0: it has none
    members: list[Node] = field(default_factory=list)
    kernel: Kernel | None = None
    escapes: set[Node] = field(default_factory=set)  # members whose results are needed outside


def fused(graph: GraphModule) -> dict[Node, Group]:
    """Return the group of each operator that shares a kernel with others, or is a view of one that does."""
    found: dict[Node, Group] = {}
    levels: dict[Node, int] = {}
    for node in graph.graph.nodes:
        inputs = node.all_input_nodes
        level = max((levels[i] for i in inputs), default=0)
        if node.op != "call_function":
            levels[node] = level
        elif _is_free(node):
            levels[node] = level
            if inputs and inputs[0] in found:
                found[node] = found[inputs[0]]
        elif (space := _space(node)) == 0:
            levels[node] = level + 1
        else:
            group = _joined(
                node, space, {found[i] for i in inputs if i in found}, inputs, found, levels
            )
            found[node] = group
            levels[node] = group.level
    return _with_kernels(found)


def _joined(
    node: Node, space: int, near: set[Group], inputs: Iterable[Node], found: dict[Node, Group],
    levels: dict[Node, int],
) -> Group:  # fmt: skip
    """Return the kernel that an operator joins, or a new one."""
    left = _numel(node) if _name(node) in REDUCTIONS else 0
    for group in sorted(near, key=lambda g: -g.level):
        others = [levels[i] for i in inputs if found.get(i) is not group]
        fits = space in (group.space, group.reduced) and (
            not left or group.reduced in (0, left) or space == group.reduced
        )
        if fits and all(level < group.level for level in others):
            if left and space == group.space:
                group.reduced = left
            group.members.append(node)
            return group
    level = max((levels[i] for i in inputs), default=0) + 1
    return Group(level, space, left, [node])


def _with_kernels(found: dict[Node, Group]) -> dict[Node, Group]:
    """Give every group its kernel: what it reads from outside, and what is needed outside."""
    again = _computed_again(found)
    for group in dict.fromkeys(found.values()):
        inside = {n: None for n, g in found.items() if g is group}
        needed = [
            n for n in inside if _root(n) not in again and any(u not in inside for u in n.users)
        ]
        read: dict[Node, None] = {}
        for node in inside:
            if node not in again:
                outside = (_root(i) for i in node.all_input_nodes if i not in inside)
                read |= {leaf: None for i in outside for leaf in again.get(i, (i,))}
        group.escapes = set(needed)
        written = dict.fromkeys(_root(n) for n in needed)
        if not written:
            continue
        nbytes = sum(map(_bytes, read)) + sum(map(_bytes, written))
        names = list(dict.fromkeys(_name(n) for n in group.members))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        group.kernel = memory_kernel(f"fused {' '.join(names[:MOST_NAMED])}{more}", float(nbytes))
    return found


def _computed_again(found: dict[Node, Group]) -> dict[Node, tuple[Node, ...]]:
    """Return operators that every kernel which needs them computes for itself, and what it reads for that.

    They are element-wise, made of few tensors, and needed by such kernels alone.
    """
    cones: dict[Node, tuple[Node, ...]] = {}
    again: dict[Node, tuple[Node, ...]] = {}
    for node, group in found.items():
        if _is_free(node) or _name(node) in REDUCTIONS:
            continue
        read: dict[Node, None] = {}
        for given in map(_root, node.all_input_nodes):
            if found.get(given) is group and given not in cones:
                break  # it waits for a reduction of its own kernel
            inner = cones[given] if found.get(given) is group else again.get(given, (given,))
            read |= dict.fromkeys(inner)
        else:
            cones[node] = tuple(read)
            users = list(_users(node))
            if (
                len(read) <= MOST_READ
                and all(u in found for u in users)
                and any(found[u] is not group for u in users)
            ):
                again[node] = tuple(read)
    return again


def _users(node: Node) -> Iterator[Node]:
    """Yield the operators that need a result, seen through views."""
    for user in node.users:
        if user.op == "call_function" and _is_free(user):
            yield from _users(user)
        else:
            yield user


def _root(node: Node) -> Node:
    """Return the operator whose memory a view shows."""
    while node.op == "call_function" and _is_free(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _space(node: Node) -> int:
    """Return how many elements an operator goes over if it can share a kernel; 0: it cannot."""
    name = _name(node)
    if name in REDUCTIONS:
        return _numel(node.all_input_nodes[0]) if node.all_input_nodes else 0
    target = node.target
    simple = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
    return _numel(node) if simple or name in ALSO else 0


def _is_free(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return True  # getitem, sizes
    return nature(node.target).free


def _name(node: Node) -> str:
    target = node.target
    found = (
        target._overloadpacket.__name__
        if isinstance(target, torch._ops.OpOverload)
        else str(target)
    )
    return found.rstrip("_")


def _tensors(node: Node) -> list[torch.Tensor]:
    value: Any = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]


def _numel(node: Node) -> int:
    return max((t.numel() for t in _tensors(node)), default=0)


def _bytes(node: Node) -> int:
    return sum(map(touched, _tensors(node)))
