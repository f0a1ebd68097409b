"""Samples responses from the policy itself: nothing cut off the distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from probe_engine.errors import ProbeError
from probe_engine.model.preserving import preserved
from probe_engine.registry import unwrapped
from probe_engine.types import Policy


def embedding_rows(policy: Policy) -> int:
    """How many token ids the input embedding knows."""
    model: Any = unwrapped(policy.model)
    return int(model.get_input_embeddings().weight.shape[0])


def position_limit(policy: Policy) -> int | None:
    """How many tokens a sequence may have: the rows of the model's position table.

    None where positions are rotary or relative: those have no end, whatever the configuration recommends.
    """
    config = getattr(unwrapped(policy.model), "config", None)
    if getattr(config, "rope_parameters", None) is not None:
        return None
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def eos_ids(policy: Policy) -> tuple[int, ...]:
    """Ids that end a response, as trl takes them: the tokenizer's first, then the generation config's.

    Raises:
        ProbeError: the generation configuration holds something else than token ids (CKPT001).
    """
    own = getattr(policy.tokenizer, "eos_token_id", None)
    config = getattr(unwrapped(policy.model), "generation_config", None)
    declared = getattr(config, "eos_token_id", None)
    listed = declared if isinstance(declared, list | tuple) else [declared]
    ids = [i for i in (own, *listed) if i is not None]
    if not all(isinstance(i, int) for i in ids):
        raise ProbeError(
            f"expected token ids that end a response as eos_token_id, got {declared!r:.80} in the generation "
            "configuration: where a response ends is not known",
            "Mend eos_token_id in generation_config.json (or config.json).",
            code="CKPT001",
        )
    return tuple(dict.fromkeys(ids))


def can_generate(policy: Policy) -> bool:
    """Whether responses can be sampled from the model here."""
    return hasattr(unwrapped(policy.model), "generate")


def sampled_responses(
    policy: Policy,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    seed: int,
    micro_batch: int,
    temperature: float = 1.0,
) -> Iterator[list[tuple[int, ...]]]:
    """One response for each prompt, micro-batch by micro-batch, in order.

    y ~ π_θ without top-k or top-p, until an eos (which is kept) or `max_new_tokens`.
    The same seed and micro-batch size give the same responses. Inference mode, eval mode and the seeded
    random state hold while a micro-batch is sampled and never between two of them.

    Args:
        prompts: token ids; repeat a prompt to sample it again.
        temperature: the policy's own, by which logits are divided.

    Raises:
        ProbeError: the model can't generate.
    """
    model: Any = unwrapped(policy.model)
    if not can_generate(policy):
        raise ProbeError(
            f"expected a model that can generate, to sample from --prompts, got {type(model).__name__}",
            "Sample elsewhere and pass the result with --rollouts.",
            commands=("probe-tui CHECKPOINT --rollouts PATH",),
        )
    eos = eos_ids(policy)
    config = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(eos) or None,
        pad_token_id=_pad(eos),
        use_cache=True,
        disable_compile=True,
    )
    for start in range(0, len(prompts), micro_batch):
        ids, mask = left_padded(prompts[start : start + micro_batch], _pad(eos))
        device = model.get_input_embeddings().weight.device
        with preserved(model), _no_generation_defaults(model), torch.inference_mode():
            torch.manual_seed(_seed(seed, start))
            output: Tensor = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
            )
            rows: list[list[int]] = output[:, ids.shape[1] :].tolist()
        yield [_until_eos(row, eos) for row in rows]


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both [N, T]; the mask comes from lengths, for pad may be a real token too."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _until_eos(tokens: list[int], eos: Sequence[int]) -> tuple[int, ...]:
    end = next((i + 1 for i, token in enumerate(tokens) if token in eos), len(tokens))
    return tuple(tokens[:end])


def _pad(eos: Sequence[int]) -> int:
    return eos[0] if eos else 0


def _seed(seed: int, start: int) -> int:
    """Streams that differ by seed and by micro-batch: seed + start would make seeds overlap."""
    return int(np.random.SeedSequence([seed, start]).generate_state(1, np.uint64)[0])


@contextmanager
def _no_generation_defaults(model: Any) -> Iterator[None]:
    """Hides the checkpoint's generation config, from which `generate` fills what ours leaves open."""
    holder = model.get_base_model() if hasattr(model, "get_base_model") else model
    saved = holder.generation_config
    holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        holder.generation_config = saved
