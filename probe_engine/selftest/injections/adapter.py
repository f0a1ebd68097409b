"""PEFT, injected."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from probe_engine.api import doctor
from probe_engine.demo.trainer_layout import optimizer_groups
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab, Objects


def _examined(of: Objects) -> Report:
    return doctor(of.model, optimizer=of.optimizer, batch=of.batch, device="cpu")


def _frozen(lab: Lab) -> Report:
    """What PeftModel.from_pretrained gives who does not ask for more."""
    checkpoint = lab.checkpoint()
    base = AutoModelForCausalLM.from_pretrained(
        checkpoint.parent / "base", dtype=torch.float32, local_files_only=True
    )
    model: Any = PeftModel.from_pretrained(base, checkpoint)
    return doctor(model.eval(), batch=lab.objects().batch, device="cpu")


def _disabled(lab: Lab) -> Report:
    healthy = lab.objects()
    with healthy.model.disable_adapter():
        return _examined(healthy)


def _merged(lab: Lab) -> Report:
    healthy = lab.objects()
    healthy.model.merge_adapter()
    return _examined(healthy)


def _another_active(lab: Lab) -> Report:
    """A second adapter is set active; the first is made trainable by hand."""
    healthy = lab.objects()
    healthy.model.add_adapter("second", healthy.model.peft_config["default"])
    healthy.model.set_adapter("second")
    for name, parameter in healthy.model.named_parameters():
        parameter.requires_grad_(".default." in name)
    return _examined(healthy)


def _untied(lab: Lab) -> Report:
    """A base whose head is its embedding, and an adapter that saves the head as its own module."""
    base: Any = lab.objects().model.unload()
    base.config.tie_word_embeddings = True
    base.tie_weights()
    model: Any = get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    return doctor(model.eval(), optimizer=_with_state(model), device="cpu")


def _fresh(lab: Lab) -> Report:
    base: Any = lab.objects().model.unload()
    model: Any = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))
    return doctor(model.eval(), optimizer=_with_state(model), device="cpu")


def _unnamed(lab: Lab) -> Report:
    healthy = lab.objects()
    norm = healthy.model.get_base_model().model.norm.weight.requires_grad_()
    healthy.optimizer.add_param_group({"params": [norm], "lr": healthy.optimizer.param_groups[0]["lr"]})
    (step, *_) = (state["step"] for state in healthy.optimizer.state.values())
    healthy.optimizer.state[norm] = _state(norm, step)
    return _examined(healthy)


def _with_state(model: Any) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(optimizer_groups(model))
    for parameter in (p for p in model.parameters() if p.requires_grad):
        optimizer.state[parameter] = _state(parameter, torch.tensor(20.0))
    return optimizer


def _state(parameter: torch.Tensor, step: torch.Tensor) -> dict[str, torch.Tensor]:
    """As after steps of even gradients."""
    return {
        "step": step.clone(),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.full_like(parameter, 1e-6),
    }


INJECTIONS: tuple[Injection, ...] = (
    Injection("PEFT001", "the adapter is loaded without is_trainable", _frozen),
    Injection("PEFT002", "disable_adapter() is around the call", _disabled),
    Injection("PEFT003", "the adapter is merged into the base", _merged),
    Injection("PEFT004", "a second adapter is active", _another_active),
    Injection("PEFT005", "modules_to_save parts the head from the embedding", _untied),
    Injection("PEFT006", "the adapter has taken no step", _fresh),
    Injection("PEFT007", "a norm of the base trains beside the adapter", _unnamed),
)
