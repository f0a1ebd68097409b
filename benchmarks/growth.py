"""How the measurement's time grows with the batch: exponents over real tokens, 1 being proportional.

More prompts: 8 to 64, each with 4 responses, in sequences of `--tokens`. Longer sequences: 32 to 512
tokens, of 2 prompts, where attention grows with the square. What is timed is X, Y, s, r and t of all units,
with the unit gradients kept; all sizes take turns.

python benchmarks/growth.py [--model smollm2|tiny] [--full] [--tokens 24] [--json]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from _batches import GENERATIONS, even
from _case import Case
from _figures import Limit, show
from _setting import Setting, parser
from _timing import alternated, clocked

PROMPTS = (8, 16, 32, 64)
TOKENS = (32, 64, 128, 256, 512)
LONG_SEQUENCES = 2 * GENERATIONS
"""Of the batches whose sequences grow."""
LIMITS = {"exponent_over_prompts": Limit("≤", 1.05)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    made = parser(__doc__, rounds=3, sized=False)
    made.add_argument("--tokens", type=int, default=24, help="of a sequence, where prompts grow in number")
    made.add_argument("--prompts", type=int, nargs="+", default=PROMPTS, help="how many, for each size")
    made.add_argument("--lengths", type=int, nargs="+", default=TOKENS, help="tokens, for each size")
    options = made.parse_args(arguments)
    setting = Setting.of(options)
    case = Case.of(replace(setting, sequences=LONG_SEQUENCES))
    sizes = {f"prompts_{n}": (n * GENERATIONS, options.tokens) for n in options.prompts}
    sizes |= {f"tokens_{n}": (LONG_SEQUENCES, n) for n in options.lengths}
    cases = {name: replace(case, batch=even(case.vocabulary, *size)) for name, size in sizes.items()}
    seconds = alternated(options.rounds, *(clocked(name, one.measure) for name, one in cases.items()))

    def fitted(kind: str) -> float:
        points = [(np.prod(sizes[name]), found) for name, found in seconds.items() if name.startswith(kind)]
        return exponent(*zip(*points, strict=True))

    figures = {
        **setting.described(),
        "sequences": " ".join(str(sequences) for sequences, _ in sizes.values()),
        "tokens": " ".join(str(tokens) for _, tokens in sizes.values()),
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "exponent_over_prompts": fitted("prompts"),
        "exponent_over_tokens": fitted("tokens"),
    }
    show(figures, LIMITS, as_json=options.json)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """k of seconds = c·sizes^k, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


if __name__ == "__main__":
    main()
