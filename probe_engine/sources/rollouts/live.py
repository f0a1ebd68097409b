"""Rollouts from live objects: native rows, or the padded tensors of trl's GRPOTrainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts import native
from probe_engine.sources.rollouts.record import BadRow, RawRollout, RolloutSource, RowError

N = TypeVar("N", int, float)

PATH = "live batch"
TENSORS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
LOG_PROBS = ("sampling_per_token_logps", "old_per_token_logps")
"""Where trl puts the behaviour policy's log-probabilities: the sampler's own, else the trainer's."""


def live_source(batch: object) -> RolloutSource:
    """Rows of a live batch, numbered from 1.

    Args:
        batch: a sequence of native-format mappings, or a mapping with trl's tensors: `prompt_ids`,
            `prompt_mask` [N, T], `completion_ids`, `completion_mask` [N, T'], `advantages` [N], and one of
            `LOG_PROBS` [N, T'] where the trainer has it.

    Raises:
        ProbeError: neither of them, or tensors of other shapes.
    """
    if isinstance(batch, Mapping) and set(TENSORS) <= batch.keys():
        recorded = next((batch[name] for name in LOG_PROBS if batch.get(name) is not None), None)
        return _from_tensors({name: batch[name] for name in TENSORS}, recorded)
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes) and batch:
        return _from_rows(batch)
    raise ProbeError(
        f"batch: expected a Batch, a non-empty list of native-format rows, or a mapping with "
        f"{', '.join(TENSORS)}, got {_described(batch)}",
        "Pass the trainer's inputs as they enter its loss, or rows in the native format.",
        code="ROLL013",
    )


def _from_rows(batch: Sequence[Any]) -> RolloutSource:
    rows: list[RawRollout] = []
    bad: list[BadRow] = []
    for line, record in enumerate(batch, 1):
        if not isinstance(record, Mapping):
            bad.append(BadRow(line, f"expected a mapping, got {type(record).__name__}"))
            continue
        try:
            rows.append(native.parse(record, line))
        except RowError as error:
            bad.append(BadRow(line, str(error)))
    return RolloutSource(path=PATH, format="native (live rows)", rows=tuple(rows), bad=tuple(bad))


def _from_tensors(batch: Mapping[str, Any], recorded: Any) -> RolloutSource:
    for name, tensor in batch.items():
        dimensions = 1 if name == "advantages" else 2
        if not isinstance(tensor, Tensor) or tensor.dim() != dimensions or len(tensor) == 0:
            raise _misshapen(name, f"a tensor of {dimensions} dimension(s) with rows", _described(tensor))
    n = len(batch["advantages"])
    for ids, mask in (("prompt_ids", "prompt_mask"), ("completion_ids", "completion_mask")):
        if batch[ids].shape != batch[mask].shape or len(batch[ids]) != n:
            raise _misshapen(ids, f"{n} rows and the shape of {mask}", _described(batch[ids]))
    shape = batch["completion_ids"].shape
    if recorded is not None and (not isinstance(recorded, Tensor) or recorded.shape != shape):
        raise _misshapen(" or ".join(LOG_PROBS), f"the shape {tuple(shape)}", _described(recorded))
    log_probs: list[Any] = [None] * n if recorded is None else recorded.tolist()
    rows: list[RawRollout] = []
    bad: list[BadRow] = []
    columns = (batch[name].tolist() for name in TENSORS)
    rows_of = zip(*columns, log_probs, strict=True)
    for line, (prompt, p_mask, completion, c_mask, advantage, logps) in enumerate(rows_of, 1):
        try:
            rows.append(
                RawRollout(
                    line=line,
                    prompt_tokens=_masked(prompt, p_mask),
                    response_tokens=_masked(completion, c_mask),
                    advantage=advantage,
                    logprobs=None if logps is None else _masked(logps, c_mask),
                )
            )
        except RowError as error:
            bad.append(BadRow(line, str(error)))
    return RolloutSource(path=PATH, format="TRL tensors (live)", rows=tuple(rows), bad=tuple(bad))


def _masked(ids: list[N], mask: list[int]) -> tuple[N, ...]:
    kept = [index for index, keep in enumerate(mask) if keep]
    if kept and kept[-1] - kept[0] + 1 != len(kept):
        raise RowError("expected a mask that is one stretch of ones, got one with holes (tool output?)")
    return tuple(ids[index] for index in kept)


def _misshapen(name: str, expected: str, got: str) -> ProbeError:
    return ProbeError(
        f"batch[{name!r}]: expected {expected}, got {got}",
        "Pass the trainer's inputs as they enter its loss.",
        code="ROLL013",
    )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, list(value)[:8])) or 'nothing'}"
    return f"{type(value).__name__}" + (" of length 0" if value == [] or value == () else "")
