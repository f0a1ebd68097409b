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
        "A smaller step keeps the weights even. Where they degenerated, --resample measures the change with "
        "fresh responses, sampled after the step.",
        ("probe-tui CHECKPOINT --lr LR", "probe-tui CHECKPOINT --resample"),
        origin=(
            "The step is large: the policy after it gives these responses other probabilities. Long "
            "responses make it worse, since their log-weights add up."
        ),
        by_hand="ESS = (Σw)²/Σw² with w = exp(S⁺ − S).",
        causes=("OPT010",),
    ),
    Entry(
        "STAT002",
        "Pareto k̂",
        "Pareto k̂ is high",
        "k̂ is the tail index of the importance weights. Above min(1 − 1/log₁₀N, 0.7) their variance is "
        "not under control; above 1 not even their mean exists. Where ESS/N is 0.9 or more, no weight stands "
        "out and k̂ is no objection.",
        "A smaller step, or more responses. From 1 on, --resample measures the change with fresh responses, "
        "sampled after the step.",
        ("probe-tui CHECKPOINT --lr LR", "probe-tui CHECKPOINT --resample"),
        origin="A few responses became much more probable after the step.",
        by_hand="Sort the log-weights (realized[].units[].log_w in the report) and look at the largest.",
        causes=("OPT010", "STAT001"),
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
    Entry(
        "STAT004",
        "linear range",
        "first order does not hold at this step size",
        "δH₁ is a slope times a step. At the length of this step ΔĤ departs from it by more than its "
        "standard error and more than a tenth: what δH₁ says of the direction may stand, what it says of "
        "the size does not.",
        "Predict for a step inside the linear range, or read ΔĤ instead of δH₁.",
        ("probe-tui CHECKPOINT --lr LR",),
        causes=("GRAD021", "OPT010", "STAT001"),
        origin=(
            "A learning rate so large that entropy bends within one step, or a preconditioner that makes "
            "it so."
        ),
        by_hand="Probe again with half the --lr: does ΔĤ halve?",
    ),
    Entry(
        "STAT005",
        "near-degenerate U-statistic",
        "the U-statistic is near-degenerate",
        "The error of U_cross has two parts, 4ζ₁/B from the units and 2ζ₂/(B(B−1)) from single pairs. The "
        "jackknife estimates the first. Where the second is larger, its interval is too narrow, and "
        "U_cross is not normal about its mean.",
        "Use more prompts: the pairs' part shrinks with B². Until then read the split estimate's interval.",
        origin=(
            "Few prompts, with entropy and policy gradients that hardly share a direction from prompt to "
            "prompt: each pair's product is noise."
        ),
        by_hand=(
            "The variance over pairs of K[u][v] in the report's influence matrix, beside that of its row "
            "means."
        ),
    ),
    Entry(
        "STAT006",
        "share of one unit",
        "one unit carries most of δH₁",
        "δH₁ is a mean over units of X_n·PȲ, and as well of P Y_n·X̄. More than half of the sum of their "
        "sizes is one unit's: the others hardly count, the effective B is near 1, and the intervals, made "
        "for many units of one kind, don't hold.",
        "Look at the unit that is named: its rewards, its advantages, its responses. Probe without it.",
        origin=(
            "A reward on another scale, an advantage without a bound, one very long response, or few prompts."
        ),
        by_hand="Sort the units of the report by contribution_r, x_norm and py_norm.",
    ),
    Entry(
        "STAT007",
        "scale of the fallbacks",
        "fallbacks set the preconditioner's scale",
        "P = 1 beside 1/√v̂ is no scale. Adam moves every coordinate by about one learning rate, so the "
        "parameters without state should make up about their share of the coordinates in ‖Δθ‖². Here they "
        "make up far more, or next to nothing, and δH₁ is about a step that the optimizer will not take.",
        "Probe a checkpoint whose optimizer state covers all trainable parameters.",
        ("probe-tui CHECKPOINT-AFTER-ONE-MORE-STEP",),
        causes=("OPT001", "OPT003", "OPT004", "OPT005", "OPT006"),
        origin=(
            "Parameters that became trainable after the optimizer's last step, or whose state was not saved."
        ),
        by_hand="‖P·Ȳ‖² over the parameters that OPT004 names, beside the rest's.",
    ),
    Entry(
        "STAT008",
        "self-influence",
        "same-batch and held-out change differ: self-influence",
        "A step made from a batch moves that batch's own entropy by the diagonal X_n·P Y_n too: each "
        "prompt's gradient acts on the very samples that it came from. Other prompts feel the pairs of "
        "different prompts alone. Here most of the same-batch change is the diagonal's.",
        "Read the held-out change and the U-statistic, which leave the diagonal out.",
        origin=(
            "The diagonal has a weight of 1/B: with few prompts, or ones that share little, it is the "
            "larger part."
        ),
        by_hand="The diagonal of K in the report's influence matrix, over B, beside the mean of all of K.",
    ),
    Entry(
        "STAT009",
        "form of the entropy gradient",
        "the quieter form of the entropy gradient does not exist here",
        "The entropy gradient X has two unbiased forms. The score form weights whole responses by their "
        "log-probability. The Rao-Blackwell form takes each token's exact entropy in place of what was "
        "sampled, and its standard error is often half as large, or far less. It needs one length weight λ "
        "for all responses: with 1/L the end of a response, which it sums over, changes the weight itself.",
        "Probe --weighting dr_grpo or sequence; or use more prompts.",
        ("probe-tui CHECKPOINT --weighting dr_grpo",),
        origin="--weighting per_token.",
        by_hand="`estimates.rao_blackwell` in the report: null.",
    ),
)
