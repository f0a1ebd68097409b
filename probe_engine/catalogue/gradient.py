"""GRAD: does gradient flow from S to every parameter?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "GRAD001",
        "grad context",
        "inference_mode around the call",
        "Under torch.inference_mode() no graph is recorded, and tensors born in it can never take part "
        "in one. Sampling belongs under it; scoring does not.",
        "Restrict inference_mode to sampling and call the probe outside of it.",
        ("python -c 'import torch; print(torch.is_inference_mode_enabled())'",),
    ),
    Entry(
        "GRAD002",
        "grad enabled",
        "no_grad around the call",
        "Under torch.no_grad(), or after torch.set_grad_enabled(False), the forward records no graph and "
        "every gradient is None. Evaluation callbacks are often called inside of it.",
        "Call the probe outside of no_grad, or inside `with torch.enable_grad():`.",
    ),
    Entry(
        "GRAD003",
        "logits grad_fn",
        "the logits have no grad_fn",
        "The forward produced logits without a graph: no parameter requires grad, or the graph is cut "
        "inside the model.",
        "Check p.requires_grad of the adapter (PeftModel.from_pretrained(…, is_trainable=True)), and "
        "look for detach(), .data or no_grad in the model's forward.",
        causes=("PEFT002", "PEFT003", "PEFT001", "PEFT004", "GRAD013"),
    ),
    Entry(
        "GRAD004",
        "S grad_fn",
        "S has no grad_fn",
        "S = Σ log π must hang on the logits. The logits have a graph and S has none, so it was computed "
        "from detached values: a detach(), a .data, a conversion to numpy, or old log-probabilities.",
        "Don't detach or convert log-probabilities between logits and S.",
    ),
    Entry(
        "GRAD005",
        "∂L/∂S",
        "∂L/∂S is exactly 0",
        "Every weight of S in L_X or L_Y is 0, so X or Y is 0 whatever the model: all advantages are 0, "
        "or all responses of every group have the same (S + 1)λ.",
        "Take groups with different rewards and different responses.",
        causes=("ROLL003",),
    ),
    Entry(
        "GRAD006",
        "input embeddings",
        "gradient does not reach the input embeddings",
        "The gradient of S with respect to the output of the input embedding is None or 0: the graph is "
        "cut between the embedding and the logits. LoRA layers above the cut still get a gradient, those "
        "below get none.",
        "Look for detach(), no_grad or reentrant checkpointing between the layers.",
        causes=("GRAD013", "GRAD003"),
    ),
    Entry(
        "GRAD007",
        "X gradients",
        "X: gradients are None",
        "Autograd found no path from L_X = −(1/G) Σ c·S to some registry parameters. Either the graph is cut "
        "below them, or the forward does not use them (an adapter that is not active, an unused head).",
        "See GRAD003 and GRAD006 first; parameters that the forward does not use should be frozen.",
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD013", "GRAD006"),
    ),
    Entry(
        "GRAD008",
        "Y gradients",
        "Y: gradients are None",
        "Autograd found no path from L_Y = (1/G) Σ A·κ·S to some registry parameters. L_X and L_Y share S, "
        "so GRAD007 names the same parameters, and the cause is the same.",
        "See GRAD003 and GRAD006 first; parameters that the forward does not use should be frozen.",
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD013", "GRAD006", "GRAD007"),
    ),
    Entry(
        "GRAD009",
        "zero gradients",
        "gradients are present but exactly 0",
        "A parameter has a gradient and all of it is 0. In a fresh adapter every lora_B is 0, and then "
        "lora_A's gradients are 0 rightly; elsewhere a dead path or an underflow is at work.",
        "Look at the named parameters: which factor multiplies them by 0?",
    ),
    Entry(
        "GRAD010",
        "registry / μ_Y",
        "registry and μ_Y ids differ",
        "Buffers are keyed by parameter object. When a model is wrapped, merged, cast or reloaded after "
        "the buffers were built, its parameters are other objects, and every lookup misses.",
        "Build registry, optimizer and buffers once, after the last wrapping.",
    ),
    Entry(
        "GRAD011",
        "finite gradients",
        "S or a gradient is not finite",
        "A NaN or an infinity in S, X, Y or P·Y spreads to every dot product that it takes part in; those "
        "are null in the report. A weight is not finite (CKPT006), the forward overflows in this dtype, "
        "an advantage is huge, or a v̂ of 0 meets an ε of 0.",
        "See CKPT006 first, and look at what is named.",
        ("probe-tui CHECKPOINT --dtype float32",),
        causes=("CKPT006",),
    ),
    Entry(
        "GRAD012",
        "gradient checkpointing",
        "gradient checkpointing severs the graph",
        "With use_reentrant=True a checkpointed layer runs without a graph and gets one afterwards only if "
        "one of its inputs requires a gradient. Under a frozen base the embeddings' output requires none, so "
        "the adapters inside get no gradient and torch says no more than a warning. Checkpointing is off in "
        "eval mode: an evaluation, and the probe's own numbers, don't show it; training meets it.",
        "Use the non-reentrant way, or let the input embeddings' output require a gradient.",
        (
            "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})",
            "model.enable_input_require_grads()",
        ),
        "https://github.com/huggingface/transformers/issues/42489",
    ),
    Entry(
        "GRAD013",
        "graph inside the model",
        "the graph breaks inside the model",
        "A module's output has no graph although its input has one or trainable parameters ran in it: its "
        "forward, or a hook on it, detaches, takes .data, converts to numpy, or runs under no_grad. All "
        "below it gets no gradient through it. Where a residual connection goes round it nothing is None, "
        "and X and Y are wrong in silence. The snippet in the finding's evidence shows it by hand.",
        "Look into the forward of the module that is named for detach(), .data, numpy() or no_grad, and at "
        "the hooks on it.",
    ),
    Entry(
        "GRAD015",
        "repeated forward",
        "two identical forwards differ",
        "The same tokens, scored twice in eval mode, gave different log-probabilities: dropout that ignores "
        "eval mode (torch.nn.functional.dropout without training=self.training), sampled noise, or a state "
        "that each forward changes. S then differs between passes, and importance weights carry the noise.",
        "Pass training=self.training to functional dropout in the module that is named; switch noise off.",
    ),
)
