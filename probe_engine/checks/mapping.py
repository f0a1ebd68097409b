"""OPT008: does each optimizer state lie on its own parameter?"""

from __future__ import annotations

from probe_engine.estimators.mapping import GradientSquares, best_assignment
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, finding
from probe_engine.sources.checkpoints.names import listed, shown
from probe_engine.types import OptimizerState

TELLING = 0.25
"""Mean rank correlation of the best order below which fresh gradients say nothing of the order. On states
that have nothing to do with the gradients the best order reached 0.14; on trl's and the demo's own runs 0.23
to 0.63, with one to four groups."""
SHARE = 0.5
"""Of the best order's correlation that the order taken must have. True orders had 0.61 and more of it from
one group and 0.84 from four; states shuffled among equal shapes 0.2 to 0.4."""


def order_in_question(state: OptimizerState) -> bool:
    """Whether nothing but their order tells which state belongs to which parameter."""
    return state.mapped_by == "position" and bool(state.moments)


def own_states(
    state: OptimizerState, registry: ParameterRegistry, squares: GradientSquares | None
) -> Finding:
    """Whether another order of the states among equal shapes fits the fresh gradients far better.

    Args:
        state: the optimizer's.
        registry: the trainable parameters.
        squares: of fresh gradients, over the same registry; needed where the order is in question.
    """
    if not state.moments:
        return finding("OPT008", "skip", "waits for the optimizer's state")
    if squares is None or not order_in_question(state):
        return finding("OPT008", "ok", f"states are mapped by {state.mapped_by}")
    pairs = {
        name: (moments.exp_avg_sq, fresh)
        for name, fresh in zip(registry.names, squares.sampled, strict=True)
        if fresh is not None and (moments := state.moments.get(name)) is not None
    }
    found = best_assignment([v for v, _ in pairs.values()], [g for _, g in pairs.values()])
    if found is None:
        return finding("OPT008", "ok", "no two parameters have the same shape: the order is certain")
    seen = f"rank correlation of exp_avg_sq with fresh gradients² {found.taken:.2f}"
    if found.best < TELLING or found.best - found.taken < found.chance:
        return finding("OPT008", "ok", f"{seen}: these gradients say nothing of the order", value=found.taken)
    if found.taken >= SHARE * found.best:
        return finding("OPT008", "ok", seen, value=found.taken, threshold=SHARE * found.best)
    names = list(pairs)
    moved = [f"{names[i]} ← {names[j]}" for i, j in enumerate(found.order) if i != j]
    return finding(
        "OPT008",
        "warn",
        f"{seen}, in another order among equal shapes {found.best:.2f}: {len(moved)} states seem to lie on "
        f"other parameters' places ({shown(moved)}), and P there is another parameter's",
        value=found.taken,
        threshold=SHARE * found.best,
        evidence={"parameter ← state": listed(moved)},
    )
