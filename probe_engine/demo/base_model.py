"""The base model: a tiny Llama with a character tokenizer, pretrained on a careless corpus."""

from __future__ import annotations

import random
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from probe_engine.demo.digits import ALPHABET, MAX_COMPLETION_LENGTH, careless_answer, draw
from probe_engine.demo.precise import precise
from probe_engine.demo.recipe import Recipe

PAD, BOS, EOS, UNK = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
IGNORED = -100
"""The label that the loss leaves out."""


def character_tokenizer() -> Any:
    """One token a character and a bos before a prompt, so that text → tokens is exact."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *ALPHABET))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])])
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def pretrained(recipe: Recipe, tokenizer: Any) -> Any:
    """A causal transformer after `pretrain_steps` steps of next-token prediction, float64, in eval mode."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=2 * recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=4 * MAX_COMPLETION_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = precise(AutoModelForCausalLM.from_config(config, dtype=torch.float64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.pretrain_lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.pretrain_lr, total_steps=recipe.pretrain_steps, pct_start=0.1
    )
    rng = random.Random(recipe.seed)
    for _ in range(recipe.pretrain_steps):
        ids, labels = _corpus(recipe.pretrain_batch, tokenizer, rng)
        logits: Tensor = model(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _corpus(count: int, tokenizer: Any, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Token ids and labels of `count` lines, [N, T]; only the answer and its eos are to be predicted.

    Padded on the right: no earlier position of a causal model sees it, so no mask is needed.
    """
    problems = draw(count, rng)
    prompts = tokenizer([p.prompt for p in problems])["input_ids"]
    answers = tokenizer([careless_answer(p, rng) for p in problems], add_special_tokens=False)["input_ids"]
    ids, labels = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        ended = [*answer, tokenizer.eos_token_id]
        ids.append(torch.tensor([*prompt, *ended]))
        labels.append(torch.tensor([IGNORED] * len(prompt) + ended))
    return (
        pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )
