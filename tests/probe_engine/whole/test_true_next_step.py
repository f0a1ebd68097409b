"""What trl's real trainer did next, against what the probe said of its checkpoint.

The next checkpoint is the truth: the same trainer's own step on the very tokens that are probed. GPT-2 has
prompts of one length, but where a test says otherwise: trl trains it on other positions where they are not.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
import trl_runs
from oracles.decisions import change_of_a_prompt
from oracles.twin import Prompt
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from written import drained

from probe_engine import doctor, probe
from probe_engine.model.preserving import preserved
from probe_engine.model.unit_gradients import objectives, unit_gradients
from probe_engine.model.unit_gradients.vector_sum import VectorSum
from probe_engine.report import RealizedRow, Report
from probe_engine.spec import RunSpec
from probe_engine.stages.load import load
from probe_engine.stages.own_step import step_on
from probe_engine.stages.rollouts import rollouts
from probe_engine.types import Batch, Policy
from probe_engine.vectors import ParameterVector

EOS, L_MAX = 1, 12
SOME = 4
"""Every fourth prompt is measured again."""
RIGHT = {"llama-lora": "agree", "gpt2-full-tied": "agree", "qwen2-dora": "unreliable"}
RATES = {"llama-lora": 5e-3, "gpt2-full-tied": 3e-3, "qwen2-dora": 5e-3}


@dataclass(frozen=True)
class Probed:
    """A finished run, and what the probe made of the last checkpoint but one."""

    run: trl_runs.TrlRun
    told: Path
    """The rollouts with token ids."""

    @cached_property
    def inputs(self) -> tuple[Policy, Batch]:
        """As the probe reads them."""
        spec = RunSpec(checkpoint=str(self.run.checkpoint), rollouts=str(self.told), device="cpu")
        policy, _ = drained(load(spec))
        return policy, drained(rollouts(spec, policy))[0]

    @cached_property
    def report(self) -> Report:
        return probe(self.run.checkpoint, rollouts=str(self.told), device="cpu")

    def moved_to(self, checkpoint: Path) -> list[Tensor]:
        """θ there less θ of the checkpoint that is probed, by parameter."""
        before = self.inputs[0].registry
        spec = RunSpec(checkpoint=str(checkpoint), rollouts=str(self.told), device="cpu")
        after = drained(load(spec))[0].registry
        assert after.names == before.names
        return [p.detach() - old.detach() for (_, p), (_, old) in zip(after, before, strict=True)]

    @cached_property
    def truth(self) -> list[Tensor]:
        """Δθ of the trainer, by parameter."""
        return self.moved_to(self.run.next_checkpoint)

    @cached_property
    def ours(self) -> Sequence[Tensor | None]:
        """Δθ of plain autograd's Ȳ, by parameter."""
        policy, batch = self.inputs
        method = unit_gradients("loop", policy.model, policy.registry, micro_batch=8, temperature=1.0)
        sum_y, units = VectorSum(policy.registry), objectives(batch)
        with preserved(policy.model):
            for unit in units:
                sum_y.add(method.measure(unit).y)
        return step_on(policy, sum_y.total.scaled(1 / len(units))).delta.tensors

    def off(self, delta: Sequence[Tensor | None]) -> float:
        """‖Δθ − truth‖/‖truth‖, where Δθ is anything but rounding.

        GPT-2's key biases shift all scores of a query alike, which softmax does not see: their gradient is 0
        but for rounding, of which Adam makes steps of its own, in trl other ones each time.
        """
        squares, size = 0.0, 0.0
        for name, step, truth in zip(self.inputs[0].registry.names, delta, self.truth, strict=True):
            assert step is not None
            kept = torch.ones_like(truth)
            if name.endswith("attn.c_attn.bias"):
                kept.chunk(3)[1].zero_()
            squares += float((kept * (step - truth)).double().square().sum())
            size += float((kept * truth).double().square().sum())
        assert size > 0
        return (squares / size) ** 0.5

    def model(self, checkpoint: Path) -> nn.Module:
        """Read by the test's own means, float64."""
        model = AutoModelForCausalLM.from_pretrained(self.run.base or checkpoint, dtype=torch.float64)
        if self.run.base is not None:
            model = PeftModel.from_pretrained(model, checkpoint).double()
        return model.eval()

    def row(self, pairing: str) -> RealizedRow:
        """The optimizer's own step, measured per decision."""
        name = ("adamw", pairing, "per_decision")
        (row,) = [r for r in self.report.realized if (r.step, r.pairing, r.estimator) == name]
        return row


def probed(run: trl_runs.TrlRun, folder: Path) -> Probed:
    return Probed(run, run.token_rollouts(folder / "rollouts.jsonl"))


