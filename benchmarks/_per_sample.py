"""X and Y from the gradient of every sequence by itself, as per-sample gradient libraries give it.

X_u = Σ_i wx_i ∇S_i and Y_u = Σ_i wy_i ∇S_i (method.md (2)(3)): whoever has all ∇S_i needs one product more.
Both ways want sequences of one length. torch.func takes attention only in its eager form, and Opacus looks
at modules in train mode alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from _case import Case
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.model.unit_gradients.interface import Receive
from probe_engine.vectors import Share

SequenceGradients = Callable[[Sequence[UnitObjective]], tuple[Tensor, Sequence[Tensor]]]
"""S [N] of these units' sequences, and ∇S, [N, *parameter.shape] of each parameter in registry order."""


def unit_vectors(case: Case, gradients: SequenceGradients, receive: Receive) -> None:
    """X_u and Y_u of all units, parameter by parameter."""
    begin = 0
    for units in case.chunks(case.units):
        S, by_sequence = gradients(units)
        sizes = [len(unit.sequences) for unit in units]
        parts = [torch.stack(u.weights(s)) for u, s in zip(units, torch.split(S, sizes), strict=True)]
        numbers = range(begin, begin + len(units))
        for index, of_parameter in enumerate(by_sequence):
            split = zip(parts, torch.split(of_parameter, sizes), strict=True)
            x, y = torch.stack([torch.tensordot(w.to(g), g, 1) for w, g in split], dim=1)
            receive(Share(index), numbers, x, y)
        begin += len(units)


@contextmanager
def torch_func(case: Case) -> Iterator[SequenceGradients]:
    """vmap(grad_and_value(S)) over the sequences."""
    registry = case.policy.registry
    parameters = {name: parameter.detach() for name, parameter in registry}

    def S(parameters: dict[str, Tensor], tokens: Tensor, response: int) -> Tensor:
        inputs = {
            "input_ids": tokens[None],
            "position_ids": torch.arange(len(tokens), device=tokens.device)[None],
            "use_cache": False,
            "logits_to_keep": response + 1,
        }
        logits = functional_call(case.model, parameters, kwargs=inputs).logits[0, :-1].float()
        return torch.log_softmax(logits, -1).gather(-1, tokens[-response:, None]).sum()

    by_sequence = vmap(grad_and_value(S), in_dims=(None, 0, None))

    def gradients(units: Sequence[UnitObjective]) -> tuple[Tensor, Sequence[Tensor]]:
        sequences = [s for unit in units for s in unit.sequences]
        tokens = torch.tensor([s.prompt + s.response for s in sequences], device=case.model.device)
        found, values = by_sequence(parameters, tokens, len(sequences[0].response))
        return values.detach(), [found[name] for name in registry.names]

    with eager_attention(case):
        yield gradients


@contextmanager
def opacus(case: Case) -> Iterator[SequenceGradients]:
    """Opacus' GradSampleModule: hooks on layers, with a rule for each kind.

    Raises:
        ImportError: it is not installed.
    """
    from opacus import GradSampleModule

    parameters = case.policy.registry.parameters
    wrapped = GradSampleModule(case.model, loss_reduction="sum")
    wrapped.train()  # the model has no dropout

    def gradients(units: Sequence[UnitObjective]) -> tuple[Tensor, Sequence[Tensor]]:
        wrapped.zero_grad(set_to_none=True)
        S = case.log_probs(units)
        S.sum().backward()
        return S.detach(), [parameter.grad_sample for parameter in parameters]

    try:
        with warnings.catch_warnings():
            # A full backward hook says that no input of the model requires a gradient; none has to.
            warnings.simplefilter("ignore")
            yield gradients
    finally:
        wrapped.zero_grad(set_to_none=True)
        wrapped.to_standard_module().eval()


@contextmanager
def eager_attention(case: Case) -> Iterator[None]:
    """Attention as it is written, inside; as it was, outside."""
    model = getattr(case.model, "get_base_model", lambda: case.model)()
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
