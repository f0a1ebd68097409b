"""One forward pass with what the reverse pass needs: layers' inputs, and where δ will arrive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.logit_derivatives import Spending, expendable, log_prob_sums, rao_blackwell_sums
from probe_engine.model.module_calls import tensors
from probe_engine.model.packed_layout import PackedLayout, laid_out
from probe_engine.model.teacher_forcing import (
    TokenSequence,
    device_of,
    response_logits,
    response_statistics,
)
from probe_engine.model.unit_gradients.fused.graph import Node, leaf_edges
from probe_engine.model.unit_gradients.fused.places import Layer, Places
from probe_engine.model.unit_gradients.fused.rules import LOOKUP, LayerCall, Rule
from probe_engine.model.unit_gradients.fused.segments import segments
from probe_engine.model.unit_gradients.fused.slots import Rows, Runs, Slots, by_row
from probe_engine.registry import ParameterRegistry


@dataclass(eq=False)
class RuledCall:
    """A call whose parameters' gradients a rule gives once δ has arrived.

    It holds no node of the graph: the graph holds it, through the hook that brings δ.
    """

    rule: Rule
    given: LayerCall | None
    names: dict[int, str]
    """Of the parameters within the layer, by `id`."""
    severed: bool
    """An embedding whose output was replaced by a leaf: the graph holds no edge to its weight."""
    deltas: list[Tensor] = field(default_factory=list)
    """Of each root, in their order."""
    arrived: Callable[[RuledCall], None] | None = None
    awaited: set[int] = field(default_factory=set)
    """Parameters, by `id`, that δ is still needed for."""

    def expect(self, arrived: Callable[[RuledCall], None]) -> None:
        """Reverse passes will bring δ."""
        self.deltas, self.arrived, self.awaited = [], arrived, set(self.names)

    def take(self, delta: Tensor) -> None:
        """δ = ∂(Σ root)/∂output; the hook of the output, which nobody may be waiting for."""
        if self.arrived is not None:
            self.deltas.append(delta.detach())
            self.arrived(self)

    def release(self, parameter: int) -> None:
        """This parameter, by `id`, is done. After the last one δ and the inputs go."""
        self.awaited.discard(parameter)
        if not self.awaited:
            self.deltas, self.arrived, self.given = [], None, None


@dataclass(frozen=True)
class Anchor:
    """A tensor whose parts are the slots', through which all of some parameters' gradient comes."""

    edge: GradientEdge
    weighted: Callable[[Tensor, Tensor], Tensor]
    """δ there with each slot's part times its weight."""


@dataclass
class _Seen:
    """The outputs of a module's calls, and the nodes of what it was given."""

    outputs: list[list[tuple[GradientEdge, torch.Size]]] = field(default_factory=list)
    inputs: set[Node] = field(default_factory=set)

    def keep(self, visited: set[Node]) -> None:
        """Outputs that S does not depend on, or did before something was written into them, are none."""
        self.outputs = [[o for o in call if o[0].node in visited] for call in self.outputs]


