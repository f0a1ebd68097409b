"""Run by `torchrun` on two ranks: the doctor on wrapped live models; the first rank writes what all saw.

torchrun --standalone --nproc-per-node 2 tests/two_ranks.py OUT.json
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from probe_engine import doctor, probe
from probe_engine.report import Report

FIRED = ("warn", "fail", "crash")
IDS = torch.randint(0, tiny.VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))


def sharded(model: Any) -> Any:
    """FSDP2 as people apply it: each layer, then the rest."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def layers(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model.layers


def trained(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
    """Two steps, so that the state is real and FSDP2 has run forward and backward."""
    made = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(2):
        step(model, made)
    return made


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()


def batch() -> Any:
    """Each rank its own, of another size: all must look at the first one's."""
    return tiny.batch(sizes=(3,) * 8) if dist.get_rank() == 0 else tiny.batch(sizes=(4,) * 9, seed=7)


def lora() -> Any:
    return tiny.with_lora(tiny.model())


def detached(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x: forward(x).detach()


def ddp() -> Report:
    model = DistributedDataParallel(lora())
    return doctor(model, optimizer=trained(model), batch=batch())


def ddp_compiled() -> Report:
    model = DistributedDataParallel(lora())
    optimizer = trained(model)
    return doctor(torch.compile(model), optimizer=optimizer, batch=batch())


def ddp_frozen() -> Report:
    model = DistributedDataParallel(lora())
    optimizer = trained(model)
    model.requires_grad_(False)
    return doctor(model, optimizer=optimizer, batch=batch())


def ddp_detached() -> Report:
    model = DistributedDataParallel(lora())
    optimizer = trained(model)
    mlp = layers(model.module)[1].mlp
    mlp.forward = detached(mlp.forward)
    return doctor(model, optimizer=optimizer, batch=batch())


def fsdp2_lora() -> Report:
    model = sharded(lora())
    return doctor(model, optimizer=tiny_state(model), batch=batch())


def plain_lora() -> Report:
    model = lora()
    return doctor(model, optimizer=tiny_state(model), batch=tiny.batch(sizes=(3,) * 8))


def tiny_state(model: nn.Module) -> torch.optim.Optimizer:
    """The same state whether the model is sharded or not."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for p in optimizer.param_groups[0]["params"]:
        optimizer.state[p] = {
            "step": torch.tensor(5.0),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.full_like(p, 1e-4),
        }
    return optimizer


def fsdp2_full() -> Report:
    model = sharded(tiny.model())
    return doctor(model, optimizer=trained(model), batch=batch())


def fsdp2_without_a_batch() -> Report:
    model = sharded(lora())
    return doctor(model, optimizer=trained(model))


def fsdp2_gathered() -> Report:
    """After an evaluation the root's parameters are whole, and other objects than the shards."""
    model = sharded(tiny.model())
    optimizer = trained(model)
    with torch.no_grad():
        model(input_ids=IDS)
    return doctor(model, optimizer=optimizer, batch=batch())


def fsdp2_detached() -> Report:
    model = lora()
    mlp = layers(model)[1].mlp
    mlp.forward = detached(mlp.forward)
    model = sharded(model)
    return doctor(model, optimizer=tiny_state(model), batch=batch())


def fsdp2_frozen() -> Report:
    model = sharded(lora())
    optimizer = trained(model)
    model.requires_grad_(False)
    return doctor(model, optimizer=optimizer, batch=batch())


def fsdp2_old_optimizer() -> Report:
    model = lora()
    optimizer = trained(model)
    return doctor(sharded(model), optimizer=optimizer, batch=batch())


def fsdp2_no_grad() -> Report:
    model = sharded(lora())
    optimizer = trained(model)
    with torch.no_grad():
        return doctor(model, optimizer=optimizer, batch=batch())


def fsdp2_accumulating() -> Report:
    """Between two micro-batches: the gradients so far are the caller's."""
    model = sharded(lora())
    optimizer = trained(model)
    optimizer.zero_grad()
    model.set_requires_gradient_sync(False)
    model(input_ids=IDS, labels=IDS).loss.backward()
    report = doctor(model, optimizer=optimizer, batch=batch())
    model.set_requires_gradient_sync(True)
    once_more = doctor(model, optimizer=optimizer, batch=batch())
    assert [f.status for r in (report, once_more) for f in r.findings if f.code == "GRAD014"] == ["fail"] * 2
    model(input_ids=IDS, labels=IDS).loss.backward()
    twice = [local(p.grad) for p in model.parameters() if p.grad is not None]
    optimizer.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    once = [local(p.grad) for p in model.parameters() if p.grad is not None]
    assert all(torch.allclose(a, 2 * b, atol=1e-6) for a, b in zip(twice, once, strict=True))
    return report


def fsdp2_probe() -> Report:
    model = sharded(lora())
    return probe(model, optimizer=trained(model), batch=batch())


def fsdp1() -> Report:
    model = FullyShardedDataParallel(tiny.model(), device_id=torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return doctor(model, optimizer=optimizer, batch=batch())


CASES: tuple[Callable[[], Report], ...] = (
    ddp,
    ddp_compiled,
    ddp_frozen,
    ddp_detached,
    plain_lora,
    fsdp2_lora,
    fsdp2_full,
    fsdp2_without_a_batch,
    fsdp2_gathered,
    fsdp2_detached,
    fsdp2_frozen,
    fsdp2_old_optimizer,
    fsdp2_no_grad,
    fsdp2_accumulating,
    fsdp2_probe,
    fsdp1,
)


def local(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach().clone()


def everything(model: nn.Module) -> list[torch.Tensor]:
    return [
        *(local(p) for p in model.parameters()),
        *(local(p.grad) for p in model.parameters() if p.grad is not None),
        torch.get_rng_state(),
        torch.tensor([m.training for m in model.modules()]),
        torch.tensor([len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]),
    ]


def untouched(wrap: Callable[[Any], Any]) -> bool:
    """Whether all is bit-identical after the doctor, and training goes on as if it had not been there."""
    looked_at, other = wrap(lora()), wrap(lora())
    optimizer, other_optimizer = trained(looked_at), trained(other)
    looked_at.train()
    before = everything(looked_at)
    doctor(looked_at, optimizer=optimizer, batch=batch())
    same = all(torch.equal(a, b) for a, b in zip(before, everything(looked_at), strict=True))
    looked_at.eval()
    for _ in range(2):
        step(looked_at, optimizer)
        step(other, other_optimizer)
    pairs = zip(looked_at.parameters(), other.parameters(), strict=True)
    return same and all(torch.equal(local(a), local(b)) for a, b in pairs)


def summary(report: Report) -> dict[str, Any]:
    panel = report.gradient_flow
    return {
        "status": report.run.status,
        "exit_code": report.run.exit_code,
        "roots": sorted({f.code for f in report.findings if f.status in FIRED and not f.cause}),
        "messages": {f.code: f.message for f in report.findings},
        "statuses": {f.code: f.status for f in report.findings},
        "norms": [panel.sum_x_norm, panel.sum_y_norm, panel.sum_py_norm] if panel else None,
        "panel": [panel.registry, panel.x_non_zero, panel.y_non_zero, panel.matched] if panel else None,
    }


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    seen = {case.__name__: summary(case()) for case in CASES}
    left = {"ddp": untouched(DistributedDataParallel), "fsdp2": untouched(sharded)}
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (seen, left))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(gathered), "utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
