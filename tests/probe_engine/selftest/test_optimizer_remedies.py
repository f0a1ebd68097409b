"""The optimizer's findings are gone once their remedy is followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from probe_engine.api import doctor
from probe_engine.report import Report
from probe_engine.selftest.lab import Lab
from probe_engine.selftest.trial import fired


def statuses(report: Report, code: str) -> set[str]:
    return {f.status for f in report.findings if f.code == code}


def saved_over(checkpoint: Path, *, turned: bool, named: bool) -> Path:
    """As an optimizer over the parameters in reverse order (or not) saves its state, with names (or not)."""
    path = checkpoint / "optimizer.pt"
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    decayed, rest = saved["param_groups"]
    places = decayed["params"]
    order = places[::-1] if turned else places
    saved["state"] = {place: saved["state"][index] for place, index in zip(places, order, strict=True)}
    if named:
        base = AutoModelForCausalLM.from_pretrained(checkpoint.parent / "base")
        model = PeftModel.from_pretrained(base, checkpoint, is_trainable=True)
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        decayed["param_names"], rest["param_names"] = [names[index] for index in order], []
    torch.save(saved, path)
    return checkpoint


def test_names_settle_the_order_of_the_states(lab: Lab) -> None:
    in_order, mended, nameless = (
        doctor(saved_over(lab.checkpoint(), turned=turned, named=named), device="cpu")
        for turned, named in ((False, True), (True, True), (True, False))
    )
    assert fired(mended) == ((), ())
    assert mended.gradient_flow is not None
    assert in_order.gradient_flow is not None
    assert mended.gradient_flow.sum_py_norm == in_order.gradient_flow.sum_py_norm
    assert {"OPT003", "OPT008"} & set(fired(nameless)[0])


def test_a_learning_rate_given_by_hand_replaces_0(lab: Lab) -> None:
    checkpoint = lab.checkpoint()
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    for group in saved["param_groups"]:
        group["lr"] = 0.0
    torch.save(saved, checkpoint / "optimizer.pt")
    assert statuses(doctor(checkpoint, device="cpu"), "OPT007") == {"warn"}
    assert statuses(doctor(checkpoint, device="cpu", lr=1e-6), "OPT007") == {"ok"}


def test_an_optimizer_built_after_the_parameters_holds_them(lab: Lab) -> None:
    healthy = lab.objects()
    for module in healthy.model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if p.requires_grad:
                setattr(module, name, torch.nn.Parameter(p.detach().clone()))
    trainable = [p for p in healthy.model.parameters() if p.requires_grad]
    rebuilt = torch.optim.AdamW(trainable)
    for new, state in zip(trainable, healthy.optimizer.state.values(), strict=True):
        rebuilt.state[new] = state
    stale = doctor(healthy.model, optimizer=healthy.optimizer, batch=healthy.batch, device="cpu")
    assert fired(stale)[0] == ("OPT009",)
    assert fired(doctor(healthy.model, optimizer=rebuilt, batch=healthy.batch, device="cpu")) == ((), ())
