"""One enumeration of parameters: order, ties, wrappers, identity."""

from __future__ import annotations

import tiny
import torch

from probe_engine.registry import ParameterRegistry, unwrapped


def test_a_tied_head_is_listed_once() -> None:
    tied, untied = (tiny.model("qwen2", tie_word_embeddings=tie) for tie in (True, False))
    registry = ParameterRegistry.of(tied)
    assert len(set(registry.ids)) == len(registry) == len(ParameterRegistry.of(untied)) - 1
    assert registry.numel == sum(p.numel() for p in tied.parameters())


def test_views_keep_the_order() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    registry = ParameterRegistry.of(model)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert list(registry.trainable.names) == names
    assert all("lora_" in n for n in names)
    assert registry.lora.names == registry.trainable.names
    assert registry.name_of(registry.parameters[3]) == registry.names[3]
    assert registry.name_of(torch.nn.Parameter(torch.zeros(1))) is None


def test_a_trainable_head_belongs_to_the_lora_view() -> None:
    model = tiny.with_lora(tiny.model("llama"), modules_to_save=["lm_head"])
    assert any("lm_head" in n for n in ParameterRegistry.of(model).lora.names)


def test_wrappers_are_seen_through() -> None:
    model = tiny.model("llama")
    assert unwrapped(torch.nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(model)) is model
    assert (
        ParameterRegistry.of(torch.compile(torch.nn.DataParallel(model))).ids
        == ParameterRegistry.of(model).ids
    )


def test_verify_counts_replaced_objects() -> None:
    model = tiny.model("llama")
    registry = ParameterRegistry.of(model).trainable
    same = registry.verify(model)
    assert (same.matched, same.missing, same.stray) == (len(registry), 0, 0)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    match = registry.verify(model)
    assert (match.matched, match.missing, match.stray) == (len(registry) - 1, 1, 1)
