"""Where autograd's graph can be cut: at what every path goes through."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch.autograd.graph import GradientEdge

from probe_engine.model.unit_gradients.fused.graph import Node


@dataclass(frozen=True)
class Segment:
    """What lies between two cuts."""

    nodes: frozenset[Node]
    """From its beginning to its end, which is excluded."""
    end: GradientEdge | None
    """Through which every path goes on; None: they all end within."""


def segments(root: Node, places: Sequence[GradientEdge], watched: Collection[Node]) -> list[Segment]:
    """The graph from `root` to the leaves, cut wherever it can be.

    Args:
        root: where a reverse pass begins.
        places: where it might be cut, in the order in which the forward pass made them.
        watched: what is to lie in one segment each, and to be no cut.
    """
    order = {edge.node: at for at, edge in enumerate(places) if edge.node not in watched}
    found: list[Segment] = []
    seen = set[Node]()
    begin: Node | None = root
    while begin is not None:
        nodes, ahead = set[Node](), set[Node]()
        waiting = [begin]
        while waiting:
            node = waiting.pop()
            if node not in nodes:
                nodes.add(node)
                for follower, output in node.next_functions:
                    if follower not in order:
                        waiting += [] if follower is None else [follower]
                    elif output != places[order[follower]].output_nr:  # not all of it passes through this one
                        return segments(root, [p for p in places if p.node is not follower], watched)
                    else:
                        ahead.add(follower)
            beyond = ahead - nodes
            if not waiting and len(beyond) > 1:
                # Of several ways on, the one that was made last may lead to the others.
                waiting.append(max(beyond, key=order.__getitem__))
        if not seen.isdisjoint(nodes.intersection(watched)):
            return segments(root, [], watched)
        seen |= nodes
        begin = next(iter(ahead - nodes), None)
        found.append(Segment(frozenset(nodes), None if begin is None else places[order[begin]]))
    return found
