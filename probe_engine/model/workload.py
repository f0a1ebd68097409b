"""What passes over units cost, by method (method.md §5): counted on one forward pass, multiplied out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from probe_engine.environment.device import completed
from probe_engine.model.teacher_forcing import TokenSequence, device_of
from probe_engine.model.unit_gradients.fused.packing import Window, packed
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.registry import ParameterRegistry

DOUBLE = 2
"""What it costs to differentiate a forward and a reverse pass once more, in such passes."""
LOGITS = 3
"""The logits and their float32 copies in a reverse pass by autograd: their gradient, and how it is put
together from its chunks."""
LOGITS_IN_PLACE = 1
"""Of `fused`, whose last reverse pass writes the gradient over them; one before that makes a copy."""


@dataclass(frozen=True)
class Counted:
    """One forward pass with a graph."""

    tokens: int
    """Padding included."""
    flops: int
    """In matrix products."""
    saved: int
    """Bytes that autograd keeps, parameters and logits apart."""
    vocabulary: int
    seconds: float
    """Of so many tokens in the latest pass with a graph: none but the first is held up by being counted."""

    def nbytes(
        self, method: str, tokens: int, targets: int, dtype: torch.dtype, *, rao_blackwell: bool = False
    ) -> int:
        """What reverse passes take for so many tokens, logits of so many targets in `dtype`."""
        logits = targets * self.vocabulary * dtype.itemsize
        copies = LOGITS_IN_PLACE + rao_blackwell if method == "fused" else LOGITS
        return self.saved * tokens // self.tokens + copies * logits


@contextmanager
def first_forward(model: nn.Module) -> Iterator[list[Counted]]:
    """Counts the first forward pass with a graph inside; the clock alone runs in those after it.

    Yields:
        where that pass will stand, once it is over.
    """
    found: list[Counted] = []
    counting = ExitStack()
    products, kept = _Products(), _Kept(model)
    device = device_of(model)
    began: float | None = None

    def enter(_module: nn.Module, _args: object, _kwargs: object) -> None:
        nonlocal began
        if torch.is_grad_enabled():
            completed(device)
            began = time.perf_counter()
            if not found:
                counting.enter_context(torch.autograd.graph.saved_tensors_hooks(kept.pack, _unchanged))
                counting.enter_context(products)

    def leave(_module: nn.Module, _args: object, kwargs: dict[str, Any], output: Any) -> None:
        nonlocal began
        if began is None:
            return
        counting.close()
        if output is not None:  # it did not raise
            completed(device)
            seconds, tokens = time.perf_counter() - began, kwargs["input_ids"].numel()
            if found:
                found[0] = replace(found[0], seconds=seconds * found[0].tokens / tokens)
            else:
                logits = output.logits if hasattr(output, "logits") else output
                found.append(Counted(tokens, products.flops, kept.nbytes, logits.shape[-1], seconds))
        began = None

    handles = (
        model.register_forward_pre_hook(enter, with_kwargs=True),
        model.register_forward_hook(leave, with_kwargs=True, always_call=True),
    )
    try:
        yield found
    finally:
        counting.close()
        for handle in handles:
            handle.remove()


class _Products(TorchDispatchMode):
    """Adds up the operations of matrix products, by torch's own formulas.

    torch's `FlopCounterMode` gives the same sum by module, at several times the price of a short pass.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # inherited from torch
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class _Kept:
    """Adds up what autograd saves, parameters and buffers apart."""

    def __init__(self, model: nn.Module) -> None:
        own = (*model.parameters(), *model.buffers())
        self._known = {tensor.untyped_storage().data_ptr() for tensor in own}
        self.nbytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.nbytes += storage.nbytes()
        # A node that holds its own output with its graph is a cycle that nothing frees, the model in it.
        return tensor.detach()


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class TokenCost:
    """Floating-point operations for one token, in matrix products."""

    forward: float
    delta: float
    """Of the reverse pass, which goes back through every product."""
    products: float
    """Of δ and x, for each parameter."""

    @classmethod
    def of(cls, one: Counted, registry: ParameterRegistry, *, checkpointing: bool) -> TokenCost:
        """From a forward pass; with checkpointing there is one more in each reverse pass."""
        forward = one.flops / one.tokens
        return cls(forward, forward * (2 if checkpointing else 1), 2.0 * registry.numel)

    @property
    def reverse(self) -> float:
        """Of a whole reverse pass."""
        return self.delta + self.products

    def gradients(self, method: str, tokens: PassTokens, *, rao_blackwell: bool = False) -> float:
        """Of the first pass: X and Y of each unit, and X of (2b)."""
        a_token = self.forward + ((1 if method == "fused" else 2) + rao_blackwell) * self.reverse
        return tokens.differentiated * a_token + tokens.scored_first * self.forward

    def contractions(
        self, method: str, tokens: PassTokens, directions: int, *, rao_blackwell: bool = False
    ) -> float:
        """Of the second pass, with so many directions."""
        passing = PassTokens(tokens.differentiated, 0)
        again = self.gradients(method, passing, rao_blackwell=rao_blackwell)
        if not rao_blackwell:
            again -= tokens.held * (self.forward + self.delta)
        if not method.startswith("alpha"):
            return again
        return again + tokens.differentiated * directions * DOUBLE * (self.forward + self.reverse)


@dataclass(frozen=True)
class PassTokens:
    """Tokens of one pass over some units, padding included."""

    differentiated: int
    scored_first: int
    """Of units whose weights must be known before they are differentiated in parts."""
    held: int = 0
    """Of those differentiated, whose inputs and δ a second pass finds; not where the first computed (2b)."""

    @classmethod
    def of(
        cls,
        method: str,
        units: Sequence[UnitObjective],
        micro_batch: int,
        *,
        packs: bool = False,
        holds: bool = False,
    ) -> PassTokens:
        """As the method cuts them, `fused` in rows where it `packs`, and holds what its last window left."""
        held = 0
        if method == "fused":
            cut = packed(units, micro_batch, packs=packs)
            sizes = [(sum(b.tokens for b in window.bundles), window.oversize) for window in cut]
            if holds and not cut[-1].oversize:
                held, _ = sizes[-1]
        else:
            parts = [[u.sequences[part] for part in chunks(u, micro_batch)] for u in units]
            sizes = [(sum(map(_padded, each)), len(each) > 1) for each in parts]
        return cls(sum(size for size, _ in sizes), sum(size for size, in_parts in sizes if in_parts), held)


def scored_tokens(
    method: str, units: Sequence[UnitObjective], micro_batch: int, *, packs: bool = False
) -> int:
    """Of one scoring of some units, likewise."""
    if method != "fused":
        return PassTokens.of(method, units, micro_batch).differentiated
    return sum(b.scored_tokens for window in packed(units, micro_batch, packs=packs) for b in window.bundles)


def largest_pass(windows: Sequence[Window]) -> tuple[int, int]:
    """What `fused` holds graphs of at a time, at most: tokens given to the model, and responses' tokens."""
    return max(
        (sum(b.tokens for b in held), sum(len(s.response) for b in held for s in b.sequences))
        for window in windows
        for held in ([[b] for b in window.bundles] if window.oversize else [window.bundles])
    )


def _padded(sequences: Sequence[TokenSequence]) -> int:
    return len(sequences) * max(map(len, sequences))
