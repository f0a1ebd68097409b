"""Gradients of a window's units, parameter by parameter, as δ arrives: X_u and Y_u from S, X_u of (2b).

U  units of the window
N  sequences of one of its forward passes, M slots (`slots`)
k  kinds of gradients that are sums over the same sequences' gradients: 2 of S, 1 of what (2b) differentiates
w  weights of the sequences in each kind, [k, U, N]: 0 where the sequence is another unit's
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor

from probe_engine.model.unit_gradients.fused.rules import Asked
from probe_engine.model.unit_gradients.fused.slots import Parts
from probe_engine.model.unit_gradients.fused.tape import Anchor, RuledCall, Tape
from probe_engine.model.unit_gradients.interface import Receive
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import Share, shares, wide

T = TypeVar("T")

FORMED_NUMBERS = 2**24
"""Gradients are formed about this many numbers at a time, those of units and those of single slots."""
CACHED_NUMBERS = 2**22
"""The same on a CPU, whose cache should hold them until they are summed up, multiplied and forgotten."""
FOLDED_TOKENS = 128
"""Up to so many tokens a slot, on average, a matrix's gradients are summed up within the products: δ xᵀ once
for each kind, with x weighted, is quicker than once for each slot and sums over what comes."""


@dataclass(frozen=True)
class Pass:
    """A recorded forward pass, what is differentiated, and what its sequences weigh."""

    tape: Tape
    root: Tensor
    """[N], with its graph: S, or what (2b) differentiates"""
    of_sequences: Tensor
    """w"""
    units: Tensor
    """[M], each slot's unit, by its place in the window"""
    weights: Tensor
    """[k, U, M]"""

    _known: dict[Hashable, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tape: Tape, root: Tensor, units: Tensor, w: Tensor) -> Pass:
        """Of a tape, by the unit of each sequence, [N]."""
        return cls(tape, root, w, tape.slots.units(units), tape.slots.weights(w))

    def parts(self, delta: Tensor) -> tuple[Parts, Tensor]:
        """What takes out the slots' parts, and their weights, where δ is and as wide as its products."""
        device, dtype = delta.device, wide(delta.dtype)

        def made() -> tuple[Parts, Tensor]:
            every = torch.arange(len(self.units))
            return self.tape.slots.parts(every, device), self.weights.to(device, dtype)

        return self._once(("parts", device, dtype), made)

    def folds(self, delta: Tensor) -> bool:
        """Whether slots are so short that they are summed up within the products."""
        return delta.shape[:-1].numel() <= FOLDED_TOKENS * len(self.units)

    def together(self, delta: Tensor) -> list[tuple[Parts, list[Tensor]]]:
        """For each kind of gradient what takes out each unit's positions at once, and what each of them
        weighs, [1, t, 1] a unit. Those that weigh nothing at either end are left out: another kind's copy of
        a prompt."""
        device, dtype = delta.device, wide(delta.dtype)

        def made() -> list[tuple[Parts, list[Tensor]]]:
            units = [(self.units == unit).nonzero().squeeze(-1) for unit in range(self.weights.shape[1])]
            of_units = self.tape.slots.together(units)
            ones = torch.ones(*delta.shape[:-1], 1, dtype=dtype)
            by_kind = [of_units(self.tape.slots.weighted(ones, w)) for w in self.weights.sum(1)]
            return [_within(of_units, [w.to(device) for w in weights]) for weights in by_kind]

        return self._once(("together", device, dtype, delta.shape[:-1]), made)

    def _once(self, key: Hashable, made: Callable[[], T]) -> T:
        """All parameters ask for the same."""
        if key not in self._known:
            self._known[key] = made()
        found: T = self._known[key]
        return found


def _within(parts: Parts, weights: Sequence[Tensor]) -> tuple[Parts, list[Tensor]]:
    """Parts [1, t, d] without what weighs 0 at their ends, and the weights, [1, t, 1], of what is left."""
    weigh = [w.flatten().nonzero().flatten().tolist() for w in weights]
    runs = [slice(at[0], at[-1] + 1) if at else slice(0) for at in weigh]

    def within(tensor: Tensor) -> list[Tensor]:
        return [part[:, run] for part, run in zip(parts(tensor), runs, strict=True)]

    return within, [w[:, run] for w, run in zip(weights, runs, strict=True)]


Passes = Sequence[Sequence[Pass]]
"""Of all sequences that are to be summed over: of each tape one from each root, S and what (2b)
differentiates."""


