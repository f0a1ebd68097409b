"""The task: put the digits in order, `4172=` → `1247`. Easy to learn, easy to verify."""

from __future__ import annotations

import random
from dataclasses import dataclass

DIGITS = "0123456789"
ALPHABET = DIGITS + "="
LENGTHS = range(2, 7)
"""Digits in a problem."""
MOST_STRAYS = 4
MAX_COMPLETION_LENGTH = 12
"""Tokens; the longest answer with the most strays and its eos has 11."""


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
        drawn[Problem("".join(rng.choices(DIGITS, k=rng.choice(LENGTHS))))] = None
    return list(drawn)


def careless_answer(problem: Problem, rng: random.Random) -> str:
    """How the pretraining corpus answers: right, but k digits run on with chance k/10.

    So the base model knows the answer, is unsure when to stop, and the more so the longer the problem:
    prompts differ in entropy, and verification teaches one thing that lowers it for all of them.
    """
    runs_on = rng.random() < len(problem.digits) / 10
    strays = rng.choices(DIGITS, k=rng.randint(1, MOST_STRAYS)) if runs_on else []
    return problem.answer + "".join(strays)


def correct(problem: Problem, completion: str) -> float:
    """The reward: 1 for the right answer and nothing else, else 0."""
    return float(completion == problem.answer)
