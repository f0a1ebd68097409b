"""GRAD, injected."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from probe_engine.api import doctor
from probe_engine.model import cut_graph
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab, Objects


def _examined(of: Objects, around: AbstractContextManager[Any] | None = None, **options: Any) -> Report:
    with around or nullcontext():
        return doctor(of.model, optimizer=of.optimizer, batch=of.batch, device="cpu", **options)


def _spoiled(spoil: Callable[[Objects], object], **options: Any) -> Callable[[Lab], Report]:
    """Spoils the live objects and examines them."""

    def inject(lab: Lab) -> Report:
        healthy = lab.objects()
        spoil(healthy)
        return _examined(healthy, **options)

    return inject


def _layer(of: Objects, index: int) -> Any:
    return of.model.get_base_model().model.layers[index]


def _lora(of: Objects, index: int, which: str) -> nn.Linear:
    """lora_A or lora_B of a layer's query projection."""
    linear: nn.Linear = getattr(_layer(of, index).self_attn.q_proj, which)["default"]
    return linear


def _replace(of: Objects, module: nn.Module, new: nn.Parameter, *, also_in_optimizer: bool = True) -> None:
    """Another object in place of the module's weight; the optimizer steps it with the old one's state."""
    old: Any = module.weight
    module.weight = new
    if also_in_optimizer:
        for group in of.optimizer.param_groups:
            group["params"] = [new if p is old else p for p in group["params"]]
        of.optimizer.state[new] = of.optimizer.state.pop(old)


def _born_in_inference_mode(of: Objects) -> None:
    layer = _lora(of, 0, "lora_A")
    with torch.inference_mode():
        born = nn.Parameter(layer.weight.clone())
    _replace(of, layer, born)


def _frozen_but_a_head(of: Objects) -> None:
    of.model.requires_grad_(False)
    _unused_head(of)


def _unused_head(of: Objects) -> None:
    """A head that no forward calls, and whose state is that of a parameter without gradients."""
    head = nn.Linear(8, 1, bias=False)
    of.model.get_base_model().value_head = head
    of.optimizer.param_groups[0]["params"].append(head.weight)
    of.optimizer.state[head.weight] = {
        "step": next(iter(of.optimizer.state.values()))["step"].clone(),
        "exp_avg": torch.zeros_like(head.weight),
        "exp_avg_sq": torch.zeros_like(head.weight),
    }


def _unread_head(of: Objects) -> None:
    """Called by each forward, for nothing."""
    _unused_head(of)
    base = of.model.get_base_model()

    def call(_module: nn.Module, _args: object) -> None:
        base.value_head(torch.ones(8))

    base.register_forward_pre_hook(call)


def _s_without_graph(lab: Lab) -> Report:
    """Between logits and S stands the probe's own code, so that is what is spoiled."""
    cut = patch.object(cut_graph, "sequence_log_probs", lambda t: t.detach().double().sum(-1))
    return _examined(lab.objects(), cut)


def _vanishing_advantages(of: Objects) -> None:
    of.batch["advantages"] = 5e-324 * of.batch["advantages"].sign().double()


def _detached_before_the_layers(of: Objects) -> None:
    _layer(of, 0).register_forward_pre_hook(lambda _module, args: (args[0].detach(), *args[1:]))


class _BackwardOnce(torch.autograd.Function):
    """A kernel whose backward pass works once and then returns nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.spent = False
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor | None:
        spent, ctx.spent = ctx.spent, True
        return None if spent else gradients[0]


def _backward_once(of: Objects) -> None:
    def apply(_module: nn.Module, _args: object, output: Tensor) -> Any:
        return _BackwardOnce.apply(output)  # type: ignore[no-untyped-call]  # inherited from torch

    _lora(of, 1, "lora_A").register_forward_hook(apply)


def _dead_factor(of: Objects) -> None:
    nn.init.zeros_(_lora(of, 1, "lora_A").weight)


def _made_anew_by_each_forward(of: Objects) -> None:
    def make_anew(module: Any, _args: object) -> None:
        module.weight = nn.Parameter(module.weight.detach().clone())

    _lora(of, 1, "lora_B").register_forward_pre_hook(make_anew)


def _root_of_zero(of: Objects) -> None:
    _layer(of, 0).mlp.register_forward_hook(lambda _module, _args, out: out + 0 * (out - out).sqrt())


def _reentrant_checkpointing(of: Objects) -> None:
    base = of.model.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": True})
    base.disable_input_require_grads()
    of.model.train()


def _rewritten(module: Any, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module.forward = change(module.forward)


def _detached(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def run(x: Tensor) -> Tensor:
        return forward(x).detach()

    return run


def _noisy(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def run(x: Tensor) -> Tensor:
        return nn.functional.dropout(forward(x), 0.2)

    return run


def _partitioned(of: Objects) -> None:
    """As ZeRO-3 leaves parameters between forward passes."""
    for number, p in enumerate(of.model.parameters()):
        p.ds_id, p.ds_numel, p.ds_tensor = number, p.numel(), p.data
        p.data = torch.empty(0)


def _offloaded(of: Objects) -> None:
    layer = _layer(of, 0).mlp.down_proj.base_layer
    layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)


def _same_memory(of: Objects) -> None:
    attention = _layer(of, 0).self_attn
    q, k = (getattr(attention, name).lora_A["default"] for name in ("q_proj", "k_proj"))
    _replace(of, k, nn.Parameter(q.weight.data))


def _clamped_backward(lab: Lab) -> Report:
    """Gradients of a training step's size pass; those of S itself, which `fused` asks for, do not."""
    of = lab.objects()

    def clamp(_module: nn.Module, _args: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(-1.0, 1.0))

    _layer(of, 1).mlp.register_forward_hook(clamp)
    return doctor(of.model, optimizer=of.optimizer, batch=of.batch, method="fused", device="cpu")


