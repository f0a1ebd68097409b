"""ROLL: is the batch what it should be? What can't be used is left out by name, the rest goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from probe_engine.report import Finding, finding
from probe_engine.sources.rollouts.grouping import RolloutGroup
from probe_engine.sources.rollouts.record import BadRow
from probe_engine.sources.rollouts.tokens import Rollout
from probe_engine.types import Batch

_LISTED = 100
"""Rows or groups that evidence lists at most; the message always has their number."""

Sieved = tuple[list[RolloutGroup], Finding]
"""Groups that pass a check, and its finding, which names those that don't."""


def malformed(bad: Sequence[BadRow], read: int, notes: Sequence[str]) -> Finding:
    """ROLL013: rows that could not be used, and how the others were read."""
    bad = sorted(bad, key=lambda row: row.line)
    evidence: dict[str, object] = {}
    if bad:
        evidence["rows"] = [f"line {row.line}: {row.reason}" for row in bad[:_LISTED]]
    if notes:
        evidence["notes"] = list(notes)
    said = [f"{read} rows are rollouts"]
    if bad:
        first = bad[0]
        said.append(f"{len(bad)} are not and were left out, line {first.line} for one: {first.reason}")
    return finding(
        "ROLL013",
        "warn" if bad else "ok",
        "; ".join((*said, *notes)),
        value=float(len(bad)),
        threshold=0.0,
        evidence=evidence,
    )


def evaluation_rows(aside: Sequence[BadRow], training: int) -> Finding:
    """ROLL010: rows of an evaluation among those of the training, left out."""
    if not aside:
        return finding("ROLL010", "ok", "no row looks like one of an evaluation", value=0.0, threshold=0.0)
    first = aside[0]
    return finding(
        "ROLL010",
        "warn",
        f"expected rows of the training alone, got {training} of them and {len(aside)} of an evaluation, "
        f"which were left out; line {first.line} for one: {first.reason}",
        value=float(len(aside)),
        threshold=0.0,
        evidence={"rows": [f"line {row.line}: {row.reason}" for row in aside[:_LISTED]]},
    )


def neighbouring_step(step: int | None, checkpoint: int | None) -> Finding:
    """ROLL017: rollouts of checkpoint K's weights are those of step K+1."""
    if step is None or checkpoint is None:
        unknown = "the rollouts carry no step" if step is None else "the checkpoint's step is not known"
        return finding("ROLL017", "skip", f"can't tell whether the rollouts are this checkpoint's: {unknown}")
    expected = (
        f"expected rollouts of step {checkpoint + 1}, sampled from the weights of checkpoint {checkpoint}"
    )
    if step == checkpoint + 1:
        return finding(
            "ROLL017",
            "ok",
            f"of step {step}, which the weights of checkpoint {checkpoint} sampled",
            value=float(step),
        )
    return finding(
        "ROLL017",
        "warn",
        f"{expected}; got those of step {step}, which other weights sampled: they are off-policy by "
        f"{abs(checkpoint + 1 - step)} step(s)",
        value=float(step),
        threshold=float(checkpoint + 1),
    )


def retokenised(rollouts: Sequence[Rollout]) -> Finding:
    """ROLL005: responses whose token ids were made from text."""
    count = sum(r.from_text for r in rollouts)
    if not count:
        return finding("ROLL005", "ok", "every response has its logged token ids", value=0.0)
    return finding(
        "ROLL005",
        "info",
        f"expected logged token ids; {count} of {len(rollouts)} responses were tokenised from text, which "
        "need not give back the tokens that were sampled",
        value=float(count),
        threshold=0.0,
    )