def reverse(
    registry: ParameterRegistry,
    passes: Passes,
    units: Sequence[int],
    receive: Receive,
    *,
    hold: bool = False,
) -> set[int]:
    """Hands the gradients to `receive`, share by share, each once for each unit that has one.

    Args:
        registry: the parameters.
        passes: whose tapes are used up.
        units: the window's units, as `receive` knows them.
        receive: takes them.
        hold: whether layers' inputs and δ stay for `handed_over_again`, which takes a rule for every use.

    Returns:
        The parameters, by index, that autograd differentiated: no rule knew some use of theirs.
    """
    unruled = set().union(*(roots[0].tape.unruled for roots in passes))
    forming = _Forming(registry, passes, units, receive, unruled, hold=hold and not unruled)
    forming.begin()
    anchors = [[each.tape.anchors(each.root, unruled) for each in roots] for roots in passes]
    going_back = [
        roots[0].tape.reverse(
            [each.root for each in roots], [each.of_sequences for each in roots], of, retain=bool(unruled)
        )
        for roots, of in zip(passes, anchors, strict=True)
    ]
    plans = [[list[_Start]() for _ in roots] for roots in passes]
    for segment in zip_longest(*going_back):  # all tapes side by side
        for deltas, of, plan in zip(segment, anchors, plans, strict=True):
            for found, wanted, starts in zip(deltas or [], of, plan, strict=False):
                starts += [_Start(a, delta, wanted[a]) for a, delta in found.items()]
    silent = forming.finish()
    if not unruled:
        forming.form_the_rest()
        return unruled
    # What no δ reached hangs on nothing but parameters without a rule: the root is where to begin.
    for roots, plan in zip(passes, plans, strict=True):
        for each, starts in zip(roots, plan, strict=True):
            if left := [index for index in silent if index in each.tape.ruled]:
                starts.append(_Start(each.tape.start(each.root), torch.ones_like(each.root), left))
    _differentiate(registry, passes, plans, units, receive)
    return unruled | silent


def handed_over_again(
    registry: ParameterRegistry, passes: Passes, units: Sequence[int], receive: Receive
) -> None:
    """The gradients of passes that `reverse` held, which are then used up: nothing goes through the model."""
    _Forming(registry, passes, units, receive, set(), hold=False).form_the_rest()


@dataclass(frozen=True)
class _Start:
    """Where autograd begins for some parameters, with which cotangent."""

    anchor: Anchor
    delta: Tensor
    parameters: list[int]


