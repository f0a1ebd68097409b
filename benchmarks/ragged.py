"""What lengths that differ cost: sequences of 16 to 256 tokens beside as many equally long ones.

Real tokens are the same, so the ratio is the price of padding and of smaller passes. What is timed is X, Y,
s, r and t of all units. The training step beside it pads each of its micro-batches to its longest sequence.

python benchmarks/ragged.py [--model smollm2|tiny] [--full] [--sequences 24] [--json]
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from _batches import GENERATIONS, of_lengths
from _case import Case
from _figures import Limit, show
from _flops import flops
from _setting import Setting, parser
from _timing import alternated, clocked

PROMPT = 8
"""Tokens of each prompt, of both batches: a response's tokens cost more than a prompt's."""
LIMITS = {"ragged_over_even": Limit("≤", 1.15)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    made = parser(__doc__, rounds=5, sized=False)
    made.add_argument("--sequences", type=int, default=24)
    made.add_argument("--shortest", type=int, default=16, help="tokens of the shortest sequence")
    made.add_argument("--longest", type=int, default=256)
    options = made.parse_args(arguments)
    lengths = spread(options.sequences, options.shortest, options.longest)
    mean, rest = divmod(sum(lengths), len(lengths))
    setting = replace(Setting.of(options), sequences=GENERATIONS, tokens=mean)
    case = Case.of(setting)
    ragged, even = (
        replace(case, batch=of_lengths(case.vocabulary, chosen, PROMPT))
        for chosen in (lengths, [mean + (i < rest) for i in range(len(lengths))])
    )
    seconds = alternated(
        options.rounds,
        clocked("ragged", ragged.measure),
        clocked("even", even.measure),
        clocked("ragged_step", ragged.step),
        clocked("even_step", even.step),
    )
    figures = {
        **setting.described(),
        "sequences": options.sequences,
        "tokens": f"{options.shortest} to {options.longest}, {sum(lengths)} together",
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "ragged_over_even": seconds["ragged"] / seconds["even"],
        "ragged_flops_over_even": flops(ragged.first_pass) / flops(even.first_pass),
        "step_ragged_over_even": seconds["ragged_step"] / seconds["even_step"],
    }
    show(figures, LIMITS, as_json=options.json)


def spread(count: int, shortest: int, longest: int) -> list[int]:
    """Lengths in even steps, shuffled."""
    lengths = [round(shortest + i * (longest - shortest) / (count - 1)) for i in range(count)]
    random.Random(0).shuffle(lengths)
    return lengths


if __name__ == "__main__":
    main()
