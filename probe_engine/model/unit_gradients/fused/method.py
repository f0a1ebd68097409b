"""The method itself: windows of units, their passes, and what becomes of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from probe_engine.estimators.token_statistics import TokenScores, TokenStatistics
from probe_engine.model.packed_attention import attention_by_sequence, may_attend_by_sequence
from probe_engine.model.packed_layout import laid_out
from probe_engine.model.teacher_forcing import (
    TokenSequence,
    device_of,
    response_logits,
    response_scores,
)
from probe_engine.model.unit_gradients.fused.packing import Bundle, Window, packed
from probe_engine.model.unit_gradients.fused.places import Places
from probe_engine.model.unit_gradients.fused.reverse import Pass, Passes, handed_over_again, reverse
from probe_engine.model.unit_gradients.fused.tape import Tape
from probe_engine.model.unit_gradients.fused.trial import keeps_apart
from probe_engine.model.unit_gradients.interface import (
    Dots,
    Measurement,
    Passed,
    Receive,
    Rescored,
    Scored,
    untold,
)
from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.model.unit_gradients.received import Contractions, UnitVectors, handed_over
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector

T = TypeVar("T")


@dataclass(frozen=True)
class Fused:
    """One forward and one reverse pass for X and Y of all units of a window, one more for X of (2b).

    Memory is that of `micro_batch` sequences as long as the longest; of shorter ones a window takes more.
    Only a unit that is larger than a window is scored once more, and then differentiated in parts.
    """

    model: nn.Module
    registry: ParameterRegistry
    micro_batch: int
    temperature: float = 1.0
    name: str = "fused"
    keeps_vectors: bool = True
    _without_rule: set[int] = field(default_factory=set)
    """Parameters, by index, that some use without a rule was seen of."""
    _tried: list[bool] = field(default_factory=list)
    """Whether the model may be given several sequences in one row, once it was tried."""
    _held: list[tuple[Window, Passes]] = field(default_factory=list)
    """The window that a first pass ended with, with layers' inputs and δ: a second pass begins with it."""

    @cached_property
    def _places(self) -> Places:
        return Places.of(self.model, self.registry)

    @property
    def attention(self) -> str:
        """The model's own attention implementation."""
        return str(getattr(getattr(self.model, "config", None), "_attn_implementation", "unknown"))

    @property
    def fallback_parameters(self) -> int:
        """Parameters that autograd differentiated so far, for want of a rule."""
        return len(self._without_rule)

    def packs(self, units: Sequence[UnitObjective]) -> bool:
        """Whether sequences of these units share rows, so that nothing is padded and no prompt repeated."""
        with attention_by_sequence():
            return any(
                window.spares and self._may_pack(window.rows) for window in packed(units, self.micro_batch)
            )

    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        """S, X_u and Y_u of one unit."""
        vectors = UnitVectors(self.registry)
        (scored,) = self.measurements([objective], vectors, rao_blackwell=rao_blackwell)
        x_rb = vectors.rao_blackwell(0) if rao_blackwell else None
        return Measurement(objective, scored.S, scored.tokens, *vectors.of(0), x_rb)

    def measurements(
        self,
        units: Sequence[UnitObjective],
        receive: Receive,
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
        hold: bool = False,
    ) -> Iterator[Scored]:
        """First pass over all units, window by window. Of the last one layers' inputs and δ may be held: they
        take the place of its graph. Not beside (2b), whose δ would come on top."""
        windows = self._windows(units)
        self._held.clear()

        def of(window: Window) -> list[Scored]:
            if window.oversize:
                return self._one_large(window, receive, rao_blackwell=rao_blackwell)
            last = hold and not rao_blackwell and window is windows[-1]
            return self._at_once(window, receive, rao_blackwell=rao_blackwell, hold=last)

        return _in_order(windows, of, passed)

    def scores(self, units: Sequence[UnitObjective], passed: Passed = untold) -> Iterator[Rescored]:
        """S, and each response's log-probabilities and entropies, in the windows of `measurements`."""
        return _in_order(self._windows(units), self._rescored, passed)

    def score(self, objective: UnitObjective) -> Scored:
        """S and token statistics of one unit, without a graph."""
        (window,) = self._windows([objective])
        with attention_by_sequence():
            (scored,) = self._scored(window)
        return scored

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        """The dot products of one unit."""
        scored = Scored(objective, S, tuple(tokens))
        (dots,) = self.contractions([scored], x_directions, y_directions, rao_blackwell=bool(tokens))
        return dots

    def contractions(
        self,
        scored: Sequence[Scored],
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
    ) -> Iterator[Dots]:
        """Second pass. The weights are known and a dot product is linear: no graph waits for another."""
        dots = Contractions(x_directions, y_directions, len(scored), rao_blackwell=rao_blackwell)

        def of(window: Window) -> list[Dots]:
            if self._holds(window):
                _, passes = self._held.pop()
                handed_over_again(self.registry, passes, window.numbers, dots)
            else:
                of_window = [scored[n] for n in window.numbers]
                self._in_parts(window, of_window, dots, rao_blackwell=rao_blackwell)
            return [dots.of(number) for number in window.numbers]

        windows = self._windows([s.objective for s in scored])
        return _in_order(sorted(windows, key=self._holds, reverse=True), of, passed)

    def _holds(self, window: Window) -> bool:
        """Whether this very window's layers' inputs and δ are there."""
        return any(
            window.numbers == held.numbers and all(map(operator.is_, window.units, held.units))
            for held, _ in self._held
        )

    def _one_large(self, window: Window, receive: Receive, *, rao_blackwell: bool) -> list[Scored]:
        """A unit whose weights must be known before it is differentiated in parts."""
        (scored,), (number,) = self._scored(window), window.numbers
        vectors = UnitVectors(self.registry)
        self._in_parts(window, [scored], vectors, rao_blackwell=rao_blackwell)
        x_rb = vectors.rao_blackwell(number) if rao_blackwell else None
        measured = Measurement(scored.objective, scored.S, scored.tokens, *vectors.of(number), x_rb)
        handed_over(number, measured, receive)
        return [scored]

    def _scored(self, window: Window) -> list[Scored]:
        bundles = window.bundles
        with torch.no_grad():
            return _split(window, bundles, [self._tape(bundle) for bundle in bundles])

    @torch.no_grad()
    def _rescored(self, window: Window) -> list[Rescored]:
        scores: list[tuple[TokenScores, ...]] = []
        bundles = window.bundles
        for bundle in bundles:
            device = device_of(self.model)
            layout = laid_out(bundle.sequences, bundle.owners, device, packed=bundle.packed, copies=1)
            scores.append(response_scores(response_logits(self.model, layout), layout, self.temperature))
        return [
            Rescored(unit, torch.stack([t.log_probs.double().sum() for t in tokens]), tokens)
            for unit, tokens in zip(window.units, _by_unit(window, bundles, scores), strict=True)
        ]

    def _at_once(self, window: Window, receive: Receive, *, rao_blackwell: bool, hold: bool) -> list[Scored]:
        """All graphs of the window, then their reverse passes."""
        bundles = window.bundles
        tapes = self._tapes(bundles)
        scored = _split(window, bundles, tapes)
        self._reverse(window, bundles, tapes, scored, receive, rao_blackwell=rao_blackwell, hold=hold)
        return scored

    def _in_parts(
        self, window: Window, scored: Sequence[Scored], receive: Receive, *, rao_blackwell: bool
    ) -> None:
        """Pass by pass: what arrives are parts of the units' sums."""
        tokens = [t for s in scored for t in s.tokens]
        for bundle in window.bundles:
            tapes = self._tapes([bundle], tokens)
            self._reverse(window, [bundle], tapes, scored, receive, rao_blackwell=rao_blackwell)

    def _reverse(
        self,
        window: Window,
        bundles: Sequence[Bundle],
        tapes: Sequence[Tape],
        scored: Sequence[Scored],
        receive: Receive,
        *,
        rao_blackwell: bool,
        hold: bool = False,
    ) -> None:
        """From S, and from what (2b) differentiates, whose tokens' weights follow from the forward passes."""
        weights = [window.weights([s.S for s in scored])]
        roots = [[tape.S] for tape in tapes]
        if rao_blackwell:
            weights.append(window.rao_blackwell_weights())
            to_come = [w for s in scored for w in s.objective.entropies_to_come(s.tokens)]
            for tape, bundle, of in zip(tapes, bundles, roots, strict=True):
                of.append(tape.rao_blackwell([to_come[row] for row in bundle.rows]))
        passes = [
            [
                Pass.of(tape, root, window.places[bundle.rows], w[:, :, bundle.rows])
                for root, w in zip(of, weights, strict=True)
            ]
            for tape, bundle, of in zip(tapes, bundles, roots, strict=True)
        ]
        without_rule = reverse(self.registry, passes, window.numbers, receive, hold=hold)
        self._without_rule.update(without_rule)
        if hold and not without_rule:
            self._held.append((window, passes))

    def _tapes(self, bundles: Sequence[Bundle], tokens: Sequence[TokenStatistics] = ()) -> list[Tape]:
        while True:
            tapes = [self._tape(bundle, tokens) for bundle in bundles]
            cut_off = set().union(*(tape.cut_off for tape in tapes))
            if not cut_off:
                return tapes
            self._without_rule.update(cut_off)

    def _tape(self, bundle: Bundle, tokens: Sequence[TokenStatistics] = ()) -> Tape:
        """
        Args:
            tokens: statistics of all the window's responses, where they are known.
        """
        return self._recorded(
            bundle.sequences,
            bundle.owners,
            packed=bundle.packed,
            tokens=[tokens[row] for row in bundle.rows] if tokens else (),
        )

    def _recorded(
        self,
        sequences: Sequence[TokenSequence],
        owners: Sequence[int],
        *,
        packed: bool,
        tokens: Sequence[TokenStatistics] = (),
    ) -> Tape:
        return Tape(
            self.model,
            self.registry,
            self._places,
            sequences,
            owners,
            self.temperature,
            packed=packed,
            without_rule=self._without_rule,
            tokens=tokens,
        )

    def _windows(self, units: Sequence[UnitObjective]) -> list[Window]:
        return packed(units, self.micro_batch, packs=self.packs(units))

    def _may_pack(self, sequences: Sequence[TokenSequence]) -> bool:
        if not self._tried:
            self._tried.append(
                may_attend_by_sequence(self.model) and keeps_apart(self.model, self._recorded, sequences)
            )
        return self._tried[0]


