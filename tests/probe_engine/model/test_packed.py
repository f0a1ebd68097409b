"""Sequences of several lengths in one row: what each has alone, or the row is not used."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import healthy
import pytest
import tiny
import torch
from against_loop import CONSTANT_LAMBDA, FAMILIES, UNITS, against_loop, build, error, trained, vectors
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from probe_engine.model import packed_attention
from probe_engine.model.checkpointing import checkpointed
from probe_engine.model.packed_attention import attention_by_sequence
from probe_engine.model.packed_layout import in_one_row
from probe_engine.model.packed_row import Row
from probe_engine.model.teacher_forcing import TokenSequence, response_log_probs, response_logits
from probe_engine.model.unit_gradients import Fused, Loop, objectives
from probe_engine.model.unit_gradients.fused.packing import Window, packed, runs
from probe_engine.model.unit_gradients.fused.slots import Runs

pytestmark = pytest.mark.filterwarnings("ignore:The following .*_pattern keys")  # peft on tensors of experts

SEQUENCES = [
    TokenSequence((5, 6, 7), (1, 2, 3, 4)),
    TokenSequence((9,), (8, 8)),
    TokenSequence((4, 4, 4, 4, 4), (0,)),
]
OWNERS = [0, 0, 0]
WINDOW = 3
"""Tokens that sliding attention sees, of sequences of up to 13."""
SLIDING = {"head_dim": 4, "num_key_value_heads": 2, "sliding_window": WINDOW}
MORE = {
    "qwen3": {"head_dim": 4, "num_key_value_heads": 2},
    "mistral": SLIDING,
    "gemma3_text": SLIDING | {"layer_types": ["sliding_attention", "full_attention"]},
}
"""Beside `FAMILIES`: norms of queries, and sliding windows."""


def more(family: str, *, adaptation: str = "full", dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(tiny.PLAIN | MORE[family]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for parameter in model.parameters():
        parameter.data.normal_(0.5 if parameter.dim() == 1 else 0, 0.25)
    if adaptation == "lora":
        model = tiny.with_lora(model, target_modules="all-linear")
    return tiny.cast(model, dtype).eval()


def unpackable(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, vocab_size=tiny.VOCABULARY, **healthy.ARCHITECTURES[architecture]
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.25)
    return model.eval()


def float64(family: str) -> nn.Module:
    return tiny.model(family, dtype=torch.float64) if family in tiny.CONFIGS else more(family).double()


@pytest.mark.parametrize(
    "family", sorted({*tiny.CONFIGS, *MORE} - {"mixtral"})
)  # its experts know no float64
def test_log_probs_in_one_row_are_those_of_each_alone(family):
    model = float64(family)
    layout = in_one_row(SEQUENCES, OWNERS, device=torch.device("cpu"))
    with torch.no_grad(), attention_by_sequence():
        logits = response_logits(model, layout)
        found = response_log_probs(logits, layout)
    assert logits.shape[:2] == layout.targets.shape == (1, 7)
    for log_probs, s in zip(found[0].split(layout.responses), SEQUENCES, strict=True):
        alone = model(torch.tensor([s.prompt + s.response])).logits[0].log_softmax(-1)
        expected = [alone[len(s.prompt) - 1 + i, token] for i, token in enumerate(s.response)]
        torch.testing.assert_close(log_probs, torch.stack(expected).detach(), rtol=1e-6, atol=1e-7)


def test_kept_positions_are_before_the_response_tokens():
    layout = in_one_row(SEQUENCES, OWNERS, device=torch.device("cpu"))
    assert layout.input_ids.tolist() == [[5, 6, 7, 1, 2, 3, 4, 9, 8, 8, 4, 4, 4, 4, 4, 0]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 1, 2, 3, 4, 5]]
    assert layout.places.tolist() == [2, 3, 4, 5, 7, 8, 14]
    assert layout.targets.tolist() == [[1, 2, 3, 4, 8, 8, 0]]
    assert layout.sums(torch.arange(7.0)[None]).tolist() == [6, 9, 6]


@pytest.mark.parametrize("family", MORE)
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_gradients_are_loop_s_with_norms_of_queries_and_sliding_windows(family, adaptation):
    assert max(len(s) for u in UNITS for s in u.sequences) > 2 * WINDOW
    model = more(family, adaptation=adaptation)
    found, fused = against_loop(model, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-5
    assert fused.packs(UNITS)
    assert fused.fallback_parameters == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_every_family_of_the_suite_is_packed(family, adaptation):
    model = build(family, adaptation)
    assert Fused(model, trained(model), 8).packs(UNITS)


def test_in_bfloat16_one_row_is_no_worse_than_padded_ones(monkeypatch):
    model = build("llama", "lora").bfloat16()
    exact = copy.deepcopy(model).float()
    reference = vectors(Loop(exact, trained(exact), 100))
    packed = Fused(model, trained(model), 8)
    assert packed.packs(UNITS)
    ours = vectors(packed)
    monkeypatch.setattr(Fused, "packs", lambda *_: False)
    padded = vectors(Fused(model, trained(model), 8))
    assert 0 < error(ours, reference) < 2 * error(padded, reference)


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_layers_that_run_again_attend_as_they_did(adaptation):
    model = build("llama", adaptation, dtype=torch.float64)
    reference = vectors(Loop(model, trained(model), 100), CONSTANT_LAMBDA, rao_blackwell=True)
    method = Fused(model, trained(model), 8)
    with checkpointed(model):
        found = vectors(method, CONSTANT_LAMBDA, rao_blackwell=True)
    assert method.packs(UNITS)
    assert error(found, reference) < 1e-10


@pytest.mark.parametrize("micro_batch", [2, 8])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_scoring_again_gives_the_same_bits(family, micro_batch):
    model = build(family, "lora")
    method = Fused(model, trained(model), micro_batch)
    units = objectives(tiny.batch())
    first = {s.objective.unit.id: s.S for s in method.measurements(units, lambda *_: None)}
    evaluated = [u for u in units if u.unit.role == "E"]
    assert method.packs(evaluated)
    # Products of few rows, an expert's, are rounded by how many they are: a prompt is scored once.
    rounding = {"llama": 0.0, "mixtral": 1e-6}[family]
    for again in (method.scores(units), method.scores(evaluated)):
        for scored in again:
            torch.testing.assert_close(scored.S, first[scored.objective.unit.id], rtol=rounding, atol=0)


@pytest.mark.parametrize("architecture", ["bloom", "falcon", "mamba", "qwen3_next"])
def test_what_mixes_tokens_otherwise_is_padded(architecture):
    found, fused = against_loop(unpackable(architecture))
    assert found < 1e-5
    assert not fused.packs(UNITS)


def test_a_gradient_s_own_reach_shows_what_no_log_probability_does():
    """Sequences that are alike: what leaks from one into the next is what it has anyway, nearly."""
    model = unpackable("qwen3_next")
    same = [TokenSequence((3, 3), (3,) * n) for n in (13, 14)]
    tape = Fused(model, trained(model), 8)._recorded
    with attention_by_sequence():
        assert tape(same, [0, 1], packed=True).mixes(1)
    sound = build("llama", "full")
    with attention_by_sequence():
        assert not Fused(sound, trained(sound), 8)._recorded(same, [0, 1], packed=True).mixes(1)


def test_attention_is_left_as_it_was_and_other_models_see_nothing_of_it():
    model = build("gpt2", "full")
    before = [dict(f._local_mapping) for f in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS)]
    config = model.config.to_dict()
    ids = torch.tensor([[3, 4, 5, 6]])
    plain = model(ids).logits
    with attention_by_sequence():
        assert torch.equal(model(ids).logits, plain)
    fused = Fused(model, trained(model), 8)
    vectors(fused)
    assert fused.packs(UNITS)
    with pytest.raises(ZeroDivisionError):
        list(fused.measurements(UNITS, lambda *_: 1 / 0))
    assert [dict(f._local_mapping) for f in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS)] == before
    assert packed_attention._row.get() is None
    assert (model.config.to_dict(), fused.attention) == (config, "sdpa")


def test_an_even_batch_without_common_prompts_is_not_tried(monkeypatch):
    monkeypatch.setattr("probe_engine.model.unit_gradients.fused.method.keeps_apart", lambda *_: 1 / 0)
    model = build("llama", "lora")
    even = objectives(tiny.batch(sizes=(3, 2)))
    for unit in even:
        object.__setattr__(
            unit, "sequences", tuple(TokenSequence((n, 2), (3, 4, 5, n)) for n in range(len(unit.sequences)))
        )
    fused = Fused(model, trained(model), 8)
    vectors(fused, even)
    assert not fused.packs(even)


class Apart(nn.Module):
    """Each token for itself, at its position."""

    def __init__(self) -> None:
        super().__init__()
        d = 6
        self.config = SimpleNamespace(_attn_implementation="sdpa", get_text_config=SimpleNamespace)
        self.embed, self.placed = nn.Embedding(tiny.VOCABULARY, d), nn.Embedding(200, d)
        self.first, self.head = nn.Linear(d, d), nn.Linear(d, tiny.VOCABULARY)

    def forward(self, input_ids, attention_mask, position_ids):
        x = self.embed(input_ids) + self.placed(position_ids)
        return SimpleNamespace(logits=self.head(self.middle(x)))

    def middle(self, x):
        return torch.tanh(self.first(x))

    def get_input_embeddings(self):
        return self.embed


class Running(Apart):
    def middle(self, x):
        return torch.tanh(self.first(x.cumsum(1) / 9))


class CountingItself(Apart):
    def middle(self, x):
        return torch.tanh(self.first(x + self.placed(torch.arange(x.shape[1]))))


class TurnedRound(Apart):
    """Right, but a layer sees the row's tokens in an order that nobody else knows."""

    def middle(self, x):
        return torch.tanh(self.first(x.flip(1))).flip(1)


