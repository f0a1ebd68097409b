"""STAT: can the numbers be trusted?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "STAT001",
        "effective sample size",
        "effective sample size is low",
        "ΔĤ re-weights the old samples by w = exp(S⁺ − S). When few weights carry the sum, the estimate "
        "rests on few responses: below half of N it is rough, below 0.3 it is not to be trusted.",
        "A smaller step keeps the weights even.",
        ("probe-tui CHECKPOINT --lr LR",),
        origin=(
            "The step is large: the policy after it gives these responses other probabilities. Long "
            "responses make it worse, since their log-weights add up."
        ),
        by_hand="ESS = (Σw)²/Σw² with w = exp(S⁺ − S).",
    ),
    Entry(
        "STAT002",
        "Pareto k̂",
        "Pareto k̂ is high",
        "k̂ is the tail index of the importance weights. Above min(1 − 1/log₁₀N, 0.7) their variance is "
        "not under control; above 1 not even their mean exists.",
        "A smaller step, or more responses.",
        origin="A few responses became much more probable after the step.",
        by_hand="Sort the log-weights (realized[].units[].log_w in the report) and look at the largest.",
    ),
    Entry(
        "STAT003",
        "interval of δH₁",
        "the interval covers 0",
        "With these prompts the sign of δH₁ is not known: the jackknife's 95% interval, with Student's t at "
        "B − 1 degrees of freedom, holds both a rise and a fall of entropy.",
        "Use more prompts; the message says how many would do if the effect is as large as it looks.",
        origin="Few prompts, a small effect, or both.",
        by_hand="δH₁ ± t·SE over prompts.",
    ),
)
