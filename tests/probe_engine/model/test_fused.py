"""`fused` gives what `loop` gives, from one forward and one reverse pass, whatever the model is made of."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest
import tiny
import torch
from against_loop import ADAPTATIONS, CONSTANT_LAMBDA, FAMILIES, UNITS, against_loop, build, trained, vectors
from torch.utils.flop_counter import FlopCounterMode

from probe_engine.model import teacher_forcing
from probe_engine.model.teacher_forcing import response_logits
from probe_engine.model.unit_gradients import Fused, Loop, objectives
from probe_engine.model.unit_gradients.fused import method as passes_of_fused
from probe_engine.model.unit_gradients.fused import packing, reverse
from probe_engine.model.unit_gradients.fused.places import Places
from probe_engine.model.unit_gradients.fused.tape import RuledCall, Tape
from probe_engine.model.unit_gradients.received import UnitVectors
from probe_engine.vectors import ParameterVector

pytestmark = pytest.mark.filterwarnings("ignore:The following .*_pattern keys")  # peft on tensors of experts


@pytest.fixture(params=["packed", "right", "left"])
def passes(request, monkeypatch):
    """Sequences in one row, or padded on either side."""
    if request.param == "packed":
        return
    layout = teacher_forcing.Layout.of

    def padded(sequences, *, device, padding_side="right"):
        return layout(sequences, device=device, padding_side=request.param)

    monkeypatch.setattr(teacher_forcing.Layout, "of", padded)
    monkeypatch.setattr(passes_of_fused, "keeps_apart", lambda *_: False)


# peft has no DoRA for experts that share one tensor.
BUILDS = [b for b in itertools.product(FAMILIES, ADAPTATIONS) if b != ("mixtral", "dora")]


@pytest.mark.parametrize(("family", "adaptation"), BUILDS)
@pytest.mark.usefixtures("passes")
def test_loop_s_gradients_in_float32(family, adaptation):
    for tied in (True, False):
        found, _ = against_loop(build(family, adaptation, tied=tied))
        assert found < 1e-5


# Gemma's norm and Mixtral's router compute in float32 whatever the dtype.
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("gemma", "mixtral")])
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_loop_s_gradients_in_float64(family, adaptation):
    found, _ = against_loop(build(family, adaptation, dtype=torch.float64))
    assert found < 1e-10


@pytest.mark.parametrize(("family", "adaptation"), BUILDS)
@pytest.mark.usefixtures("passes")
def test_loop_s_rao_blackwell_gradients_in_float32(family, adaptation):
    found, _ = against_loop(build(family, adaptation), units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-5


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("gemma", "mixtral")])
@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize("micro_batch", [2, 8])
def test_loop_s_rao_blackwell_gradients_in_float64(family, adaptation, micro_batch):
    model = build(family, adaptation, dtype=torch.float64)
    found, _ = against_loop(model, micro_batch=micro_batch, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-10


@pytest.mark.parametrize(
    ("family", "adaptation", "left_to_autograd"),
    [
        ("llama", "full", "nothing"),
        ("gpt2", "full", "nothing"),
        ("gemma", "full", "nothing"),
        ("llama", "lora", "nothing"),
        ("gpt_neox", "modules_to_save", "nothing"),
        ("llama", "dora", "lora_magnitude_vector"),
        ("mixtral", "full", "experts|gate"),
        # Its feed-forward layers see [N·T, d]; its positions are shifted.
        ("opt", "full", r"fc\d|layers.*final_layer_norm|embed_positions"),
    ],
)
def test_parameters_left_to_autograd_are_counted(family, adaptation, left_to_autograd):
    model = build(family, adaptation)
    named = [name for name in trained(model).names if re.search(left_to_autograd, name)]
    _, fused = against_loop(model)
    assert fused.fallback_parameters == len(named)
    assert bool(named) == (left_to_autograd != "nothing")


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
@pytest.mark.parametrize("adaptation", ["lora", "full"])
@pytest.mark.parametrize("folded", [0, 10_000], ids=["slot by slot", "folded"])
@pytest.mark.usefixtures("passes")
def test_windows_parts_and_shares_move_nothing(adaptation, micro_batch, folded, monkeypatch):
    monkeypatch.setattr(reverse, "CACHED_NUMBERS", 70)
    monkeypatch.setattr(reverse, "FOLDED_TOKENS", folded)
    model = build("opt", adaptation, dtype=torch.float64)
    found, _ = against_loop(model, micro_batch=micro_batch, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "mixtral"])
@pytest.mark.parametrize("adaptation", ["lora", "full"])
@pytest.mark.usefixtures("passes")
def test_gradients_of_long_sequences_are_formed_one_by_one(family, adaptation, monkeypatch):
    """Where short ones are summed up within the products, as in all other tests."""
    monkeypatch.setattr(reverse, "FOLDED_TOKENS", 0)
    model = build(family, adaptation)
    found, _ = against_loop(model, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-5


def test_contractions_are_dot_products():
    model = build("opt", "full", dtype=torch.float64)
    registry = trained(model)
    method = Fused(model, registry, 2)
    generator = torch.Generator().manual_seed(5)
    directions = [
        ParameterVector(
            registry.ids,
            tuple(torch.randn(p.shape, generator=generator).double() for p in registry.parameters),
        )
        for _ in range(3)
    ]
    units = CONSTANT_LAMBDA
    reference = vectors(Loop(model, registry, 8), units, rao_blackwell=True)
    scored = list(method.measurements(units, lambda *_: None))
    found = list(method.contractions(scored, directions[:2], directions[2:], rao_blackwell=True))
    for (x, y, x_rb), dots in zip(reference, found, strict=True):
        assert dots.x == pytest.approx([x.dot(v) for v in directions[:2]], rel=1e-9)
        assert dots.y == pytest.approx([y.dot(v) for v in directions[2:]], rel=1e-9)
        assert dots.x_rb == pytest.approx([x_rb.dot(v) for v in directions[:2]], rel=1e-9)
    first = scored[0]
    one = method.contract(units[0], first.S, directions[:2], [])
    assert one == (pytest.approx(found[0].x), [], [])
    one = method.contract(units[0], first.S, directions[:2], [], first.tokens)
    assert one.x_rb == pytest.approx(found[0].x_rb)


@pytest.mark.parametrize(
    ("family", "adaptation", "holds"),
    [(f, "full", f not in ("mixtral", "opt")) for f in FAMILIES]
    + [("llama", "lora", True), ("llama", "dora", False)],
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_second_pass_begins_with_what_the_first_one_left(family, adaptation, holds, attention):
    """Layers' inputs and δ of its last window, where every use of a parameter has a rule."""
    model = build(family, adaptation, dtype=torch.float32)
    model.set_attn_implementation(attention)
    registry = trained(model)
    method = Fused(model, registry, 6)
    generator = torch.Generator().manual_seed(6)
    x_direction, y_direction = (
        ParameterVector(
            registry.ids, tuple(torch.randn(p.shape, generator=generator) for p in registry.parameters)
        )
        for _ in range(2)
    )
    forwards: list[int] = []
    model.register_forward_hook(lambda *_: forwards.append(1))

    def contracted(*, hold: bool) -> tuple[list[float], int]:
        scored = list(method.measurements(UNITS, lambda *_: None, hold=hold))
        forwards.clear()
        # Another unit's contraction, asked for in between, is its own.
        one = method.contract(UNITS[-1], scored[-1].S, [x_direction], [y_direction])
        alone = len(forwards)
        found = list(method.contractions(scored, [x_direction], [y_direction]))
        assert found[-1].x == pytest.approx(one.x, rel=1e-4)
        assert not method._held
        return [*itertools.chain(*(d.x + d.y for d in found))], len(forwards) - alone

    method.packs(UNITS)  # tries the model
    windows = packing.packed(UNITS, 6, packs=method.packs(UNITS))
    assert len(windows) > 1
    (usual, all_forwards), (from_held, fewer) = contracted(hold=False), contracted(hold=True)
    assert from_held == pytest.approx(usual, rel=1e-5, abs=1e-5 * max(map(abs, usual)))
    assert all_forwards - fewer == (len(windows[-1].bundles) if holds else 0)


