"""What sharing saves: `--method fused` beside the probe's description taken literally.

Literal is: X̄ and Ȳ over the whole batch, then X and Y of every prompt for the diagonal and r, then the
α-trick for s (_literal.py). `literal_over_fused` is X, Y, s and r alone (fused has t besides); in
`whole_over_fused` both then take the preconditioned step and score the same responses again for both
pairings. With `--probe`, `whole_over_probe` compares with everything that the probe does by default: more
steps, their sweep, and the checks before.

python benchmarks/literal.py [--model smollm2|tiny] [--sequences 16] [--tokens 96] [--json]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from _case import Case, stage_seconds
from _figures import Limit, show
from _literal import Dots, Literal
from _setting import Setting, parser
from _timing import alternated, clocked

from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.model.virtual_step import virtual_step
from probe_engine.stages.contributions import row_dots
from probe_engine.stages.measured import ROLES, Measured
from probe_engine.types import Role

LIMITS = {"literal_over_fused": Limit("≥", 4.5), "whole_over_fused": Limit("≥", 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    made = parser(__doc__, rounds=5, probed=True)
    made.add_argument("--probe", action="store_true", help="time the whole probe too")
    options = made.parse_args(arguments)
    setting = Setting.of(options)
    case = Case.of(setting)
    literal, measured = Literal(case), case.measure()
    dots: list[Dots] = []
    seconds = alternated(
        options.rounds,
        clocked("fused", case.measure),
        clocked("fused_rescoring", partial(rescored, case, measured, partial(score, case))),
        clocked("literal", lambda: dots.append(literal.dots())),
        clocked("literal_rescoring", partial(rescored, case, measured, literal.score)),
        *([lambda: {"probe": sum(stage_seconds(case.probe()).values())}] if options.probe else []),
    )
    whole = seconds["literal"] + seconds["literal_rescoring"]
    figures = {
        **setting.described(),
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "literal_over_fused": seconds["literal"] / seconds["fused"],
        "whole_over_fused": whole / (seconds["fused"] + seconds["fused_rescoring"]),
        **({"whole_over_probe": whole / seconds["probe"]} if options.probe else {}),
        "largest_error": largest_error(dots[-1], measured),
    }
    adapted = setting.model == "smollm2" and not setting.full
    show(figures, LIMITS if adapted else {}, as_json=options.json)


def rescored(case: Case, measured: Measured, score: Callable[[Sequence[UnitObjective]], object]) -> None:
    """S⁺ of E after the step from U, and of all after the step from all."""
    eta = case.optimizer.param_groups[0]["lr"]
    held_out = [unit for unit in case.units if unit.unit.role == "E"]
    trips: list[tuple[Sequence[Role], Sequence[UnitObjective]]] = [(["U"], held_out), (ROLES, case.units)]
    for roles, units in trips:
        with virtual_step(case.policy.registry, measured.py.mean(roles).scaled(eta)):
            score(units)


def score(case: Case, units: Sequence[UnitObjective]) -> None:
    """As the probe scores."""
    for _ in case.method().scores(units):
        pass


def largest_error(literal: Dots, measured: Measured) -> float:
    """Between the two ways to s and r, over the largest unit's."""
    fused = row_dots(measured.scalars, measured.y.counts)
    return max(
        max(abs(theirs[unit] - ours[unit]) for unit in ours) / max(map(abs, ours.values()))
        for theirs, ours in ((literal.s, fused.s), (literal.r, fused.r))
    )


if __name__ == "__main__":
    main()