def endings(rollouts: Sequence[Rollout]) -> Finding:
    """ROLL006: eos restored to text that ended itself, or missing where a response ended itself."""
    counts = Counter(r.ending for r in rollouts)
    value = float(counts["restored"] + counts["assumed"])
    lost = [r.line for r in rollouts if r.ending == "lost"]
    if lost:
        return finding(
            "ROLL006",
            "warn",
            f"expected an eos at the end of every response that ended itself; {len(lost)} have none "
            f"(line {lost[0]} for one), so the probability of ending is missing from their S",
            value=float(len(lost)),
            threshold=0.0,
            evidence={"lines": lost[:_LISTED]},
        )
    if counts["assumed"]:
        return finding(
            "ROLL006",
            "warn",
            f"expected to know which responses ended themselves; {counts['assumed']} don't say, and no max "
            "completion length tells. All were taken to have ended, with an eos restored",
            value=value,
            remedy="Say the trainer's limit, or log `terminated` with the rollouts.",
            commands=("probe-tui CHECKPOINT --max-completion-length N",),
        )
    if counts["restored"]:
        return finding(
            "ROLL006",
            "info",
            f"{counts['restored']} of {len(rollouts)} responses ended themselves and got back the eos that "
            f"text has lost; {counts['cut']} were cut at the limit",
            value=value,
        )
    return finding("ROLL006", "ok", "responses end as they were logged", value=0.0)


def large_enough(groups: Sequence[RolloutGroup]) -> Sieved:
    """ROLL001: a group needs two responses, or it has no leave-one-out mean."""
    return _sieve(
        "ROLL001",
        groups,
        lambda g: len(g.rollouts) >= 2,
        "two responses or more",
        "have one response only",
        lambda g: f"1 response (line {g.lines[0]})",
    )


def in_vocabulary(groups: Sequence[RolloutGroup], rows: int) -> Sieved:
    """ROLL004: token ids must lie in 0 … rows − 1, the rows of the input embedding."""

    def seen(group: RolloutGroup) -> str:
        foreign = sorted({t for t in group.token_ids if not 0 <= t < rows})
        return f"{', '.join(map(str, foreign[:8]))} (lines {_lines(group)})"

    return _sieve(
        "ROLL004",
        groups,
        lambda g: all(0 <= t < rows for t in g.token_ids),
        f"token ids from 0 to {rows - 1}, the rows of the model's embedding",
        "hold others",
        seen,
        threshold=float(rows - 1),
    )


def finite(groups: Sequence[RolloutGroup]) -> Sieved:
    """ROLL012: every response of a group needs a finite reward or a finite advantage."""

    def seen(group: RolloutGroup) -> str:
        values = ", ".join(f"reward {r.reward}, advantage {r.advantage}" for r in group.rollouts[:8])
        return f"{values} (lines {_lines(group)})"

    return _sieve(
        "ROLL012",
        groups,
        lambda g: g.scored,
        "a finite reward or advantage for each response",
        "miss one or have one that is not finite",
        seen,
    )


def enough_units(batch: Batch) -> Finding:
    """ROLL014: B ≥ 8 for standard errors that can be relied on, B ≥ 3 for any."""
    b = len(batch.units)
    what = "blocks" if any(len(u.groups) > 1 for u in batch.units) else "prompts"
    message = f"{b} {what}, and a standard error wants 8 or more"
    last = batch.units[-1]
    if b > 1 and len(last.groups) < len(batch.units[0].groups):
        message += f"; the last block has {len(last.groups)} prompts only and counts as one unit"
    return finding(
        "ROLL014",
        "fail" if b < 3 else "warn" if b < 8 else "ok",
        message,
        value=float(b),
        threshold=3.0 if b < 3 else 8.0,
        evidence={"E": sum(u.role == "E" for u in batch.units), "U": sum(u.role == "U" for u in batch.units)},
    )


def _sieve(
    code: str,
    groups: Sequence[RolloutGroup],
    passes: Callable[[RolloutGroup], bool],
    expected: str,
    fault: str,
    seen: Callable[[RolloutGroup], str],
    threshold: float | None = None,
) -> Sieved:
    verdicts = [passes(group) for group in groups]
    kept = [group for group, good in zip(groups, verdicts, strict=True) if good]
    failed = [group for group, good in zip(groups, verdicts, strict=True) if not good]
    if not failed:
        return kept, finding(
            code, "ok", f"all {len(groups)} prompts have {expected}", value=0.0, threshold=threshold
        )
    return kept, finding(
        code,
        "fail",
        f"expected {expected}; {len(failed)} of {len(groups)} prompts {fault} and were left out, for one: "
        f"{seen(failed[0])}",
        value=float(len(failed)),
        threshold=threshold,
        evidence={"groups": [seen(group) for group in failed[:_LISTED]]},
    )


def _lines(group: RolloutGroup) -> str:
    return ", ".join(map(str, group.lines[:8])) + (", …" if len(group.lines) > 8 else "")