def test_what_a_first_pass_left_serves_its_own_units_alone():
    model = build("llama", "full")
    method = Fused(model, trained(model), 64)
    units, received = CONSTANT_LAMBDA, UnitVectors(method.registry)
    scored = list(method.measurements(units, received, rao_blackwell=True, hold=True))
    assert not method._held  # δ of (2b) would come on top
    list(method.measurements(units, lambda *_: None, hold=True))
    assert method._held
    others = [dataclasses.replace(s, objective=dataclasses.replace(s.objective)) for s in scored]
    forwards: list[int] = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    list(method.contractions(others, [], []))
    assert forwards
    list(method.measurements(units, lambda *_: None))
    assert not method._held


@pytest.mark.parametrize("rao_blackwell", [False, True])
def test_one_forward_and_one_reverse_pass_for_each_root(monkeypatch, rao_blackwell):
    """That goes back through one decoder layer after the other, cut where a layer begins."""
    model = build("llama", "lora")
    batch = tiny.batch(sizes=(4, 4, 4))
    even = [
        dataclasses.replace(
            u,
            unit=dataclasses.replace(u.unit, role="E"),
            # Nothing in common: one row is not worth a trial.
            sequences=tuple(
                dataclasses.replace(s, prompt=(3, i), response=(5,) * 6) for i, s in enumerate(u.sequences)
            ),
        )
        for u in objectives(batch)
    ]
    forwards, reverses, plain = [], [], torch.autograd.grad
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: reverses.append(1) or plain(*a, **k))
    vectors(Fused(model, trained(model), 12), even, rao_blackwell=rao_blackwell)
    handle.remove()
    cuts = model.config.num_hidden_layers
    assert (len(forwards), len(reverses)) == (1, (1 + rao_blackwell) * (cuts + 1))