class Refusing(Apart):
    def forward(self, input_ids, attention_mask, position_ids):
        return super().forward(input_ids, attention_mask.long(), position_ids)


class InChunks(Apart):
    """Is the same for short rows."""

    def __init__(self) -> None:
        super().__init__()
        self.config.get_text_config = lambda: SimpleNamespace(attn_temperature_tuning=True)


@pytest.mark.parametrize("case", [Apart, Running, CountingItself, TurnedRound, Refusing, InChunks])
def test_models_are_tried_before_they_are_believed(case):
    torch.manual_seed(7)
    model = case().double()
    found, fused = against_loop(model, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-10
    assert fused.packs(UNITS) == (case is Apart)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((1, 9, 5), True),
        ((1, 4, 5), True),  # kept positions
        ((1, 9, 3, 5), True),
        ((1, 3, 9, 5), True),
        ((9, 5), False),  # flattened: in what order?
        ((2, 9, 5), False),
        ((1, 9, 9, 5), False),
        ((1, 4, 9, 5), False),
        ((1, 8, 5), False),
    ],
)
def test_where_positions_are_is_told_where_one_axis_can_be_theirs(shape, told):
    sequences = [TokenSequence((1,) * (n - kept), (1,) * kept) for n, kept in ((2, 1), (4, 2), (3, 1))]
    slots = Runs(Row.of(sequences, range(3)), kept=(1, 2, 1))
    assert slots.told(torch.Size(shape)) == told


