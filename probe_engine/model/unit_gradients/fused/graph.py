"""Which parameters autograd's graph holds, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

Node = Any
"""`torch.autograd.graph.Node`, as `grad_fn` and `next_functions` give it."""


def leaf_edges(roots: Iterable[Node], stop: Collection[Node] = frozenset()) -> tuple[Counter[int], set[Node]]:
    """Walks from `roots` towards the leaves, not beyond `stop`.

    Returns:
        for each leaf, by `id`, how many operations take it as an input; and the nodes that were visited.
    """
    edges: Counter[int] = Counter()
    visited: set[Node] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node in visited:
            continue
        visited.add(node)
        if node in stop:
            continue
        for follower, _ in node.next_functions:
            if follower is None:
                continue
            leaf = getattr(follower, "variable", None)
            if leaf is not None:
                edges[id(leaf)] += 1
            waiting.append(follower)
    return edges, visited