def _split(window: Window, bundles: Sequence[Bundle], tapes: Sequence[Tape]) -> list[Scored]:
    """S and token statistics of all rows, unit by unit."""
    S = _by_unit(window, bundles, [tape.S.detach().cpu() for tape in tapes])
    tokens = _by_unit(window, bundles, [tape.tokens for tape in tapes])
    return [Scored(unit, torch.stack(s), t) for unit, s, t in zip(window.units, S, tokens, strict=True)]


def _by_unit(
    window: Window, bundles: Sequence[Bundle], by_bundle: Iterable[Iterable[T]]
) -> list[tuple[T, ...]]:
    """What came of each row, pass by pass, as each unit's in its order."""
    order = [row for bundle in bundles for row in bundle.rows]
    found = dict(zip(order, chain.from_iterable(by_bundle), strict=True))
    rows = iter(range(len(order)))
    return [tuple(found[next(rows)] for _ in unit.sequences) for unit in window.units]


def _in_order(windows: Sequence[Window], of: Callable[[Window], Sequence[T]], passed: Passed) -> Iterator[T]:
    """What comes window by window, unit by unit: each as soon as all before it are there."""
    waiting: dict[int, T] = {}
    turn = 0
    for window in windows:
        with attention_by_sequence():
            waiting.update(zip(window.numbers, of(window), strict=True))
        passed(sum(unit.tokens for unit in window.units))
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
