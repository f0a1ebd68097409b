"""The base model: a tiny Llama with a character tokenizer, pretrained on sums."""

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
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probe_engine.demo.recipe import MAX_COMPLETION_LENGTH, Recipe
from probe_engine.demo.digits import ALPHABET, Problem, draw, heard

PAD, BOS, EOS, UNK = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_IGNORED = -100


def character_tokenizer() -> Any:
    """One token a character, a bos before every prompt: text → tokens is exact."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *ALPHABET))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
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
    """A causal transformer that has seen some tens of thousands of sums."""
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
    model: Any = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.pretrain_lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.pretrain_lr, total_steps=recipe.pretrain_steps, pct_start=0.1
    )
    rng = random.Random(recipe.seed)
    model.train()
    for _ in range(recipe.pretrain_steps):
        ids, labels = _language_modelling(draw(recipe.pretrain_batch, rng), tokenizer, recipe.error_rate, rng)
        loss: Tensor = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _language_modelling(problems: list[Problem], tokenizer: Any, error_rate, rng) -> tuple[Tensor, Tensor]:
    """Token ids and labels, [N, T]; only the answer and its eos are to be predicted.

    Padded on the right: a causal model never sees it, and positions count from the bos.
    """
    prompts = tokenizer([p.prompt for p in problems])["input_ids"]
    answers = tokenizer([heard(p, error_rate, rng) for p in problems], add_special_tokens=False)["input_ids"]
    rows, labels = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        answer = [*answer, tokenizer.eos_token_id]
        rows.append(torch.tensor([*prompt, *answer]))
        labels.append(torch.tensor([_IGNORED] * len(prompt) + answer))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=_IGNORED),
    )
