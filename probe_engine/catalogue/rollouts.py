"""ROLL: is the batch what it should be?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "ROLL001",
        "group sizes",
        "a group with fewer than 2 responses",
        "The leave-one-out mean of (1) needs another response of the same prompt; a group without one "
        "is left out.",
        "Sample two responses or more of each prompt, or give the rows of one prompt the same prompt_id.",
        origin=(
            "G = 1, rows of one prompt that don't say that they belong together, or responses lost to a "
            "filter."
        ),
        by_hand="Count the rows by prompt.",
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
        origin="The prompt is always solved, or never.",
        by_hand="The advantages of the group are all 0.",
    ),
    Entry(
        "ROLL003",
        "advantages",
        "all advantages are 0",
        "Y = 0, the next step is no step, and δH₁ is 0 by construction.",
        "Check the reward function; take prompts that are sometimes solved.",
        origin=(
            "No group has a reward that differs within it: the reward function is constant or broken, or "
            "the prompts are all too easy or too hard."
        ),
        by_hand="max(abs(a) for a in advantages) == 0.",
    ),
    Entry(
        "ROLL004",
        "token ids",
        "a token id outside the vocabulary",
        "A token id is negative or not below the embedding's number of rows: these are tokens of "
        "another model.",
        "Use the tokenizer and the base model of the run.",
        origin="The tokenizer, or the base, of another run.",
        by_hand="max(response_tokens) beside the embedding's rows.",
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
        origin="trl's and verl's logs hold text alone.",
        by_hand="tokenizer(tokenizer.decode(ids)).input_ids == ids does not hold for every response.",
    ),
    Entry(
        "ROLL006",
        "eos",
        "eos lost or restored",
        "Where a response ended itself the eos was sampled and counts in S. Without it the probability "
        "of ending is missing.",
        "Log token ids, or `terminated`, with the rollouts.",
        (),
        "https://github.com/huggingface/trl/issues/1623",
        origin="Logged text has its eos stripped; masks made from token != pad lose it when pad equals eos.",
        by_hand="Look at the last token of responses shorter than the limit.",
    ),
    Entry(
        "ROLL012",
        "finite rewards",
        "reward or advantage not finite",
        "A NaN or infinite reward spoils its whole group's advantages, since each is a difference from "
        "the group's mean. These groups are left out.",
        "Mend the reward function; these groups are left out.",
        origin="A reward function that divides by a length or takes a logarithm.",
        by_hand="[r for r in rewards if not math.isfinite(r)].",
    ),
    Entry(
        "ROLL013",
        "rows",
        "malformed rows",
        "Rows that could not be read are left out, the rest is used; each is named with its number and "
        "the reason.",
        "Mend the rows that are named.",
        origin="Broken JSON, a missing field, a wrong type, an empty response.",
        by_hand="sed -n NUMBERp rollouts.jsonl | python -m json.tool",
    ),
    Entry(
        "ROLL014",
        "number of units",
        "too few prompts for a standard error",
        "Standard errors come from the spread over prompts. With fewer than 8 they are rough, with "
        "fewer than 3 there is none.",
        "Use more prompts.",
        origin="A small batch, --max-prompts, large blocks, or groups that were left out.",
        by_hand="Count the prompts.",
    ),
    Entry(
        "ROLL017",
        "rollouts' step",
        "rollouts of a neighbouring step",
        "The samples are another policy's, one step away: δH₁ is then that of a slightly off-policy batch.",
        "Log completions every step.",
        ("GRPOConfig(log_completions=True, logging_steps=1)",),
        origin=(
            "Rollouts sampled from checkpoint K's own weights are those of step K+1. They are not there: "
            "completions were not logged every step, or it is the run's last checkpoint."
        ),
        by_hand="ls completions/ beside the checkpoint's number.",
    ),
)