class _Forming:
    """Forms the gradients of a parameter once δ has arrived at all of its uses."""

    def __init__(
        self,
        registry: ParameterRegistry,
        passes: Passes,
        units: Sequence[int],
        receive: Receive,
        unruled: set[int],
        *,
        hold: bool,
    ) -> None:
        self._registry, self._units, self._receive, self._hold = registry, units, receive, hold
        self._kinds = [len(each.weights) for each in passes[0]]
        self._uses: dict[int, list[tuple[RuledCall, Sequence[Pass]]]] = defaultdict(list)
        self._awaited: dict[int, int] = {}
        for roots in passes:
            for index, calls in roots[0].tape.ruled.items():
                if index not in unruled:
                    self._uses[index] += [(call, roots) for call in calls]
        self._index = {registry.ids[index]: index for index in self._uses}

    def begin(self) -> None:
        """Reverse passes will bring δ."""
        for index, uses in self._uses.items():
            self._awaited[index] = len(uses) * len(self._kinds)
            for call, _ in uses:
                call.expect(self._arrived)

    def finish(self) -> set[int]:
        """No more δ will come, and what else goes over the graph brings none.

        Returns:
            The parameters of which some δ has not arrived.
        """
        for uses in self._uses.values():
            for call, _ in uses:
                call.arrived = None
        return set(self._uses)

    def form_the_rest(self) -> None:
        """A use that no δ reached adds nothing."""
        for index, uses in list(self._uses.items()):
            self._uses[index] = [(call, roots) for call, roots in uses if call.deltas]
            if self._uses[index]:
                self._form(index)

    def _arrived(self, call: RuledCall) -> None:
        for key in list(call.names):
            index = self._index.get(key)
            if index is not None:
                self._awaited[index] -= 1
                if not self._awaited[index]:
                    self._form(index)

    @torch.no_grad()
    def _form(self, index: int) -> None:
        uses, parameter = self._uses.pop(index), self._registry.parameters[index]
        for share in shares(index, parameter, at_a_time(parameter.device) // len(self._units)):
            shape = torch.Size((len(self._units), *share.of(parameter).shape))
            gradients: list[Tensor] = []
            for root, kinds in enumerate(self._kinds):
                totals: list[Tensor] = []
                for call, roots in reversed(uses):  # a head before the embedding that it is: it writes all
                    totals = _added(call, root, roots[root], share, id(parameter), shape, totals)
                dtype = wide(parameter.dtype)
                gradients += totals or [parameter.new_zeros(shape, dtype=dtype) for _ in range(kinds)]
            self._receive(share, self._units, *gradients)
        if not self._hold:
            for call, _ in uses:
                call.release(id(parameter))


def at_a_time(device: torch.device) -> int:
    """Numbers of gradients that are formed at a time."""
    return CACHED_NUMBERS if device.type == "cpu" else FORMED_NUMBERS


def _added(
    call: RuledCall, root: int, each: Pass, share: Share, key: int, shape: torch.Size, totals: list[Tensor]
) -> list[Tensor]:
    """With what one use gives, from one root: each kind of gradient of the units, [units, *share's shape]
    apiece, added up in place.

    No totals stand for zeros.
    """
    assert call.given is not None
    delta, name, length = call.deltas[root], call.names[key], shape[1]
    adds = partial(call.rule.add, call.given, delta, name)
    # What is first, or on another device than the first, gets tensors of its own.
    apart = not totals or totals[0].device != delta.device
    mine = [delta.new_empty(shape, dtype=wide(delta.dtype)) for _ in each.weights] if apart else totals
    if len(shape) > 2 and each.folds(delta):
        for total, (of_units, weights) in zip(mine, each.together(delta), strict=True):
            adds(Asked(of_units, share.start, total, fresh=apart, weights=weights))
    else:
        parts, of_slots = each.parts(delta)
        step = max(1, at_a_time(delta.device) * length // (of_slots.shape[-1] * max(1, shape[1:].numel())))
        for first in range(0, length, step):
            rows = slice(first, min(first + step, length))
            gradients = mine[0].new_empty((of_slots.shape[-1], rows.stop - rows.start, *shape[2:]))
            adds(Asked(parts, share.start + first, gradients, fresh=True))
            # Apart, not as one product: whoever keeps X would keep Y with it.
            for total, w in zip(mine, of_slots, strict=True):
                these = total[:, rows].view(shape[0], -1)  # or it raises: a copy would be lost
                torch.addmm(these, w, gradients.flatten(1), beta=0 if apart else 1, out=these)
    if apart:
        for total, part in zip(totals, mine, strict=False):
            total.add_(part.to(total.device))
    return totals or mine


def _differentiate(
    registry: ParameterRegistry,
    passes: Passes,
    plans: Sequence[Sequence[Sequence[_Start]]],
    units: Sequence[int],
    receive: Receive,
) -> None:
    """What no rule gives: autograd from the anchors, for each unit with its own weights."""
    for place, unit in enumerate(units):
        by_root: list[dict[int, list[Tensor]]] = [{} for _ in passes[0]]
        for roots, plan in zip(passes, plans, strict=True):
            if not bool((roots[0].units == place).any()):
                continue
            for each, starts, totals in zip(roots, plan, by_root, strict=True):
                for start in starts:
                    found = [_weighted(registry, start, w[place]) for w in each.weights]
                    for index, *gradients in zip(start.parameters, *found, strict=True):
                        present = [g for g in gradients if g is not None]
                        if len(present) == len(gradients):
                            known = totals.get(index, [torch.zeros_like(g) for g in present])
                            totals[index] = [a + b for a, b in zip(known, present, strict=True)]
        for index in by_root[0]:  # what hangs on S hangs on what (2b) differentiates: on the same logits
            gradients = [total[None] for totals in by_root for total in totals[index]]
            receive(Share(index), [unit], *gradients)


def _weighted(registry: ParameterRegistry, start: _Start, weights: Tensor) -> list[Tensor | None]:
    """Σ_i w_i ∇root_i for the parameters that begin here."""
    gradients = torch.autograd.grad(
        [start.anchor.edge],
        [registry.parameters[index] for index in start.parameters],
        [start.anchor.weighted(start.delta, weights)],
        retain_graph=True,
        allow_unused=True,
    )
    return [None if g is None else g.to(wide(g.dtype)) for g in gradients]
