"""The module that cuts the graph is named first, what follows from it says so, and nothing is left behind."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest
import tiny
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from probe_engine import doctor
from probe_engine.report import Finding, Report

FIRED = ("warn", "fail", "crash")


def examined(model: nn.Module) -> Report:
    return doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch(sizes=(3,) * 8))


def roots(report: Report) -> set[str]:
    """What fired and stands for itself."""
    return {f.code for f in report.findings if f.status in FIRED and not f.cause}


def one(report: Report, code: str) -> Finding:
    (found,) = (f for f in report.findings if f.code == code)
    return found


def layers(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model.layers


def rewrite(module: nn.Module, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module.forward = change(module.forward)  # type: ignore[method-assign]


def detached(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        return output.detach() if torch.is_tensor(output) else (output[0].detach(), *output[1:])

    return run


class Around(nn.Module):
    """Calls a module in its own way."""

    def __init__(self, inner: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.inner = inner
        self.call = call

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.inner, x, *args, **kwargs)


def nested(kind: str) -> Callable[..., Any]:
    """A layer that takes and gives its hidden states wrapped, and loses the graph inside."""

    def pack(x: torch.Tensor) -> Any:
        return {"tuple": (None, (x,)), "dict": {"a": [x]}, "output": BaseModelOutput(x)}[kind]

    def unpack(x: Any) -> torch.Tensor:
        return {"tuple": lambda: x[1][0], "dict": lambda: x["a"][0], "output": lambda: x[0]}[kind]()

    class Packed(nn.Module):
        def forward(self, x: Any) -> Any:
            return pack(unpack(x).detach() * 2)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed = Packed()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + unpack(self.packed(pack(x)))

    return lambda mlp: Layer()


def under_no_grad(inner: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return inner(x)


def replace_mlp(model: nn.Module, make: Callable[[nn.Module], nn.Module]) -> None:
    layers(model)[1].mlp = make(layers(model)[1].mlp)


def detach_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _m, _i, out: (out[0] if isinstance(out, tuple) else out).detach())


CUTS: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "a forward that detaches": (
        lambda m: rewrite(layers(m)[1].mlp, detached),
        "layers.1.mlp (LlamaMLP): input requires grad, output does not",
        "layers.1.mlp",
    ),
    "a forward under no_grad": (
        lambda m: rewrite(layers(m)[1].mlp, torch.no_grad()),
        "layers.1.mlp (LlamaMLP): input requires grad, output does not",
        "layers.1.mlp",
    ),
    "a forward with a tuple and keywords": (
        lambda m: rewrite(layers(m)[1].self_attn, detached),
        "layers.1.self_attn (LlamaAttention): input requires grad, output does not",
        "layers.1.self_attn",
    ),
    "the first of several": (
        lambda m: [rewrite(layer.self_attn, detached) for layer in layers(m)],
        "layers.0.self_attn (LlamaAttention)",
        "layers.0.self_attn",
    ),
    "a whole layer": (
        lambda m: rewrite(layers(m)[1], torch.no_grad()),
        "layers.1 (LlamaDecoderLayer): input requires grad, output does not",
        "layers.1",
    ),
    "a hook that detaches": (
        lambda m: detach_hook(layers(m)[1]),
        "it has 1 forward hook",
        "layers.1",
    ),
    "a caller that turns gradients off": (
        lambda m: replace_mlp(m, lambda mlp: Around(mlp, lambda i, x: x + under_no_grad(i, x))),
        "layers.1.mlp (Around) calls it with gradients off",
        "layers.1.mlp.inner",
    ),
    "a caller that detaches between two layers": (
        lambda m: layers(m).__setitem__(
            1, Around(layers(m)[1], lambda i, x, *a, **k: i(x.detach(), *a, **k))
        ),
        "S depends on its value and has no path to it",
        "layers.0",
    ),
    **{
        f"hidden states in a {kind}": (
            lambda m, kind=kind: replace_mlp(m, nested(kind)),
            "layers.1.mlp.packed (Packed): input requires grad, output does not",
            "layers.1.mlp.packed",
        )
        for kind in ("tuple", "dict", "output")
    },
}


@pytest.mark.parametrize("adapted", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("fault", CUTS)
def test_the_module_that_cuts_is_the_only_cause_and_its_snippet_shows_it(fault: str, adapted: bool) -> None:
    inject, said, name = CUTS[fault]
    model = tiny.with_lora(tiny.model()) if adapted else tiny.model()
    inject(model)
    report = examined(model)
    found = one(report, "GRAD013")
    assert roots(report) == {"GRAD013"}
    assert said in found.message
    assert found.evidence["module"].endswith(name)
    order = [f.code for f in report.findings if f.code == "GRAD013" or f.cause == "GRAD013"]
    assert order[0] == "GRAD013"
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(found.evidence["snippet"], {"model": model, "torch": torch})
    assert "None" in printed.getvalue() or "grad_fn" not in printed.getvalue()


def test_what_follows_names_the_cause_and_keeps_its_status() -> None:
    model = tiny.with_lora(tiny.model())
    rewrite(layers(model)[1], detached)
    report = examined(model)
    assert (one(report, "GRAD003").status, one(report, "GRAD003").cause) == ("fail", "GRAD013")
    assert one(report, "GRAD013").cause == ""

    partly = tiny.with_lora(tiny.model())
    rewrite(layers(partly)[0], detached)
    causes = {f.code: f.cause for f in examined(partly).findings if f.status == "fail"}
    assert causes == {"GRAD013": "", "GRAD006": "GRAD013", "GRAD007": "GRAD013", "GRAD008": "GRAD013"}


def test_a_cut_beside_a_residual_connection_is_found_though_no_gradient_is_missing() -> None:
    model = tiny.with_lora(tiny.model(), target_modules=["q_proj"])
    rewrite(layers(model)[0].mlp, detached)
    report = examined(model)
    assert report.gradient_flow is not None
    assert report.gradient_flow.x_non_zero == report.gradient_flow.registry
    assert roots(report) == {"GRAD013"}


def test_an_output_that_nobody_reads_is_no_cut() -> None:
    model = tiny.model()
    head = nn.Linear(16, 1)
    layers(model)[0].value_head = head
    layers(model)[0].register_forward_hook(lambda _m, _i, out: (head(out), out)[1])
    report = examined(model)
    assert one(report, "GRAD013").status == "ok"
    assert roots(report) == {"GRAD007"}


def test_reentrant_checkpointing_is_named_though_evaluation_does_not_show_it() -> None:
    model = tiny.with_lora(tiny.model())
    base = model.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": True})
    base.disable_input_require_grads()
    model.train()
    before = [m.training for m in model.modules()]
    report = examined(model)
    assert roots(report) == {"GRAD012"}
    assert "layers.0 (LlamaDecoderLayer)" in one(report, "GRAD012").message
    assert [m.training for m in model.modules()] == before

    base.enable_input_require_grads()
    assert not roots(examined(model))
    base.disable_input_require_grads()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    assert not roots(examined(model))


def test_noise_is_named_with_the_module_that_makes_it() -> None:
    model = tiny.with_lora(tiny.model())

    def noisy(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: nn.functional.dropout(forward(x), 0.2)

    rewrite(layers(model)[0].mlp, noisy)
    state = torch.get_rng_state()
    report = examined(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert roots(report) == {"GRAD015"}
    assert one(report, "GRAD015").evidence["module"].endswith("layers.0.mlp")


@pytest.mark.parametrize("fault", CUTS)
def test_nothing_is_left_behind(fault: str) -> None:
    model = tiny.with_lora(tiny.model(), lora_dropout=0.1)
    CUTS[fault][0](model)
    model.train()
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)

    def everything() -> list[torch.Tensor]:
        return [
            *(p.detach().clone() for p in model.parameters()),
            *(p.grad.clone() for p in model.parameters() if p.grad is not None),
            *(b.clone() for b in model.buffers()),
            torch.get_rng_state(),
            torch.tensor(
                [
                    (
                        m.training,
                        len(m._forward_hooks),
                        len(m._forward_pre_hooks),
                        len(m._forward_hooks_with_kwargs),
                        len(m._forward_pre_hooks_with_kwargs),
                    )
                    for m in model.modules()
                ]
            ),
        ]

    before = everything()
    examined(model)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))


@pytest.mark.parametrize(
    "healthy",
    [
        tiny.model,
        lambda: tiny.model("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        lambda: tiny.model("qwen2", tie_word_embeddings=True),
        lambda: tiny.with_lora(tiny.model()),
        lambda: tiny.with_lora(tiny.model(), modules_to_save=["lm_head"]),
        lambda: tiny.with_lora(
            tiny.model("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), modules_to_save=["lm_head"]
        ),
        lambda: tiny.with_lora(tiny.model("qwen2")),
        lambda: tiny.cast(tiny.with_lora(tiny.model()), torch.bfloat16),
    ],
    ids=["llama", "gpt2", "qwen2 tied", "lora", "saved head", "untied", "qwen2 lora", "bf16"],
)
def test_healthy_models_fire_nothing(healthy: Callable[[], nn.Module]) -> None:
    report = examined(healthy())
    assert report.run.status == "complete"
    assert {f.code: f.message for f in report.findings if f.status in FIRED} == {}
