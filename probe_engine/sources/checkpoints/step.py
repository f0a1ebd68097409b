"""At which optimizer step was a checkpoint written?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from probe_engine.sources.checkpoints.json_file import read_object

FILE_NAME = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Step:
    """The step, None where nothing tells it, and what was wrong with the trainer's own record."""

    value: int | None
    problem: str = ""


def read_step(folder: Path, name: str) -> Step:
    """`global_step` of trainer_state.json, else of a name such as `checkpoint-200`, `global_step_20`."""
    digits = re.search(r"(?:checkpoint|global_step|step)[-_]?(\d{1,15})$", name)
    from_name = int(digits[1]) if digits else None
    if not os.path.lexists(folder / FILE_NAME):
        return Step(from_name)
    try:
        step = read_object(folder / FILE_NAME).get("global_step")
    except ValueError as error:
        return Step(from_name, str(error))
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**63:
        return Step(from_name, f"{folder / FILE_NAME}: expected a number global_step, found another value")
    return Step(step)
