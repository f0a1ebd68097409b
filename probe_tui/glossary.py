"""What the symbols mean, in a line each: tabs, help and the exported page say it alike."""

from __future__ import annotations

GLOSSARY = {
    "−η·r_n": "what the prompt adds to δH₁, half as the one whose entropy moves, half as the one trained on",
    "+η·s_n": "how a step on the prompts of U moves the entropy of this prompt of E",
    "E, U": "E: its entropy is evaluated; U: it makes the update; drawn by prompt",
    "X": "the prompt's entropy gradient, estimated from its responses",
    "R-B": "by the Rao-Blackwell form of X: each token's exact entropy in place of what was sampled",
    "Y": "its policy gradient, the direction that raises its advantages' likelihood",
    "PY": "Y after Adam's preconditioner, the direction in which the step goes",
    "X·PY": "what the prompt does to itself",
    "baselines": "covariance and discriminant, zero-cost predictors of the literature: compare sign and rank",
    "S": "log-probability of a response",
    "c": "the response's weight in X: how much its S exceeds that of the others",
    "SD": "standard deviation over the prompt's responses",
}
UNITS = ("−η·r_n", "+η·s_n", "E, U")
"""What one meets on the tab Units; the prompt page has all of it."""


def meanings(*terms: str) -> list[str]:
    """`term: meaning` of these, or of all."""
    return [f"{term}: {GLOSSARY[term]}" for term in terms or GLOSSARY]