class Tape:
    """A forward pass of N sequences, recorded.

    The output of the input embeddings becomes a leaf that requires a gradient, so that the reverse pass ends
    there and computes no weight gradient.

    Args:
        registry: the parameters that are to be differentiated.
        places: where they are.
        owners: whose each of them is: prompts are shared within one owner's.
        packed: whether the sequences stand in one row, or each in its own.
        without_rule: parameters, by index, that are known to have a use without a rule.
        tokens: each response's statistics, where they are known already.
    """

    def __init__(
        self,
        model: nn.Module,
        registry: ParameterRegistry,
        places: Places,
        sequences: Sequence[TokenSequence],
        owners: Sequence[int],
        temperature: float,
        *,
        packed: bool,
        without_rule: Collection[int],
        tokens: Sequence[TokenStatistics] = (),
    ) -> None:
        self._registry, self._places = registry, places
        self._without_rule = {registry.ids[index] for index in without_rule}
        self._calls: list[tuple[GradientEdge, RuledCall]] = []
        self._seen: dict[nn.Module, _Seen] = defaultdict(_Seen)
        self._starts: list[GradientEdge] = []
        self._blocks: list[GradientEdge] = []
        self._layout = layout = laid_out(sequences, owners, device_of(model), packed=packed)
        self.slots: Slots = (
            Runs(layout.row, layout.responses)
            if isinstance(layout, PackedLayout)
            else Rows(len(sequences), layout.input_ids.shape[1], layout.targets.shape[1])
        )
        self._temperature = temperature
        with self._watched():
            logits = response_logits(model, self._layout)
        self.tokens = tuple(tokens) or response_statistics(logits, self._layout, temperature)
        """of each response"""
        self._spending, self._expendable = Spending(), expendable(logits)
        self.S = log_prob_sums(logits, self._layout, self.tokens, temperature, self._spending)
        """[N], with its graph"""
        self._logits = logits if self.S.requires_grad else None
        self._edges, visited = leaf_edges([] if self.S.grad_fn is None else [self.S.grad_fn])
        for seen in self._seen.values():
            seen.keep(visited)
        self.ruled, self.unruled = self._sorted(visited)
        """Of the parameters that S depends on, by index: those with a rule for every use; the others"""

    @property
    def cut_off(self) -> set[int]:
        """Parameters without a rule for some use of theirs that the graph does not even hold whole."""
        severed = {key for _, call in self._calls if call.severed for key in call.names}
        return {index for index in self.unruled if self._registry.ids[index] in severed}

    def rao_blackwell(self, to_come: Sequence[Tensor]) -> Tensor:
        """What (2b) differentiates, [N], from W [L] of each sequence; on the graph of S."""
        assert self._logits is not None  # gone with the graph, after a reverse pass that does not retain it
        return rao_blackwell_sums(
            self._logits, self._layout, self.tokens, to_come, self._temperature, self._spending
        )

    def mixes(self, sequence: int) -> bool:
        """Whether S of this sequence depends on a place that is taken for another one's; or on none at all.

        Looks at whatever gradients of parameters are made from. It takes the graph down.
        """
        edges = [*self._starts, *(edge for edge, _ in self._calls)]
        anchors = [Anchor(edge, self.slots.weighted) for edge in edges]
        anchors += self.anchors(self.S, self.unruled)
        others = self.slots.foreign(sequence)
        reached = False
        deltas = torch.autograd.grad(self.S[sequence], [a.edge for a in anchors], allow_unused=True)
        for anchor, delta in zip(anchors, deltas, strict=True):
            if delta is not None:
                if bool(anchor.weighted(delta, others).any()):
                    return True
                reached |= bool(delta.any())
        return not reached

    def anchors(self, root: Tensor, parameters: Collection[int]) -> dict[Anchor, list[int]]:
        """Where autograd differentiates these parameters from, as far as S depends on them.

        The innermost module around all uses of a parameter whose output is one tensor with a part for each
        sequence; the root of the reverse pass, S or what (2b) differentiates, where there is none.
        """
        found: dict[Anchor, list[int]] = defaultdict(list)
        for index in sorted(parameters):
            key = self._registry.ids[index]
            if self._edges[key]:
                found[self._anchor(key) or self.start(root)].append(index)
        return found

    def start(self, root: Tensor) -> Anchor:
        """Where a reverse pass begins: [N]."""
        return Anchor(get_gradient_edge(root), self._weighted_root)

    def reverse(
        self,
        roots: Sequence[Tensor],
        weights: Sequence[Tensor],
        anchors: Sequence[Collection[Anchor]],
        *,
        retain: bool,
    ) -> Iterator[list[dict[Anchor, Tensor]]]:
        """Reverse passes from some roots, cotangent 1 on every row. Ruled calls take their δ, and anchors'
        come back.

        The passes go back side by side, segment by segment, with a pause behind each: a layer has the δ of
        all roots before the layers in front of it have any.

        Args:
            roots: [N] each: S, what (2b) differentiates.
            weights: [k, U, N], what sequences weigh in each.
            anchors: whose δ is wanted of each.
            retain: whether the graph is needed once more; else it goes, and the logits may with it.
        """
        if not retain:
            self._logits = None
        if not self.S.requires_grad:
            return
        watched = {edge.node for edge in (*self._starts, *(edge for edge, _ in self._calls))}
        watched.update(anchor.edge.node for asked in anchors for anchor in asked)
        ends = [get_gradient_edge(root) for root in roots]
        deltas = [torch.ones_like(root) for root in roots]
        for segment in segments(self.S.grad_fn, self._blocks, watched):
            nodes = segment.nodes.union(end.node for end in ends)  # one root alone was gone through
            starts = [edge for edge in self._starts if edge.node in nodes]
            starts += [] if segment.end is None else [segment.end]
            found: list[dict[Anchor, Tensor]] = [{} for _ in roots]
            for turn, of_root in enumerate(anchors):
                asked = [anchor for anchor in of_root if anchor.edge.node in nodes]
                last = not retain and turn == len(roots) - 1
                self._spending.now = self._expendable and last
                self.slots.share(weights[turn])
                wanted = [anchor.edge for anchor in asked] + starts
                if not wanted:
                    continue
                gradients = torch.autograd.grad(
                    [ends[turn]], wanted, [deltas[turn]], retain_graph=not last, allow_unused=True
                )
                found[turn] = {a: g for a, g in zip(asked, gradients, strict=False) if g is not None}
                if segment.end is not None:
                    ends[turn], deltas[turn] = segment.end, gradients[-1]
            self.slots.share(None)  # what follows begins at weighted δ
            yield found
            if any(delta is None for delta in deltas):  # some operation hands none on
                return

    def _sorted(self, visited: set[Node]) -> tuple[dict[int, list[RuledCall]], set[int]]:
        uses: dict[int, list[RuledCall]] = defaultdict(list)
        for edge, call in self._calls:
            if edge.node in visited:
                for key in call.names:
                    uses[key].append(call)
        ruled, unruled = {}, set()
        for index, key in enumerate(self._registry.ids):
            # An edge that no ruled call accounts for is a use that no rule knows.
            if self._edges[key] != sum(not call.severed for call in uses[key]):
                unruled.add(index)
            elif uses[key]:
                ruled[index] = uses[key]
        return ruled, unruled

    def _weighted_root(self, delta: Tensor, weights: Tensor) -> Tensor:
        return by_row(delta, self.slots.of_sequences(weights))

    def _anchor(self, key: int) -> Anchor | None:
        for module in self._places.upwards(key):
            seen = self._seen[module]
            if len(seen.outputs) == 1 and len(seen.outputs[0]) == 1:
                edge, shape = seen.outputs[0][0]
                inside, _ = leaf_edges([edge.node], seen.inputs)
                if self.slots.told(shape) and inside[key] == self._edges[key]:
                    return Anchor(edge, self.slots.weighted)
        return None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Forward hooks inside, none left behind."""
        places, handles = self._places, []
        try:
            if places.embeddings is not None:
                handles.append(places.embeddings.register_forward_hook(self._begin))
            for layer in places.layers:
                record = partial(self._record, layer)
                handles.append(layer.module.register_forward_hook(record, with_kwargs=True))
            handles += [block.register_forward_hook(self._ends) for block in places.blocks]
            for module in places.outside_of_rules(self._without_rule):
                handles.append(module.register_forward_hook(self._note, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, _module: nn.Module, _args: object, output: Any) -> Tensor | None:
        """What comes out of the input embeddings is where the reverse pass ends, whoever trains them."""
        if not isinstance(output, Tensor) or not torch.is_grad_enabled():
            return None
        if output.requires_grad:
            self._starts.append(get_gradient_edge(output))
            return None
        return self._leaf(output).clone()

    def _ends(self, _module: nn.Module, _args: object, output: Any) -> None:
        """Where the graph may be cut: not where hooks of the model's own would run on both sides."""
        first = next(tensors(output), None)
        if first is not None and first.requires_grad and not first._backward_hooks:
            self._blocks.append(get_gradient_edge(first))

    def _leaf(self, output: Tensor) -> Tensor:
        """To be handed on as a clone: a model may write into what it takes for an activation."""
        leaf = output.detach().requires_grad_()
        self._starts.append(get_gradient_edge(leaf))
        return leaf

    def _record(self, layer: Layer, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor | None:
        names = {key: name for key, name in layer.names.items() if key not in self._without_rule}
        if not names or not isinstance(output, Tensor) or not output.requires_grad:
            return None
        if not self.slots.told(output.shape):
            return None
        given = LayerCall.of(module, args, kwargs)
        if not layer.rule.holds(given, output.detach()):
            return None
        severed = layer.rule is LOOKUP
        call = RuledCall(layer.rule, given, names, severed)
        kept = self._leaf(output) if severed else output
        self._calls.append((get_gradient_edge(kept), call))
        kept.register_hook(call.take)
        if severed:
            return kept.clone()
        if not any(t.requires_grad for t in tensors((args, kwargs))):
            self._starts.append(get_gradient_edge(output))
        return None

    def _note(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen = self._seen[module]
        seen.outputs.append([(get_gradient_edge(t), t.shape) for t in tensors(output) if t.requires_grad])
        seen.inputs.update(t.grad_fn for t in tensors((args, kwargs)) if t.grad_fn is not None)
