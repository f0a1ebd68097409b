"""OPT, injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from probe_engine.api import doctor, probe
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab, Objects

State = dict[str, Any]


def _on_disk(lab: Lab, spoil: Callable[[State], State | None]) -> Report:
    """With an optimizer.pt that `spoil` changed in place, or replaced by what it returns."""
    checkpoint = lab.checkpoint()
    path = checkpoint / "optimizer.pt"
    saved = torch.load(path, weights_only=True)
    replaced = spoil(saved)
    torch.save(saved if replaced is None else replaced, path)
    return doctor(checkpoint, device="cpu")


def _examined(lab: Objects) -> Report:
    return doctor(lab.model, optimizer=lab.optimizer, batch=lab.batch, device="cpu")


def _no_file(lab: Lab) -> Report:
    checkpoint = lab.checkpoint()
    (checkpoint / "optimizer.pt").unlink()
    return doctor(checkpoint, device="cpu")


def _factored(state: State) -> None:
    for kept in state["state"].values():
        v = kept.pop("exp_avg_sq")
        kept |= {"exp_avg_sq_row": v.mean(-1), "exp_avg_sq_col": v.mean(-2)}


def _one_less(state: State) -> None:
    group = state["param_groups"][0]
    state["state"].pop(group["params"].pop())


def _without_states(state: State) -> None:
    for index in list(state["state"])[:4]:
        del state["state"][index]


def _negative(state: State) -> None:
    next(iter(state["state"].values()))["exp_avg_sq"].flatten()[0] = -1.0


def _late(state: State) -> None:
    next(iter(state["state"].values()))["step"] = torch.tensor(2.0)


def _standing(state: State) -> None:
    for group in state["param_groups"]:
        group["lr"] = 0.0


def _turned(state: State) -> State:
    """Each state goes to the next parameter of its shape."""
    states: dict[int, State] = state["state"]
    shapes = {index: tuple(kept["exp_avg_sq"].shape) for index, kept in states.items()}
    turned: dict[int, State] = {}
    for shape in set(shapes.values()):
        members = [index for index in states if shapes[index] == shape]
        turned |= {index: states[members[(place + 1) % len(members)]] for place, index in enumerate(members)}
    return {**state, "state": turned}


def _rewrapped(lab: Lab) -> Report:
    healthy = lab.objects()
    for module in healthy.model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if p.requires_grad:
                setattr(module, name, torch.nn.Parameter(p.detach().clone()))
    return _examined(healthy)


def _stale(lab: Lab) -> Report:
    """v as of gradients thirty times smaller than the fresh ones."""
    checkpoint = lab.checkpoint()
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    for kept in saved["state"].values():
        kept["exp_avg_sq"] *= 1e-3
    torch.save(saved, checkpoint / "optimizer.pt")
    return probe(checkpoint, device="cpu")


def _dropout(lab: Lab) -> Report:
    healthy = lab.objects()
    healthy.model.get_base_model().config.attention_dropout = 0.1
    return _examined(healthy)


def _clipping_unknown(lab: Lab) -> Report:
    """A training script's own objects: max_grad_norm is none of them."""
    healthy = lab.objects()
    return probe(healthy.model, optimizer=healthy.optimizer, batch=healthy.batch, device="cpu")


INJECTIONS = (
    Injection("OPT001", "optimizer.pt deleted", _no_file),
    Injection("OPT002", "Adafactor's state in optimizer.pt", lambda lab: _on_disk(lab, _factored)),
    Injection("OPT003", "a state too few in optimizer.pt", lambda lab: _on_disk(lab, _one_less)),
    Injection("OPT004", "four parameters without state", lambda lab: _on_disk(lab, _without_states)),
    Injection("OPT005", "a negative exp_avg_sq", lambda lab: _on_disk(lab, _negative)),
    Injection("OPT006", "one parameter's step behind the others'", lambda lab: _on_disk(lab, _late)),
    Injection("OPT007", "learning rate 0 in every group", lambda lab: _on_disk(lab, _standing)),
    Injection("OPT008", "states turned among equal shapes", lambda lab: _on_disk(lab, _turned)),
    Injection("OPT009", "parameters made anew after the optimizer was built", _rewrapped),
    Injection("OPT010", "v a thousand times too small", _stale),
    Injection("OPT011", "attention dropout in the live model's configuration", _dropout),
    Injection("OPT012", "an optimizer without its trainer's arguments", _clipping_unknown),
)