def test_parts_and_weights_are_by_segment():
    sequences = [TokenSequence((5,), (6,)), *(TokenSequence((7, 8), (9,) * n) for n in (1, 2))]
    slots = Runs(Row.of(sequences, [0, 1, 1]), kept=(1, 1, 2))
    assert slots.row.lengths == (2, 1, 3, 2, 1)  # the longer response first, between the prompt's copies
    heads_first = torch.arange(2 * 9 * 3.0).view(1, 2, 9, 3)
    shorter, alone, copy = slots.parts(torch.tensor([3, 0, 4]), torch.device("cpu"))(heads_first)
    assert torch.equal(shorter, heads_first[:, :, 6:8].reshape(1, 4, 3))
    assert torch.equal(alone, heads_first[:, :, :2].reshape(1, 4, 3))
    assert torch.equal(copy, heads_first[:, :, 8:].reshape(1, 2, 3))
    kept = torch.arange(4.0).view(1, 4, 1)
    longer, nothing = slots.parts(torch.tensor([2, 1]), torch.device("cpu"))(kept)
    assert (longer.flatten().tolist(), nothing.shape) == ([2, 3], (1, 0, 1))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    by_token = slots.weighted(torch.ones(1, 9, 2), weights)
    assert by_token[0, :, 0].tolist() == [1, 1, 2, 3, 3, 3, 4, 4, 5]
    assert slots.weighted(torch.ones(1, 4, 2), weights)[0, :, 0].tolist() == [1, 4, 3, 3]
    assert slots.units(torch.tensor([3, 7, 7])).tolist() == [3, 7, 7, 7, 7]
    assert slots.foreign(1).tolist() == [1, 0, 1, 0, 1]


