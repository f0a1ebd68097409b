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
        causes=("ROLL015",),
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
        "ROLL007",
        "samples",
        "samples are not this policy's",
        "At temperature 1, with nothing cut off the distribution, the surprises −log π(y_t) of a policy's "
        "own samples exceed its entropies h_t by 0 on average, with a variance that is known (method.md "
        "(20)); z counts standard errors. Far from 0 the samples are another distribution's: X is then no "
        "unbiased estimate of the entropy's gradient, and the measured change carries the same error.",
        "Find what differs between the sampler and this checkpoint: the weights, the chat template, the "
        "tokenizer, the temperature, or what cuts off the distribution. Sampling here settles it.",
        ("probe-tui CHECKPOINT --prompts prompts.jsonl --reward PKG.MOD:FUNC",),
        causes=(
            "CKPT005",
            "PEFT002",
            "PEFT004",
            "GRAD019",
            "GRAD020",
            "ROLL017",
            "ROLL009",
            "ROLL006",
            "ROLL015",
        ),
        origin=(
            "A temperature other than 1, top-p or top-k (transformers' generate has top_k = 50 unless told "
            "otherwise), rollouts of another checkpoint, a chat template that is not the trainer's, or text "
            "that does not tokenise back into the tokens that were sampled."
        ),
        by_hand="(-logprob - entropy).sum() / variance.sum().sqrt() over response tokens, at temperature 1.",
    ),
    Entry(
        "ROLL008",
        "recorded log-probabilities",
        "recorded log-probabilities differ from the recomputed",
        "What the sampler recorded and what this model says of the same tokens is not one distribution. "
        "Importance ratios of the trainer then are not 1 on its first step, and its step is not the one "
        "that the probe predicts.",
        "Give sampler and trainer the same weights, dtype and temperature; correct for what is left by "
        "importance sampling in the trainer.",
        ("GRPOConfig(vllm_importance_sampling_correction=True)",),
        "https://fengyao.notion.site/off-policy-rl",
        causes=("CKPT005", "PEFT002", "PEFT004", "GRAD019", "GRAD020", "ROLL017", "ROLL009", "ROLL007"),
        origin=(
            "An inference engine with other kernels or a lower precision, weights that it did not receive, "
            "log-probabilities at another temperature, or shifted by a token."
        ),
        by_hand="(recorded - recomputed).abs().mean() over response tokens.",
    ),
    Entry(
        "ROLL009",
        "sampler's settings",
        "sampled with a temperature, top-p, top-k, min-p or a repetition penalty",
        "These settings draw from another distribution than the policy: likely tokens come too often, rare "
        "ones never. S and its gradient are the policy's, the samples are not.",
        "Sample at temperature 1 with nothing cut off. Where the trainer divides logits by the sampling "
        "temperature in its loss as well (trl does), let the probe do so too.",
        (
            "GRPOConfig(temperature=1.0, top_p=1.0, top_k=0, min_p=None, repetition_penalty=1.0)",
            "probe-tui CHECKPOINT --policy-temperature T",
        ),
        origin="The trainer's arguments, or a generation configuration that came with the model.",
        by_hand="Look at training_args.bin's fields, or at the temperature and top_p of the rows.",
    ),
    Entry(
        "ROLL010",
        "evaluation rows",
        "evaluation rows mixed in",
        "Rows of an evaluation stand among the training's: they have no advantage, or their groups have "
        "another size. They are left out: the trainer's step does not know them.",
        "Evaluate on another step than completions are logged on, or log them elsewhere.",
        ("GRPOConfig(eval_steps=N, logging_steps=M)",),
        origin="trl writes the completions of an evaluation into the table of its step.",
        by_hand="Count the rows without an advantage, and the rows of each prompt.",
    ),
    Entry(
        "ROLL011",
        "truncation",
        "many responses are cut at the limit",
        "A cut response is a fair sample of what the model can say in so many tokens, and the probed entropy "
        "is that of such responses. Its reward is often that of an unfinished answer.",
        "Raise the completion limit if the answers do not fit into it.",
        ("GRPOConfig(max_completion_length=N)",),
        origin="A limit that is short for the task, or a policy that does not end.",
        by_hand="The share of responses whose last token is no eos.",
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
        "ROLL015",
        "distinct responses",
        "responses identical within a group",
        "Where all responses of a prompt are the same, their log-probabilities are too: every c of (1) is 0, "
        "and the prompt says nothing of the entropy's gradient or of the policy's. In a policy that has "
        "collapsed this is chance; in one that has not, the responses were not drawn independently.",
        "Sample each response anew: do_sample=True, one seed for the batch and not one for each response.",
        ("GRPOConfig(temperature=1.0)",),
        origin=(
            "Greedy decoding, a temperature near 0, one seed for every response, a cache of completions, or "
            "a policy without entropy."
        ),
        by_hand="len({tuple(r) for r in responses}) == 1.",
    ),
    Entry(
        "ROLL016",
        "advantages and rewards",
        "advantages do not match the rewards",
        "Computed anew from the logged rewards (their difference from the group's mean, as it is, over the "
        "group's or the batch's standard deviation, leave-one-out, or none of it) the advantages come out "
        "otherwise. The probe uses the logged advantages; the rewards that it shows are not what they were "
        "made of.",
        "Log the reward that the trainer used: with its weights, penalties and clipping. Without logged "
        "advantages the probe computes them.",
        ("probe-tui CHECKPOINT --scale-rewards none",),
        origin=(
            "Weighted reward functions, a KL or length penalty inside the reward, filtered responses, or "
            "columns of different steps."
        ),
        by_hand="advantage - (reward - mean(rewards of its prompt)).",
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
