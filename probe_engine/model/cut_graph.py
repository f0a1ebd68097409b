"""Where the graph from S back to the parameters is cut: the module whose output lost its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from probe_engine.model.module_calls import Call, inside_reentrant_checkpoint, tensors, watched_calls
from probe_engine.model.teacher_forcing import (
    Layout,
    device_of,
    response_log_probs,
    response_logits,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients import UnitObjective

How = Literal["output", "no_grad", "unused"]


@dataclass(frozen=True)
class Cut:
    """Where the graph ends."""

    name: str
    """As `model.get_submodule` takes it; empty for the model itself."""
    class_name: str
    how: How
    """`output`: the module's output requires no grad although its input does, or trainable parameters ran
    in it; `no_grad`: its caller calls it with gradients off; `unused`: its output requires grad, S depends
    on its value, and yet S does not hang on it."""
    input_requires_grad: bool
    caller: str
    """The module that called it, by name; empty for the model itself."""
    caller_class: str
    hooks: int
    """Forward hooks on it that are not the probe's: one of them may be what cuts."""
    snippet: str
    """Python that shows it, given `model`."""
    checkpointed: bool = False
    """Whether the module runs under gradient checkpointing."""


@dataclass(frozen=True)
class Walk:
    """One forward, module by module."""

    modules: int
    """Calls that were seen."""
    S: Tensor
    """[N], detached, on the CPU"""
    logits_grad_fn: str | None
    s_grad_fn: str | None
    cuts: tuple[Cut, ...]
    """In the order of the forward pass, innermost first: the first one is the cause."""
    ran: frozenset[str]
    """Names of the trainable parameters whose modules were called."""
    dtypes: frozenset[torch.dtype]
    """Floating-point dtypes of the modules' outputs."""


def walk(model: nn.Module, objective: UnitObjective, temperature: float) -> Walk:
    """Follows the forward of one small group, and says where it loses the graph.

    A module that gives no gradient for a reason (rotary tables made under no_grad, indices) is not
    taken for a cut: its output must depend on what it was given, or hold trainable parameters.
    """
    sequences = objective.sequences[: max(2, objective.group_slices()[0].stop)]
    layout = Layout.of(sequences, device=device_of(model))
    seen = _Seen()
    with watched_calls(model, seen):
        logits = response_logits(model, layout)
    S = sequence_log_probs(response_log_probs(logits, layout, temperature))
    cuts = list(seen.cuts)
    if not cuts and S.requires_grad:
        last = _last_unreached(seen.recorded, S)
        if last is not None and _matters(model, layout, S, last, temperature):
            cuts = [last]
    return Walk(
        seen.count,
        S.detach().cpu(),
        _name(logits.grad_fn),
        _name(S.grad_fn),
        tuple(cuts),
        frozenset(seen.ran),
        frozenset(seen.dtypes),
    )


@contextmanager
def training_checkpoints(model: nn.Module) -> Iterator[bool]:
    """Inside, layers that checkpoint their activations do so as in training, all dropout still off.

    Yields:
        whether any layer checkpoints in the reentrant way. Outside of training mode such layers
        run plainly, so an evaluation never shows what training meets.
    """
    layers = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False) is True]
    modes = [(layer, layer.training) for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield any(_is_reentrant(layer) for layer in layers)
    finally:
        for layer, training in modes:
            layer.training = training


def _is_reentrant(layer: nn.Module) -> bool:
    function = getattr(layer, "_gradient_checkpointing_func", None)
    keywords = getattr(function, "keywords", {})
    return keywords.get("use_reentrant", False) is True


@dataclass
class _Recorded:
    """What is kept of a call in which trainable parameters ran and whose output has a graph."""

    cut: Cut
    nodes: frozenset[Any]
    """grad_fn of each output tensor."""
    trainable: frozenset[int]


class _Seen:
    """Looks at each call as it ends."""

    def __init__(self) -> None:
        self.count = 0
        self.cuts: list[Cut] = []
        self.recorded: list[_Recorded] = []
        self.ran: set[str] = set()
        self.dtypes: set[torch.dtype] = set()

    def __call__(self, call: Call) -> None:
        self.count += 1
        self.ran.update(call.own)
        self.dtypes.update(t.dtype for t in tensors(call.output) if t.is_floating_point())
        if call.output_requires_grad:
            nodes = frozenset(t.grad_fn for t in tensors(call.output) if t.grad_fn is not None)
            if nodes and call.trainable:
                self.recorded.append(_Recorded(_cut(call, "unused"), nodes, frozenset(call.trainable)))
            return
        entered = call.grad_enabled
        border = not entered and call.parent is not None and call.parent.grad_enabled
        if not (entered or border) or not _loses(call):
            return
        if border:
            if not inside_reentrant_checkpoint():
                self.cuts.append(_cut(call, "no_grad"))
            return
        # Its own forward turned gradients off: what it called that way is not the cause.
        below = call.name + "." if call.name else ""
        self.cuts = [c for c in self.cuts if c.how != "no_grad" or not c.name.startswith(below)]
        self.cuts.append(_cut(call, "output"))


def _loses(call: Call) -> bool:
    if not any(t.is_floating_point() for t in tensors(call.output)):
        return False
    return bool(call.trainable) or (call.input_requires_grad and _depends(call))


def _depends(call: Call) -> bool:
    """Does the output change with those inputs that require grad?"""
    before = [t.detach().clone() for t in tensors(call.output)]
    try:
        with torch.no_grad():
            again = call.module.forward(*_moved(call.args), **_moved(call.kwargs))
    except Exception:  # noqa: BLE001 - a module that can't run again by itself can't be asked, and a
        # doctor that guesses would accuse healthy modules
        return False
    after = list(tensors(again))
    return len(after) != len(before) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(after, before, strict=True)
    )


