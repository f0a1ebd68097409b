"""Live models inside wrappers: compiled, offloaded, prepared, sharing memory; remedies make findings go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from probe_engine import doctor, probe
from probe_engine.model.preserving import preserved
from probe_engine.registry import unwrapped
from probe_engine.report import Finding, Report

FIRED = ("warn", "fail", "crash")


def examined(model: nn.Module, optimizer: Any = None) -> Report:
    return doctor(model, optimizer=optimizer or tiny.optimizer(model), batch=tiny.batch(sizes=(3,) * 8))


def roots(report: Report) -> set[str]:
    return {f.code for f in report.findings if f.status in FIRED and not f.cause}


def one(report: Report, code: str) -> Finding:
    (found,) = (f for f in report.findings if f.code == code)
    return found


def norms(report: Report) -> list[float | None]:
    assert report.gradient_flow is not None
    return [report.gradient_flow.sum_x_norm, report.gradient_flow.sum_y_norm]


def lora() -> Any:
    return tiny.with_lora(tiny.model())


def in_place(model: Any) -> Any:
    model.compile(backend="aot_eager")
    return model


def base_in_place(model: Any) -> Any:
    model.get_base_model().compile(backend="aot_eager")
    return model


def layers_in_place(model: Any) -> Any:
    for layer in model.get_base_model().model.layers:
        layer.compile(backend="aot_eager")
    return model


def layers_wrapped(model: Any) -> Any:
    layers = model.get_base_model().model.layers
    for index, layer in enumerate(layers):
        layers[index] = torch.compile(layer, backend="aot_eager")
    return model


def forward_compiled(model: Any) -> Any:
    base = model.get_base_model()
    base.forward = torch.compile(base.forward, backend="aot_eager")
    return model


COMPILED: dict[str, Callable[[Any], Any]] = {
    "wrapped": lambda model: torch.compile(model, backend="aot_eager"),
    "in place": in_place,
    "the base in place": base_in_place,
    "layers in place": layers_in_place,
    "layers wrapped": layers_wrapped,
    "forward": forward_compiled,
}


@pytest.mark.parametrize("way", COMPILED)
def test_a_compiled_model_gives_no_alarm_and_the_numbers_of_the_plain_one(way: str) -> None:
    model = COMPILED[way](lora())
    report = examined(model)
    assert roots(report) == set()
    assert norms(report) == pytest.approx(norms(examined(lora())), rel=1e-6)


def test_a_cut_inside_a_compiled_model_is_found() -> None:
    model = lora()
    mlp = model.get_base_model().model.layers[1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: forward(x).detach()
    report = examined(in_place(model))
    assert roots(report) == {"GRAD013"}
    assert one(report, "GRAD013").evidence["module"].endswith("layers.1.mlp")


def test_compiling_goes_on_afterwards() -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        compiled.append(1)
        return graph.forward

    model = lora()
    model.compile(backend=backend)
    examined(model)
    assert not compiled
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert compiled


def test_an_outer_autocast_changes_no_number_and_an_inner_one_stays() -> None:
    plain = norms(examined(lora()))
    with torch.autocast("cpu", torch.bfloat16):
        report = examined(lora())
        assert torch.is_autocast_enabled("cpu")
    assert roots(report) == {"GRAD022"}
    assert norms(report) == plain
    assert report.gradient_flow is not None
    assert "autocast to bfloat16" in report.gradient_flow.grad_context

    model = lora()
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    inner = norms(examined(model))
    assert inner != pytest.approx(plain, rel=1e-5)
    assert inner == pytest.approx(plain, rel=0.1)


Prepare = Callable[[], tuple[nn.Module, Any]]


@pytest.fixture
def prepared() -> Iterator[Prepare]:
    """Makes a model and its optimizer, prepared by accelerate for bf16; the process's state is made anew."""

    def prepare() -> tuple[nn.Module, Any]:
        model = lora()
        both: Any = Accelerator(cpu=True, mixed_precision="bf16").prepare(model, tiny.optimizer(model))
        return both[0], both[1]

    AcceleratorState._reset_state(reset_partial_state=True)
    yield prepare
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_model_that_accelerate_prepared_gives_no_alarm(prepared: Prepare) -> None:
    assert roots(examined(*prepared())) == set()


