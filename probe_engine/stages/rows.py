"""Unit rows of the report, from what was measured."""

from __future__ import annotations

import statistics

import msgspec
from torch import Tensor

from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.report import ResponseRow, UnitRow
from probe_engine.spec import XForm
from probe_engine.stages.contributions import SUFFIXES, RowDots


def unit_row(
    objective: UnitObjective,
    S: Tensor,
    x_norm: float,
    y_norm: float,
    py_norm: float,
    x_dot_py: float,
    *,
    x_norm_rb: float | None,
    x_dot_py_rb: float | None,
    on_policy_z: float,
) -> UnitRow:
    """A row after the first pass: s, t, r and the baselines come with the whole batch."""
    unit = objective.unit
    responses = [r for g in unit.groups for r in g.responses]
    rewards = [r.reward for r in responses if r.reward is not None]
    complete = len(rewards) == len(responses)
    return UnitRow(
        id=unit.id,
        prompt="\n".join(g.text for g in unit.groups),
        role=unit.role,
        G=len(unit.groups[0].responses),
        tokens=sum(len(r.tokens) for r in responses),
        reward_mean=statistics.fmean(rewards) if complete else None,
        reward_std=statistics.stdev(rewards) if complete else None,
        S=S.tolist(),
        advantages=[r.advantage for r in responses],
        x_norm=x_norm,
        y_norm=y_norm,
        py_norm=py_norm,
        x_dot_py=x_dot_py,
        x_norm_rb=x_norm_rb,
        x_dot_py_rb=x_dot_py_rb,
        on_policy_z=on_policy_z,
        responses=[
            ResponseRow(
                text=r.text,
                length=len(r.tokens),
                terminated=r.terminated,
                reward=r.reward,
                advantage=r.advantage,
                S=s,
                c=c,
            )
            for r, s, c in zip(responses, S.tolist(), objective.coefficients(S).tolist(), strict=True)
        ],
    )


def completed(row: UnitRow, dots: RowDots, form: XForm, eta: float) -> UnitRow:
    """The row with its dot products (no η) and its contributions (with η) to the entropy change."""
    s, t, r = (of_units.get(row.id) for of_units in (dots.s, dots.t, dots.r))
    found = {
        "s": s,
        "t": t,
        "r": r,
        "contribution_s": None if s is None else eta * s,
        "contribution_r": None if r is None else -eta * r,
    }
    return msgspec.structs.replace(row, **{f"{name}{SUFFIXES[form]}": v for name, v in found.items()})
