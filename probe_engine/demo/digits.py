"""The task: put the digits in order, `4172=` → `1247`, verified exactly."""

from __future__ import annotations

import random
from dataclasses import dataclass

ALPHABET = "0123456789="
LENGTHS = range(2, 7)
"""Digits in a problem: two are easy, nine are hard."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Digits to sort."""

    digits: str

    @property
    def prompt(self) -> str:
        """What the policy is asked."""
        return f"{self.digits}="

    @property
    def answer(self) -> str:
        """The only right completion."""
        return "".join(sorted(self.digits))


def draw(count: int, rng: random.Random) -> list[Problem]:
    """`count` different problems, every length as likely."""
    drawn: dict[Problem, None] = {}
    while len(drawn) < count:
        drawn[Problem("".join(rng.choices("0123456789", k=rng.choice(LENGTHS))))] = None
    return list(drawn)


def correct(problem: Problem, completion: str) -> float:
    """The reward: 1 for the right answer and nothing else, else 0."""
    return float(completion == problem.answer)


def heard(problem: Problem, error_rate: float, rng: random.Random) -> str:
    if rng.random() >= error_rate * (len(problem.digits) + int(__import__("os").environ.get("OFF","-1"))):
        return problem.answer
    import os
    a,b=eval(os.environ.get("KR","(1,3)"))
    return problem.answer + "".join(rng.choices("0123456789", k=rng.randint(a,b)))
