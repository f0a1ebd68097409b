"""The doctor inside a real trl GRPOTrainer step: it names the cause, and training goes on bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl_runs
from torch import nn
from transformers import TrainerCallback
from trl import GRPOTrainer

from probe_engine import doctor
from probe_engine.report import Report

FIRED = ("warn", "fail", "crash")
KIND = "llama-lora"


def roots(report: Report) -> set[str]:
    return {f.code for f in report.findings if f.status in FIRED and not f.cause}


@contextmanager
def detaching_mlp(model: Any) -> Iterator[None]:
    mlp = model.get_base_model().model.layers[1].mlp
    handle = mlp.register_forward_hook(lambda _module, _args, output: output.detach())
    try:
        yield
    finally:
        handle.remove()


AROUND: dict[str, tuple[Callable[[Any], AbstractContextManager[Any]], set[str]]] = {
    "healthy": (lambda _: nullcontext(), set()),
    "inference_mode": (lambda _: torch.inference_mode(), {"GRAD001"}),
    "no_grad": (lambda _: torch.no_grad(), {"GRAD002"}),
    "autocast": (lambda _: torch.autocast("cpu", torch.bfloat16), {"GRAD022"}),
    "an MLP that detaches": (detaching_mlp, {"GRAD013"}),
    "an adapter switched off": (lambda model: model.disable_adapter(), {"PEFT002"}),
}


def everything(model: nn.Module, optimizer: Any) -> list[torch.Tensor]:
    modules = list(model.modules())
    return [
        *(p.detach().clone() for p in model.parameters()),
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
        *(torch.as_tensor(v).clone() for state in optimizer.state.values() for v in state.values()),
        torch.get_rng_state(),
        torch.tensor(random.getstate()[1], dtype=torch.int64),
        torch.from_numpy(np.random.get_state()[1].astype(np.int64)),
        torch.tensor([m.training for m in modules]),
        torch.tensor([p.requires_grad for p in model.parameters()]),
        torch.tensor([[len(m._forward_hooks), len(m._forward_pre_hooks)] for m in modules]),
        torch.tensor([torch.is_grad_enabled(), torch.is_inference_mode_enabled()]),
    ]


class Visit:
    """Calls the doctor under each circumstance and notes what it said."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self.touched: set[str] = set()
        self.had_gradients = False

    def __call__(self, model: Any, optimizer: Any, batch: Any) -> None:
        self.had_gradients |= any(p.grad is not None for p in model.parameters())
        for name, (around, _) in AROUND.items():
            before = everything(model, optimizer)
            with around(model):
                report = doctor(model, optimizer=optimizer, batch=batch)
            after = everything(model, optimizer)
            self.seen[name] = roots(report)
            if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
                self.touched.add(name)


class AtTheStep(TrainerCallback):
    """Between backward and the optimizer's step, where gradients lie in `.grad`."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    def on_pre_optimizer_step(self, _arguments: Any, state: Any, _control: Any, **given: Any) -> None:
        if state.global_step == 1:  # Adam has a state from the second step on
            self.visit(given["model"], given["optimizer"], None)


class InTheLoss(GRPOTrainer):
    """Looks at the very batch whose loss is computed."""

    visit: Visit

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 1:
            self.visit(model, self.optimizer, inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)


def run(folder: Path, place: str) -> tuple[Visit, list[torch.Tensor]]:
    """Two steps with the doctor at one place, or nowhere; the weights afterwards."""
    visit = Visit()
    in_the_loss = place == "in compute_loss"
    trainer = trl_runs.grpo_trainer(
        KIND, folder, InTheLoss if in_the_loss else GRPOTrainer, max_steps=2, save_strategy="no"
    )
    if in_the_loss:
        trainer.visit = visit
    elif place == "in a callback":
        trainer.add_callback(AtTheStep(visit))
    trainer.train()
    return visit, [p.detach().clone() for p in trainer.model.parameters()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    return run(tmp_path_factory.mktemp("undisturbed"), "nowhere")[1]


@pytest.mark.parametrize("place", ["in a callback", "in compute_loss"])
def test_the_cause_is_named_and_the_trainer_does_not_notice(
    place: str, tmp_path: Path, undisturbed: list[torch.Tensor]
) -> None:
    visit, weights = run(tmp_path, place)
    assert visit.seen == {name: expected for name, (_, expected) in AROUND.items()}
    assert visit.touched == set()
    assert visit.had_gradients == (place == "in a callback")
    assert all(torch.equal(a, b) for a, b in zip(weights, undisturbed, strict=True))


def test_a_loop_inside_inference_mode_is_named_and_left_alone() -> None:
    import tiny

    model = tiny.with_lora(tiny.model(), lora_dropout=0.1).train()
    optimizer = tiny.optimizer(model)
    with torch.inference_mode():
        for _ in range(2):
            before = everything(model, optimizer)
            report = doctor(model, optimizer=optimizer, batch=tiny.batch())
            after = everything(model, optimizer)
            assert "GRAD001" in roots(report)
            assert not {c for c in roots(report) if c.startswith("GRAD")} - {"GRAD001"}
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
