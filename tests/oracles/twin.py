"""A naive twin of the whole probe: one unpadded sequence at a time, float64, plain autograd, no shortcuts.

It shares no code with the engine but the types of its data. Vectors are flat, estimators are written out as
method.md's formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from scipy import stats
from torch import Tensor, nn

from probe_engine.types import Batch


@dataclass
class Prompt:
    """One prompt with its responses, and its role in the split."""

    id: str
    role: str
    tokens: list[int]
    responses: list[list[int]]
    advantages: list[float]
    S: list[float] = field(default_factory=list)
    c: list[float] = field(default_factory=list)
    X: Tensor | None = None
    Y: Tensor | None = None
    PY: Tensor | None = None

    @classmethod
    def all_of(cls, batch: Batch) -> list[Prompt]:
        """The prompts of a batch whose units are one prompt each."""
        return [
            cls(
                unit.id,
                unit.role,
                list(group.tokens),
                [list(response.tokens) for response in group.responses],
                [response.advantage for response in group.responses],
            )
            for unit in batch.units
            for group in unit.groups
        ]


@dataclass
class Twin:
    """All numbers of a report, the slow way.

    Args:
        model: float64, eval mode.
        parameters: the trainable ones.
        p: P of (4), flat, in the order of `parameters`.
        eta: learning rate.
        l_max: L_max.
        loss_type, weighting: as in method.md §1.
    """

    model: nn.Module
    parameters: list[nn.Parameter]
    p: Tensor
    eta: float
    l_max: int
    loss_type: str
    weighting: str
    prompts: list[Prompt]

    def S(self, prompt: list[int], response: list[int]) -> Tensor:
        """Σ_t log π(y_t)."""
        logits = self.model(torch.tensor([prompt + response])).logits[0].double()
        total = torch.zeros((), dtype=torch.float64)
        for t, token in enumerate(response):
            total = total + torch.log_softmax(logits[len(prompt) - 1 + t], -1)[token]
        return total

    def lam(self, response: list[int]) -> float:
        """λ"""
        return {"dr_grpo": 1 / self.l_max, "sequence": 1.0, "per_token": 1 / len(response)}[self.weighting]

    def kappa(self, response: list[int]) -> float:
        """κ"""
        mean = sum(sum(map(len, q.responses)) / len(q.responses) for q in self.prompts) / len(self.prompts)
        return {
            "dr_grpo": 1 / self.l_max,
            "grpo": 1 / len(response),
            "dapo": 1 / mean,
            "bnpo": 1 / mean,
        }[self.loss_type]

    def gradient(self, value: Tensor) -> Tensor:
        """∇ of a scalar, flat."""
        gradients = torch.autograd.grad(value, self.parameters, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(q) if g is None else g).flatten().double()
                for g, q in zip(gradients, self.parameters, strict=True)
            ]
        )

    def measure(self) -> Twin:
        """S, c, X_n and Y_n of every prompt."""
        for q in self.prompts:
            G = len(q.responses)
            gradients = []
            for y in q.responses:
                S = self.S(q.tokens, y)
                q.S.append(S.item())
                gradients.append(self.gradient(S))
            weighted = [(s + 1) * self.lam(y) for s, y in zip(q.S, q.responses, strict=True)]
            q.c = [w - (sum(weighted) - w) / (G - 1) for w in weighted]
            q.X = -sum(c * g for c, g in zip(q.c, gradients, strict=True)) / G
            q.Y = (
                sum(
                    a * self.kappa(y) * g
                    for a, y, g in zip(q.advantages, q.responses, gradients, strict=True)
                )
                / G
            )
            q.PY = self.p * q.Y
        return self

    def of(self, role: str) -> list[Prompt]:
        """The prompts of a role."""
        return [q for q in self.prompts if q.role == role]

    def r(self) -> dict[str, float]:
        """Row means of h over all pairs."""
        B = len(self.prompts)
        return {
            u.id: sum(-0.5 * float(u.X @ v.PY + v.X @ u.PY) for v in self.prompts if v is not u) / (B - 1)
            for u in self.prompts
        }

    def u_statistic(self) -> dict[str, float]:
        """Over all pairs, with the jackknife by leaving prompts out and computing again."""
        B = len(self.prompts)

        def u_cross(members: list[Prompt]) -> float:
            pairs = [-0.5 * float(u.X @ v.PY + v.X @ u.PY) for u in members for v in members if u is not v]
            return sum(pairs) / len(pairs)

        U = u_cross(self.prompts)
        r = list(self.r().values())
        zeta1 = sum((x - U) ** 2 for x in r) / (B - 1)
        left_out = [u_cross([v for v in self.prompts if v is not u]) for u in self.prompts]
        mean = sum(left_out) / B
        jackknife = math.sqrt((B - 1) / B * sum((x - mean) ** 2 for x in left_out))
        h = [
            -0.5 * float(u.X @ v.PY + v.X @ u.PY)
            for i, u in enumerate(self.prompts)
            for v in self.prompts[i + 1 :]
        ]
        return {
            "u_cross": U,
            "delta_h1": -self.eta * U,
            "zeta1": zeta1,
            "zeta2": stats.tvar(h),
            "se_plugin": self.eta * math.sqrt(4 * zeta1 / B),
            "se_jackknife": self.eta * jackknife,
        }

    def v_statistic(self) -> float:
        """η·X̄·PȲ"""
        B = len(self.prompts)
        x = sum(q.X for q in self.prompts) / B
        return self.eta * float(x @ (sum(q.PY for q in self.prompts) / B))

    def s(self) -> dict[str, float]:
        """s_n = X_n·μ_Y"""
        mu = sum(q.PY for q in self.of("U")) / len(self.of("U"))
        return {q.id: float(q.X @ mu) for q in self.of("E")}

    def t(self) -> dict[str, float]:
        """t_m = μ_X·P Y_m"""
        mu = sum(q.X for q in self.of("E")) / len(self.of("E"))
        return {q.id: float(mu @ q.PY) for q in self.of("U")}

    def split(self) -> dict[str, float]:
        """(11), (12)"""
        s, t = list(self.s().values()), list(self.t().values())
        var_e = self.eta**2 * stats.tvar(s) / len(s)
        var_u = self.eta**2 * stats.tvar(t) / len(t)
        return {
            "delta_h1": self.eta * sum(s) / len(s),
            "var_e": var_e,
            "var_u": var_u,
            "se": math.sqrt(var_e + var_u),
            "se_conditional": math.sqrt(var_e),
            "mean_s": sum(s) / len(s),
            "sum_s": sum(s),
            "sum_s2": sum(x * x for x in s),
        }

    def realized(self, updating: list[Prompt], evaluating: list[Prompt]) -> dict[str, dict[str, float]]:
        """ΔĤ by SNIS and matched importance sampling after θ + η·P·mean Y, then back."""
        step = self.eta * sum(q.PY for q in updating) / len(updating)
        saved = [q.detach().clone() for q in self.parameters]
        with torch.no_grad():
            offset = 0
            for parameter in self.parameters:
                size = parameter.numel()
                parameter.add_(step[offset : offset + size].reshape(parameter.shape))
                offset += size
            after = [[self.S(q.tokens, y).item() for y in q.responses] for q in evaluating]
            for parameter, old in zip(self.parameters, saved, strict=True):
                parameter.copy_(old)

        B = len(evaluating)
        rows = [
            (n, 1 / (B * len(q.responses)), self.lam(y), q.S[g], after[n][g])
            for n, q in enumerate(evaluating)
            for g, y in enumerate(q.responses)
        ]
        w = [math.exp(s_plus - s) for *_, s, s_plus in rows]
        total = sum(p * wi for wi, (_, p, *_) in zip(w, rows, strict=True))
        w_hat = [p * wi / total for wi, (_, p, *_) in zip(w, rows, strict=True)]
        h = -sum(p * lam * s for _, p, lam, s, _ in rows)
        h_plus = -sum(wh * lam * sp for wh, (_, _, lam, _, sp) in zip(w_hat, rows, strict=True))
        influence = [0.0] * B
        for wh, (n, p, lam, s, s_plus) in zip(w_hat, rows, strict=True):
            influence[n] += B * (wh * (-lam * s_plus - h_plus) - p * (-lam * s - h))
        snis_se = math.sqrt(stats.tvar(influence) / B) if B > 1 else math.nan

        d = []
        for n, q in enumerate(evaluating):
            b_terms = [(s + 1) * self.lam(y) for s, y in zip(q.S, q.responses, strict=True)]
            terms = []
            for g, y in enumerate(q.responses):
                b = (sum(b_terms) - b_terms[g]) / (len(b_terms) - 1)
                wi = math.exp(after[n][g] - q.S[g])
                terms.append(-(wi * self.lam(y) * after[n][g] - self.lam(y) * q.S[g] - b * (wi - 1)))
            d.append(sum(terms) / len(terms))
        return {
            "snis": {"delta_h": h_plus - h, "se": snis_se, "h_before": h, "h_after": h_plus},
            "matched": {
                "delta_h": sum(d) / B,
                "se": math.sqrt(stats.tvar(d) / B) if B > 1 else math.nan,
            },
            "ess": {"ess": sum(w) ** 2 / sum(x * x for x in w)},
        }
