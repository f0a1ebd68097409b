"""Forecast: tokens, floating-point operations, memory and time of the rest of the run, by method."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import msgspec

from probe_engine.environment.device import completed
from probe_engine.events import Part
from probe_engine.model.memory import ALPHA, Need, counted_sequence_bytes, kept_bytes
from probe_engine.model.teacher_forcing import device_of
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.workload import PassTokens, TokenCost, scored_tokens
from probe_engine.registry import wide
from probe_engine.report import Cost, Forecast, Observed
from probe_engine.spec import Method, RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.flow import Timed
from probe_engine.stages.memory import need_of_loaded
from probe_engine.stages.scorings import scored, steps_taken
from probe_engine.types import Policy

FORESEEN = ("measure", "estimate", "realize", "judge")
"""The stages that the forecast is about."""
"""X, Y directions of the second pass: the sums of two roles, and the optimizer's own step."""
