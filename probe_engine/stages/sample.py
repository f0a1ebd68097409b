"""Samples rollouts here, from prompts and the user's reward function."""

from __future__ import annotations

from pathlib import Path

from probe_engine.events import Progress
from probe_engine.model.sampling import embedding_rows, eos_ids, position_limit, sampled_responses
from probe_engine.sources.rollouts.prompts import PromptRow, read_prompts
from probe_engine.sources.rollouts.record import BadRow, RawRollout, RolloutSource, RowError
from probe_engine.sources.rollouts.reward import RewardFunction
from probe_engine.sources.rollouts.settings import DEFAULT_LENGTH, completion_limit
from probe_engine.sources.rollouts.tokens import prompt_ids
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.types import Policy


def sampled(spec: RunSpec, policy: Policy) -> Stage[RolloutSource]:
    """Rollouts of `--prompts`, `num_generations` a prompt, scored by `--reward`.

    Raises:
        ProbeError: no prompt, no tokenizer, or the reward function is not one.
    """
    assert spec.prompts is not None, "the caller saw --prompts"
    assert spec.reward is not None, "the spec has both or neither"
    reward = RewardFunction(spec.reward)
    rows, bad = read_prompts(Path(spec.prompts))
    length = completion_limit(spec, policy.trainer)[0] or DEFAULT_LENGTH
    prompts: list[tuple[PromptRow, tuple[int, ...]]] = []
    for row in rows[: spec.max_prompts]:
        try:
            prompts.append((row, _fitting(prompt_ids(row.prompt, policy.tokenizer), length, policy)))
        except RowError as error:
            bad.append(BadRow(row.line, str(error)))
    repeated = [pair for pair in prompts for _ in range(spec.num_generations)]
    responses: list[tuple[int, ...]] = []
    for chunk in sampled_responses(
        policy,
        [tokens for _, tokens in repeated],
        max_new_tokens=length,
        seed=spec.seed,
        micro_batch=spec.micro_batch,
    ):
        responses += chunk
        yield Progress(stage="rollouts", done=len(responses), total=len(repeated), unit="responses")
    texts = [policy.tokenizer.decode(list(r), skip_special_tokens=True) for r in responses]
    rewards = _rewards(reward, [row for row, _ in repeated], responses, texts) if repeated else []
    eos = eos_ids(policy)
    return RolloutSource(
        path=spec.prompts,
        format="sampled here",
        rows=tuple(
            RawRollout(
                line=row.line,
                prompt=row.prompt,
                prompt_tokens=tokens,
                response=text,
                response_tokens=response,
                reward=value,
                terminated=response[-1] in eos,
                group=str(row.line),
            )
            for (row, tokens), text, response, value in zip(repeated, texts, responses, rewards, strict=True)
        ),
        bad=tuple(bad),
        sampled_here=True,
    )


def _fitting(prompt: tuple[int, ...], length: int, policy: Policy) -> tuple[int, ...]:
    """The prompt, if the model knows its tokens and has positions for it and a response of `length`."""
    vocabulary, positions = embedding_rows(policy), position_limit(policy)
    if max(prompt) >= vocabulary:
        raise RowError(f"token {max(prompt)} in the prompt, the model's embedding has {vocabulary} rows")
    if positions is not None and len(prompt) + length > positions:
        raise RowError(
            f"{len(prompt)} tokens and a response of {length}, the model has {positions} positions"
        )
    return prompt


def _rewards(
    reward: RewardFunction, rows: list[PromptRow], responses: list[tuple[int, ...]], texts: list[str]
) -> list[float | None]:
    """Calls the function as trl does: chat prompts get chat completions, and every column is repeated."""
    return reward(
        prompts=[row.prompt if isinstance(row.prompt, str) else list(row.prompt) for row in rows],
        completions=[
            text if isinstance(row.prompt, str) else [{"role": "assistant", "content": text}]
            for row, text in zip(rows, texts, strict=True)
        ],
        completion_ids=[list(response) for response in responses],
        columns={
            name: [row.columns.get(name) for row in rows]
            for name in dict.fromkeys(name for row in rows for name in row.columns)
        },
    )