@pytest.fixture(scope="module", params=trl_runs.KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Probed:
    """After so many steps that entropy has a direction which 32 prompts can tell."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    absolute = kind.startswith("gpt2")
    longest = 16 if absolute else 24
    run = trl_runs.train(
        kind,
        folder,
        step=16,
        prompts=list(dict.fromkeys(question[-longest:] for question in trl_runs.questions(256))),
        learning_rate=RATES[kind],
        per_device_train_batch_size=128,
        log_completions=False,
    )
    assert bool(run.batch["prompt_mask"].all()) == absolute
    return probed(run, folder)


@pytest.fixture(scope="module")
def mixed_lengths(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    """GPT-2, on prompts that trl pads on the left."""
    folder = tmp_path_factory.mktemp("mixed")
    run = trl_runs.train("gpt2-full-tied", folder, log_completions=False)
    assert not run.batch["prompt_mask"].all()
    return probed(run, folder)


def test_the_optimizers_own_step_is_the_one_that_the_trainer_took(case: Probed) -> None:
    assert case.off(case.ours) < 2e-5


def test_the_trainer_takes_the_same_step_once_loaded_from_the_checkpoint(
    case: Probed, tmp_path: Path
) -> None:
    assert case.off(case.moved_to(trl_runs.resume(case.run, tmp_path))) < 2e-5


def test_what_is_measured_is_the_change_at_the_next_checkpoint(case: Probed) -> None:
    """Of its own step from the whole batch: method.md (16) in plain floats, on the two checkpoints."""
    before, after = case.model(case.run.checkpoint), case.model(case.run.next_checkpoint)
    prompts, row = Prompt.all_of(case.inputs[1]), case.row("same_batch")
    assert [unit.id for unit in row.units] == [q.id for q in prompts]
    d = [unit.d for unit in row.units if unit.d is not None]
    truth = [change_of_a_prompt(before, after, q.tokens, q.responses, 1 / L_MAX) for q in prompts[::SOME]]
    assert d[::SOME] == pytest.approx(truth, rel=1e-3, abs=1e-4 * max(map(abs, truth)))
    assert row.delta_h == pytest.approx(statistics.mean(d), rel=1e-6)


def test_the_verdict_is_right(case: Probed) -> None:
    """Against fresh responses of the two checkpoints, which the probe has not seen.

    DoRA's gradient is not the derivative: the verdict says so, and only what was measured is right.
    """
    verdict = case.report.verdict
    assert verdict is not None
    assert (verdict.row.step, verdict.status) == ("adamw", RIGHT[case.run.kind])
    prompts = [q.tokens for q in Prompt.all_of(case.inputs[1])]
    before, after = (
        entropies(case.model(checkpoint), prompts)
        for checkpoint in (case.run.checkpoint, case.run.next_checkpoint)
    )
    change, se = float((after - before).mean()), float((after - before).std()) / len(before) ** 0.5
    measured = case.row("same_batch")
    assert measured.se is not None
    assert abs(measured.delta_h - change) < 3 * (measured.se**2 + se**2) ** 0.5
    if verdict.status == "agree":
        headline = case.report.estimates.headline.adamw
        assert abs(change) > 4 * se
        assert change * verdict.predicted > 0
        assert change * verdict.measured > 0
        assert headline.ci95[0] < change < headline.ci95[1]


def entropies(model: nn.Module, prompts: Sequence[list[int]], copies: int = 16) -> Tensor:
    """λ·Σ_t h_t of fresh responses to each prompt, [prompts · copies]: their mean is H.

    The same random numbers for every model: what differs is the model.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for prompt in prompts:
        tokens, total = torch.tensor([prompt]).repeat(copies, 1), torch.zeros(copies, dtype=torch.float64)
        alive = torch.ones(copies, dtype=torch.bool)
        for _ in range(L_MAX):
            with torch.no_grad():
                ell = model(input_ids=tokens).logits[:, -1].log_softmax(-1)
            total += alive * -(ell.exp() * ell).sum(-1)
            drawn = torch.multinomial(ell.exp(), 1, generator=generator)
            alive &= drawn[:, 0] != EOS
            tokens = torch.cat([tokens, drawn], 1)
        found.append(total / L_MAX)
    return torch.cat(found)


def test_key_biases_change_no_logit(mixed_lengths: Probed) -> None:
    """Which is why `Probed.off` may leave them out."""
    model = mixed_lengths.model(mixed_lengths.run.checkpoint)
    tokens = torch.arange(2, 30)[None]
    with torch.no_grad():
        before = model(tokens).logits
        for name, parameter in model.named_parameters():
            if name.endswith("attn.c_attn.bias"):
                parameter.chunk(3)[1].add_(0.1)
        torch.testing.assert_close(model(tokens).logits, before, rtol=1e-10, atol=1e-10)


def test_gpt2_under_trl_is_trained_on_shifted_positions_which_is_said(mixed_lengths: Probed) -> None:
    """trl pads on the left and passes no position_ids: all that sets its step apart from ours."""
    policy, _ = mixed_lengths.inputs
    shifted = step_on(policy, gradient_of_trl(policy, mixed_lengths.run.batch))
    assert mixed_lengths.off(shifted.delta.tensors) < 2e-5
    assert mixed_lengths.off(mixed_lengths.ours) > 0.1
    found = doctor(mixed_lengths.run.checkpoint, rollouts=str(mixed_lengths.told), device="cpu").findings
    (said,) = [f for f in found if f.code == "GRAD019"]
    assert said.status == "info"
    assert "as trl's GRPO, trains on other log-probabilities than the probe's" in said.message


def gradient_of_trl(policy: Policy, batch: dict[str, Tensor]) -> ParameterVector:
    """Ȳ as trl's `dapo` loss computes it: of the padded batch, without position_ids."""
    K = batch["completion_ids"].shape[1]
    logits = policy.model(
        input_ids=torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        attention_mask=torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
    ).logits[:, -K - 1 : -1]
    log_probs = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None]).squeeze(-1)
    S = (log_probs * batch["completion_mask"]).sum(1)
    objective = (batch["advantages"] * S).sum() / batch["completion_mask"].sum()
    gradients = torch.autograd.grad(objective, policy.registry.parameters)
    return ParameterVector(policy.registry.ids, gradients)