def _moved(nested: Any) -> Any:
    """The same structure with each tensor that requires grad moved a little; no random numbers."""
    if isinstance(nested, Tensor):
        if not nested.requires_grad:
            return nested
        values = nested.detach()
        ramp = torch.linspace(-1, 1, values.numel(), device=values.device).reshape(values.shape)
        return values + (ramp * (values.float().abs().mean() + 1e-3)).to(values.dtype)
    if type(nested) in (tuple, list):
        return type(nested)(_moved(held) for held in nested)
    if type(nested) is dict or isinstance(nested, ModelOutput):
        return type(nested)(**{key: _moved(held) for key, held in nested.items()})
    return nested


def _last_unreached(recorded: list[_Recorded], S: Tensor) -> Cut | None:
    """The last call whose output S does not hang on, with trainable parameters that have no other way.

    The forward goes on after it, so what cuts stands between this call and the end of its caller's.
    """
    nodes: set[Any] = set()
    reached: set[int] = set()
    waiting = [S.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        reached.add(id(getattr(node, "variable", None)))  # of AccumulateGrad, a parameter's node
        waiting += [following for following, _ in node.next_functions]
    lost = [r.cut for r in recorded if not (nodes & r.nodes) and r.trainable - reached]
    return lost[-1] if lost else None


def _matters(model: nn.Module, layout: Layout, S: Tensor, lost: Cut, temperature: float) -> bool:
    """Whether S changes with the output's value: an output that nobody reads is no cut.

    A forward that differs from itself (GRAD015) tells nothing of it.
    """
    if not torch.equal(_score(model, layout, temperature).detach(), S.detach()):
        return False

    def move(_module: nn.Module, _args: object, output: Any) -> Any:
        return _moved(output)

    handle = model.get_submodule(lost.name).register_forward_hook(move)
    try:
        moved = _score(model, layout, temperature)
    finally:
        handle.remove()
    return not torch.equal(moved.detach(), S.detach())


def _score(model: nn.Module, layout: Layout, temperature: float) -> Tensor:
    return sequence_log_probs(response_log_probs(response_logits(model, layout), layout, temperature))


def _name(grad_fn: object) -> str | None:
    return None if grad_fn is None else f"<{type(grad_fn).__name__}>"


def _cut(call: Call, how: How) -> Cut:
    caller = call.parent
    own = 1  # the probe's
    return Cut(
        name=call.name,
        class_name=type(call.module).__name__,
        how=how,
        input_requires_grad=call.input_requires_grad,
        caller="" if caller is None else caller.name,
        caller_class="" if caller is None else type(caller.module).__name__,
        hooks=len(call.module._forward_hooks) - own,
        snippet=_snippet(call, how),
        checkpointed=getattr(call.module, "gradient_checkpointing", False) is True,
    )


def _snippet(call: Call, how: How) -> str:
    module = f"module = model.get_submodule({call.name!r})" if call.name else "module = model"
    forward = "model(input_ids=torch.tensor([[0, 1, 2]], device=model.device))"
    if how == "unused":
        first = "" if isinstance(call.output, Tensor) else "[0]"
        return (
            f"{module}\n"
            "seen = []\n"
            "handle = module.register_forward_hook(lambda module, args, output: seen.append(output))\n"
            f"logits = {forward}.logits\n"
            "handle.remove()\n"
            f"print(torch.autograd.grad(logits.sum(), seen[0]{first}, allow_unused=True))  # (None,)"
        )
    given = [a for a in call.args if a is not None]
    alone = len(given) == 1 and all(value is None for value in call.kwargs.values())
    if how == "output" and alone and isinstance(given[0], Tensor) and given[0].is_floating_point():
        x = given[0]
        place = "" if x.device.type == "cpu" else f", device={str(x.device)!r}"
        return (
            f"{module}\n"
            f"x = torch.randn({tuple(x.shape)}, dtype={x.dtype}{place}, requires_grad=True)\n"
            "print(module(x))  # no grad_fn"
        )
    return (
        f"{module}\n"
        "handle = module.register_forward_hook(lambda module, args, output: print(output))  # no grad_fn\n"
        f"{forward}\n"
        "handle.remove()"
    )
