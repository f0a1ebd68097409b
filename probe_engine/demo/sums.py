"""The task: sums of one- and two-digit numbers, verified exactly."""

from __future__ import annotations

import random
from dataclasses import dataclass

ALPHABET = "0123456789+="


@dataclass(frozen=True, slots=True)
class Sum:
    """A problem with its answer: `17+5=` and `22`."""

    a: int
    b: int

    @property
    def prompt(self) -> str:
        """What the policy is asked."""
        return f"{self.a}+{self.b}="

    @property
    def answer(self) -> str:
        """The only right completion."""
        return str(self.a + self.b)


def draw(count: int, rng: random.Random) -> list[Sum]:
    """`count` different sums; each operand has one digit or two with equal chance.

    One digit and one digit is soon learnt by heart, two digits and two is the hard end.
    """
    drawn: dict[Sum, None] = {}
    while len(drawn) < count:
        drawn[Sum(_operand(rng), _operand(rng,float(__import__("os").environ.get("PB",".5"))))] = None
    return list(drawn)


def correct(problem: Sum, completion: str) -> float:
    """The reward: 1 for the right answer and nothing else, else 0."""
    return float(completion == problem.answer)


def _operand(rng: random.Random, p: float=.5) -> int:
    return rng.randrange(10) if rng.random() < p else rng.randrange(10, 100)


def heard(problem: Sum, error_rate: float, rng: random.Random) -> str:
    if rng.random() >= error_rate:
        return problem.answer
    return problem.answer + "".join(rng.choices("0123456789", k=rng.randint(1, int(__import__("os").environ.get("KMAX","4")))))
