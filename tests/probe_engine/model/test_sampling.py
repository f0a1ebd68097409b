from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from probe_engine.errors import ProbeError
from probe_engine.model.sampling import embedding_rows, eos_ids, left_padded, sampled_responses
from probe_engine.registry import ParameterRegistry
from probe_engine.types import OptimizerState, Policy

VOCABULARY, EOS = 7, 2


def tiny_llama(scale: float = 4.0):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            attention_dropout=0.5,
            eos_token_id=EOS,
        )
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(scale / 0.02)  # away from uniform, so that a wrong distribution shows
    return model


def policy_of(model, tokenizer=None) -> Policy:
    optimizer = OptimizerState("", None, "", (0.9, 0.999), 1e-8, 0.0, None, {})
    return Policy(model, ParameterRegistry.of(model).trainable, tokenizer, optimizer)


def draw(policy, prompts, *, seed=0, micro_batch=64, max_new_tokens=5):
    chunks = sampled_responses(
        policy, prompts, max_new_tokens=max_new_tokens, seed=seed, micro_batch=micro_batch
    )
    return [response for chunk in chunks for response in chunk]


def first_token_pvalue(model, *, n=1500):
    """Chi-square of n sampled first tokens against the softmax of a plain forward pass."""
    prompt, longer = (1, 3, 5), (1, 4, 4, 6, 3)  # the longer one forces padding on the left
    responses = draw(policy_of(model), [prompt] * n + [longer], micro_batch=n + 1, max_new_tokens=1)
    seen = torch.bincount(torch.tensor([r[0] for r in responses[:n]]), minlength=VOCABULARY)
    with torch.no_grad():
        expected = model.eval()(torch.tensor([prompt])).logits[0, -1].double().softmax(-1) * n
    assert expected.max() > 1.5 * expected.min(), "the test needs a distribution that is not uniform"
    return chisquare(seen.numpy(), expected.numpy()).pvalue


def test_first_token_follows_the_softmax_at_temperature_1():
    model = tiny_llama(1.0)
    # All that a checkpoint's generation config could spoil.
    model.generation_config = GenerationConfig(
        temperature=0.1, top_k=2, top_p=0.5, min_p=0.3, repetition_penalty=5.0, max_length=3, eos_token_id=EOS
    )
    assert first_token_pvalue(model) > 1e-3


def test_samples_from_the_adapter_too():
    model = get_peft_model(tiny_llama(1.0), LoraConfig(target_modules=["o_proj"], r=2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=3.0)
    model.get_base_model().generation_config.repetition_penalty = 5.0
    assert first_token_pvalue(model) > 1e-3
    assert embedding_rows(policy_of(model)) == VOCABULARY


def test_same_seed_same_responses_and_other_seed_others():
    policy = policy_of(tiny_llama(0.2))
    prompts = [(1, 3)] * 4 + [(4,), (5, 6, 3)]
    once = draw(policy, prompts, seed=3, micro_batch=2, max_new_tokens=12)
    torch.rand(5)
    assert draw(policy, prompts, seed=3, micro_batch=2, max_new_tokens=12) == once
    assert draw(policy, prompts, seed=4, micro_batch=2, max_new_tokens=12) != once
    assert once[0] != once[1], "two samples of one prompt share no random state"
    assert once[:2] != once[2:4], "nor do two micro-batches"


def test_leaves_model_and_random_state_as_they_were():
    model = tiny_llama().train()
    model.model.layers[0].eval()
    config = model.generation_config
    modes = [m.training for m in model.modules()]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(11)
    before = torch.get_rng_state()
    chunks = sampled_responses(policy_of(model), [(1, 3)] * 4, max_new_tokens=3, seed=0, micro_batch=2)
    next(chunks)
    # Nothing may hold while the caller has the turn.
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert model.generation_config is config
    list(chunks)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    loss = model(torch.tensor([[1, 3, 4]])).logits.logsumexp(-1).sum()
    loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def test_responses_end_at_eos_or_at_the_limit():
    responses = draw(policy_of(tiny_llama(0.2)), [(1, 3)] * 100, max_new_tokens=6)
    for tokens in responses:
        assert all(type(t) is int for t in tokens)
        assert EOS not in tokens[:-1]
        assert tokens[-1] == EOS or len(tokens) == 6
    assert {tokens[-1] == EOS for tokens in responses} == {True, False}


def test_eos_ids_are_the_tokenizers_then_the_generation_configs():
    model = tiny_llama()
    model.generation_config.eos_token_id = [5, EOS]

    class Tokenizer:
        eos_token_id = 3

    assert eos_ids(policy_of(model, Tokenizer())) == (3, 5, EOS)
    assert eos_ids(policy_of(model)) == (5, EOS)
    model.generation_config.eos_token_id = None
    assert eos_ids(policy_of(model)) == ()


def test_left_padding_keeps_a_pad_id_that_is_a_real_token():
    ids, mask = left_padded([(2,), (2, 2, 1)], pad=2)
    assert ids.tolist() == [[2, 2, 2], [2, 2, 1]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_a_model_that_cannot_generate_is_refused():
    with pytest.raises(ProbeError, match="can generate, to sample from --prompts, got Linear"):
        draw(policy_of(torch.nn.Linear(2, 2)), [(1,)])
