"""A model, its optimizer after one step, and a batch: what is measured is done to these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from _batches import even
from _models import adapted, base
from _setting import Setting
from torch import Tensor, nn

from probe_engine import probe
from probe_engine.environment.garbage import older_objects_left_alone
from probe_engine.model.preconditioner import Preconditioner, preconditioner
from probe_engine.model.teacher_forcing import (
    Layout,
    device_of,
    response_log_probs,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective, objectives, unit_gradients
from probe_engine.registry import ParameterRegistry
from probe_engine.report import GradientFlow, Report
from probe_engine.sources.checkpoints.live import read_optimizer
from probe_engine.spec import RunSpec
from probe_engine.stages.measure import measure
from probe_engine.stages.measured import Measured
from probe_engine.types import Batch, Policy


@dataclass(frozen=True)
class Case:
    """What a benchmark measures."""

    model: nn.Module
    """In eval mode."""
    optimizer: torch.optim.AdamW
    batch: Batch
    micro_batch: int
    lean: bool
    """Of the whole probe: see `Setting`."""
    _methods: dict[tuple[str, str], UnitGradients] = field(default_factory=dict)

    @classmethod
    def of(cls, setting: Setting) -> Case:
        """The setting's model, with random tokens; the same every time."""
        torch.manual_seed(0)
        model = adapted(base(setting.model, Path(setting.cache)), full=setting.full)
        model = model.to(setting.device, getattr(torch, setting.dtype)).eval()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
        batch = even(model.config.vocab_size, setting.sequences, setting.tokens)
        case = cls(model, optimizer, batch, setting.micro_batch, setting.lean)
        case.step()
        optimizer.step()
        optimizer.zero_grad()
        return case

    @cached_property
    def units(self) -> list[UnitObjective]:
        """Of the batch."""
        return objectives(self.batch)

    @cached_property
    def policy(self) -> Policy:
        """As the stages take it."""
        registry = ParameterRegistry.of(self.model).trainable
        return Policy(self.model, registry, None, read_optimizer(self.optimizer, registry).state)

    @cached_property
    def p(self) -> Preconditioner:
        """P of the optimizer's state."""
        return preconditioner(self.policy.registry, self.policy.optimizer)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows."""
        return int(self.model.config.vocab_size)

    def step(self) -> None:
        """A training step without the optimizer's update: the gradients of −(1/B) Σ L_Y in `.grad`."""
        self.optimizer.zero_grad()
        for units in self.chunks(self.units):
            S = self.log_probs(units)
            weights = torch.cat([unit.weights(torch.zeros(len(unit.sequences)))[1] for unit in units])
            (-(weights.to(S.device) * S).sum() / len(self.units)).backward()

    def method(self, name: str = "fused") -> UnitGradients:
        """A method of computing X and Y, the same one each time: what it tries of a model once a run is no
        part of a measurement. A probe does so in its check of gradient flow."""
        key = name, self.model.config._attn_implementation
        if key not in self._methods:
            self._methods[key] = unit_gradients(
                name, self.model, self.policy.registry, micro_batch=self.micro_batch, temperature=1.0
            )
        return self._methods[key]

    def first_pass(self) -> None:
        """X and Y of all units by `fused`; they are let go."""
        for _ in self.method().measurements(self.units, lambda *_: None):
            pass

    def measure(self, method: str = "fused", *, keep: bool | None = None) -> Measured:
        """X of (2), Y and the dot products s, r and t of all units: the stage of that name.

        Args:
            method: of computing X and Y.
            keep: whether vectors are kept, where the method can, else there is a second pass; None: where
                they fit into the default of --memory-budget.
        """
        budget = RunSpec().memory_budget_bytes if keep is None else 2**50 * keep
        stage = measure(
            self.policy,
            self.units,
            self.method(method),
            self.p,
            GradientFlow(grad_context="enabled", registry=len(self.policy.registry)),
            eta=None,
            memory_budget=budget,
        )
        with older_objects_left_alone():  # as the whole probe does
            while True:
                try:
                    next(stage)
                except StopIteration as end:
                    return end.value

    def probe(self, **options: object) -> Report:
        """The whole probe from the check of gradient flow to the verdict, lean or with default options, but
        with these."""
        lean = {"x_estimator": "score", "steps": ("adamw",), "no_sweep": True} if self.lean else {}
        report = probe(
            self.model,
            optimizer=self.optimizer,
            batch=self.batch,
            micro_batch=self.micro_batch,
            fail_on="never",
            **(lean | options),
        )
        if report.run is None or report.run.status != "complete":
            raise SystemExit(f"the probe did not come through: {report.findings[-1].message}")
        return report

    def chunks(self, units: Sequence[UnitObjective]) -> list[list[UnitObjective]]:
        """Whole units, at most `micro_batch` sequences together."""
        cut: list[list[UnitObjective]] = [[]]
        for unit in units:
            together = sum(len(u.sequences) for u in cut[-1]) + len(unit.sequences)
            if cut[-1] and together > self.micro_batch:
                cut.append([])
            cut[-1].append(unit)
        return cut

    def log_probs(self, units: Sequence[UnitObjective]) -> Tensor:
        """S [N] of all sequences of these units, from one forward pass, called as trl calls it: how many
        logits are wanted, not which."""
        layout = Layout.of([s for unit in units for s in unit.sequences], device=device_of(self.model))
        logits = self.model(
            input_ids=layout.input_ids,
            attention_mask=layout.attention_mask,
            position_ids=layout.position_ids,
            logits_to_keep=layout.targets.shape[1],
            use_cache=False,
        ).logits
        return sequence_log_probs(response_log_probs(logits, layout))


def stage_seconds(report: Report) -> dict[str, float]:
    """By stage, without those that read what is given here."""
    return {name: value for name, value in report.timings.items() if name not in ("load", "rollouts")}
