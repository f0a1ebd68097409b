"""ROLL, injected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from probe_engine.api import doctor
from probe_engine.demo.trainer_layout import training_arguments
from probe_engine.model.teacher_forcing import TokenSequence, token_log_probs
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import RECIPE, Lab, Objects

G = RECIPE.num_generations
Row = dict[str, Any]


def _native(lab: Lab, spoil: Callable[[list[Row], Objects], list[Row] | None]) -> Report:
    """On live rows of the native format, which `spoil` changed in place, or replaced by what it returns."""
    objects = lab.objects()
    rows = _rows(objects)
    replaced = spoil(rows, objects)
    batch = rows if replaced is None else replaced
    return doctor(
        objects.model, optimizer=objects.optimizer, tokenizer=objects.tokenizer, batch=batch, device="cpu"
    )


def _rows(objects: Objects) -> list[Row]:
    batch = objects.batch
    return [
        {
            "prompt_tokens": batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist(),
            "response_tokens": batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist(),
            "advantage": float(batch["advantages"][i]),
            "prompt_id": i // G,
        }
        for i in range(len(batch["advantages"]))
    ]


def _table(
    lab: Lab, spoil: Callable[[list[Row]], list[Row] | None], step: int = RECIPE.grpo_steps + 1
) -> Report:
    """On disk, with a completions table whose rows `spoil` changed, named after `step`."""
    checkpoint = lab.checkpoint()
    folder = checkpoint.parent / "completions"
    path = folder / f"completions_{RECIPE.grpo_steps + 1:05d}.parquet"
    rows = pq.read_table(path).to_pylist()
    replaced = spoil(rows)
    path.unlink()
    pq.write_table(
        pa.Table.from_pylist(rows if replaced is None else replaced),
        folder / f"completions_{step:05d}.parquet",
    )
    return doctor(checkpoint, device="cpu")


def _set(changes: Row, count: int | None = None) -> Callable[[list[Row], Objects], None]:
    """The same values in the first `count` rows, or in all."""

    def spoil(rows: list[Row], _: Objects) -> None:
        for row in rows[:count]:
            row.update(changes)

    return spoil


def _alone(rows: list[Row], _: Objects) -> list[Row]:
    return rows[G - 1 :]


def _foreign_token(rows: list[Row], _: Objects) -> None:
    rows[0]["response_tokens"][0] = 10_000


def _without_eos(rows: list[Row], objects: Objects) -> None:
    for row in rows:
        tokens = row["response_tokens"]
        if len(tokens) > 1 and tokens[-1] == objects.tokenizer.eos_token_id:
            row |= {"response_tokens": tokens[:-1], "terminated": True}


def _to_other_prompts(rows: list[Row], _: Objects) -> None:
    responses = [row["response_tokens"] for row in rows]
    for row, other in zip(rows, responses[G:] + responses[:G], strict=True):
        row["response_tokens"] = other


def _at_half_the_temperature(rows: list[Row], objects: Objects) -> None:
    """Each response drawn at temperature 1/2 in place of 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for row in rows:
            prompt = torch.tensor([row["prompt_tokens"]])
            drawn = objects.model.generate(
                input_ids=prompt, do_sample=True, temperature=0.5, top_k=0, max_new_tokens=12
            )
            row["response_tokens"] = drawn[0, prompt.shape[1] :].tolist()


def _recorded_a_token_late(rows: list[Row], objects: Objects) -> None:
    sequences = [TokenSequence(tuple(r["prompt_tokens"]), tuple(r["response_tokens"])) for r in rows]
    with torch.no_grad():
        log_probs, mask = token_log_probs(objects.model, sequences)
    for row, values, kept in zip(rows, log_probs, mask, strict=True):
        row["logprobs"] = [0.0, *values[kept].tolist()[:-1]]


def _cut_short(rows: list[Row], _: Objects) -> None:
    for row in rows:
        tokens = row["response_tokens"]
        row |= {"response_tokens": tokens[:4], "terminated": len(tokens) <= 4}


def _without_a_prompt(rows: list[Row], _: Objects) -> None:
    del rows[0]["prompt_tokens"]


def _five_prompts(rows: list[Row], _: Objects) -> list[Row]:
    return rows[: 5 * G]


def _repeated(rows: list[Row], _: Objects) -> None:
    """The first response again and again, in two prompts of three."""
    for i, row in enumerate(rows):
        if i // G % 3:
            row |= {"response_tokens": rows[i - i % G]["response_tokens"], "advantage": 0.0}


def _sampled_with_top_p(lab: Lab) -> Report:
    checkpoint = lab.checkpoint()
    arguments = training_arguments(RECIPE)
    arguments.top_p = 0.9
    torch.save(arguments, Path(checkpoint) / "training_args.bin")
    return doctor(checkpoint, device="cpu")


def _with_an_evaluation(rows: list[Row]) -> list[Row]:
    return rows + [row | {"advantage": None} for row in rows[: 3 * G]]


def _rewarded_by_length(rows: list[Row]) -> None:
    for row in rows:
        row["correct"] = float(len(row["completion"]))


def _of_the_step_before(rows: list[Row]) -> None:
    for row in rows:
        row["step"] = RECIPE.grpo_steps


INJECTIONS: tuple[Injection, ...] = (
    Injection("ROLL001", "one prompt has a single response", lambda lab: _native(lab, _alone)),
    Injection(
        "ROLL002", "one prompt's advantages are 0", lambda lab: _native(lab, _set({"advantage": 0.0}, G))
    ),
    Injection("ROLL003", "every advantage is 0", lambda lab: _native(lab, _set({"advantage": 0.0}))),
    Injection("ROLL004", "a token id of another tokenizer", lambda lab: _native(lab, _foreign_token)),
    Injection("ROLL005", "a log that holds text", lambda lab: doctor(lab.checkpoint(), device="cpu")),
    Injection("ROLL006", "ended responses without their eos", lambda lab: _native(lab, _without_eos)),
    Injection("ROLL007", "responses to other prompts", lambda lab: _native(lab, _to_other_prompts)),
    Injection(
        "ROLL007",
        "responses drawn at temperature 1/2",
        lambda lab: _native(lab, _at_half_the_temperature),
        besides=("ROLL015",),  # easy prompts get one response again and again
    ),
    Injection("ROLL008", "log-probabilities a token late", lambda lab: _native(lab, _recorded_a_token_late)),
    Injection("ROLL009", "top_p = 0.9 in the trainer's arguments", _sampled_with_top_p),
    Injection("ROLL010", "an evaluation in the table", lambda lab: _table(lab, _with_an_evaluation)),
    Injection("ROLL011", "responses cut after four tokens", lambda lab: _native(lab, _cut_short)),
    Injection(
        "ROLL012", "an advantage is NaN", lambda lab: _native(lab, _set({"advantage": float("nan")}, 1))
    ),
    Injection("ROLL013", "a row without a prompt", lambda lab: _native(lab, _without_a_prompt)),
    Injection("ROLL014", "five prompts", lambda lab: _native(lab, _five_prompts)),
    Injection("ROLL015", "one response again and again", lambda lab: _native(lab, _repeated)),
    Injection(
        "ROLL016", "rewards that the advantages know nothing of", lambda lab: _table(lab, _rewarded_by_length)
    ),
    Injection(
        "ROLL017",
        "completions of the step before",
        lambda lab: _table(lab, _of_the_step_before, RECIPE.grpo_steps),
    ),
)
