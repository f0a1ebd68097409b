"""What the Rao-Blackwell form of the entropy gradient costs, and how much quieter it is (method.md (2b)).

`extra` is its reverse pass: the measurement with both forms less the one with the score form alone, beside
one training step, in seconds and in operations of matrix products. The ratios of standard errors are those
of real checkpoints, each of one probe: the demo, the one of SmolLM2-135M that trl writes (with
`--model smollm2`), and any others that are named.

python benchmarks/x_estimators.py [--model smollm2|tiny] [--full] [--checkpoints PATH …] [--json]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from _case import Case
from _figures import Limit, show
from _flops import flops
from _setting import Setting, parser
from _timing import alternated, clocked

from probe_engine import probe
from probe_engine.demo import ensure_demo
from probe_engine.report import Report

LIMITS = {"extra_over_step": Limit("≤", 0.7), "extra_flops_over_step": Limit("≤", 0.7)}
"""Up to which both forms are computed by default."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    made = parser(__doc__, rounds=5)
    made.add_argument(
        "--checkpoints", nargs="*", type=Path, default=[], help="further ones, to compare errors on"
    )
    options = made.parse_args(arguments)
    setting = Setting.of(options)
    case = Case.of(setting)
    runs = {
        "step": case.step,
        "score": partial(first_pass, case, rao_blackwell=False),
        "both": partial(first_pass, case, rao_blackwell=True),
    }
    seconds = alternated(options.rounds, *(clocked(name, run) for name, run in runs.items()))
    operations = {name: flops(run) for name, run in runs.items()}
    figures: dict[str, object] = {
        **setting.described(),
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "extra_over_step": (seconds["both"] - seconds["score"]) / seconds["step"],
        "extra_flops_over_step": (operations["both"] - operations["score"]) / operations["step"],
    }
    for checkpoint in checkpoints(setting, options.checkpoints):
        report = probe(str(checkpoint), fail_on="never", device=setting.device)
        for name, value in errors(report):
            figures[f"{checkpoint.parent.name}/{checkpoint.name} {name}"] = value
    show(figures, LIMITS if setting.model == "smollm2" else {}, as_json=options.json)


def first_pass(case: Case, *, rao_blackwell: bool) -> None:
    """X, by one form or both, and Y of all units; they are let go."""
    for _ in case.method().measurements(case.units, lambda *_: None, rao_blackwell=rao_blackwell):
        pass


def checkpoints(setting: Setting, others: Sequence[Path]) -> Iterator[Path]:
    """What errors are compared on."""
    yield ensure_demo()
    if setting.model == "smollm2":
        from smollm2 import checkpoint  # trl and reasoning-gym come with it

        yield checkpoint(Path(setting.cache))
    yield from others


def errors(report: Report) -> Iterator[tuple[str, float]]:
    """By either form, and their ratio, of each estimate that has an error."""
    score, rao_blackwell = report.estimates.by("score"), report.estimates.by("rao_blackwell")
    for part, field in (("adamw", "se"), ("split", "se"), ("u_statistic", "se_jackknife")):
        ours, theirs = (getattr(getattr(form, part), field, None) for form in (rao_blackwell, score))
        if ours is not None and theirs:
            yield f"{part}_se_score", theirs
            yield f"{part}_se_rao_blackwell", ours
            yield f"{part}_se_ratio", ours / theirs


if __name__ == "__main__":
    main()
