"""ROLL: is the batch what it should be?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "ROLL001",
        "group sizes",
        "a group with fewer than 2 responses",
        "The leave-one-out mean of (1) needs another response of the same prompt. G = 1 has none.",
        "Sample two responses or more of each prompt, or give the rows of one prompt the same prompt_id.",
    ),
    Entry(
        "ROLL002",
        "flat groups",
        "groups with all advantages 0",
        "Every response of the group got the same reward, so it gives no policy gradient: Y_n = 0. The "
        "group still evaluates entropy.",
        "Harder or easier prompts, or dynamic sampling.",
        (),
        "https://github.com/huggingface/trl/issues/3857",
    ),
    Entry(
        "ROLL003",
        "advantages",
        "all advantages are 0",
        "No group has a reward that differs within it: Y = 0, the next step is no step, and δH₁ is 0 by "
        "construction.",
        "Check the reward function; take prompts that are sometimes solved.",
    ),
    Entry(
        "ROLL004",
        "token ids",
        "a token id outside the vocabulary",
        "A token id is negative or not below the embedding's number of rows: the rollouts were tokenised "
        "for another model.",
        "Use the tokenizer and the base model of the run.",
    ),
    Entry(
        "ROLL005",
        "tokens",
        "no token ids: retokenised from text",
        "Text need not tokenise back into the tokens that were sampled, and S is then the "
        "log-probability of another sequence.",
        "Log token ids with the rollouts.",
        (),
        "https://github.com/rllm-org/rllm/issues/816",
    ),
    Entry(
        "ROLL006",
        "eos",
        "eos lost or restored",
        "Logged text has its eos stripped. Where a response ended itself the eos was sampled and counts "
        "in S; masks made from token != pad lose it when pad equals eos.",
        "Log token ids, or `terminated`, with the rollouts.",
        (),
        "https://github.com/huggingface/trl/issues/1623",
    ),
    Entry(
        "ROLL012",
        "finite rewards",
        "reward or advantage not finite",
        "A NaN or infinite reward spoils its whole group's advantages, since each is a difference from the "
        "group's mean. A reward function that divides by a length or takes a logarithm is the usual source.",
        "Mend the reward function; these groups are left out.",
    ),
    Entry(
        "ROLL013",
        "rows",
        "malformed rows",
        "Some rows could not be read: broken JSON, a missing field, a wrong type, an empty response. Each is "
        "named with its number and the reason. They are left out, the rest is used.",
        "Mend the rows that are named.",
    ),
    Entry(
        "ROLL014",
        "number of units",
        "too few prompts for a standard error",
        "Standard errors come from the spread over prompts. With fewer than 8 they are rough, with fewer "
        "than 3 there is none.",
        "Use more prompts.",
    ),
    Entry(
        "ROLL017",
        "rollouts' step",
        "rollouts of a neighbouring step",
        "Rollouts sampled from checkpoint K's own weights are those of step K+1. They are not there, so "
        "those of step K were taken: one step stale.",
        "Log completions every step.",
        ("GRPOConfig(log_completions=True, logging_steps=1)",),
    ),
)