def test_autocast_around_autocast_is_as_if_there_were_none(prepared: Prepare) -> None:
    """torch keeps casts of weights until the outermost region ends: those without a graph, too."""
    alone = norms(examined(*prepared()))
    model, optimizer = prepared()
    ids = torch.tensor([[1, 2, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            model(input_ids=ids)
        report = examined(model, optimizer)
        assert torch.is_autocast_enabled("cpu")
    assert roots(report) == {"GRAD022"}
    assert norms(report) == alone


def test_a_step_is_seen_by_a_forward_that_casts_its_weights(prepared: Prepare) -> None:
    model, optimizer = prepared()
    with torch.autocast("cpu", torch.bfloat16):
        report = probe(model, optimizer=optimizer, batch=tiny.batch(sizes=(3,) * 8), lr=1e-2)
    assert all(row.delta_h for row in report.realized)


class DeepSpeedEngine(nn.Module):
    """Named as DeepSpeed's, which is recognised by its name: the package need not be there."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_deepspeed_s_engine_is_taken_off() -> None:
    model = lora()
    assert unwrapped(torch.compile(DeepSpeedEngine(nn.DataParallel(model)))) is model
    assert roots(examined(DeepSpeedEngine(model), tiny.optimizer(model))) == set()


def test_frozen_tensors_born_in_inference_mode_are_named_before_a_forward_trips_over_them() -> None:
    model = lora()
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    rotary = model.get_base_model().model.rotary_emb
    with torch.inference_mode():
        layer.weight = nn.Parameter(layer.weight.clone(), requires_grad=False)
        rotary.inv_freq = rotary.inv_freq.clone()
    report = examined(model)
    assert roots(report) == {"GRAD001"}
    named = one(report, "GRAD001").evidence["tensors"]
    assert [name.rpartition("layers.0.")[2].rpartition("model.")[2] for name in named] == [
        "mlp.up_proj.weight",
        "rotary_emb.inv_freq",
    ]


def test_what_hides_parameters_is_named_and_what_comes_back_is_examined() -> None:
    model = lora()
    optimizer = tiny.optimizer(model)
    kept = {p: p.data for p in model.parameters()}
    for number, (p, data) in enumerate(kept.items()):
        p.ds_id, p.ds_numel, p.ds_tensor = number, p.numel(), data
        p.data = torch.empty(0)
    report = examined(model, optimizer)
    assert roots(report) == {"GRAD014"}
    assert "ZeRO-3" in one(report, "GRAD014").message
    for p, data in kept.items():  # deepspeed.zero.GatheredParameters
        p.data = data
    assert roots(examined(model, optimizer)) == set()


def test_tying_by_object_is_the_remedy_for_shared_memory() -> None:
    model: Any = tiny.model()
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.data)
    report = examined(model)
    assert roots(report) == {"GRAD016"}
    assert one(report, "GRAD016").evidence["parameters"] == ["lm_head.weight = model.embed_tokens.weight"]
    model.lm_head.weight = model.get_input_embeddings().weight
    assert roots(examined(model)) == set()


def test_shared_memory_halves_the_gradient_between_two_objects() -> None:
    """What GRAD016 says: the weight's gradient is the sum of theirs."""
    ids = torch.tensor([[1, 2, 3]])
    tied: Any = tiny.model(tie_word_embeddings=True)
    twice: Any = tiny.model(tie_word_embeddings=True)
    twice.lm_head.weight = nn.Parameter(twice.model.embed_tokens.weight.data)
    for model in (tied, twice):
        model(input_ids=ids, labels=ids).loss.backward()
    whole = tied.model.embed_tokens.weight.grad
    parts = [twice.model.embed_tokens.weight.grad, twice.lm_head.weight.grad]
    assert torch.allclose(parts[0] + parts[1], whole, atol=1e-6)
    assert not any(torch.allclose(part, whole, atol=1e-3) for part in parts)


def test_an_embedding_adapter_whose_module_detaches_is_named() -> None:
    """PEFT keeps its matrices in ParameterDicts, which nobody calls."""
    model = tiny.with_lora(tiny.model(), target_modules=["embed_tokens", "q_proj"])
    for name, p in model.named_parameters():
        if "lora_embedding" in name:
            p.data.normal_(0, 0.1)
    assert roots(examined(model)) == set()
    embeddings = model.get_base_model().model.embed_tokens
    forward = embeddings.forward
    embeddings.forward = lambda ids: forward(ids).detach()
    report = examined(model)
    assert roots(report) == {"GRAD013"}
    assert one(report, "GRAD013").evidence["module"].endswith("embed_tokens")


def test_a_cut_does_not_swallow_a_head_that_nothing_uses() -> None:
    model = lora()
    base = model.get_base_model()
    base.value_head = nn.Linear(16, 1, bias=False)
    layer = base.model.layers[0]
    layer.register_forward_hook(lambda _m, _a, out: (out[0] if isinstance(out, tuple) else out).detach())
    report = examined(model)
    assert roots(report) == {"GRAD013", "GRAD023"}
    assert one(report, "GRAD023").evidence["parameters"] == ["base_model.model.value_head.weight"]
    assert one(report, "GRAD007").cause == "GRAD013"

    base.value_head.requires_grad_(False)
    layer._forward_hooks.clear()
    assert roots(examined(model)) == set()


def test_further_cuts_of_their_own_are_named_beside_the_first() -> None:
    model = lora()
    for layer in model.get_base_model().model.layers:
        layer.mlp.register_forward_hook(lambda _m, _a, out: out.detach())
    found = one(examined(model), "GRAD013")
    assert found.evidence["module"].endswith("layers.0.mlp")
    assert [place.rpartition("layers.")[2] for place in found.evidence["further"]] == ["1.mlp (LlamaMLP)"]


def test_the_doctor_looks_at_few_groups_whatever_the_batch() -> None:
    """Its cost is that of a group, not of the batch."""
    rows: list[int] = []
    model = lora()
    model.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    examined(model)
    few = sum(rows)
    rows.clear()
    batch = tiny.batch(sizes=(3,) * 80)
    doctor(model, optimizer=tiny.optimizer(model), batch=batch)
    assert sum(rows) <= few < sum(len(u.groups[0].responses) for u in batch.units)


def test_the_probe_itself_runs_on_a_compiled_model() -> None:
    model = in_place(lora())
    report = probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch(sizes=(3,) * 8))
    assert report.run.status == "complete"


def test_preserved_leaves_autocast_as_it_was_after_an_error() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = []

        def fail() -> None:
            with preserved(lora()):
                inside.append(torch.is_autocast_enabled("cpu"))
                raise ValueError("inside")

        with pytest.raises(ValueError, match="inside"):
            fail()
        assert inside == [False]
        assert torch.is_autocast_enabled("cpu")
