"""`--method fused` beside libraries that give the gradient of every sequence by itself.

All make X and Y of every unit from the same sequences, all equally long, in the same micro-batches. Times
are over those of fused under the model's own attention; `fused_eager` is fused under the attention that
torch.func needs. A library that does not run is reported with the reason.

python benchmarks/per_sample.py [--model smollm2|tiny] [--full] [--sequences 16] [--tokens 96] [--json]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from _case import Case
from _figures import show
from _per_sample import SequenceGradients, eager_attention, opacus, torch_func, unit_vectors
from _setting import Setting, parser
from _timing import Run, alternated, clocked

from probe_engine.model.unit_gradients.received import UnitVectors

Library = Callable[[Case], AbstractContextManager[SequenceGradients]]
LIBRARIES: dict[str, Library] = {"torch_func": torch_func, "opacus": opacus}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    options = parser(__doc__, rounds=5).parse_args(arguments)
    setting = Setting.of(options)
    case = Case.of(setting)
    tried = {name: largest_error(case, library) for name, library in LIBRARIES.items()}
    seconds = alternated(
        options.rounds,
        clocked("fused", case.first_pass),
        in_eager_attention(case),
        *(timed(case, name) for name, error in tried.items() if isinstance(error, float)),
    )
    figures = {
        **setting.described(),
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        **{f"{n}_over_fused": value / seconds["fused"] for n, value in seconds.items() if n != "fused"},
        **{f"{name}_largest_error": error for name, error in tried.items()},
    }
    show(figures, {}, as_json=options.json)


def in_eager_attention(case: Case) -> Run:
    """Fused, with the attention that torch.func needs."""

    def run() -> dict[str, float]:
        with eager_attention(case):
            return clocked("fused_eager", case.first_pass)()

    return run


def timed(case: Case, name: str) -> Run:
    """X and Y of all units by that library; they are let go."""

    def run() -> dict[str, float]:
        with LIBRARIES[name](case) as gradients:
            return clocked(name, lambda: unit_vectors(case, gradients, lambda *_: None))()

    return run


def largest_error(case: Case, library: Library) -> float | str:
    """Of its X and Y, over the largest unit's; or why it does not run."""
    ours, theirs = UnitVectors(case.policy.registry), UnitVectors(case.policy.registry)
    try:
        with library(case) as gradients:
            unit_vectors(case, gradients, theirs)
    except Exception as error:  # noqa: BLE001 - a library may refuse a model by any exception: the result
        return f"not run: {type(error).__name__}: {error}"
    for _ in case.method().measurements(case.units, ours):
        pass
    errors, sizes = [], []
    for unit in range(len(case.units)):
        for mine, other in zip(ours.of(unit), theirs.of(unit), strict=True):
            sizes.append(mine.norm())
            errors.append(other.plus(mine, -1).norm())
    # X and Y in turns; each has a scale of its own.
    return max(max(errors[which::2]) / max(sizes[which::2]) for which in (0, 1))


if __name__ == "__main__":
    main()