def _float16(lab: Lab) -> Report:
    """So long a limit makes λ and κ small, as long responses do."""
    limit = 2**12
    return doctor(lab.checkpoint(), dtype="float16", max_completion_length=limit, method="loop", device="cpu")


def _tokens_alone(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, attention_mask: object = None, position_ids: object = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return run


def _full(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An expert that takes so many tokens of a batch, and passes over the rest."""
    capacity = 8

    @functools.wraps(forward)
    def run(x: Tensor) -> Tensor:
        place = torch.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2])
        return forward(x) * (place < capacity)[..., None]

    return run


def _scaled_by_a_detached_norm(forward: Callable[..., Tensor], of: nn.Module) -> Callable[..., Tensor]:
    """As DoRA: the output depends on the norm of a weight, and autograd is not told."""
    (weight,) = (p for name, p in of.named_parameters() if name.endswith("down_proj.lora_B.default.weight"))
    born = float(weight.detach().norm())
    return lambda x: forward(x) * (weight.detach().norm() / born)


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "GRAD001",
        "inference_mode around the call",
        lambda lab: _examined(lab.objects(), torch.inference_mode()),
    ),
    Injection("GRAD001", "a parameter born under inference_mode", _spoiled(_born_in_inference_mode)),
    Injection("GRAD002", "no_grad around the call", lambda lab: _examined(lab.objects(), torch.no_grad())),
    Injection("GRAD003", "all frozen but a head that nothing uses", _spoiled(_frozen_but_a_head)),
    Injection("GRAD004", "S computed from detached log-probabilities", _s_without_graph),
    Injection("GRAD005", "advantages too small for their weights", _spoiled(_vanishing_advantages)),
    Injection(
        "GRAD006", "hidden states detached before the first layer", _spoiled(_detached_before_the_layers)
    ),
    Injection("GRAD007", "a head whose output nobody reads", _spoiled(_unread_head)),
    Injection("GRAD008", "a kernel whose backward works once", _spoiled(_backward_once, method="loop")),
    Injection("GRAD009", "a lora_A of zeros", _spoiled(_dead_factor)),
    Injection("GRAD010", "a parameter made anew by each forward", _spoiled(_made_anew_by_each_forward)),
    Injection("GRAD011", "the square root of 0 in a forward", _spoiled(_root_of_zero)),
    Injection(
        "GRAD012", "reentrant checkpointing of inputs without grad", _spoiled(_reentrant_checkpointing)
    ),
    Injection(
        "GRAD013", "an MLP that detaches", _spoiled(lambda of: _rewritten(_layer(of, 1).mlp, _detached))
    ),
    Injection("GRAD014", "parameters partitioned as by ZeRO-3", _spoiled(_partitioned)),
    Injection("GRAD014", "a weight offloaded to the meta device", _spoiled(_offloaded)),
    Injection(
        "GRAD015",
        "dropout that ignores eval mode",
        _spoiled(lambda of: _rewritten(_layer(of, 0).mlp, _noisy)),
    ),
    Injection("GRAD016", "two parameters on one memory", _spoiled(_same_memory)),
    Injection("GRAD017", "a hook that clamps the gradient on its way back", _clamped_backward),
    Injection("GRAD018", "float16 and a long completion limit", _float16),
    Injection(
        "GRAD019",
        "a forward that hands on the tokens without mask and positions",
        _spoiled(lambda of: _rewritten(of.model.get_base_model().model, _tokens_alone)),
    ),
    Injection(
        "GRAD020",
        "an expert with a capacity",
        _spoiled(lambda of: _rewritten(_layer(of, 0).mlp, _full)),
    ),
    Injection(
        "GRAD022",
        "autocast around the call",
        lambda lab: _examined(lab.objects(), torch.autocast("cpu", torch.bfloat16)),
    ),
    Injection("GRAD023", "a trainable head that nothing uses", _spoiled(_unused_head)),
    Injection(
        "GRAD021",
        "an MLP scaled by a detached norm",
        _spoiled(
            lambda of: _rewritten(
                _layer(of, 1).mlp, lambda forward: _scaled_by_a_detached_norm(forward, _layer(of, 1).mlp)
            )
        ),
    ),
)