def test_packed_passes_hold_as_many_real_tokens_as_a_pass_may():
    lengths = [len(s) for u in UNITS for s in u.sequences]
    window = Window(tuple(range(len(UNITS))), tuple(UNITS), budget=2 * max(lengths), packs=True)
    assert window.in_one_row
    assert window.oversize
    bundles = window.bundles
    assert [row for bundle in bundles for row in bundle.rows] == list(range(len(lengths)))
    for bundle in bundles:
        assert bundle.tokens == sum(Row.of(bundle.sequences, bundle.owners).lengths)
        assert bundle.scored_tokens == sum(Row.of(bundle.sequences, bundle.owners, copies=1).lengths)
        assert bundle.tokens <= window.budget
    assert runs([3, 3, 3, 9, 1], 6) == [[0, 1], [2], [3], [4]]


def test_a_unit_that_fits_into_a_pass_because_its_prompt_is_in_common_is_not_scored_first():
    (unit,) = objectives(tiny.batch(sizes=(4,)))
    sequences = tuple(TokenSequence(tuple(range(20)), (n, n)) for n in range(4))
    unit = dataclasses.replace(unit, sequences=sequences)
    (padded,), (one_row,) = (packed([unit], 3, packs=packs) for packs in (False, True))
    assert padded.oversize
    assert not one_row.oversize  # 2 · 19 + 4 · 3 of 3 · 22 tokens
    assert [bundle.tokens for bundle in one_row.bundles] == [50]
    model = build("llama", "full", dtype=torch.float64)
    found, fused = against_loop(model, micro_batch=3, units=[unit], rao_blackwell=True)
    assert found < 1e-10
    assert fused.packs([unit])


def test_windows_without_padding_are_as_large_as_the_mean_length_makes_them() -> None:
    """A unit of long responses fits all the same: it is not scored twice."""
    units = objectives(tiny.batch(sizes=(4,) * 8, max_length=20))
    padded, filled = (packed(units, 4, packs=packs) for packs in (False, True))
    assert len(filled) > len(padded)
    for role in ("E", "U"):
        lengths = [len(s) for unit in units if unit.unit.role == role for s in unit.sequences]
        mine = [window for window in filled if window.units[0].unit.role == role]
        assert not any(window.oversize for window in mine)
        several = [sum(map(len, window.rows)) for window in mine if len(window.units) > 1]
        assert all(tokens <= 4 * (sum(lengths) / len(lengths) + 1) for tokens in several)
    assert sorted(n for window in filled for n in window.numbers) == list(range(len(units)))
    large = [unit for unit in units if unit.tokens > 4 * sum(u.tokens for u in units) / (4 * len(units))]
    assert large  # of more tokens than four sequences of the mean length