@pytest.mark.parametrize(
    ("adaptation", "rao_blackwell", "limit"),
    [("lora", False, 1.1), ("full", False, 4 / 3), ("lora", True, 1.6), ("full", True, 4 / 3 + 0.7 + 0.1)],
)
def test_arithmetic_is_that_of_a_training_step(adaptation, rao_blackwell, limit):
    """Forward, reverse pass without the frozen base's weight gradients, and each layer's δ xᵀ of every
    sequence, which is a step's own weight gradient; X and Y are combinations of those. X of (2b) repeats all
    but the forward."""
    wide = {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 256}
    model = tiny.model("llama", **wide)
    if adaptation == "lora":
        model = tiny.with_lora(model, target_modules="all-linear", r=2)
    units = [
        dataclasses.replace(
            u,
            sequences=tuple(
                dataclasses.replace(s, prompt=(3,) * 20, response=(5,) * 20) for s in u.sequences
            ),
        )
        for u in objectives(tiny.batch(sizes=(4, 4)))
    ]
    method = Fused(model, trained(model), 8)
    with FlopCounterMode(display=False) as ours:
        list(method.measurements(units, lambda *_: None, rao_blackwell=rao_blackwell))
    with FlopCounterMode(display=False) as step:
        layout = teacher_forcing.Layout.of(
            [s for u in units for s in u.sequences], device=torch.device("cpu")
        )
        logits = response_logits(model, layout)
        teacher_forcing.response_log_probs(logits, layout).sum().backward()
    assert ours.get_total_flops() <= limit * step.get_total_flops()


def test_nothing_is_left_behind():
    model = build("gpt2", "modules_to_save")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    vectors(Fused(model, trained(model), 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_deltas_wait_for_those_of_the_other_root_in_their_own_layer_alone(monkeypatch):
    """What a layer was given, and its δ, go before the layers in front of it have any."""
    model, tapes, waiting = build("llama", "lora"), [], []
    reversed_, taken = Tape.reverse, RuledCall.take

    def reverse_(self, *args, **options):
        tapes.append(self)
        return reversed_(self, *args, **options)

    def take(self, delta):
        taken(self, delta)
        waiting.append(max(sum(bool(call.deltas) for _, call in tape._calls) for tape in tapes))

    monkeypatch.setattr(Tape, "reverse", reverse_)
    monkeypatch.setattr(RuledCall, "take", take)
    vectors(Fused(model, trained(model), 100), CONSTANT_LAMBDA, rao_blackwell=True)
    calls = [call for tape in tapes for _, call in tape._calls]
    assert len(tapes) > 1  # side by side
    assert len(waiting) == 2 * len(calls)
    assert max(waiting) == len(calls) / len(tapes) / model.config.num_hidden_layers
    assert all(call.given is None and not call.deltas for call in calls)


def test_a_layer_s_own_hook_on_its_gradient_runs_once():
    model = build("llama", "lora")

    def halved(_module, _args, output):
        output.register_hook(lambda gradient: 0.5 * gradient)

    model.get_submodule("base_model.model.model.layers.0").register_forward_hook(halved)
    found, _ = against_loop(model, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-5


class NothingBack(torch.autograd.Function):
    """x, whose derivative is not handed on."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, _gradient):
        return None


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_what_an_operation_hands_no_gradient_on_to_has_none(adaptation):
    model = build("llama", adaptation, tied=False)
    layers = model.get_submodule("base_model.model.model.layers" if adaptation == "lora" else "model.layers")
    layers[1].register_forward_pre_hook(lambda _m, args: (NothingBack.apply(args[0]), *args[1:]))
    units = CONSTANT_LAMBDA
    found, _ = against_loop(model, units=units, rao_blackwell=True)
    assert found < 1e-5
    x, *_ = vectors(Loop(model, trained(model), 100), units)[0]
    assert 0 < x.non_none < len(x.tensors)


def test_modules_are_watched_around_parameters_that_no_rule_gives():
    lora, dora = (build("llama", adaptation) for adaptation in ("lora", "dora"))
    assert Places.of(lora, trained(lora)).outside_of_rules(()) == []
    watched = Places.of(dora, trained(dora)).outside_of_rules(())
    assert {id(m) for m in dora.modules() if "lora_magnitude_vector" in dict(m.named_children())} <= {
        id(m) for m in watched
    }
    # A use outside of its layer, once it was seen.
    (name, key), *_ = zip(trained(lora).names, trained(lora).ids, strict=True)
    around = Places.of(lora, trained(lora)).outside_of_rules({key})
    parts = name.removesuffix(".weight").split(".")
    above = [lora.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) + 1)]
    assert {id(module) for module in around} == {id(module) for module in above}


def test_parameters_without_a_gradient_stay_without():
    model = build("llama", "lora")
    model.set_adapter("default")
    model.add_adapter("idle", model.peft_config["default"])
    model.base_model.set_adapter(["default"])
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(True)
    (x, y), *_ = vectors(Fused(model, trained(model), 8))
    idle = ["idle" in name for name in trained(model).names]
    assert any(idle)
    assert [t is None for t in x.tensors] == [t is None for t in y.tensors] == idle
