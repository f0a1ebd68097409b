"""The same tokens alone, together and padded, against forwards written out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from probe_engine.checks.surroundings import batching, padding, shifts
from probe_engine.model.precision import tolerance
from probe_engine.model.surroundings import Rows, Surroundings, otherwise_padded, surroundings
from probe_engine.model.teacher_forcing import TokenSequence
from probe_engine.model.unit_gradients import UnitObjective, objectives
from probe_engine.report import Finding

F32 = torch.float32
TOLERANCE = tolerance(F32)
SMALL: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "rwkv": {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16},
    "gemma2": tiny.CONFIGS["llama"] | {"head_dim": 8, "query_pre_attn_scalar": 8},
    "mixtral": tiny.CONFIGS["llama"] | {"num_local_experts": 4},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
    },
}


def built(kind: str) -> nn.Module:
    if kind in tiny.CONFIGS:
        return tiny.model(kind)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **(SMALL[kind] | {"vocab_size": tiny.VOCABULARY}))
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.25)
    return model.eval()


def units() -> list[UnitObjective]:
    return objectives(tiny.batch(max_length=20))


def rows() -> Rows:
    taken = Rows.of(units())
    assert taken is not None
    return taken


def looked_at(model: nn.Module) -> tuple[Surroundings, Finding, Finding]:
    seen = surroundings(model, rows(), TOLERANCE)
    other = otherwise_padded(model, rows()) if shifts(F32, seen.left, seen.alone) else None
    return seen, batching(F32, seen, steady=True), padding(F32, seen, other, steady=True)


def spoiled(change: Callable[[Tensor], Tensor]) -> nn.Module:
    model: Any = tiny.model()
    model.model.layers[0].mlp.register_forward_hook(lambda _module, _args, out: out + change(out))
    return model


def test_rows_are_of_one_length_and_of_different_prompts() -> None:
    taken = rows()
    assert len(taken.row) == len(taken.equal) < len(taken.longer)
    assert taken.row.prompt != taken.equal.prompt
    written = [s.prompt + s.response for unit in units() for s in unit.sequences]
    for row in (taken.row, taken.equal, taken.longer):
        tokens = row.prompt + row.response
        assert any(sequence[: len(tokens)] == tokens for sequence in written)


def test_one_group_is_enough_and_one_sequence_is_not() -> None:
    (unit,) = objectives(tiny.batch(sizes=(2,), max_length=9))
    few = Rows.of([unit])
    assert few is not None
    assert few.row != few.equal
    short = TokenSequence((1,), (2, 3))
    assert Rows.of([dataclasses.replace(unit, sequences=(unit.sequences[0], short))]) is None


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_scored_is_what_a_plain_forward_says(kind: str) -> None:
    model, taken = tiny.model(kind), rows()
    seen = surroundings(model, taken, TOLERANCE)
    split = len(taken.row.prompt)

    def log_probs(ids: list[int], first: int, **inputs: Any) -> Tensor:
        with torch.no_grad():
            said = model(input_ids=torch.tensor([ids]), **inputs).logits[0].double().log_softmax(-1)
        return torch.stack([said[i - 1, ids[i]] for i in range(first, len(ids))])

    pad = len(taken.longer) - len(taken.row)
    ids = list(taken.row.prompt + taken.row.response)
    torch.testing.assert_close(seen.alone, log_probs(ids, split), rtol=0, atol=1e-5)
    mask = torch.tensor([[0] * pad + [1] * len(ids)])
    shifted = log_probs([0] * pad + ids, pad + split, attention_mask=mask)
    assert seen.unplaced is not None
    torch.testing.assert_close(seen.unplaced, shifted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mixtral", "opt", "bloom", "mamba"])
def test_healthy_models_answer_the_same_everywhere(kind: str) -> None:
    seen, beside, padded = looked_at(built(kind))
    assert (beside.status, padded.status) == ("ok", "ok")
    assert (seen.unplaced is None) == (kind in ("bloom", "mamba"))


def test_learned_positions_without_position_ids_are_worth_knowing() -> None:
    _, beside, padded = looked_at(tiny.model("gpt2"))
    assert (beside.status, padded.status) == ("ok", "info")
    assert isinstance(padded.value, float)
    assert padded.value > 0.1
    assert "passes none" in padded.message


def test_a_state_that_runs_through_the_padding_shows_on_the_left_alone() -> None:
    _, beside, padded = looked_at(built("rwkv"))
    assert (beside.status, padded.status) == ("ok", "warn")
    assert padded.evidence["right"] < 1e-4 < 0.05 < padded.evidence["left"]
    assert "its numbers hold" in padded.message
    assert padded.remedy.commands == []


def test_padding_that_is_attended_to_is_told_from_positions() -> None:
    model: Any = tiny.model()
    forward = model.model.forward

    def tokens_alone(input_ids: Tensor, **_: object) -> Any:
        return forward(input_ids)

    model.model.forward = tokens_alone
    _, _, padded = looked_at(model)
    assert padded.status == "warn"
    assert "attention_mask is not obeyed" in padded.message


def test_a_fault_on_the_right_is_a_fault_of_the_probes_own_numbers() -> None:
    _, beside, padded = looked_at(spoiled(lambda out: out.mean(1, keepdim=True)))
    assert (beside.status, padded.status) == ("ok", "warn")
    assert "is wrong where a batch mixes lengths" in padded.message
    assert padded.remedy.commands == ["probe-tui CHECKPOINT --micro-batch 1"]


def test_neighbours_are_told_from_padding() -> None:
    seen, beside, padded = looked_at(spoiled(lambda out: out.mean(0, keepdim=True)))
    assert beside.status == "warn"
    assert isinstance(beside.value, float)
    assert beside.value == pytest.approx(float((seen.batched - seen.alone).abs().mean()))
    assert padded.status == "skip"
    assert "GRAD020" in padded.message


def test_what_is_no_number_shifts() -> None:
    alone = torch.zeros(3, dtype=torch.float64)
    assert shifts(F32, torch.full_like(alone, torch.nan), alone)
    assert not shifts(F32, alone + 1e-6, alone)
    assert not shifts(torch.bfloat16, alone + 0.05, alone)
    assert shifts(torch.bfloat16, alone + 0.2, alone)
